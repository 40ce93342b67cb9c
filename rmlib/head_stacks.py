"""Many linear heads on the features of a frozen backbone, trained together: full batch, one matrix product a step.

Each head takes the steps that `training` gives a single one: the losses of `losses`, AdamW with decoupled decay of the
weight alone, the same clipping, warm-up and schedule. Heads differ in loss, learning rate, weight decay, start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rmlib import losses
from rmlib.heads import draw_head, output_layer
from rmlib.settings import TrainSettings
from rmlib.training import scheduler_for

EPSILON = 1e-8  # of torch.optim.AdamW
CURVE_POINTS = 60  # of the losses that are kept while heads are trained


@dataclass(frozen=True)
class Heads:
    """A stack of linear heads, in fp32."""

    weight: Float[Tensor, "head attribute hidden"]
    bias: Float[Tensor, "head attribute"]

    @classmethod
    def draw(cls, hidden_size: int, n_attributes: int, seeds: Sequence[int]) -> Heads:
        """One head for each seed: the one that `RewardModel.create` draws on a pretrained backbone."""
        drawn = [output_layer(draw_head(hidden_size, n_attributes, seed)) for seed in seeds]
        return cls(torch.stack([head.weight.data for head in drawn]), torch.stack([head.bias.data for head in drawn]))

    @classmethod
    def stack(cls, parts: Sequence[Heads]) -> Heads:
        """The heads of all parts, one after the other."""
        return cls(torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts]))

    def __len__(self) -> int:
        return len(self.weight)

    def __getitem__(self, index: slice | Sequence[int]) -> Heads:
        return Heads(self.weight[index], self.bias[index])

    def rewards(self, features: Float[Tensor, "text hidden"]) -> Float[Tensor, "head text attribute"]:
        """The rewards that each head gives each text."""
        return self._outputs(features).transpose(1, 2) + self.bias[:, None]

    def margins(self, difference: Float[Tensor, "pair hidden"]) -> Float[Tensor, "head pair"]:
        """Reward of the first attribute for the chosen minus that for the rejected: the bias cancels."""
        return self._outputs(difference)[:, 0]

    def _outputs(self, features: Float[Tensor, "text hidden"]) -> Float[Tensor, "head attribute text"]:
        # One product for the whole stack; each head's outputs lie in a row, so that a loss of some heads is a view.
        return (self.weight.flatten(0, 1) @ features.T).view(*self.bias.shape, len(features))

    def weighted(self, weights: Sequence[float]) -> Heads:
        """Heads with one output each, the sum of the attributes weighted by `weights`."""
        row = torch.tensor(weights, dtype=self.weight.dtype)
        return Heads((row @ self.weight)[:, None], (self.bias @ row)[:, None])


@dataclass(frozen=True)
class Fitted:
    """Trained heads, and the loss of each on its way: `curve[i]` before the step `steps[i]`, counted from 1."""

    heads: Heads
    steps: list[int]
    curve: Float[np.ndarray, "step head"]


def fit_heads(
    features_chosen: Float[Tensor, "pair hidden"],
    features_rejected: Float[Tensor, "pair hidden"],
    strength: Float[Tensor, "*head pair"],
    start: Heads,
    loss: Sequence[str],
    learning_rate: Float[Tensor, "head"],
    weight_decay: Float[Tensor, "head"],
    settings: TrainSettings,
) -> Fitted:
    """Train every head on the preference loss it names, full batch, `settings.max_steps` steps.

    Of `settings` betas, clipping, warm-up and schedule are taken. `strength` may differ by head; below 0 the pair is
    turned round. Equal losses should stand together. No gradient reaches the bias: it cancels in the margin. Memory is
    that of a few `[head, pair]`. Raises ValueError for an unknown loss, or arguments that do not fit each other.
    """
    _check(features_chosen, features_rejected, start, loss, learning_rate, weight_decay)
    difference = features_chosen - features_rejected
    groups = _groups(strength, loss, len(start), len(difference))

    def loss_of(heads: Heads) -> Float[Tensor, "head"]:
        return _mean_over_pairs(heads.margins(difference), groups)

    return _descend(start, loss_of, learning_rate, weight_decay, settings)


def fit_regression_heads(
    features: Float[Tensor, "text hidden"],
    ratings: Float[Tensor, "text attribute"],
    start: Heads,
    learning_rate: Float[Tensor, "head"],
    weight_decay: Float[Tensor, "head"],
    settings: TrainSettings,
) -> Fitted:
    """Train every head on the ratings (NaN: not rated); otherwise as `fit_heads`."""
    _check(features, features, start, ["regression"] * len(start), learning_rate, weight_decay)

    def loss_of(heads: Heads) -> Float[Tensor, "head"]:
        return regression_losses(heads.rewards(features), ratings)

    return _descend(start, loss_of, learning_rate, weight_decay, settings)


def preference_losses(
    margins: Float[Tensor, "head pair"], strength: Float[Tensor, "*head pair"], loss: Sequence[str]
) -> Float[Tensor, "head"]:
    """Mean over the pairs of the loss that each head names; a strength below 0 turns the pair round for its head."""
    return _mean_over_pairs(margins, _groups(strength, loss, *margins.shape))


@dataclass(frozen=True)
class _Group:
    """Heads next to each other with the same loss, and what that loss is given beside their margins."""

    n_heads: int
    loss: str
    strength: Float[Tensor, "head*pair"]
    zero: Float[Tensor, "head*pair"]
    sign: Float[Tensor, "*head pair"] | None  # None where no pair is turned round


def _groups(strength: Float[Tensor, "*head pair"], loss: Sequence[str], n_heads: int, n_pairs: int) -> list[_Group]:
    groups: list[_Group] = []
    for name, same in groupby(loss):
        start, count = sum(group.n_heads for group in groups), len(list(same))
        own = strength if strength.ndim == 1 else strength[start : start + count]
        size = own.abs().expand(count, n_pairs).flatten()
        groups.append(_Group(count, name, size, torch.zeros_like(size), own.sign() if bool((own < 0).any()) else None))
    return groups


def _mean_over_pairs(margins: Float[Tensor, "head pair"], groups: Sequence[_Group]) -> Float[Tensor, "head"]:
    per_head = []
    for group, margin in zip(groups, margins.split([group.n_heads for group in groups]), strict=True):
        turned = margin if group.sign is None else margin * group.sign
        # The losses see rewards only as their difference, so the margin against 0 stands for both.
        values = losses.pair_loss(group.loss, turned.flatten(), group.zero, group.strength)
        per_head.append(values.view_as(margin).sum(dim=1) / margin.shape[1])
    return torch.cat(per_head)


def regression_losses(
    rewards: Float[Tensor, "head text attribute"], ratings: Float[Tensor, "text attribute"]
) -> Float[Tensor, "head"]:
    """Mean over the rated texts of each head's squared error."""
    targets = ratings.expand_as(rewards).flatten(0, 1)
    values = losses.regression_loss(rewards.flatten(0, 1), targets).view(len(rewards), -1)
    return values.sum(dim=1) / losses.is_rated(ratings).sum()


def mean_rating(ratings: Float[Tensor, "text attribute"]) -> Float[Tensor, "attribute"]:
    """Where a fresh regression head's bias starts; 0 for an attribute that nobody rated."""
    return torch.nan_to_num(torch.nanmean(ratings, dim=0))


def _descend(
    start: Heads,
    loss_of: Callable[[Heads], Float[Tensor, "head"]],
    learning_rate: Float[Tensor, "head"],
    weight_decay: Float[Tensor, "head"],
    settings: TrainSettings,
) -> Fitted:
    """AdamW as torch.optim.AdamW has it, with a learning rate and a weight decay for each head."""
    assert settings.max_steps is not None, "the number of full-batch steps is not derived from epochs"
    heads = Heads(start.weight.clone().requires_grad_(), start.bias.clone().requires_grad_())
    weight, bias = _Moments(heads.weight, settings.betas), _Moments(heads.bias, settings.betas)
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
        rate = learning_rate * factor
        weight.step(clip, rate, weight_decay)
        if heads.bias.grad is not None:
            bias.step(clip, rate, torch.zeros_like(weight_decay))
    _refuse_non_finite(loss_of(heads), settings.max_steps)
    return Fitted(Heads(heads.weight.detach(), heads.bias.detach()), steps, np.array(curve))


class _Moments:
    """A stacked parameter with AdamW's two running means (Loshchilov & Hutter, arXiv 1711.05101)."""

    def __init__(self, parameter: Tensor, betas: tuple[float, float]) -> None:
        self.parameter, self.betas, self.n_steps = parameter, betas, 0
        self.mean, self.square = torch.zeros_like(parameter), torch.zeros_like(parameter)

    @torch.no_grad()
    def step(self, clip: Float[Tensor, "head"], rate: Float[Tensor, "head"], decay: Float[Tensor, "head"]) -> None:
        self.n_steps += 1
        gradient, (beta_mean, beta_square) = self.parameter.grad, self.betas
        assert gradient is not None
        gradient.mul_(_by_head(clip, gradient))
        self.parameter.mul_(_by_head(1 - rate * decay, gradient))
        self.mean.lerp_(gradient, 1 - beta_mean)
        self.square.mul_(beta_square).addcmul_(gradient, gradient, value=1 - beta_square)
        scale = self.square.sqrt().div_((1 - beta_square**self.n_steps) ** 0.5).add_(EPSILON)
        change = torch.div(self.mean, scale, out=scale).mul_(_by_head(rate, gradient))
        self.parameter.sub_(change, alpha=1 / (1 - beta_mean**self.n_steps))
        self.parameter.grad = None


def _by_head(values: Float[Tensor, "head"], like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))


def _clip_factor(heads: Heads, clip_norm: float) -> Float[Tensor, "head"]:
    """What brings each head's gradient to at most `clip_norm`, as torch.nn.utils.clip_grad_norm_ does it."""
    parts = [part.grad.flatten(1) for part in (heads.weight, heads.bias) if part.grad is not None]
    norm = torch.stack([part.norm(dim=1) for part in parts]).norm(dim=0)
    return (clip_norm / (norm + 1e-6)).clamp(max=1.0)


def learning_rate_factors(settings: TrainSettings) -> list[float]:
    """What the learning rate is multiplied by at each step: warm-up and schedule."""
    assert settings.max_steps is not None
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = scheduler_for(settings, optimizer, settings.max_steps)
    factors = []
    for _ in range(settings.max_steps):
        factors.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return factors


def _check(
    chosen: Tensor, rejected: Tensor, start: Heads, loss: Sequence[str], learning_rate: Tensor, weight_decay: Tensor
) -> None:
    if chosen.shape != rejected.shape or chosen.shape[-1] != start.weight.shape[-1]:
        shapes = f"{list(chosen.shape)} and {list(rejected.shape)}, heads read {start.weight.shape[-1]}"
        raise ValueError(f"features do not fit each other or the heads: {shapes}")
    lengths = {len(start), len(loss), len(learning_rate), len(weight_decay)}
    if len(lengths) > 1:
        raise ValueError(f"give one loss, learning rate and weight decay for each head; lengths differ: {lengths}")


def _refuse_non_finite(loss: Float[Tensor, "head"], step: int) -> None:
    bad = torch.nonzero(~torch.isfinite(loss)).flatten().tolist()
    if bad:
        raise ValueError(f"after {step} steps the loss of heads {bad[:5]} is not finite; lower their learning rates")
