"""What training minimises and evaluation measures: rewards and losses of some examples."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rmlib import losses
from rmlib.models import RewardModel, batches
from rmlib.models.batches import Batch
from rmlib.training.examples import Examples
from rmlib.training.parallel import ALONE, Processes, shares
from rmlib.training.settings import TrainSettings

logger = logging.getLogger(__name__)

# A batch of distinct texts, and which of them each response is (None: they are all distinct).
Merged = tuple[Batch, np.ndarray | None]


class Lookahead:
    """Makes batches, those that it was told of ahead of time in a thread of its own, while the one before trains."""

    def __init__(self, make: Callable[[Sequence[int]], Merged]) -> None:
        self.make = make
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lookahead")  # starts no thread before it is given work
        self._made: dict[tuple[int, ...], Future[Merged]] = {}

    def start(self, lists: Iterable[Sequence[int]]) -> None:
        """Make these next, but for what is made already or on its way."""
        for indices in lists:
            if tuple(indices) not in self._made:
                self._made[tuple(indices)] = self._thread.submit(self.make, indices)

    def take(self, indices: Sequence[int]) -> Merged:
        """What belongs to these indices: waited for where it is on its way, else made now."""
        started = self._made.pop(tuple(indices), None)
        return self.make(indices) if started is None else started.result()


def rewards_of(
    model: RewardModel, examples: Examples, indices: Sequence[int], precision: str = "fp32",
    ahead: Lookahead | None = None, call: Callable[..., Tensor] | None = None,
) -> Float[Tensor, "pair response attribute"]:  # fmt: skip
    """Rewards of the responses of some examples, from kept features where the backbone is frozen.

    A text that occurs in several of them is encoded once. Two responses a pair; fewer responses than others have, of a
    ranking or a single one, are padded with what means nothing. `ahead` may have made the batch already. `call` stands
    for the model where it is wrapped (`parallel.Wrapped`).
    """
    call = call or model
    if examples.features is not None:
        return call(examples.features[list(indices)].to(model.device))
    batch, place = ahead.take(indices) if ahead else batch_of(model, examples, indices)
    with torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16"):
        rewards = call(batch)
    rewards = rewards if place is None else rewards[torch.from_numpy(place).to(rewards.device)]
    return pad_sequence(rewards.split(examples.sizes(indices)), batch_first=True)


def batch_of(model: RewardModel, examples: Examples, indices: Sequence[int]) -> Merged:
    """What the model reads of some examples."""
    groups, place = batches.merged([examples.groups[index] for index in indices])
    return model.collate(groups), place


def is_response(
    rewards: Float[Tensor, "pair response attribute"], examples: Examples, indices: Sequence[int]
) -> Bool[Tensor, "pair response"]:
    """Which entries of `rewards_of` belong to a response; the others are padding."""
    sizes = torch.tensor(examples.sizes(indices), device=rewards.device)
    return torch.arange(rewards.shape[1], device=rewards.device) < sizes[:, None]


def example_losses(
    settings: TrainSettings, rewards: Float[Tensor, "pair response attribute"], examples: Examples,
    indices: Sequence[int],
) -> Float[Tensor, "example"]:  # fmt: skip
    """One loss per pair or ranking, or per response for regression (0 for a response without a rating).

    With a `regression_weight` a pair's loss is its preference loss plus that weight times the squared error, averaged
    over the ratings of both its responses. One output serves both, in rating points, as the paper's second stage has
    it: heads of their own on a frozen backbone would be two unrelated models.
    """
    rows = list(indices)
    if settings.loss == "regression":
        ratings = examples.ratings[rows, : rewards.shape[1]].to(rewards.device)  # one side where all are single
        return losses.regression_loss(rewards.flatten(0, 1), ratings.flatten(0, 1))
    if settings.loss == losses.RANKING_LOSS:
        return losses.plackett_luce_loss(rewards[..., 0], is_response(rewards, examples, rows))
    strength = examples.strength[rows].to(rewards.device)
    target = None if examples.target is None else examples.target[rows].to(rewards.device)
    loss = losses.pair_loss(settings.loss, rewards[:, 0, 0], rewards[:, 1, 0], strength, target)
    if settings.regression_weight:
        ratings = examples.ratings[rows].to(rewards.device).flatten(1)
        loss = loss + settings.regression_weight * losses.regression_loss(rewards.flatten(1), ratings)
    return loss


def n_valid(loss: str, examples: Examples, indices: Sequence[int]) -> int:
    """How many examples a loss is averaged over: pairs or rankings, or responses that carry a rating."""
    if loss != "regression":
        return len(indices)
    return int(losses.is_rated(examples.ratings[list(indices)].flatten(0, 1)).sum())


@torch.no_grad()
def evaluate(
    model: RewardModel, examples: Examples, settings: TrainSettings, processes: Processes = ALONE
) -> dict[str, float]:
    """Mean loss and strict accuracy of the first attribute over all examples, each counted once by one process.

    A tie counts as wrong; accuracy is over decided pairs, of a ranking all its pairs, and NaN where there are none.
    Where all of several pairs are ties, as after a run that diverged, this is warned of.
    """
    was_training = model.training
    model.eval()
    total, correct, tied, decided = 0.0, 0, 0, 0
    for indices, counts in passes(model, examples, range(len(examples)), settings.token_budget, processes):
        rewards = rewards_of(model, examples, indices, settings.precision)
        if not counts:
            continue
        total += float(example_losses(settings, rewards, examples, indices).double().sum())
        first, second = torch.triu_indices(rewards.shape[1], rewards.shape[1], offset=1)  # (0, 1) alone for pairs
        margin = (rewards[:, first, 0] - rewards[:, second, 0]).cpu() * examples.strength[indices, None]
        compared = is_response(rewards, examples, indices)[:, second].cpu() & (examples.strength[indices, None] != 0)
        correct += int((margin[compared] > 0).sum())
        tied += int((margin[compared] == 0).sum())
        decided += int(compared.sum())
    model.train(was_training)
    total, n_correct, n_tied, n_decided = processes.sum(total, correct, tied, decided)
    if n_tied == n_decided > 1:
        logger.warning(
            "both responses of each of %d pairs got equal rewards: if this model was trained, it may have diverged; "
            "lower the learning rate", n_decided,
        )  # fmt: skip
    count = n_valid(settings.loss, examples, range(len(examples)))
    return {"loss": total / count, "accuracy": n_correct / n_decided if n_decided else math.nan}


def passes(
    model: RewardModel, examples: Examples, indices: Sequence[int], token_budget: int, processes: Processes
) -> list[tuple[list[int], bool]]:
    """This process's share of the indices, one list per forward pass, and whether it counts.

    Every process makes as many passes, since all take part in each exchange of weights or gradients: one whose share
    is used up repeats a short example, which is not to be counted.
    """
    dealt = shares(examples.groups, indices, processes.size)
    packed = [forward_batches(model, examples, share, token_budget) if share else [] for share in dealt]
    own, n_passes = packed[processes.rank], max(map(len, packed))
    filler = [min(indices, key=lambda index: examples.groups[index].n_tokens_shared)]
    return [(batch, True) for batch in own] + [(filler, False)] * (n_passes - len(own))


def forward_batches(
    model: RewardModel, examples: Examples, indices: Sequence[int], token_budget: int
) -> list[list[int]]:
    """The indices, one list per forward pass: within the token budget, or all at once where features are kept."""
    if examples.features is not None:
        return [list(indices)]
    packed = batches.pack([examples.groups[index] for index in indices], token_budget, shared=model.shared)
    return [[indices[position] for position in batch] for batch in packed]
