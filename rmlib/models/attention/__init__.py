"""Attention of a packed row: every response sees its prompt and itself, nothing else.

Four ways compute it, each for the same layout of segments (a prompt, or the own tokens of a response): flash attention
on a CPU (module `flash`), varlen flash attention and FlexAttention on a GPU (module `gpu`), and `segments` anywhere,
which lets those of similar size attend together in one SDPA call, so that little padding is computed, and only there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rmlib.models.attention.flash import Fused, spans_of
from rmlib.models.attention.gpu import blocks_of, texts_of
from rmlib.models.attention.last_layer import scatter

BACKENDS = ("segments", "flash", "varlen", "flex")
SHARED_PREFIX = "shared_prefix"  # the name under which transformers knows our attention function
# Of a narrower decoder calls take the time, not arithmetic: segments of similar size in one call are faster there.
FEWEST_HIDDEN = 128
FLEX_WIDTH = 16  # the narrowest heads that FlexAttention compiles for
# Merging segments pads scores, splitting costs one more call, taken to be worth this many score entries. A rough
# guess: it changes speed alone, never a reward.
CALL_OVERHEAD = 20_000


@dataclass(frozen=True)
class Chunk:
    """Segments of similar size that attend in one call: row indices of their queries and of the keys they see."""

    query: Int[Tensor, "segment query"]
    key: Int[Tensor, "segment key"]
    mask: Bool[Tensor, "segment 1 query key"] | None  # None: plain causal


@dataclass(frozen=True)
class Segments:
    """Attention of a shared row: its chunks, and where the output of each of `rows` lies in their concatenation."""

    chunks: tuple[Chunk, ...]
    order: Int[Tensor, "row"]
    rows: Int[Tensor, "row"] | None = None  # tokens that attend; None: every one

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, dropout: float) -> Tensor:
        """Attention through SDPA, chunk by chunk; shapes, and what does not attend, as in `Fused.attend`."""
        rows = [states[0].transpose(0, 1) for states in (query, key, value)]  # each [token, head, dim]
        gqa = query.shape[1] != key.shape[1]
        outputs = []
        for chunk in self.chunks:
            q, k, v = (
                states.index_select(0, index.flatten()).view(*index.shape, *states.shape[1:]).transpose(1, 2)
                for states, index in zip(rows, (chunk.query, chunk.key, chunk.key), strict=True)
            )
            causal = chunk.mask is None
            output = F.scaled_dot_product_attention(
                q, k, v, chunk.mask, dropout_p=dropout, is_causal=causal, scale=scaling, enable_gqa=gqa
            )
            outputs.append(output.transpose(1, 2).flatten(0, 1))
        output = torch.cat(outputs).index_select(0, self.order)
        return output if self.rows is None else scatter(output, self.rows, query.shape[2], dim=0)


@dataclass(frozen=True)
class RowLayout:
    """How the tokens of a row see each other; how its end tokens alone do, for the last layer, and which these are."""

    everywhere: Segments | Fused
    at_ends: Segments | Fused
    ends: Int[Tensor, "sequence"]


def layout_of(table: np.ndarray, n_tokens: int, backend: str = "segments") -> RowLayout:
    """For segments given as rows of (query start, query length, prompt start, prompt length), in the row's order.

    Raises ValueError for an unknown backend.
    """
    is_prompt = np.isin(table[:, 0], table[table[:, 3] > 0, 2]) & (table[:, 3] == 0)
    answers = table[~is_prompt]
    ends = torch.from_numpy(answers[:, 0] + answers[:, 1] - 1)
    if backend == "flash":
        return RowLayout(spans_of(table), spans_of(answers, ends_alone=True), ends)
    made: dict[str, Callable[[np.ndarray], Segments | Fused]] = {
        "segments": lambda rows: segments_of(rows, n_tokens),
        "varlen": texts_of,
        "flex": blocks_of,
    }
    if backend not in made:
        raise ValueError(f"no attention is called {backend!r}; known: {', '.join(BACKENDS)}")
    return RowLayout(made[backend](table), _at_ends(answers, ends), ends)


def backend_for(device: torch.device, config: PreTrainedConfig, *, half: bool = False) -> str:
    """The attention that suits a device and a decoder; every one of them gives the same rewards."""
    if device.type == "cuda":
        if half:
            return "varlen"
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return "flex" if width >= FLEX_WIDTH else "segments"
    dropout = getattr(config, "attention_dropout", 0)
    return "flash" if device.type == "cpu" and config.hidden_size >= FEWEST_HIDDEN and not dropout else "segments"


def _at_ends(answers: np.ndarray, ends: Tensor) -> Segments:
    """The last tokens of segments, each with its whole text as keys; one call, which a mask keeps from the padding."""
    start, own, prompt, n_prompt = answers.T[:, :, None]
    column = np.arange((own + n_prompt).max())
    text = np.where(column < n_prompt, prompt + column, start + np.minimum(column - n_prompt, own - 1))
    mask = torch.from_numpy(column < own + n_prompt)[:, None, None]
    return Segments((Chunk(ends[:, None], torch.from_numpy(text), mask),), torch.arange(len(ends)), ends)


def segments_of(table: np.ndarray, n_tokens: int) -> Segments:
    """Chunks for segments given as rows of (query start, query length, prompt start, prompt length)."""
    chunks, order, offset = [], np.empty(n_tokens, dtype=np.int64), 0
    for rows in _similar(table):
        query_start, query_length, prompt_start, prompt_length = table[rows].T[:, :, None]
        width, prompt_width = query_length.max(), prompt_length.max()
        column, prompt_column = np.arange(width), np.arange(prompt_width)
        # Beyond its end a segment repeats its last token: as a key it is hidden by causality, as a query not read.
        query = query_start + np.minimum(column, query_length - 1)
        prompt = prompt_start + np.minimum(prompt_column, np.maximum(prompt_length - 1, 0))
        mask = None
        if prompt_width:
            sees_prompt = np.broadcast_to((prompt_column < prompt_length)[:, None], (len(rows), width, prompt_width))
            sees_itself = np.broadcast_to(np.tri(width, dtype=bool), (len(rows), width, width))
            mask = torch.from_numpy(np.concatenate([sees_prompt, sees_itself], axis=2))[:, None]
        key = np.concatenate([prompt, query], axis=1)
        chunks.append(Chunk(torch.from_numpy(query), torch.from_numpy(key), mask))
        real = column < query_length
        order[query[real]] = offset + np.flatnonzero(real.ravel())
        offset += query.size
    return Segments(tuple(chunks), torch.from_numpy(order))


def _similar(table: np.ndarray) -> Iterator[np.ndarray]:
    """Split segments into runs of similar size: merging pads scores, splitting costs one more attention call."""
    order = np.lexsort((table[:, 3], table[:, 1], table[:, 3] > 0))
    run: list[int] = []
    cost = width = prompt = 0
    for index in order:
        _, length, _, prompt_length = table[index]
        merged_width, merged_prompt = max(width, length), max(prompt, prompt_length)
        merged = (len(run) + 1) * merged_width * (merged_width + merged_prompt)
        alone = length * (length + prompt_length)
        if run and ((prompt == 0) != (prompt_length == 0) or merged > cost + alone + CALL_OVERHEAD):
            yield np.array(run)
            run, merged_width, merged_prompt, merged = [], length, prompt_length, alone
        run.append(int(index))
        cost, width, prompt = merged, merged_width, merged_prompt
    yield np.array(run)


def shared_prefix_attention(
    module: torch.nn.Module,
    query: Float[Tensor, "batch head asked dim"],
    key: Float[Tensor, "batch head_kv token dim"],
    value: Float[Tensor, "batch head_kv token dim"],
    attention_mask: Tensor | None,
    segments: Segments | Fused | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: object,
) -> tuple[Float[Tensor, "batch asked head dim"], None]:
    """Attention of a shared row in its layout; without `segments`, plain SDPA.

    Registered with transformers' attention interface, so decoders that support it run unpatched.
    """
    if segments is None:
        if attention_mask is not None and attention_mask.shape[-1] == 1 != key.shape[2]:  # the mask of a shared row
            raise SegmentsLost(f"{type(module).__name__} is not given the segments that the model is called with")
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
        )
    return segments.attend(query, key, value, scaling, dropout)[None], None


class SegmentsLost(RuntimeError):
    """A layer that keeps from its attention what the model is called with: its texts would see each other."""


class _Reached(Exception):
    pass


class _Probe(Segments):
    def attend(self, *_: object) -> NoReturn:
        raise _Reached


@torch.no_grad()
def takes_segments(backbone: PreTrainedModel) -> bool:
    """Whether a decoder's layers hand on to our attention the segments that the model is called with.

    Two tokens go as far as the first attention, without weights too.
    """
    row, was_training = torch.zeros(1, 2, dtype=torch.long, device=backbone.device), backbone.training
    backbone.eval()  # dropout would draw numbers
    try:
        mask, probe = torch.zeros(1, 1, 1, 1, device=backbone.device), _Probe((), row[0])
        backbone(input_ids=row, position_ids=row, attention_mask=mask, segments=probe, use_cache=False)
    except _Reached:
        return True
    except (RuntimeError, TypeError, ValueError):  # SegmentsLost, or no such argument
        return False
    finally:
        backbone.train(was_training)
    return False


AttentionInterface.register(SHARED_PREFIX, shared_prefix_attention)
AttentionMaskInterface.register(SHARED_PREFIX, sdpa_mask)
