"""Runs over several folds, pooled: arms fine-tuned on each, and rulers on the test pairs of all."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from rmlib import experiments, records, statistics
from rmlib import pairs as tables
from rmlib.experiments import arm_models, grid_records, scoring
from rmlib.experiments.arms import changes, settings_for
from rmlib.experiments.presets import Preset
from rmlib.records import paths
from rmlib.records.hashing import fingerprint
from rmlib.sources.splits import Splits
from rmlib.training import distinct

# Pairs of one prompt stand together in a step, each of its texts encoded once: a step of many pairs costs few texts,
# and so takes a larger learning rate than one of few.
TOGETHER = {"shuffle": False, "pairs_per_step": 256, "token_budget": 2**18, "learning_rate": 1e-4}


def finetune(arms: Sequence[str], settings: Preset, folds: Sequence[Splits], seeds: Iterable[int], file: Path) -> None:
    """Train every arm on each fold under each seed, and record the pooled test pairs as one run an arm and seed.

    The training pairs come prompt by prompt (`distinct.by_prompt`); with settings as in TOGETHER a step is of few.
    A fold that was finished is found again, so an interrupted call goes on.
    """
    seeds, whole = list(seeds), grid_records.whole(folds)
    shared: dict[str, Any] = {
        "preset": settings.name,
        "comparison": fingerprint(settings.to_dict(), [splits.identity for splits in folds]),
        "source": asdict(whole.source),
        "n_train": round(float(np.mean([len(splits.train) for splits in folds]))),  # of a fold
    }
    grid_records.record_comparison(shared["comparison"], settings, folds, whole, file)
    for arm in arms:
        for seed in seeds:
            started = time.perf_counter()
            ordered = [replace(splits, train=distinct.by_prompt(splits.train, seed)) for splits in folds]
            outcome = _pooled_outcome(arm, settings, ordered, whole, seed)
            own = settings_for(arm, settings, seed).to_dict() | {"backbone": paths.public_name(settings.backbone)}
            asked = shared | {"arm": arm, "settings": own, "changes": changes(arm)}
            seconds = time.perf_counter() - started
            records.append(file, kind="arm", asked=asked, outcome=outcome, seconds=seconds, seed=seed)


def _pooled_outcome(arm: str, settings: Preset, folds: Sequence[Splits], whole: Splits, seed: int) -> dict[str, Any]:
    """What a record says of an arm under a seed, from its runs on all folds."""
    found = [arm_models.obtain(arm, settings, splits, seed, progress=True) for splits in folds]
    each = list(zip([one.model_folder for one in found], folds, strict=True))
    read = [arm_models.rewards_on_test(folder, splits, settings) for folder, splits in each]
    outcome = scoring.outcome_of(whole.test, np.concatenate([rewards for rewards, _ in read]))
    outcome["n_texts_cut"] = sum(n_cut for _, n_cut in read)
    curves = [one.details["training"]["curve"] for one in found]
    shortest = min(len(curve) for curve in curves)
    mean = np.mean([curve[:shortest] for curve in curves], axis=0).round(6).tolist()
    return outcome | {"training": {"curve": mean, "folds": [one.details["training"] for one in found]}}


def record_rulers(folds: Sequence[Splits], settings: Preset, file: Path) -> None:
    """Length and chance on the test pairs of all folds."""
    whole = grid_records.whole(folds)
    rulers = {"longer": statistics.Longer(), "shorter": statistics.Shorter(), "random": statistics.Random(0)}
    for name, ruler in rulers.items():
        experiments.run_ruler(name, ruler, whole, settings, results=file)


def record_words(folds: Sequence[Splits], settings: Preset, file: Path) -> None:
    """The ruler of words without their order, learnt on the training pairs of each fold: minutes on many pairs."""
    words = _bag_of_words(folds)
    experiments.run_ruler("bag of words", words, grid_records.whole(folds), settings, results=file)


def _bag_of_words(folds: Sequence[Splits]) -> Float[np.ndarray, "pair 2"]:
    """Rewards of the test pairs, each by the words of its own fold's training pairs."""
    parts = []
    for splits in folds:
        words = statistics.BagOfWords.fit(tables.preference_view(splits.train))
        parts.append(scoring.score_pairs(words, splits.test))
    return np.concatenate(parts)
