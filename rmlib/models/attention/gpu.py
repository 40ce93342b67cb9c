"""Attention of a packed row on a GPU, two ways; neither trains on a CPU.

Varlen flash attention, in half precision, takes the segments of a row as they lie, each with the keys of its whole text
beside it; nothing is masked. FlexAttention, in any precision, takes the row as it is, and a mask in blocks.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.nn.attention.varlen import varlen_attn

from rmlib.models.attention.flash import Fused

# Before torch 2.12 heads that share keys were taken unasked, and the keyword was unknown.
_GROUPED: Any = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}
_compiled = cache(lambda: torch.compile(flex_attention))  # at its first use


@dataclass(frozen=True)
class Texts(Fused):
    """Segments in the order of the row: their bounds, the tokens that each sees, and the bounds of those."""

    key: Int[Tensor, "key"]
    query_bounds: Int[Tensor, "segments_and_one"]
    key_bounds: Int[Tensor, "segments_and_one"]
    longest_query: int
    longest_key: int

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """Each segment's queries see the keys of its text up to themselves: the last query sees all of them."""
        queries = query[0].transpose(0, 1).contiguous()
        keys, values = (states[0].transpose(0, 1).index_select(0, self.key) for states in (key, value))
        sizes = self.query_bounds, self.key_bounds, self.longest_query, self.longest_key
        grouped = _GROUPED if query.shape[1] != key.shape[1] else {}
        output = varlen_attn(queries, keys, values, *sizes, scale=scaling, window_size=(-1, 0), **grouped)  # causal
        assert isinstance(output, Tensor)  # a pair where log-sums are asked for
        return output


def texts_of(table: np.ndarray) -> Texts:
    """For segments given as rows of (query start, query length, prompt start, prompt length), in the row's order."""
    keys = [
        np.concatenate([np.arange(prompt, prompt + n_prompt), np.arange(start, start + own)])
        for start, own, prompt, n_prompt in table
    ]
    bounds = [np.concatenate([[0], np.cumsum(sizes)]) for sizes in (table[:, 1], [len(key) for key in keys])]
    query_bounds, key_bounds = (torch.from_numpy(sizes.astype(np.int32)) for sizes in bounds)
    longest = int(table[:, 1].max()), max(len(key) for key in keys)
    return Texts(torch.from_numpy(np.concatenate(keys)), query_bounds, key_bounds, *longest)


@dataclass(frozen=True)
class Blocks(Fused):
    """Of every token its segment, and the segment of the prompt that it sees as well (its own in a prompt)."""

    segment: Int[Tensor, "token"]
    prompt: Int[Tensor, "token"]

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """A token sees what comes before it in its segment, and its prompt."""
        function: Any = _compiled() if query.is_cuda else flex_attention
        gqa = query.shape[1] != key.shape[1]
        output = function(query, key, value, block_mask=self._mask(), scale=scaling, enable_gqa=gqa)
        return output[0].transpose(0, 1)

    def _mask(self) -> BlockMask:
        """Made once for a row, since every layer asks for it."""
        if "mask" not in self.__dict__:
            segment, prompt = self.segment, self.prompt
            mask = create_block_mask(
                lambda batch, head, query, key: (
                    (key <= query) & ((segment[key] == segment[query]) | (segment[key] == prompt[query]))
                ),
                None, None, len(segment), len(segment), device=segment.device,
            )  # fmt: skip
            object.__setattr__(self, "mask", mask)
        return self.__dict__["mask"]


def blocks_of(table: np.ndarray) -> Blocks:
    """For segments given as rows of (query start, query length, prompt start, prompt length), in the row's order."""
    at_start = {start: number for number, start in enumerate(table[:, 0])}
    prompts = [at_start[row[2]] if row[3] else number for number, row in enumerate(table)]
    segment = np.repeat(np.arange(len(table)), table[:, 1])
    return Blocks(torch.from_numpy(segment), torch.from_numpy(np.array(prompts)[segment]))
