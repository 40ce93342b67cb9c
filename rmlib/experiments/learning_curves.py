"""Learning curves: an arm trained on nested subsets of the training pairs, and the record that figures read.

A record of kind "learning_curve", one for each arm:

    asked     arm, preset, comparison (of the whole splits), settings, source, n_train, sizes, seeds
    outcome   points   one mapping for each size and seed: size (training pairs), seed, accuracy (test, 0..1),
                       correct (a text of 0 and 1, one for each decided test pair, in the order of all margins)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from datasets import Dataset
from jaxtyping import Float

from rmlib import records, statistics
from rmlib.experiments import arm_models
from rmlib.experiments.presets import Preset
from rmlib.experiments.recording import comparison_of, results_file, settings_of, shared_by
from rmlib.experiments.scoring import kept_rewards
from rmlib.pairs.views import margins_of_chosen
from rmlib.sources import Splits
from rmlib.statistics.power_law import FEWEST_SIZES

Job = tuple[int, int]  # size and seed


def learning_curve(
    arm: str, settings: Preset, splits: Splits, sizes: Sequence[int], seeds: Sequence[int]
) -> dict[str, Any]:
    """Train an arm on nested subsets of the training pairs, or reuse the runs that are finished; append the record.

    Every size is trained for the same number of epochs (unless the settings give max_steps), selects on the same
    selection pairs and is read on the same test pairs. A seed draws the subsets, the head and the order. Processes are
    as many as in `experiments.run_all`, the longest runs first.

    Raises ValueError, before anything is trained, for fewer than four sizes, sizes that are not ascending or greater
    than the training split, fewer than two different seeds, and an unknown arm.
    """
    _check(sizes, seeds, len(splits.train))
    asked = shared_by(settings, [splits], comparison_of(settings, splits))
    asked |= {"arm": arm, "settings": settings_of(arm, settings, seed=0), "sizes": list(sizes), "seeds": list(seeds)}
    jobs = [(size, seed) for size in reversed(sizes) for seed in seeds]
    parts = [(replace(splits, train=subset(splits.train, size, seed)), seed) for size, seed in jobs]
    finished = [arm_models.is_finished(arm, settings, part, seed) for part, seed in parts]
    missing = [job for job, is_there in zip(jobs, finished, strict=True) if not is_there]
    work = partial(_rewards, arm=arm, settings=settings, splits=splits)
    show = (arm + ", {0[0]} pairs, seed {0[1]}").format
    arm_models.run_training(dict.fromkeys(missing, ()), work, settings, splits, processes=None, show=show)
    points = []
    for size, seed in sorted(jobs):
        margin = margins_of_chosen(splits.test, work((size, seed)))
        correct = "".join("1" if right else "0" for right in margin > 0)
        points.append({"size": size, "seed": seed, "accuracy": statistics.accuracy(margin), "correct": correct})
    file = results_file(splits, settings)
    return records.append(file, kind="learning_curve", asked=asked, outcome={"points": points})


def subset(pairs: Dataset, size: int, seed: int) -> Dataset:
    """So many random pairs, in the order of the table; a greater size with the same seed holds a smaller one's pairs.

    The whole table is itself, so that runs on all pairs are shared with every other experiment.
    """
    chosen = np.random.default_rng(seed).permutation(len(pairs))[:size]
    return pairs if size == len(pairs) else pairs.select(np.sort(chosen))


def _rewards(job: Job, arm: str, settings: Preset, splits: Splits) -> Float[np.ndarray, "pair 2"]:
    """Rewards of the test pairs by the arm trained on a subset, now or before."""
    size, seed = job
    part = replace(splits, train=subset(splits.train, size, seed))
    folder = arm_models.obtain(arm, settings, part, seed).model_folder
    return kept_rewards(folder, "test", part, frozen=settings.frozen)[0]


def _check(sizes: Sequence[int], seeds: Sequence[int], n_train: int) -> None:
    if len(sizes) < FEWEST_SIZES or list(sizes) != sorted(set(sizes)) or sizes[0] < 1 or sizes[-1] > n_train:
        raise ValueError(f"sizes must be {FEWEST_SIZES} or more, ascending, within 1..{n_train}; got {list(sizes)}")
    if len(set(seeds)) < 2 or len(set(seeds)) < len(seeds):
        raise ValueError(f"an interval over seeds needs two or more different seeds, got {list(seeds)}")
