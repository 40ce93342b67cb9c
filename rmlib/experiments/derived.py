"""Models made of a trained one without further training: attributes weighed, rewards brought to the rating scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from jaxtyping import Float

from rmlib import combining
from rmlib.models import RewardModel
from rmlib.sources.splits import Splits
from rmlib.training.examples import ratings_of

# Rewards of both responses of every pair of a table by the model that is changed.
Score = Callable[[Dataset], Float[np.ndarray, "pair 2"]]


def weighed(model: RewardModel, splits: Splits, score: Score) -> tuple[RewardModel, dict[str, Any]]:
    """One output with attribute weights fitted to the annotators' ratings and preferences of the training pairs.

    To ratings, not to the model's predictions of them: those of pairs it was trained on are better than any others.
    """
    weights = fitted_weights(splits, model.attributes)
    return combining.weigh_attributes(model, weights), {"attribute_weights": weights}


def fitted_weights(splits: Splits, attributes: Sequence[str]) -> dict[str, float]:
    """The weight of each attribute that `weighed` takes; errors as `combining.fit_attribute_weights`."""
    fitted = combining.fit_attribute_weights(ratings_of(splits.train, attributes), preferences(splits.train))
    return dict(zip(attributes, fitted.tolist(), strict=True))


def calibrated(model: RewardModel, splits: Splits, score: Score) -> tuple[RewardModel, dict[str, Any]]:
    """Rewards on the scale of helpfulness ratings, by the line fitted on the selection split.

    Where the scale is positive, as for any model that learnt something, no order changes, and no accuracy either.
    """
    fit = line_to_ratings(score(splits.selection), splits)
    return combining.rescale(model, fit["scale"], fit["offset"]), fit


def line_to_ratings(rewards: Float[np.ndarray, "pair 2"], splits: Splits) -> dict[str, float]:
    """Scale and offset that bring rewards of the selection pairs to their ratings, and the error that is left."""
    flat, ratings = rewards.ravel(), ratings_of(splits.selection, ("helpfulness",)).ravel()
    scale, offset = combining.fit_affine(flat, ratings)
    error = float(np.sqrt(np.nanmean((scale * flat + offset - ratings) ** 2)))
    return {"scale": scale, "offset": offset, "selection_root_mean_squared_error": error}


# By the name of the change that an arm makes.
DERIVATIONS = {"attribute_weights": weighed, "affine": calibrated}


def preferences(pairs: Dataset) -> Float[np.ndarray, "pair"]:
    """The preferences (positive: response 2), NaN where there is none."""
    return np.array([np.nan if value is None else value for value in pairs["preference"][:]], dtype=float)
