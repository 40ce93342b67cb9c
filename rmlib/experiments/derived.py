"""Arms made without a step of training: extrapolated, weighed, brought to the rating scale.

One rule for models and for heads: `fitted` says what their record says, and both are made from that alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from jaxtyping import Float

from rmlib import combining
from rmlib.experiments import sweeps
from rmlib.experiments.arms import ARMS, changes
from rmlib.experiments.scoring import score_pairs, scorer
from rmlib.models import RewardModel
from rmlib.pairs.views import decided, margins_of_chosen, preferences, ratings_of
from rmlib.sources import Splits

# Margins of the decided pairs by the model, or head, that lies at a factor on the line from the weak to the strong one.
MarginsAt = Callable[[float], Float[np.ndarray, "decided"]]
Rewards = Callable[[], Float[np.ndarray, "pair 2"]]


def fitted(arm: str, splits: Splits, margins_at: MarginsAt, rewards: Rewards) -> dict[str, Any]:
    """What an arm takes beside its parents: a factor, weights of attributes, or a line to ratings; its record says it.

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
    flat, ratings = rewards().ravel(), ratings_of(splits.selection, ("helpfulness",)).ravel()
    # Where the scale is positive, as for any model that learnt something, no order changes, and no accuracy either.
    scale, offset = combining.fit_affine(flat, ratings)
    error = float(np.sqrt(np.nanmean((scale * flat + offset - ratings) ** 2)))
    return {"scale": scale, "offset": offset, "selection_root_mean_squared_error": error}


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
