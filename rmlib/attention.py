"""Attention of a packed row: every response sees its prompt and itself, nothing else.

The row is cut into segments, a prompt or the own tokens of a response, and segments of similar size attend together in
one SDPA call, so that only a little padding is computed, and only in the attention.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rmlib.gpu_attention import Blocks, Texts, blocks_of, texts_of
from rmlib.last_layer import scatter

BACKENDS = ("sdpa", "varlen", "flex")
SHARED_PREFIX = "shared_prefix"  # the name under which transformers knows our attention function
# Merging segments pads scores, splitting costs one more call, taken to be worth this many score entries. A rough
# guess: it changes speed alone, never a reward.
CALL_OVERHEAD = 20_000


@dataclass(frozen=True)
class Chunk:
    """Segments of similar size that attend in one call: tokens of their queries and of the keys they see."""

    query: Int[Tensor, "segment query"]
    key: Int[Tensor, "segment key"]
    mask: Bool[Tensor, "segment 1 query key"] | None  # None: plain causal


@dataclass(frozen=True)
class Segments:
    """Attention of a shared row: its chunks, and where the output of each of `rows` lies in their concatenation."""

    chunks: tuple[Chunk, ...]
    order: Int[Tensor, "row"]
    rows: Int[Tensor, "row"] | None = None  # tokens that attend; None: every one

    def attend(
        self,
        query: Float[Tensor, "1 head token dim"],
        key: Float[Tensor, "1 head_kv token dim"],
        value: Float[Tensor, "1 head_kv token dim"],
        scaling: float | None,
        dropout: float,
    ) -> Float[Tensor, "token head dim"]:
        """Attention through SDPA, chunk by chunk; zeros for tokens that do not attend."""
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
    """How the tokens of a row see each other, and how its end tokens alone do, for the last layer."""

    everywhere: Segments | Texts | Blocks
    at_ends: Segments


def layout_of(table: np.ndarray, n_tokens: int, backend: str = "sdpa") -> RowLayout:
    """For segments given as rows of (query start, query length, prompt start, prompt length), in the row's order."""
    if backend not in BACKENDS:
        raise ValueError(f"no attention is called {backend!r}; known: {', '.join(BACKENDS)}")
    made = {"varlen": texts_of, "flex": blocks_of}
    everywhere = segments_of(table, n_tokens) if backend == "sdpa" else made[backend](table)
    return RowLayout(everywhere, _at_ends(table))


def backend_for(device: torch.device, half: bool) -> str:
    """The attention of a device: SDPA by segments on a CPU, on a GPU flash attention in half precision, else Flex."""
    if device.type != "cuda":
        return "sdpa"
    return "varlen" if half else "flex"


def segments_of(table: np.ndarray, n_tokens: int) -> Segments:
    """Chunks for segments given as rows of (query start, query length, prompt start, prompt length).

    A response either attends to prompt and itself through a mask, or its whole text attends causally, prompt and all:
    half of those scores are skipped, and the prompt's own outputs come for nothing.
    """
    own, prompts = table[:, 1], table[:, 3]
    whole = own >= prompts  # then (prompt + own)² / 2 scores are no more than own (prompt + own)
    answered = np.isin(table[:, 0], table[whole & (prompts > 0), 2]) & (prompts == 0)
    chunks, order, offset = [], np.empty(n_tokens, dtype=np.int64), 0
    for causal, kept in ((True, table[whole & ~answered]), (False, table[~whole])):
        for rows in _similar(kept, causal):
            chunk, query_length = _chunk(kept[rows], causal)
            real = np.arange(chunk.query.shape[1]) < query_length
            order[chunk.query.numpy()[real]] = offset + np.flatnonzero(real.ravel())
            chunks.append(chunk)
            offset += chunk.query.numel()
    return Segments(tuple(chunks), torch.from_numpy(order))


def _at_ends(table: np.ndarray) -> Segments:
    """Attention of the last tokens alone, for segments that are no prompt of others, in the order of the table."""
    answers = table[~np.isin(table[:, 0], table[table[:, 3] > 0, 2]) | (table[:, 3] > 0)]
    chunks, places = [], []
    for rows in _similar(answers, causal=True):
        text, length = _chunk(answers[rows], causal=True)
        query = text.query.gather(1, torch.from_numpy(length - 1))
        mask = torch.from_numpy(np.arange(text.key.shape[1]) < length)[:, None, None]
        chunks.append(Chunk(query, text.key, mask))
        places.append(rows)
    order = torch.from_numpy(np.argsort(np.concatenate(places)))
    return Segments(tuple(chunks), order, torch.from_numpy(answers[:, :2].sum(axis=1) - 1))


def _chunk(table: np.ndarray, causal: bool) -> tuple[Chunk, Int[np.ndarray, "segment 1"]]:
    """One call's worth of segments, and how many of each one's queries are real."""
    query_start, query_length, prompt_start, prompt_length = table.T[:, :, None]
    # Beyond its end a segment repeats its last token: as a key it is hidden by causality, as a query not read.
    if causal:
        column = np.minimum(np.arange((prompt_length + query_length).max()), prompt_length + query_length - 1)
        text = np.where(column < prompt_length, prompt_start + column, query_start + column - prompt_length)
        tokens = torch.from_numpy(text)
        return Chunk(tokens, tokens, None), prompt_length + query_length
    column, prompt_column = np.arange(query_length.max()), np.arange(prompt_length.max())
    query = query_start + np.minimum(column, query_length - 1)
    key = np.concatenate([prompt_start + np.minimum(prompt_column, prompt_length - 1), query], axis=1)
    sees_prompt = np.broadcast_to((prompt_column < prompt_length)[:, None], (*query.shape, len(prompt_column)))
    sees_itself = np.broadcast_to(np.tri(len(column), dtype=bool), (*query.shape, len(column)))
    mask = torch.from_numpy(np.concatenate([sees_prompt, sees_itself], axis=2))[:, None]
    return Chunk(torch.from_numpy(query), torch.from_numpy(key), mask), query_length


def _similar(table: np.ndarray, causal: bool) -> Iterator[np.ndarray]:
    """Split segments into runs of similar size: merging pads scores, splitting costs one more attention call."""
    order = np.lexsort((table[:, 3], table[:, 1] + causal * table[:, 3]))
    run: list[int] = []
    cost = width = prompt = 0
    for index in order:
        _, length, _, prompt_length = table[index]
        if causal:
            length, prompt_length = length + prompt_length, 0
        merged_width, merged_prompt = max(width, length), max(prompt, prompt_length)
        merged = (len(run) + 1) * merged_width * (merged_width + merged_prompt)
        alone = length * (length + prompt_length)
        if run and merged > cost + alone + (1 + causal) * CALL_OVERHEAD:  # causality halves what is computed
            yield np.array(run)
            run, merged_width, merged_prompt, merged = [], length, prompt_length, alone
        run.append(int(index))
        cost, width, prompt = merged, merged_width, merged_prompt
    if run:
        yield np.array(run)


def shared_prefix_attention(
    module: torch.nn.Module,
    query: Float[Tensor, "batch head token dim"],
    key: Float[Tensor, "batch head_kv token dim"],
    value: Float[Tensor, "batch head_kv token dim"],
    attention_mask: Tensor | None,
    segments: Segments | Texts | Blocks | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Float[Tensor, "batch token head dim"], None]:
    """Attention of a shared row in its layout; without `segments`, plain SDPA.

    Registered with transformers' attention interface, so decoders that support it run unpatched.
    """
    if segments is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
        )
    return segments.attend(query, key, value, scaling, dropout)[None], None


AttentionInterface.register(SHARED_PREFIX, shared_prefix_attention)
AttentionMaskInterface.register(SHARED_PREFIX, sdpa_mask)
