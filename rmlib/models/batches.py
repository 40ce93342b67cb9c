"""From tokens to batches, in which a prompt is encoded once for all its responses.

A *group* is one prompt with its responses. In the shared layout the tokens of many groups lie back to back in one row,
`prompt | response | response | prompt | response | …`; nothing is padded, so linear layers compute no token twice. The
positions of every response continue from its prompt, and `rmlib.models.attention` lets a response see its prompt and
itself, nothing else. The padded layout, one row per response, works for every model and is the oracle of the tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedConfig

from rmlib.models.attention import Fused, RowLayout, Segments, layout_of
from rmlib.models.tokens import Encoded


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
    return min(min(map(len, rows)) - 1, *(n_common(rows[0], row) for row in rows))


def n_common(first: np.ndarray, second: np.ndarray) -> int:
    """Length of the common beginning of two rows of tokens."""
    length = min(len(first), len(second))
    differs = np.flatnonzero(first[:length] != second[:length])
    return int(differs[0]) if len(differs) else length


def group(encoded: Encoded, sizes: Sequence[int]) -> list[Group]:
    """Cut a flat list of texts into groups of `sizes` responses that share a prompt."""
    groups, start = [], 0
    for size in sizes:
        ids = tuple(encoded.ids[start : start + size])
        type_ids = None if encoded.type_ids is None else tuple(encoded.type_ids[start : start + size])
        groups.append(Group(ids, common_prefix(ids), type_ids))
        start += size
    return groups


def pack(groups: Sequence[Group], token_budget: int, *, shared: bool, padded: bool = True) -> Iterator[list[int]]:
    """Indices of groups for one forward pass each, similar lengths together, at most `token_budget` tokens computed.

    A group that is larger than the budget comes alone. In the padded layout padding counts, since it is computed;
    where nothing may be `padded`, only texts of one length come together.
    """
    order = sorted(range(len(groups)), key=lambda index: (groups[index].longest, index))
    batch: list[int] = []
    n_tokens = n_rows = 0
    for index in order:
        item = groups[index]
        n_rows += len(item.ids)
        n_tokens = n_tokens + item.n_tokens_shared if shared else n_rows * item.longest
        other_length = not padded and batch and groups[batch[-1]].longest != item.longest
        if batch and (n_tokens > token_budget or other_length):
            yield batch
            batch, n_rows = [], len(item.ids)
            n_tokens = item.n_tokens_shared if shared else n_rows * item.longest
        batch.append(index)
    if batch:
        yield batch


def packed(
    groups: Sequence[Group], token_budget: int, *, shared: bool, padded: bool = True
) -> Iterator[tuple[list[Group], Int[np.ndarray, "response"]]]:
    """The groups of each forward pass, as `pack` puts them together, and the places of their responses in the list."""
    first = np.cumsum([0, *(len(item.ids) for item in groups)])
    for indices in pack(groups, token_budget, shared=shared, padded=padded):
        rows = np.concatenate([np.arange(first[index], first[index + 1]) for index in indices])
        yield [groups[index] for index in indices], rows


def merged(groups: Sequence[Group]) -> tuple[list[Group], Int[np.ndarray, "response"] | None]:
    """Groups without a text that occurs twice, and where each response of the given ones stands among their texts.

    Groups that have a text in common become one: pairs that compare K responses to a prompt cost K texts a step, not
    two for every pair (as InstructGPT trains them: Ouyang et al., arXiv 2203.02155, section 3.5). The place is None,
    and the groups are those given, where no text occurs twice: then nothing changes, to the last bit.
    """
    keys = [[row.tobytes() for row in item.ids] for item in groups]
    if len({key for own in keys for key in own}) == sum(map(len, keys)):
        return list(groups), None
    texts: dict[bytes, tuple[np.ndarray, np.ndarray | None]] = {}
    cluster_of: dict[bytes, list[bytes]] = {}
    for item, own in zip(groups, keys, strict=True):
        types = item.type_ids or (None,) * len(own)
        texts.update(zip(own, zip(item.ids, types, strict=True), strict=True))
        joined = list(dict.fromkeys(key for each in own for key in cluster_of.get(each, [each])))
        cluster_of.update(dict.fromkeys(joined, joined))
    clusters = {id(cluster): cluster for cluster in cluster_of.values()}.values()
    place = {key: index for index, key in enumerate(key for cluster in clusters for key in cluster)}
    ids = [texts[key][0] for key in place]
    type_ids = [kinds for _, kinds in (texts[key] for key in place) if kinds is not None]
    encoded = Encoded(ids, type_ids or None, np.zeros(len(ids), dtype=bool))
    return group(encoded, [len(cluster) for cluster in clusters]), np.array([place[key] for own in keys for key in own])


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
    tokens, positions = [], []
    # One line per segment: where its tokens start, how many they are, and the same of the prompt that it also sees.
    segments: list[tuple[int, int, int, int]] = []
    offset = 0
    for item in groups:
        shared, start = item.n_shared, offset
        parts = [(item.ids[0][:shared], 0)] if shared else []
        for own, n_before in parts + [(row[shared:], shared) for row in item.ids]:
            tokens.append(own)
            positions.append(np.arange(n_before, n_before + len(own)))
            segments.append((offset, len(own), start, n_before))
            offset += len(own)
    row_ids, row_positions = (
        torch.from_numpy(np.concatenate(rows).astype(np.int64))[None] for rows in (tokens, positions)
    )
    layout = layout_of(np.array(segments), offset, backend)
    return SharedBatch(row_ids, row_positions, layout, layout.ends)


def collate_padded(groups: Sequence[Group], pad_id: int = 0) -> PaddedBatch:
    """One row per response, padded on the right; our rewards are read by length, so the pad id matters to others."""

    def padded(rows: Iterable[np.ndarray], value: int) -> Int[Tensor, "sequence token"]:
        return pad_sequence([torch.from_numpy(row).long() for row in rows], batch_first=True, padding_value=value)

    ids = [row for item in groups for row in item.ids]
    type_ids = None if groups[0].type_ids is None else [row for item in groups for row in item.type_ids or ()]
    return PaddedBatch(
        padded(ids, pad_id),
        padded(map(np.ones_like, ids), 0),
        torch.tensor([len(row) - 1 for row in ids]),
        None if type_ids is None else padded(type_ids, 0),
    )


def inputs_of(batch: Batch, config: PreTrainedConfig) -> Mapping[str, Tensor | Segments | Fused]:
    """What a model of this config is called with; a shared row takes a decoder on our attention."""
    if isinstance(batch, SharedBatch):
        # A 4-D mask is passed through untouched, so no dense mask is built for the packed row.
        mask = torch.zeros(1, 1, 1, 1, device=batch.input_ids.device)
        inputs = {"input_ids": batch.input_ids, "position_ids": batch.position_ids, "attention_mask": mask}
        return inputs | {"segments": batch.layout.everywhere}
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if batch.token_type_ids is not None and getattr(config, "type_vocab_size", 1) > 1:  # BERT: two; RoBERTa: one
        inputs["token_type_ids"] = batch.token_type_ids
    return inputs
