"""Many heads on the features of a frozen backbone, trained together: full batch, one matrix product a step.

Each head takes the steps that `training` gives a single one: the losses of `losses`, AdamW with decoupled decay of the
matrices alone, the same clipping, warm-up and schedule. Heads differ in loss, learning rate, weight decay, start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from rmlib import losses
from rmlib.models.network import draw_head
from rmlib.training.loop import scheduler_for
from rmlib.training.settings import TrainSettings

EPSILON = 1e-8  # of torch.optim.AdamW
CURVE_POINTS = 60  # of the losses that are kept while heads are trained


@dataclass(frozen=True)
class Compared:
    """Features of the chosen and the rejected text of some pairs; ValueError where their shapes differ."""

    chosen: Float[Tensor, "pair hidden"]
    rejected: Float[Tensor, "pair hidden"]

    def __post_init__(self) -> None:
        if self.chosen.shape != self.rejected.shape:
            raise ValueError(f"features differ in shape: {list(self.chosen.shape)} and {list(self.rejected.shape)}")

    @cached_property
    def difference(self) -> Float[Tensor, "pair hidden"]:
        return self.chosen - self.rejected

    @cached_property
    def signs(self) -> csr_matrix:
        """Sparse `[text, pair]`: 1 where a text is the pair's chosen one, -1 where it is the rejected one."""
        texts, index = self.distinct
        n_pairs = index.shape[1]
        values = np.repeat(np.array([1, -1], dtype=np.float32), n_pairs)
        places = index.flatten().numpy(), np.tile(np.arange(n_pairs), 2)
        return csr_matrix((values, places), shape=(len(texts), n_pairs))

    @cached_property
    def distinct(self) -> tuple[Float[Tensor, "text hidden"], Int[Tensor, "two pair"]]:
        """Each distinct text once, and where those of the pairs stand: a text that is compared often is read once."""
        texts = torch.cat([self.chosen, self.rejected]).numpy()
        rows = np.ascontiguousarray(texts).view(np.dtype((np.void, texts.itemsize * texts.shape[1])))[:, 0]
        _, first, index = np.unique(rows, return_index=True, return_inverse=True)
        return torch.from_numpy(texts[first]), torch.from_numpy(index.reshape(2, -1))


class _Heads:
    """What heads of one layer and of two have in common: a dataclass of tensors whose first axis is the head.

    The first of the tensors reads the features.
    """

    N_LAYERS: ClassVar[int]
    weight: Tensor  # of the last layer
    bias: Tensor

    @classmethod
    def draw(cls, hidden_size: int, n_attributes: int, seeds: Sequence[int], beyond: int = 0) -> Self:
        """One head for each seed: the one that `RewardModel.create` draws on a pretrained backbone.

        `beyond`: features beside the backbone's own; they start at weight 0.
        """
        drawn = [draw_head(hidden_size, n_attributes, seed, cls.N_LAYERS) for seed in seeds]
        by_name = zip(*(head.parameters() for head in drawn), strict=True)
        tensors = [torch.stack([parameter.data for parameter in of_all]) for of_all in by_name]
        tensors[0] = nn.functional.pad(tensors[0], (0, beyond))
        return cls(*tensors)

    @classmethod
    def stack(cls, parts: Sequence[Self]) -> Self:
        """The heads of all parts, one after the other."""
        return cls(*map(torch.cat, zip(*(part.tensors.values() for part in parts), strict=True)))

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The parameters by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}  # type: ignore[arg-type]

    def changed(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same heads with every tensor changed."""
        return type(self)(*map(change, self.tensors.values()))

    def weighted(self, weights: Sequence[float], offset: float = 0.0) -> Self:
        """Heads with one output each, the sum of the attributes weighted by `weights`, plus `offset`."""
        row = torch.tensor(weights, dtype=self.weight.dtype)
        summed = self.tensors | {"weight": (row @ self.weight)[:, None], "bias": (self.bias @ row)[:, None] + offset}
        return type(self)(**summed)

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, index: slice | Sequence[int]) -> Self:
        return self.changed(lambda tensor: tensor[index])


@dataclass(frozen=True)
class Heads(_Heads):
    """A stack of linear heads, in fp32."""

    N_LAYERS = 1
    weight: Float[Tensor, "head attribute hidden"]
    bias: Float[Tensor, "head attribute"]

    def rewards(self, features: Float[Tensor, "text hidden"]) -> Float[Tensor, "head text attribute"]:
        """The rewards that each head gives each text."""
        return self._outputs(features).transpose(1, 2) + self.bias[:, None]

    def margins(self, pairs: Compared) -> Float[Tensor, "head pair"]:
        """Reward of the first attribute for the chosen minus that for the rejected: the bias cancels."""
        if len(pairs.distinct[0]) < len(pairs.chosen) // 2:  # then reading each text once, not each pair, saves time
            return _Differences.apply(self._outputs(pairs.distinct[0])[:, 0], pairs)
        return self._outputs(pairs.difference)[:, 0]

    def _outputs(self, features: Float[Tensor, "text hidden"]) -> Float[Tensor, "head attribute text"]:
        # One product for the whole stack; each head's outputs lie in a row, so that a loss of some heads is a view.
        return (self.weight.flatten(0, 1) @ features.T).view(*self.bias.shape, len(features))


@dataclass(frozen=True)
class TwoLayerHeads(_Heads):
    """A stack of heads of two layers with a ReLU between them, in fp32."""

    N_LAYERS = 2
    first_weight: Float[Tensor, "head hidden input"]
    first_bias: Float[Tensor, "head hidden"]
    weight: Float[Tensor, "head attribute hidden"]
    bias: Float[Tensor, "head attribute"]

    def rewards(self, features: Float[Tensor, "text input"]) -> Float[Tensor, "head text attribute"]:
        """The rewards that each head gives each text."""
        first = (self.first_weight.flatten(0, 1) @ features.T).view(*self.first_bias.shape, len(features))
        between = torch.relu(first + self.first_bias[..., None])
        return (self.weight @ between).transpose(1, 2) + self.bias[:, None]

    def margins(self, pairs: Compared) -> Float[Tensor, "head pair"]:
        """Reward of the first attribute for the chosen minus that for the rejected."""
        return _Differences.apply(self.rewards(pairs.distinct[0])[..., 0], pairs)


AnyHeads = Heads | TwoLayerHeads


class _Differences(torch.autograd.Function):
    """Margins of pairs from rewards of their texts; backwards one sparse product, where indexing takes long."""

    @staticmethod
    def forward(ctx: Any, rewards: Float[Tensor, "head text"], pairs: Compared) -> Float[Tensor, "head pair"]:
        ctx.pairs = pairs
        _, (chosen, rejected) = pairs.distinct
        return rewards.index_select(1, chosen) - rewards.index_select(1, rejected)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Float[Tensor, "head text"], None]:
        return torch.from_numpy(ctx.pairs.signs @ gradients[0].T.numpy()).T, None


@dataclass(frozen=True)
class Labels:
    """What heads that stand next to each other in a stack learn from the pairs, for all of them or head by head."""

    loss: str
    n_heads: int
    strength: Float[Tensor, "*head pair"]  # below 0: the pair is turned round
    target: Float[Tensor, "pair"] | None = None  # probability that the chosen text is the better one; None: 1

    def values(self, margins: Float[Tensor, "head pair"]) -> Float[Tensor, "head pair"]:
        """The loss of each pair under each head."""
        size, zero, sign, target = self._flat
        turned = margins if sign is None else margins * sign
        # The losses see rewards only as their difference, so the margin against 0 stands for both.
        return losses.pair_loss(self.loss, turned.flatten(), zero, size, target).view_as(margins)

    @cached_property
    def _flat(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        shape = (self.n_heads, self.strength.shape[-1])
        size = self.strength.abs().expand(shape).flatten()
        target = None if self.target is None else self.target.expand(shape).flatten()
        return size, torch.zeros_like(size), self.strength.sign() if bool((self.strength < 0).any()) else None, target


@dataclass(frozen=True)
class PreferenceLoss:
    """Each head's mean loss over the pairs, those of `labels` one after the other; `descend` minimises it.

    With a `regression_weight` the squared error of both ratings is added, as in `forward.example_losses`. Memory is
    that of a few `[head, pair]`.
    """

    pairs: Compared
    labels: Sequence[Labels]
    ratings: Float[Tensor, "pair 2"] | None = None  # of the chosen and the rejected text; NaN: not rated
    regression_weight: float = 0.0

    def __call__(self, heads: AnyHeads) -> Float[Tensor, "head"]:
        """Raises ValueError for an unknown loss, and where heads, features and labels do not fit each other."""
        width, read = self.pairs.chosen.shape[-1], next(iter(heads.tensors.values())).shape[-1]
        if read != width:
            raise ValueError(f"features have width {width}, heads read {read}")
        if (labelled := sum(labels.n_heads for labels in self.labels)) != len(heads):
            raise ValueError(f"labels are for {labelled} heads, the stack has {len(heads)}")
        if not self.regression_weight:
            return self._of_margins(heads.margins(self.pairs))
        texts, places = self.pairs.distinct
        rewards = heads.rewards(texts)[..., 0]
        both = torch.stack([rewards.index_select(1, place) for place in places], dim=2)
        assert self.ratings is not None, "regression_weight needs ratings"
        errors = losses.regression_loss(both.flatten(0, 1), self.ratings.repeat(len(both), 1)).view(both.shape[:2])
        return self._of_margins(both[..., 0] - both[..., 1]) + self.regression_weight * errors.mean(dim=1)

    def _of_margins(self, margins: Float[Tensor, "head pair"]) -> Float[Tensor, "head"]:
        parts = margins.split([labels.n_heads for labels in self.labels])
        means = [own.values(part).sum(dim=1) for own, part in zip(self.labels, parts, strict=True)]
        return torch.cat(means) / margins.shape[1]


@dataclass(frozen=True)
class RegressionLoss:
    """Each head's mean squared error over the rated texts; `descend` minimises it."""

    features: Float[Tensor, "text hidden"]
    ratings: Float[Tensor, "text attribute"]  # NaN: not rated

    @cached_property
    def n_rated(self) -> int:
        return int(losses.is_rated(self.ratings).sum())

    def __call__(self, heads: AnyHeads) -> Float[Tensor, "head"]:
        rewards = heads.rewards(self.features)
        targets = self.ratings.expand_as(rewards).flatten(0, 1)
        values = losses.regression_loss(rewards.flatten(0, 1), targets).view(len(rewards), -1)
        return values.sum(dim=1) / self.n_rated


@dataclass(frozen=True)
class Fitted:
    """Trained heads, and the loss of each on its way: `curve[i]` before the step `steps[i]`, counted from 1."""

    heads: AnyHeads
    steps: list[int]
    curve: Float[np.ndarray, "step head"]

    @classmethod
    def stack(cls, parts: Sequence[Self]) -> Self:
        """What was fitted in several parts, one after the other."""
        kind: Any = type(parts[0].heads)
        heads = kind.stack([part.heads for part in parts])
        return cls(heads, parts[0].steps, np.concatenate([part.curve for part in parts], axis=1))

    def __getitem__(self, index: slice | Sequence[int]) -> Self:
        return type(self)(self.heads[index], self.steps, self.curve[:, index])


def descend(
    start: AnyHeads, loss_of: Callable[[AnyHeads], Float[Tensor, "head"]], learning_rate: Float[Tensor, "head"],
    weight_decay: Float[Tensor, "head"], settings: TrainSettings,
) -> Fitted:  # fmt: skip
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
    placeholder = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = scheduler_for(settings.schedule, settings.warmup_steps, placeholder, settings.max_steps)
    for step in range(settings.max_steps):
        loss = loss_of(heads)
        loss.sum().backward()  # heads share nothing, so the gradient of the sum is each head's own
        if step in kept:
            _refuse_non_finite(loss, step)
            steps.append(step + 1)
            curve.append(loss.detach().numpy().copy())
        gradients = [tensor.grad for tensor in heads.tensors.values() if tensor.grad is not None]
        norm = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)
        clip = (settings.clip_norm / (norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_ does it
        for moment in moments:
            moment.step(clip, learning_rate * scheduler.lr_lambdas[0](step), weight_decay)
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


def _refuse_non_finite(loss: Float[Tensor, "head"], step: int) -> None:
    if bad := torch.nonzero(~torch.isfinite(loss)).flatten().tolist():
        raise ValueError(f"after {step} steps the loss of heads {bad[:5]} is not finite; lower their learning rates")
