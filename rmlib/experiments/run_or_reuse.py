"""Run an arm, or find what an earlier call finished; one record for each arm and seed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from rmlib.experiments import arm_models, recording
from rmlib.experiments.arms import ARMS, Arm, Job
from rmlib.experiments.presets import Preset
from rmlib.experiments.scoring import kept_rewards
from rmlib.models import RewardModel
from rmlib.records.hashing import fingerprint
from rmlib.sources import Splits
from rmlib.training.examples import by_prompt
from rmlib.training.runs import Run

# Pairs of one prompt stand together in a step, each of its texts encoded once: a step of many pairs costs few texts,
# and so takes a larger learning rate than one of few.
TOGETHER = {"shuffle": False, "pairs_per_step": 256, "token_budget": 2**18, "learning_rate": 1e-4}


@dataclass
class ArmRun:
    """A finished arm: its model, the rewards it gives the test pairs, and the record of it."""

    arm: Arm
    seed: int
    run: Run | None  # None where no training took place (extrapolation)
    model_folder: Path
    rewards: Float[np.ndarray, "pair 2"]
    record: dict[str, Any]

    @cached_property
    def model(self) -> RewardModel:
        return RewardModel.load(self.model_folder)


def run(arm: str, settings: Preset, splits: Splits, *, seed: int = 0, progress: bool = True) -> ArmRun:
    """Train an arm with a preset's settings, or return the finished run; score the test pairs; write a record.

    Parents that an arm starts from are run the same way. Raises ValueError for an unknown arm.
    """
    file = recording.results_file(splits, settings)
    recording.record_comparison(recording.comparison_of(settings, splits), settings, file)
    return _run(arm, settings, splits, seed, file, progress)


def _run(arm: str, settings: Preset, splits: Splits, seed: int, file: Path, progress: bool = False) -> ArmRun:
    started = time.perf_counter()
    found = arm_models.obtain(arm, settings, splits, seed, progress)
    rewards, n_cut = kept_rewards(found.model_folder, "test", splits, frozen=settings.frozen)
    record = recording.record_arm(
        file, arm, settings, recording.shared_by(settings, [splits], recording.comparison_of(settings, splits)),
        seed=seed, seconds=found.run.summary["seconds"] if found.run else time.perf_counter() - started,
        pairs=splits.test, rewards=rewards, n_cut=n_cut, made=found.details,
        selection_margins=arm_models.selection_margins(found.model_folder, splits, settings),
    )  # fmt: skip
    return ArmRun(ARMS[arm], seed, found.run, found.model_folder, rewards, record)


def run_all(
    arms: Sequence[str],
    settings: Preset,
    splits: Splits,
    seeds: Iterable[int],
    *,
    other_seeds: Mapping[str, Sequence[int]] | None = None,
    results: Path | None = None,
    processes: int | None = None,
) -> list[ArmRun]:
    """Every arm under every seed, with one progress bar; a second call returns at once what the first one finished.

    `other_seeds`: of the arms that do not run under `seeds`.
    `processes`: how many train at the same time, each with one thread (default: one for each core, two at most, one
    on a GPU); the numbers are the same. What occurs twice in the data is logged before anything is trained. Raises
    JobFailed, which names arm and seed, where one fails; what was finished, also beside it, is kept and recorded.
    """
    file, seeds = results or recording.results_file(splits, settings), list(seeds)
    under = dict.fromkeys(arms, seeds) | {arm: list(own) for arm, own in (other_seeds or {}).items() if arm in arms}
    recording.record_overlap(splits, file)
    recording.record_test_pairs(splits, file)
    recording.record_comparison(recording.comparison_of(settings, splits), settings, file)
    jobs = sorted(((arm, seed) for arm in under for seed in under[arm]), key=lambda job: job[1])  # seed by seed
    missing = arm_models.missing(jobs, settings, splits)
    work = partial(_work, settings=settings, splits=splits, file=file, asked=frozenset(arms))
    show = "{0[0]}, seed {0[1]}".format
    arm_models.run_training(missing, work, settings, splits, processes=processes, show=show)
    return [_run(arm, settings, splits, seed, file) for arm, seed in jobs]


def _work(job: Job, settings: Preset, splits: Splits, file: Path, asked: frozenset[str]) -> None:
    arm, seed = job
    if arm in asked:
        _run(arm, settings, splits, seed, file)
    else:  # only what another arm is made from: no record, and no look at the test pairs
        arm_models.obtain(arm, settings, splits, seed)


def run_on_folds(
    arms: Sequence[str], settings: Preset, folds: Sequence[Splits], seeds: Iterable[int], file: Path
) -> None:
    """Train every arm on each fold under each seed, and record the pooled test pairs as one run an arm and seed.

    The training pairs come prompt by prompt (`by_prompt`); with settings as in TOGETHER a step is of few.
    A fold that was finished is found again, so an interrupted call goes on.
    """
    comparison = fingerprint(settings.to_dict(), [splits.identity for splits in folds])
    shared = recording.record_folds(comparison, settings, folds, file)
    for arm, seed in product(arms, seeds):
        started = time.perf_counter()
        ordered = [replace(splits, train=by_prompt(splits.train, seed)) for splits in folds]
        found = [arm_models.obtain(arm, settings, splits, seed, progress=True) for splits in ordered]
        read = [
            kept_rewards(one.model_folder, "test", splits, frozen=settings.frozen)
            for one, splits in zip(found, ordered, strict=True)
        ]
        recording.record_arm(
            file, arm, settings, shared, seed=seed, seconds=time.perf_counter() - started,
            pairs=recording.whole(folds).test, rewards=np.concatenate([rewards for rewards, _ in read]),
            n_cut=sum(n_cut for _, n_cut in read),
            made={"training": _pooled_training([one.details["training"] for one in found])},
        )  # fmt: skip


def _pooled_training(trainings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean of the curves of all folds, as far as the shortest reaches, and each fold's training."""
    curves = [training["curve"] for training in trainings]
    shortest = min(len(curve) for curve in curves)
    mean = np.mean([curve[:shortest] for curve in curves], axis=0).round(6).tolist()
    return {"curve": mean, "folds": list(trainings)}
