"""From text to batches: one chat template, whole-text tokens, a prompt encoded once for all its responses.

A *group* is one prompt with its responses. In the shared layout the tokens of many groups lie back to back in one row,
`prompt | response | response | prompt | response | …`; nothing is padded, so linear layers compute no token twice. The
positions of every response continue from its prompt, and `rmlib.models.attention` lets a response see its prompt and
itself, nothing else. The padded layout, one row per response, works for every model and is the oracle of the tests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rmlib.models.attention import RowLayout, layout_of
from rmlib.models.interface import Prompt

PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n\n{% endfor %}{{ eos_token or '' }}"
)
# What Llama 3.1's template prints when it has no clock. Any fixed date would do: with today's, rewards drift daily.
TEMPLATE_DATE = "26 Jul 2024"
STOPPED_CLOCK = "{%- macro strftime_now(format) -%}" + TEMPLATE_DATE + "{%- endmacro %}"


# A tokenizer's output holds some hundred bytes a token until it is taken over as four.
TEXTS_AT_ONCE = 1024


# --- text to tokens ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Encoded:
    """Token ids of whole texts (prompt and response together), one int32 array each; `cut` marks shortened texts."""

    ids: list[np.ndarray]
    type_ids: list[np.ndarray] | None
    cut: np.ndarray

    def exceeds(self, max_length: int) -> Bool[np.ndarray, "text"]:
        """Which texts do not fit whole: longer than this, or shortened until they did."""
        return self.cut | (np.array([len(row) for row in self.ids], dtype=int) > max_length)


def render(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, response: str) -> str:
    """The conversation as the chat template writes it, response included, with the clock stopped at a fixed date."""
    messages = [*prompt, {"role": "assistant", "content": response}]
    template = tokenizer.get_chat_template()
    if "strftime_now" in template:
        template = STOPPED_CLOCK + template
    text = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, date_string=TEMPLATE_DATE)
    assert isinstance(text, str)
    return text


def encode_decoder(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], responses: Sequence[str]) -> Encoded:
    """Tokens of each rendered conversation, with exactly one BOS where the tokenizer uses one. Never cut."""
    if len(prompts) != len(responses):
        raise ValueError(f"{len(prompts)} prompts for {len(responses)} responses; give one prompt for each response")
    ids: list[np.ndarray] = []
    for start in range(0, len(responses), TEXTS_AT_ONCE):
        some = slice(start, start + TEXTS_AT_ONCE)
        texts = [render(tokenizer, *both) for both in zip(prompts[some], responses[some], strict=True)]
        ids += tokens_of(tokenizer, texts)
    return Encoded(ids, None, np.zeros(len(ids), dtype=bool))


def tokens_of(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[Int[np.ndarray, "token"]]:
    """Tokens of rendered texts, with exactly one BOS where the tokenizer uses one.

    The tokenizer works through the texts in parallel, unless TOKENIZERS_PARALLELISM=false.
    """
    batch = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False)["input_ids"] if texts else []
    bos = tokenizer.bos_token_id
    adds_bos = bos is not None and bos in tokenizer("a")["input_ids"]
    ids = [np.array(row, dtype=np.int32) for row in batch]
    if adds_bos:  # a template that writes the BOS itself must not get a second one
        ids = [row if row[:1] == bos else np.append(np.int32(bos), row) for row in ids]
    return ids


def encode_encoder(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], responses: Sequence[str], max_length: int
) -> Encoded:
    """Prompt and response as the two segments of an encoder.

    Where both do not fit `max_length` tokens the prompt loses its beginning first, then the response its end; `cut`
    says which texts were shortened.
    """
    backend = tokenizer.backend_tokenizer  # type: ignore[attr-defined]
    backend.no_truncation()
    backend.no_padding()
    texts = ["\n".join(m["content"] for m in p) for p in prompts]
    first = backend.encode_batch(texts, add_special_tokens=False)
    second = backend.encode_batch(list(responses), add_special_tokens=False)
    room = max_length - backend.num_special_tokens_to_add(True)
    ids, type_ids, cut = [], [], []
    for prompt, response in zip(first, second, strict=True):
        cut.append(len(prompt) + len(response) > room)
        response.truncate(room)
        prompt.truncate(room - len(response), direction="left")
        joined = backend.post_process(prompt, response, True)
        ids.append(np.array(joined.ids, dtype=np.int32))
        type_ids.append(np.array(joined.type_ids, dtype=np.int32))
    return Encoded(ids, type_ids, np.array(cut, dtype=bool))


# --- groups -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """One prompt and its responses as tokens: whole texts, of which the first `n_shared` tokens are the same."""

    ids: tuple[np.ndarray, ...]
    n_shared: int
    type_ids: tuple[np.ndarray, ...] | None = None

    @property
    def longest(self) -> int:
        """Tokens of the longest text."""
        return max(len(row) for row in self.ids)

    @property
    def n_tokens_shared(self) -> int:
        """Tokens computed when the prompt is encoded once."""
        return self.n_shared + sum(len(row) - self.n_shared for row in self.ids)

    @property
    def n_tokens_plain(self) -> int:
        """Tokens computed when every response carries its own copy of the prompt, before padding."""
        return sum(len(row) for row in self.ids)


def common_prefix(rows: Sequence[np.ndarray]) -> int:
    """Length of the longest common token prefix, leaving every row at least one token of its own."""
    length = min(len(row) for row in rows) - 1
    first = rows[0][:length]
    for row in rows[1:]:
        differs = np.flatnonzero(first[:length] != row[:length])
        length = int(differs[0]) if len(differs) else length
    return length


def group(encoded: Encoded, sizes: Sequence[int]) -> list[Group]:
    """Cut a flat list of texts into groups of `sizes` responses that share a prompt."""
    groups, start = [], 0
    for size in sizes:
        ids = tuple(encoded.ids[start : start + size])
        type_ids = None if encoded.type_ids is None else tuple(encoded.type_ids[start : start + size])
        groups.append(Group(ids, common_prefix(ids), type_ids))
        start += size
    return groups


def pack(groups: Sequence[Group], token_budget: int, *, shared: bool) -> Iterator[list[int]]:
    """Indices of groups for one forward pass each, similar lengths together, at most `token_budget` tokens computed.

    A group that is larger than the budget comes alone. In the padded layout padding counts, since it is computed.
    """
    order = sorted(range(len(groups)), key=lambda index: (groups[index].longest, index))
    batch: list[int] = []
    n_tokens = n_rows = 0
    for index in order:
        item = groups[index]
        n_rows += len(item.ids)
        n_tokens = n_tokens + item.n_tokens_shared if shared else n_rows * item.longest
        if batch and n_tokens > token_budget:
            yield batch
            batch, n_rows = [], len(item.ids)
            n_tokens = item.n_tokens_shared if shared else n_rows * item.longest
        batch.append(index)
    if batch:
        yield batch


# --- the shared layout ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SharedBatch:
    """Many groups in one row without padding; `ends` are the rows at which the rewards are read."""

    input_ids: Int[Tensor, "1 token"]
    position_ids: Int[Tensor, "1 token"]
    layout: RowLayout
    ends: Int[Tensor, "sequence"]

    def to(self, device: torch.device | str) -> Self:
        return _to(self, device)


@dataclass(frozen=True)
class PaddedBatch:
    """One padded row per response; `ends` is the column of each row's last real token."""

    input_ids: Int[Tensor, "sequence token"]
    attention_mask: Int[Tensor, "sequence token"]
    ends: Int[Tensor, "sequence"]
    token_type_ids: Int[Tensor, "sequence token"] | None = None

    def to(self, device: torch.device | str) -> Self:
        return _to(self, device)


Batch = SharedBatch | PaddedBatch


def _to(item: Any, device: torch.device | str) -> Any:
    """Move every tensor of a (nested) dataclass; a no-op on the device where it already is."""
    if isinstance(item, Tensor):
        return item.to(device, non_blocking=True)
    if isinstance(item, tuple):
        return tuple(_to(part, device) for part in item)
    if hasattr(item, "__dataclass_fields__"):
        return replace(item, **{field.name: _to(getattr(item, field.name), device) for field in fields(item)})
    return item


def collate_shared(groups: Sequence[Group], backend: str = "segments") -> SharedBatch:
    """Lay groups back to back: `prompt | response | response | …`, positions continuing from the prompt.

    `backend` names the attention (`attention.BACKENDS`).
    """
    tokens, positions, ends = [], [], []
    # One line per segment: where its tokens start, how many they are, and the same of the prompt that it also sees.
    segments: list[tuple[int, int, int, int]] = []
    offset = 0
    for item in groups:
        shared, start = item.n_shared, offset
        if shared:
            tokens.append(item.ids[0][:shared])
            positions.append(np.arange(shared))
            segments.append((start, shared, 0, 0))
            offset += shared
        for row in item.ids:
            own = len(row) - shared
            tokens.append(row[shared:])
            positions.append(np.arange(shared, len(row)))
            segments.append((offset, own, start, shared))
            offset += own
            ends.append(offset - 1)
    row_ids, row_positions = (
        torch.from_numpy(np.concatenate(parts).astype(np.int64))[None] for parts in (tokens, positions)
    )
    return SharedBatch(row_ids, row_positions, layout_of(np.array(segments), offset, backend), torch.tensor(ends))


def shared_inputs(batch: SharedBatch) -> dict[str, Any]:
    """What a decoder on our attention is called with for a shared row."""
    return {
        "input_ids": batch.input_ids,
        "position_ids": batch.position_ids,
        # A 4-D mask is passed through untouched, so no dense mask is built for the packed row.
        "attention_mask": torch.zeros(1, 1, 1, 1, device=batch.input_ids.device),
        "segments": batch.layout.everywhere,
    }


def collate_padded(groups: Sequence[Group], pad_id: int, *, padding_side: str = "right") -> PaddedBatch:
    """One row per response, padded to the longest; rewards are read by length, so the pad id never matters."""
    rows = [row for item in groups for row in item.ids]
    lengths = np.array([len(row) for row in rows])
    width = lengths.max()
    starts = np.zeros_like(lengths) if padding_side == "right" else width - lengths
    column = np.arange(width)
    real = (column >= starts[:, None]) & (column < (starts + lengths)[:, None])
    ids = np.full(real.shape, pad_id, dtype=np.int64)
    ids[real] = np.concatenate(rows)
    type_ids = None
    if groups[0].type_ids is not None:
        type_ids = np.zeros_like(ids)
        type_ids[real] = np.concatenate([row for item in groups for row in item.type_ids or ()])
    return PaddedBatch(
        torch.from_numpy(ids),
        torch.from_numpy(real.astype(np.int64)),
        torch.from_numpy(starts + lengths - 1),
        None if type_ids is None else torch.from_numpy(type_ids),
    )
