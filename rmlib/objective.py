"""What training minimises and evaluation measures: rewards and losses of some examples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from rmlib import batches, losses
from rmlib.examples import Examples
from rmlib.models import RewardModel
from rmlib.settings import TrainSettings


def rewards_of(
    model: RewardModel, examples: Examples, indices: Sequence[int], precision: str = "fp32"
) -> Float[Tensor, "pair 2 attribute"]:
    """Rewards of both responses of some examples, from kept features where the backbone is frozen."""
    if examples.features is not None:
        rewards = model.read(examples.features[list(indices)].to(model.device))
    else:
        batch = model.collate([examples.groups[index] for index in indices])
        with torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16"):
            rewards = model(batch)
    return rewards.view(len(indices), 2, -1)


def example_losses(
    settings: TrainSettings, rewards: Float[Tensor, "pair 2 attribute"], examples: Examples, indices: Sequence[int]
) -> Float[Tensor, "example"]:
    """One loss per pair, or per response for regression (0 for a response without a rating).

    With a `regression_weight` a pair's loss is its preference loss plus that weight times the squared error, averaged
    over the ratings of both its responses. One output serves both, in rating points, as the paper's second stage has
    it: heads of their own on a frozen backbone would be two unrelated models.
    """
    rows = list(indices)
    if settings.loss == "regression":
        return losses.regression_loss(rewards.flatten(0, 1), examples.ratings[rows].to(rewards.device).flatten(0, 1))
    strength = examples.strength[rows].to(rewards.device)
    target = None if examples.target is None else examples.target[rows].to(rewards.device)
    loss = losses.pair_loss(settings.loss, rewards[:, 0, 0], rewards[:, 1, 0], strength, target)
    if settings.regression_weight:
        ratings = examples.ratings[rows].to(rewards.device).flatten(1)
        loss = loss + settings.regression_weight * losses.regression_loss(rewards.flatten(1), ratings)
    return loss


def n_valid(loss: str, examples: Examples, indices: Sequence[int]) -> int:
    """How many examples a loss is averaged over: pairs, or responses that carry a rating."""
    if loss != "regression":
        return len(indices)
    return int(losses.is_rated(examples.ratings[list(indices)].flatten(0, 1)).sum())


@torch.no_grad()
def evaluate(model: RewardModel, examples: Examples, settings: TrainSettings) -> dict[str, float]:
    """Mean loss and strict accuracy of the first attribute over all examples, each counted once.

    A tie counts as wrong; accuracy is over decided pairs and NaN where there are none.
    """
    was_training = model.training
    model.eval()
    total, correct = 0.0, 0
    for indices in forward_batches(model, examples, range(len(examples)), settings.token_budget):
        rewards = rewards_of(model, examples, indices, settings.precision)
        total += float(example_losses(settings, rewards, examples, indices).double().sum())
        margin = (rewards[:, 0, 0] - rewards[:, 1, 0]).cpu() * examples.strength[indices]
        correct += int((margin > 0).sum())
    model.train(was_training)
    decided = int((examples.strength != 0).sum())
    count = n_valid(settings.loss, examples, range(len(examples)))
    return {"loss": total / count, "accuracy": correct / decided if decided else math.nan}


def forward_batches(
    model: RewardModel, examples: Examples, indices: Sequence[int], token_budget: int
) -> Iterator[list[int]]:
    """The indices, one list per forward pass: within the token budget, or all at once where features are kept."""
    if examples.features is not None:
        yield list(indices)
        return
    for batch in batches.pack([examples.groups[index] for index in indices], token_budget, shared=model.shared):
        yield [indices[position] for position in batch]
