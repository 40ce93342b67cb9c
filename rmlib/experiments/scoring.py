"""Rewards of pairs: by a model or a baseline, kept beside a model, and as margins of the decided pairs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from jaxtyping import Float

from rmlib import combining, records, statistics
from rmlib.experiments.presets import Preset
from rmlib.models import RewardModel
from rmlib.models.features import FromFeatures
from rmlib.records.files import write_json

# Weights of the five attributes in the scalar reward: published for the parent's Llama-3-70B model.
ATTRIBUTE_WEIGHTS_OF = "Llama-3-70B"


def score_pairs(model: Any, pairs: Dataset) -> Float[np.ndarray, "pair 2"]:
    """Rewards of both responses of every pair, by anything with a `score`."""
    return np.asarray(model.score(*_texts(pairs))).reshape(-1, 2)


def _texts(pairs: Dataset) -> tuple[list[Any], list[str]]:
    """Prompts and responses as flat lists, both responses of a pair in a row."""
    prompts = [prompt for prompt in pairs["prompt"][:] for _ in range(2)]
    return prompts, [text for two in zip(pairs["response_1"][:], pairs["response_2"][:], strict=True) for text in two]


def scorer(model: RewardModel, settings: Preset) -> RewardModel | FromFeatures:
    """What scores fastest under a preset: on a GPU if there is one; of a frozen backbone features are computed once."""
    if torch.cuda.is_available():
        model.to("cuda")
    return FromFeatures(scalar_model(model)) if settings.frozen else scalar_model(model)


def scalar_model(model: RewardModel) -> RewardModel:
    """The model itself, or with several attributes the one output that the parent's published weights make of them."""
    if len(model.attributes) == 1:
        return model
    return combining.weigh_attributes(model, published_weights(model.attributes))


def published_weights(attributes: Sequence[str]) -> dict[str, float]:
    """The parent's published weight of each attribute."""
    table = records.published("attribute_weights").set_index("model").loc[ATTRIBUTE_WEIGHTS_OF]
    return {name: float(table.to_dict()[name]) for name in attributes}


def kept_rewards(file: Path, folder: Path, pairs: Dataset, settings: Preset) -> tuple[np.ndarray, int]:
    """Rewards of pairs by the model of a folder, and the number of texts cut; computed once, then read from `file`."""
    if not file.is_file():
        model = RewardModel.load(folder)
        rewards = score_pairs(scorer(model, settings), pairs)
        n_cut = int(model.encode(*_texts(pairs)).cut.sum())
        write_json(file, {"rewards": rewards.tolist(), "n_cut": n_cut})
    kept = json.loads(file.read_text())
    return np.array(kept["rewards"]), kept["n_cut"]


def oriented_margins(pairs: Dataset, rewards: Float[np.ndarray, "pair 2"]) -> Float[np.ndarray, "decided"]:
    """Reward of the chosen minus that of the rejected response, for the decided pairs in the order of the table."""
    preference = np.array([value or 0 for value in pairs["preference"][:]])
    margin = (rewards[:, 1] - rewards[:, 0]) * np.sign(preference)
    return margin[preference != 0]


def outcome_of(pairs: Dataset, rewards: Float[np.ndarray, "pair 2"]) -> dict[str, Any]:
    """What a record says of the rewards of some pairs: accuracy and margins of the decided ones, spread of rewards."""
    margin = oriented_margins(pairs, rewards)
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
