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

SHARED_PREFIX = "shared_prefix"  # the name under which transformers knows our attention function
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
    """Attention of a shared row: its chunks, and where each token's output lies in their concatenation."""

    chunks: tuple[Chunk, ...]
    order: Int[Tensor, "token"]


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
    query: Float[Tensor, "batch head token dim"],
    key: Float[Tensor, "batch head_kv token dim"],
    value: Float[Tensor, "batch head_kv token dim"],
    attention_mask: Tensor | None,
    segments: Segments | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Float[Tensor, "batch token head dim"], None]:
    """Attention of a shared row, segment by segment through SDPA; without `segments`, plain SDPA.

    Registered with transformers' attention interface, so decoders that support it run unpatched.
    """
    if segments is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
        )
    rows = [states[0].transpose(0, 1) for states in (query, key, value)]  # each [token, head, dim]
    gqa = query.shape[1] != key.shape[1]
    outputs = []
    for chunk in segments.chunks:
        q, k, v = (
            states.index_select(0, index.flatten()).view(*index.shape, *states.shape[1:]).transpose(1, 2)
            for states, index in zip(rows, (chunk.query, chunk.key, chunk.key), strict=True)
        )
        causal = chunk.mask is None
        output = F.scaled_dot_product_attention(
            q, k, v, chunk.mask, dropout_p=dropout, is_causal=causal, scale=scaling, enable_gqa=gqa
        )
        outputs.append(output.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs).index_select(0, segments.order)[None], None


AttentionInterface.register(SHARED_PREFIX, shared_prefix_attention)
AttentionMaskInterface.register(SHARED_PREFIX, sdpa_mask)
