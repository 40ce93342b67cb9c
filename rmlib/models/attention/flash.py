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


class Fused:
    """Attention of a packed row, or of some tokens of it, by a kernel that has no dropout."""

    def attend(
        self,
        query: Float[Tensor, "1 head token dim"],
        key: Float[Tensor, "1 head_kv token dim"],
        value: Float[Tensor, "1 head_kv token dim"],
        scaling: float | None,
        dropout: float,
    ) -> Float[Tensor, "token head dim"]:
        """Zeros for tokens that do not attend. Raises NotImplementedError for dropout."""
        if dropout:
            raise NotImplementedError(
                "attention by flash, varlen and flex has no dropout; set attention_dropout to 0 in the config"
            )
        kind = query.device.type
        if torch.is_autocast_enabled(kind):  # which knows SDPA, and no kernel beside it
            query, key, value = (states.to(torch.get_autocast_dtype(kind)) for states in (query, key, value))
        return self._attend(query, key, value, scaling)

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        raise NotImplementedError


@dataclass(frozen=True)
class Spans(Fused):
    """Queries, and the keys that they see, each whole or causally."""

    parts: tuple[tuple[Span, tuple[tuple[Span, bool], ...]], ...]  # of queries, then of keys, and whether causal

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        return _Flash.apply(query, key, value, self.parts, scaling)[0].transpose(0, 1)


def spans_of(table: np.ndarray, *, ends_alone: bool = False) -> Spans:
    """For segments given as rows of (query start, query length, prompt start, prompt length), in the row's order.

    Of segments that are no prompt of others the `ends_alone`, their last tokens, may attend.
    """
    parts = []
    for start, own, prompt, n_prompt in table.tolist():
        end = start + own
        seen = [((start, end), not ends_alone)]  # its own tokens, causally where there are several queries
        if n_prompt:
            seen.append(((prompt, prompt + n_prompt), False))
        parts.append(((end - 1 if ends_alone else start, end), tuple(seen)))
    return Spans(tuple(parts))


class _Flash(torch.autograd.Function):
    """Flash attention of parts of a row; what is kept for the backward pass is one output and one log-sum a query."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, parts: Any, scale: float | None) -> Tensor:
        # Laid out token by token, as the projection after it reads it.
        output = query.new_zeros(query.transpose(1, 2).shape).transpose(1, 2)
        logsums = query.new_zeros(query.shape[:3], dtype=torch.promote_types(query.dtype, torch.float32))
        repeats = query.shape[1] // key.shape[1]
        for (start, end), keys in parts:
            own = query[:, :, start:end]
            found = [
                _forward(own, _seen(key, span, repeats), _seen(value, span, repeats), 0.0, causal, scale=scale)
                for span, causal in keys
            ]
            made, logsum = found[0]
            for other, other_logsum in found[1:]:
                share = torch.sigmoid(other_logsum - logsum)  # of the other's keys in the sum of all
                logsum = torch.logaddexp(logsum, other_logsum)
                made = torch.lerp(made, other, share[..., None].to(made.dtype))
            output[:, :, start:end], logsums[:, :, start:end] = made, logsum
        ctx.save_for_backward(query, key, value, output, logsums)
        ctx.parts, ctx.scale = parts, scale
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, output, logsums = ctx.saved_tensors
        repeats = query.shape[1] // key.shape[1]
        of_query, of_key, of_value = (torch.zeros_like(states) for states in (query, key, value))
        for (start, end), keys in ctx.parts:
            upstream, own, made, logsum = (part[:, :, start:end] for part in (gradient, query, output, logsums))
            for span, causal in keys:
                seen = _seen(key, span, repeats), _seen(value, span, repeats)
                found = _backward(upstream, own, *seen, made, logsum, 0.0, causal, scale=ctx.scale)
                of_query[:, :, start:end] += found[0]
                for total, part in zip((of_key, of_value), found[1:], strict=True):
                    total[:, :, slice(*span)] += part if repeats == 1 else part.unflatten(1, (-1, repeats)).sum(dim=2)
        return of_query, of_key, of_value, None, None


def _seen(states: Tensor, span: Span, repeats: int) -> Tensor:
    """Keys or values of a span, once for each head of the queries that share them."""
    part = states[:, :, slice(*span)]
    return part if repeats == 1 else part.repeat_interleave(repeats, dim=1)
