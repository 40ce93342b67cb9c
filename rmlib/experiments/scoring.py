"""Rewards of pairs: by a model or a baseline, kept beside a model, and as margins of the decided pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float

from rmlib import combining, records, statistics
from rmlib.models import RewardModel
from rmlib.models.features import FromFeatures
from rmlib.pairs.views import margins_of_chosen, texts_of
from rmlib.records.hashing import hash_of_code
from rmlib.records.kept import kept_json
from rmlib.sources import Splits

# Weights of the five attributes in the scalar reward: published for the parent's Llama-3-70B model.
ATTRIBUTE_WEIGHTS_OF = "Llama-3-70B"


def score_pairs(model: Any, pairs: Dataset) -> Float[np.ndarray, "pair 2"]:
    """Rewards of both responses of every pair, by anything with a `score`."""
    return np.asarray(model.score(*texts_of(pairs))).reshape(-1, 2)


def scorer(model: RewardModel, *, frozen: bool) -> RewardModel | FromFeatures:
    """What scores fastest: on a GPU if there is one; of a frozen backbone features are computed once."""
    if torch.cuda.is_available():
        model.to("cuda")
    return FromFeatures(scalar_model(model)) if frozen else scalar_model(model)


def scalar_model(model: RewardModel) -> RewardModel:
    """The model itself, or with several attributes the one output that the parent's published weights make of them."""
    if len(model.attributes) == 1:
        return model
    return combining.weigh_attributes(model, published_weights(model.attributes))


def published_weights(attributes: Sequence[str]) -> dict[str, float]:
    """The parent's published weight of each attribute."""
    table = records.published("attribute_weights").set_index("model").loc[ATTRIBUTE_WEIGHTS_OF]
    return {name: float(table.to_dict()[name]) for name in attributes}


def rewards_file(model_folder: Path, part: str, splits: Splits) -> Path:
    """Where rewards of a split ("selection", "test") are kept beside a model, as long as the code making them stays."""
    return model_folder.parent / f"rewards-{part}-{splits.identity}-{hash_of_code('models', 'combining')}.json"


def kept_rewards(model_folder: Path, part: str, splits: Splits, *, frozen: bool) -> tuple[np.ndarray, int]:
    """Rewards of the pairs of a split, and the number of texts cut; computed once, then read from `rewards_file`."""
    pairs: Dataset = getattr(splits, part)

    def make() -> dict[str, Any]:
        model = RewardModel.load(model_folder)
        rewards = score_pairs(scorer(model, frozen=frozen), pairs)
        return {"rewards": rewards.tolist(), "n_cut": int(model.encode(*texts_of(pairs)).cut.sum())}

    kept = kept_json(rewards_file(model_folder, part, splits), make)
    return np.array(kept["rewards"]), kept["n_cut"]


def outcome_of(pairs: Dataset, rewards: Float[np.ndarray, "pair 2"]) -> dict[str, Any]:
    """What a record says of the rewards of some pairs: accuracy and margins of the decided ones, spread of rewards."""
    margin = margins_of_chosen(pairs, rewards)
    return {
        "accuracy": statistics.accuracy(margin),
        "n_test": len(margin),
        "n_equal": int((margin == 0).sum()),
        "margins": rounded(margin),
        "reward_mean": float(rewards.mean()),
        "reward_sd": float(rewards.std()),
    }


def rounded(margin: Float[np.ndarray, "decided"]) -> list[float]:
    """Margins as records hold them, five digits each."""
    return [float(f"{value:.5g}") for value in margin]
