"""Arms fine-tuned on several folds, their test pairs pooled: one record for each arm and seed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rmlib.experiments import arm_models
from rmlib.experiments.presets import Preset
from rmlib.experiments.recording import record_arm, record_folds, shared_by, whole
from rmlib.records.hashing import fingerprint
from rmlib.sources import Splits
from rmlib.training.examples import by_prompt

# Pairs of one prompt stand together in a step, each of its texts encoded once: a step of many pairs costs few texts,
# and so takes a larger learning rate than one of few.
TOGETHER = {"shuffle": False, "pairs_per_step": 256, "token_budget": 2**18, "learning_rate": 1e-4}


def finetune(arms: Sequence[str], settings: Preset, folds: Sequence[Splits], seeds: Iterable[int], file: Path) -> None:
    """Train every arm on each fold under each seed, and record the pooled test pairs as one run an arm and seed.

    The training pairs come prompt by prompt (`by_prompt`); with settings as in TOGETHER a step is of few.
    A fold that was finished is found again, so an interrupted call goes on.
    """
    seeds = list(seeds)
    comparison = fingerprint(settings.to_dict(), [splits.identity for splits in folds])
    shared = shared_by(settings, folds, comparison)
    record_folds(comparison, settings, folds, file)
    for arm in arms:
        for seed in seeds:
            started = time.perf_counter()
            ordered = [replace(splits, train=by_prompt(splits.train, seed)) for splits in folds]
            found = [arm_models.obtain(arm, settings, splits, seed, progress=True) for splits in ordered]
            each = zip([one.model_folder for one in found], ordered, strict=True)
            read = [arm_models.rewards_on_test(folder, splits, settings) for folder, splits in each]
            record_arm(
                file,
                arm,
                settings,
                shared,
                seed=seed,
                seconds=time.perf_counter() - started,
                pairs=whole(folds).test,
                rewards=np.concatenate([rewards for rewards, _ in read]),
                n_cut=sum(n_cut for _, n_cut in read),
                made={"training": _pooled([one.details["training"] for one in found])},
            )


def _pooled(trainings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean of the curves of all folds, as far as the shortest reaches, and each fold's training."""
    curves = [training["curve"] for training in trainings]
    shortest = min(len(curve) for curve in curves)
    mean = np.mean([curve[:shortest] for curve in curves], axis=0).round(6).tolist()
    return {"curve": mean, "folds": list(trainings)}
