"""Many heads on the features of a frozen backbone, trained together: full batch, one matrix product a step.

Each head takes the steps that `training` gives a single one: the losses of `losses`, AdamW with decoupled decay of the
matrices alone, the same clipping, warm-up and schedule. Heads differ in loss, learning rate, weight decay, start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from rmlib import losses
from rmlib.models.network import draw_head
from rmlib.training.stack_descent import Stack

PARTS = ("weight", "bias")  # of a layer


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
    def often(self) -> bool:
        """Whether texts are compared so often that reading each once, and not each pair's difference, saves time."""
        return len(self.distinct[0]) < len(self.chosen) // 2

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


class _Heads(Stack):
    """What heads of one layer and of two have in common; the first of their tensors reads the features."""

    N_LAYERS: ClassVar[int]

    @classmethod
    def draw(cls, hidden_size: int, n_attributes: int, seeds: Sequence[int], beyond: int = 0) -> Self:
        """One head for each seed: the one that `RewardModel.create` draws on a pretrained backbone.

        `beyond`: features beside the backbone's own; they start at weight 0.
        """
        drawn = [draw_head(hidden_size, n_attributes, seed, cls.N_LAYERS) for seed in seeds]
        layers = [[layer for layer in head.modules() if isinstance(layer, nn.Linear)] for head in drawn]
        by_layer = list(zip(*layers, strict=True))
        tensors = [torch.stack([getattr(one, name).data for one in of_all]) for of_all in by_layer for name in PARTS]
        tensors[0] = nn.functional.pad(tensors[0], (0, beyond))
        return cls(**dict(zip(cls.names(), tensors, strict=True)))

    @property
    def n_inputs(self) -> int:
        return self.tensors[self.names()[0]].shape[-1]


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
        if pairs.often:
            return _Differences.apply(self._outputs(pairs.distinct[0])[:, 0], pairs)
        return self._outputs(pairs.difference)[:, 0]

    def _outputs(self, features: Float[Tensor, "text hidden"]) -> Float[Tensor, "head attribute text"]:
        # One product for the whole stack; each head's outputs lie in a row, so that a loss of some heads is a view.
        return (self.weight.flatten(0, 1) @ features.T).view(*self.bias.shape, len(features))

    def weighted(self, weights: Sequence[float], offset: float = 0.0) -> Heads:
        """Heads with one output each, the sum of the attributes weighted by `weights`, plus `offset`."""
        row = torch.tensor(weights, dtype=self.weight.dtype)
        return Heads((row @ self.weight)[:, None], (self.bias @ row)[:, None] + offset)


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
    """Margins of pairs from rewards of their texts; backwards one sparse product, where indexing would take long."""

    @staticmethod
    def forward(ctx: Any, rewards: Float[Tensor, "head text"], pairs: Compared) -> Float[Tensor, "head pair"]:
        ctx.pairs = pairs
        _, (chosen, rejected) = pairs.distinct
        return rewards.index_select(1, chosen) - rewards.index_select(1, rejected)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Float[Tensor, "head text"], None]:
        return torch.from_numpy(ctx.pairs.signs @ gradients[0].T.numpy()).T, None


def _paired(heads: AnyHeads, pairs: Compared) -> tuple[Float[Tensor, "head pair"], Float[Tensor, "head pair"]]:
    """Rewards of the chosen and of the rejected text of each pair."""
    texts, (chosen, rejected) = pairs.distinct
    rewards = heads.rewards(texts)[..., 0]
    return rewards.index_select(1, chosen), rewards.index_select(1, rejected)


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
        self._check(heads)
        if not self.regression_weight:
            return self._of_margins(heads.margins(self.pairs))
        both = torch.stack(_paired(heads, self.pairs), dim=2)
        assert self.ratings is not None, "regression_weight needs ratings"
        errors = losses.regression_loss(both.flatten(0, 1), self.ratings.repeat(len(both), 1)).view(both.shape[:2])
        return self._of_margins(both[..., 0] - both[..., 1]) + self.regression_weight * errors.mean(dim=1)

    def _of_margins(self, margins: Float[Tensor, "head pair"]) -> Float[Tensor, "head"]:
        parts = margins.split([labels.n_heads for labels in self.labels])
        means = [own.values(part).sum(dim=1) for own, part in zip(self.labels, parts, strict=True)]
        return torch.cat(means) / margins.shape[1]

    def _check(self, heads: AnyHeads) -> None:
        if heads.n_inputs != self.pairs.chosen.shape[-1]:
            raise ValueError(f"features have width {self.pairs.chosen.shape[-1]}, heads read {heads.n_inputs}")
        if (labelled := sum(labels.n_heads for labels in self.labels)) != len(heads):
            raise ValueError(f"labels are for {labelled} heads, the stack has {len(heads)}")


@dataclass(frozen=True)
class RegressionLoss:
    """Each head's mean squared error over the rated texts; `descend` minimises it."""

    features: Float[Tensor, "text hidden"]
    ratings: Float[Tensor, "text attribute"]  # NaN: not rated
    n_rated: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_rated", int(losses.is_rated(self.ratings).sum()))

    def __call__(self, heads: AnyHeads) -> Float[Tensor, "head"]:
        rewards = heads.rewards(self.features)
        targets = self.ratings.expand_as(rewards).flatten(0, 1)
        values = losses.regression_loss(rewards.flatten(0, 1), targets).view(len(rewards), -1)
        return values.sum(dim=1) / self.n_rated
