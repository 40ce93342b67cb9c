"""AdamW for a stack of heads: every head takes the steps it would take alone, with a rate and a decay of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Generic, Self, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rmlib.training.optimizer import scheduler_for
from rmlib.training.settings import TrainSettings

EPSILON = 1e-8  # of torch.optim.AdamW
CURVE_POINTS = 60  # of the losses that are kept while heads are trained


class Stack:
    """Heads of one kind: a dataclass of tensors whose first axis is the head."""

    @classmethod
    def names(cls) -> list[str]:
        return [item.name for item in fields(cls)]  # type: ignore[arg-type]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The parameters by name."""
        return {name: getattr(self, name) for name in self.names()}

    def changed(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same heads with every tensor changed."""
        return type(self)(**{name: change(tensor) for name, tensor in self.tensors.items()})

    @classmethod
    def stack(cls, parts: Sequence[Self]) -> Self:
        """The heads of all parts, one after the other."""
        return cls(**{name: torch.cat([part.tensors[name] for part in parts]) for name in parts[0].tensors})

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, index: slice | Sequence[int]) -> Self:
        return self.changed(lambda tensor: tensor[index])


AnyStack = TypeVar("AnyStack", bound=Stack)


@dataclass(frozen=True)
class Fitted(Generic[AnyStack]):
    """Trained heads, and the loss of each on its way: `curve[i]` before the step `steps[i]`, counted from 1."""

    heads: AnyStack
    steps: list[int]
    curve: Float[np.ndarray, "step head"]

    @classmethod
    def stack(cls, parts: Sequence[Self]) -> Self:
        """What was fitted in several parts, one after the other."""
        heads = type(parts[0].heads).stack([part.heads for part in parts])
        return cls(heads, parts[0].steps, np.concatenate([part.curve for part in parts], axis=1))

    def __getitem__(self, index: slice | Sequence[int]) -> Self:
        return type(self)(self.heads[index], self.steps, self.curve[:, index])


def descend(
    start: AnyStack,
    loss_of: Callable[[AnyStack], Float[Tensor, "head"]],
    learning_rate: Float[Tensor, "head"],
    weight_decay: Float[Tensor, "head"],
    settings: TrainSettings,
) -> Fitted[AnyStack]:
    """`settings.max_steps` steps of AdamW as torch.optim.AdamW takes them, on the full batch that `loss_of` sees.

    Of `settings` betas, clipping, warm-up and schedule are taken. Matrices decay, biases do not. Raises ValueError
    where rates or decays are not one for each head, and for a loss that is not finite, with the heads it belongs to.
    """
    assert settings.max_steps is not None, "the number of full-batch steps is not derived from epochs"
    lengths = {len(start), len(learning_rate), len(weight_decay)}
    if len(lengths) > 1:
        raise ValueError(f"give one learning rate and weight decay for each head; lengths differ: {lengths}")
    heads = start.changed(lambda tensor: tensor.clone().requires_grad_())
    moments = [_Moments(tensor, settings.betas, decayed=tensor.ndim > 2) for tensor in heads.tensors.values()]
    kept = set(np.unique(np.linspace(0, settings.max_steps - 1, CURVE_POINTS).astype(int)).tolist())
    steps, curve = [], []
    for step, factor in enumerate(learning_rate_factors(settings)):
        loss = loss_of(heads)
        loss.sum().backward()  # heads share nothing, so the gradient of the sum is each head's own
        if step in kept:
            _refuse_non_finite(loss, step)
            steps.append(step + 1)
            curve.append(loss.detach().numpy().copy())
        clip = _clip_factor(heads, settings.clip_norm)
        for moment in moments:
            moment.step(clip, learning_rate * factor, weight_decay)
    _refuse_non_finite(loss_of(heads), settings.max_steps)
    return Fitted(heads.changed(Tensor.detach), steps, np.array(curve))


class _Moments:
    """A stacked parameter with AdamW's two running means (Loshchilov & Hutter, arXiv 1711.05101)."""

    def __init__(self, parameter: Tensor, betas: tuple[float, float], *, decayed: bool) -> None:
        self.parameter, self.betas, self.decayed, self.n_steps = parameter, betas, decayed, 0
        self.mean, self.square = torch.zeros_like(parameter), torch.zeros_like(parameter)

    @torch.no_grad()
    def step(self, clip: Float[Tensor, "head"], rate: Float[Tensor, "head"], decay: Float[Tensor, "head"]) -> None:
        """One step; none where no gradient reaches the parameter (a bias that cancels in the margin)."""
        gradient, (beta_mean, beta_square) = self.parameter.grad, self.betas
        if gradient is None:
            return
        self.n_steps += 1
        gradient.mul_(_by_head(clip, gradient))
        if self.decayed:
            self.parameter.mul_(_by_head(1 - rate * decay, gradient))
        self.mean.lerp_(gradient, 1 - beta_mean)
        self.square.mul_(beta_square).addcmul_(gradient, gradient, value=1 - beta_square)
        scale = self.square.sqrt().div_((1 - beta_square**self.n_steps) ** 0.5).add_(EPSILON)
        change = torch.div(self.mean, scale, out=scale).mul_(_by_head(rate, gradient))
        self.parameter.sub_(change, alpha=1 / (1 - beta_mean**self.n_steps))
        self.parameter.grad = None


def _by_head(values: Float[Tensor, "head"], like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))


def _clip_factor(heads: Stack, clip_norm: float) -> Float[Tensor, "head"]:
    """What brings each head's gradient to at most `clip_norm`, as torch.nn.utils.clip_grad_norm_ does it."""
    gradients = [tensor.grad for tensor in heads.tensors.values()]
    norms = [gradient.flatten(1).norm(dim=1) for gradient in gradients if gradient is not None]
    return (clip_norm / (torch.stack(norms).norm(dim=0) + 1e-6)).clamp(max=1.0)


def learning_rate_factors(settings: TrainSettings) -> list[float]:
    """What the learning rate is multiplied by at each step: warm-up and schedule."""
    assert settings.max_steps is not None
    placeholder = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = scheduler_for(settings.schedule, settings.warmup_steps, placeholder, settings.max_steps)
    return [scheduler.lr_lambdas[0](step) for step in range(settings.max_steps)]


def _refuse_non_finite(loss: Float[Tensor, "head"], step: int) -> None:
    bad = torch.nonzero(~torch.isfinite(loss)).flatten().tolist()
    if bad:
        raise ValueError(f"after {step} steps the loss of heads {bad[:5]} is not finite; lower their learning rates")
