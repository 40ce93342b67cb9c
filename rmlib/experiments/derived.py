"""Arms made without a step of training: extrapolated, weighed, brought to the rating scale.

One rule for models and for heads: `fitted` says what their record says, and both are made from that alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float
from torch import Tensor

from rmlib import combining
from rmlib.experiments import sweeps
from rmlib.experiments.arms import ARMS, changes
from rmlib.experiments.grid_choice import ArmFit
from rmlib.experiments.scoring import score_pairs, scorer
from rmlib.models import RewardModel
from rmlib.pairs.views import decided, margins_of_chosen, preferences, ratings_of
from rmlib.sources import Splits
from rmlib.training.head_stacks import AnyHeads, Heads

# Margins of the decided pairs by the model, or head, that lies at a factor on the line from the weak to the strong one.
MarginsAt = Callable[[float], Float[np.ndarray, "decided"]]
Rewards = Callable[[], Float[np.ndarray, "pair 2"]]


def fitted(arm: str, splits: Splits, margins_at: MarginsAt, rewards: Rewards) -> dict[str, Any]:
    """What an arm takes beside its parents: a factor, weights of attributes, or a line; the arm's record says it.

    `margins_at` and `rewards`: of the selection pairs, the second by the one parent; asked only where an arm needs it.
    Attributes are weighed by the annotators' ratings and preferences of the training pairs, not by the model's
    predictions of them: those of pairs it was trained on are better than any others. Errors of the weights as in
    `combining.fit_attribute_weights`.
    """
    change = ARMS[arm].change
    if "extrapolate" in change:
        sweep = sweeps.around_best(lambda factor: sweeps.ordering_of(margins_at(factor)))
        return {"factor": sweeps.best_factor(sweep), "sweep": sweep}
    if "attribute_weights" in change:
        attributes = changes(arm)["attributes"]
        weights = combining.fit_attribute_weights(ratings_of(splits.train, attributes), preferences(splits.train))
        return {"attribute_weights": dict(zip(attributes, weights.tolist(), strict=True))}
    return line_to_ratings(rewards(), splits)


def line_to_ratings(rewards: Float[np.ndarray, "pair 2"], splits: Splits) -> dict[str, float]:
    """Scale and offset that bring rewards of the selection pairs to their ratings, and the error that is left.

    Where the scale is positive, as for any model that learnt something, no order changes, and no accuracy either.
    """
    flat, ratings = rewards.ravel(), ratings_of(splits.selection, ("helpfulness",)).ravel()
    scale, offset = combining.fit_affine(flat, ratings)
    error = float(np.sqrt(np.nanmean((scale * flat + offset - ratings) ** 2)))
    return {"scale": scale, "offset": offset, "selection_root_mean_squared_error": error}


# --- models -----------------------------------------------------------------------------------------------------------


def derived_model(
    arm: str, parents: Sequence[RewardModel], splits: Splits, *, frozen: bool
) -> tuple[RewardModel, dict[str, Any]]:
    """The model of an arm from those it is made from (`arms.waits_for`), and what was fitted."""
    parent = parents[0]
    fit = fitted(
        arm,
        splits,
        margins_at(parents[-1], parent, splits.selection, frozen=frozen),
        lambda: score_pairs(scorer(parent, frozen=frozen), splits.selection),
    )
    if "factor" in fit:
        return combining.extrapolate(parents[1], parent, fit["factor"]), fit
    if "attribute_weights" in fit:
        return combining.weigh_attributes(parent, fit["attribute_weights"]), fit
    return combining.rescale(parent, fit["scale"], fit["offset"]), fit


def margins_at(weak: RewardModel, strong: RewardModel, pairs: Dataset, *, frozen: bool) -> MarginsAt:
    """Margins of the decided pairs, which alone are scored, by the extrapolation from `weak` by a factor."""
    kept = decided(pairs)

    def margins(factor: float) -> Float[np.ndarray, "decided"]:
        model = combining.extrapolate(weak, strong, factor)
        return margins_of_chosen(kept, score_pairs(scorer(model, frozen=frozen), kept))

    return margins


# --- heads ------------------------------------------------------------------------------------------------------------


def derived_heads(arm: str, parents: Sequence[ArmFit], splits: Splits, texts: Float[Tensor, "text hidden"]) -> ArmFit:
    """The heads of an arm from the fits of those it is made from, seed by seed; `texts`: of the selection pairs."""
    parent = parents[0].outputs if "attribute_weights" in ARMS[arm].change else parents[0].heads
    weak = parents[-1].heads
    assert isinstance(parent, Heads) and isinstance(weak, Heads)
    margins = heads_margins_at(weak, parents[0].heads, splits.selection, texts)
    rewards = _of_pairs(parents[0].heads, texts)
    details = [fitted(arm, splits, at, lambda own=own: own) for at, own in zip(margins, rewards, strict=True)]  # type: ignore[misc]
    if "factor" in details[0]:
        factor = torch.tensor([fit["factor"] for fit in details])
        made = Heads(
            weak.weight + factor[:, None, None] * (parent.weight - weak.weight),
            weak.bias + factor[:, None] * (parent.bias - weak.bias),
        )
    elif "attribute_weights" in details[0]:  # the same for all seeds
        made = parent.weighted(list(details[0]["attribute_weights"].values()))
        return ArmFit(made, parent, details=details)
    else:
        own = [parent[[index]].weighted([fit["scale"]], fit["offset"]) for index, fit in enumerate(details)]
        made = Heads.stack(own)
    return ArmFit(made, made, details=details)


def heads_margins_at(
    weak: AnyHeads, strong: AnyHeads, pairs: Dataset, texts: Float[Tensor, "text hidden"]
) -> list[MarginsAt]:
    """Of each seed what `margins_at` gives: rewards of a linear head extrapolate as its weights do."""

    def between(low: np.ndarray, high: np.ndarray) -> MarginsAt:
        return lambda factor: margins_of_chosen(pairs, low + factor * (high - low))

    return [between(low, high) for low, high in zip(_of_pairs(weak, texts), _of_pairs(strong, texts), strict=True)]


def _of_pairs(heads: AnyHeads, texts: Float[Tensor, "text hidden"]) -> Float[np.ndarray, "head pair 2"]:
    """Rewards of both responses of every pair."""
    with torch.no_grad():
        return heads.rewards(texts)[..., 0].reshape(len(heads), -1, 2).numpy()
