"""What a policy is rewarded by: any scorer, its texts written anew in the scorer's own template and tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from rmlib.alignment.policies import Samples
from rmlib.combining import Ensemble
from rmlib.experiments.scoring import scalar_model
from rmlib.models import AsGiven, Prompt, RewardModel, Scorer
from rmlib.models.classifiers import DecoderClassifier, PlainClassifier, load_classifier
from rmlib.models.network import hash_of_weights
from rmlib.models.reward_model import CARD_FILE
from rmlib.records.hashing import fingerprint


class AlignmentError(ValueError):
    """An optimisation that cannot go on, or whose parts do not fit: says what, where, and what to do."""


def load_reward(source: str | Path) -> Scorer:
    """The reward of a folder of ours (several attributes weighed as published), or of a sequence classifier.

    A classifier is a folder, such as `RewardModel.export` writes, or a hub id. Raises ModelError and BackboneError.
    """
    if (Path(source) / CARD_FILE).is_file():
        return scalar_model(RewardModel.load(source))
    return load_classifier(source)


def reward_identity(reward: Scorer) -> str:
    """What names a reward in the name of a run. Raises AlignmentError for one that has no identity."""
    if isinstance(reward, Ensemble):
        scales = reward.reference or [reward.offsets.tolist(), reward.scales.tolist()]
        return fingerprint("ensemble", *(reward_identity(member) for member in reward.members), scales)
    if isinstance(reward, DecoderClassifier):  # the identity of one of ours says how it was made, this one's its name
        return fingerprint("classifier", hash_of_weights(reward))
    if isinstance(reward, PlainClassifier):
        return fingerprint("classifier", hash_of_weights(reward.network), reward.row.tolist())
    known = getattr(reward, "identity", None) or getattr(reward, "name", None)
    if not isinstance(known, str):
        raise AlignmentError(f"a {type(reward).__name__} has neither identity nor name: give it one to name its runs")
    return known


def scores_of(scorer: Scorer, prompts: Sequence[Prompt], texts: Sequence[str]) -> Float[np.ndarray, "response"]:
    """One number for each text. Raises AlignmentError where the scorer gives several."""
    values = np.asarray(scorer.score(prompts, AsGiven(texts)), dtype=np.float64)
    if values.shape != (len(texts),):
        raise AlignmentError(
            f"{len(texts)} responses got rewards of shape {values.shape}: a policy needs one number a response; fold "
            "several attributes with combining.weigh_attributes"
        )
    return values


def rewards_of(reward: Scorer, samples: Samples) -> Tensor:
    """Rewards `[prompt, sample]` of generated texts, each prompt encoded once.

    A text that did not end is scored too, and may get NaN. Raises AlignmentError where the reward of one that ended is
    not a finite number, and as `scores_of`.
    """
    given = scores_of(reward, samples.repeated_prompts, samples.texts)
    broken = np.flatnonzero(~np.isfinite(given) & samples.ended)
    if len(broken):
        text = samples.texts[broken[0]]
        raise AlignmentError(
            f"{len(broken)} of {len(samples)} responses got a reward that is no finite number, e.g. {text[:60]!r}: "
            "score this text alone, and mend the reward model; the last checkpoint is kept"
        )
    return torch.from_numpy(given).float().view(len(samples.prompts), samples.n_per_prompt)
