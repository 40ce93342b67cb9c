"""Attention of a packed row on a CPU: flash attention of every segment where it lies, nothing copied, nothing padded.

A response sees its prompt and itself. Each of the two is a call of PyTorch's flash kernel on slices of the row, and the
two outputs are merged by their log-sums, as in ring attention (Liu et al., arXiv 2310.01889): no mask is made, no score
is computed that a mask would hide but for the corners of blocks, and no prompt is gathered once for each response.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Span = tuple[int, int]  # start and end of tokens in the row
_forward: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True)
class Spans:
    """Attention of a row, or of some tokens of it: queries, and the keys that they see, each whole or causally."""

    parts: tuple[tuple[Span, tuple[tuple[Span, bool], ...]], ...]  # query, then (key, causal) once or twice

    def attend(
        self,
        query: Float[Tensor, "1 head token dim"],
        key: Float[Tensor, "1 head_kv token dim"],
        value: Float[Tensor, "1 head_kv token dim"],
        scaling: float | None,
        dropout: float,
    ) -> Float[Tensor, "token head dim"]:
        """Attention of the parts' queries; zeros for tokens that are in none."""
        if dropout:
            raise NotImplementedError("flash attention on a CPU has no dropout; take attention by segments")
        repeats = query.shape[1] // key.shape[1]
        if repeats > 1:
            key, value = (states.repeat_interleave(repeats, dim=1) for states in (key, value))
        return _Flash.apply(query, key, value, self.parts, scaling)[0].transpose(0, 1)


def spans_of(table: np.ndarray) -> Spans:
    """For segments given as rows of (query start, query length, prompt start, prompt length), in the row's order."""
    parts = []
    for start, own, prompt, n_prompt in table.tolist():
        query = (start, start + own)
        parts.append((query, _keys((query, True), (prompt, prompt + n_prompt))))
    return Spans(tuple(parts))


def spans_at_ends(table: np.ndarray) -> Spans:
    """The same for the last tokens alone, of segments that are no prompt of others."""
    parts = []
    for start, own, prompt, n_prompt in table.tolist():
        end = start + own
        parts.append(((end - 1, end), _keys(((start, end), False), (prompt, prompt + n_prompt))))
    return Spans(tuple(parts))


def _keys(itself: tuple[Span, bool], prompt: Span) -> tuple[tuple[Span, bool], ...]:
    return (itself, (prompt, False)) if prompt[1] > prompt[0] else (itself,)


class _Flash(torch.autograd.Function):
    """Flash attention of parts of a row; what is kept for the backward pass is one output and one log-sum a query."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, parts: Any, scale: float | None) -> Tensor:
        n_tokens = query.shape[2]
        # Laid out token by token, as the projection after it reads it.
        output = query.new_zeros(query.transpose(1, 2).shape).transpose(1, 2)
        logsums = query.new_zeros(*query.shape[:2], n_tokens, dtype=torch.promote_types(query.dtype, torch.float32))
        for (start, end), keys in parts:
            found = [
                _forward(query[:, :, start:end], key[:, :, low:high], value[:, :, low:high], 0.0, causal, scale=scale)
                for (low, high), causal in keys
            ]
            made, logsum = found[0]
            if len(found) == 2:
                other, other_logsum = found[1]
                logsum, share = torch.logaddexp(logsum, other_logsum), torch.sigmoid(logsum - other_logsum)
                made = torch.lerp(other, made, share[..., None].to(made.dtype))
            output[:, :, start:end], logsums[:, :, start:end] = made, logsum
        ctx.save_for_backward(query, key, value, output, logsums)
        ctx.parts, ctx.scale = parts, scale
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, output, logsums = ctx.saved_tensors
        gradients = [torch.zeros_like(states) for states in (query, key, value)]
        for (start, end), keys in ctx.parts:
            of_query = [states[:, :, start:end] for states in (gradient, query, output, logsums)]
            for (low, high), causal in keys:
                seen, states = slice(low, high), of_query[:2]
                states += [key[:, :, seen], value[:, :, seen], *of_query[2:]]
                found = _backward(*states, 0.0, causal, scale=ctx.scale)
                for total, span, part in zip(gradients, (slice(start, end), seen, seen), found, strict=True):
                    total[:, :, span] += part
        return (*gradients, None, None)
