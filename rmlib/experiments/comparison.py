"""Arms of the comparison: each is its parent plus one change; run or reuse; one record per arm and seed."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset
from jaxtyping import Float

from rmlib import benchmarks, records
from rmlib.benchmarks import recording
from rmlib.experiments import arm_models, choices, sweeps
from rmlib.experiments.arms import ARMS, PAPER_ARMS, Arm, changes, settings_for
from rmlib.experiments.data_records import record_overlap, record_test_pairs
from rmlib.experiments.jobs import JobFailed
from rmlib.experiments.presets import Preset
from rmlib.experiments.scoring import (
    ATTRIBUTE_WEIGHTS_OF,
    oriented_margins,
    outcome_of,
    rounded,
    scalar_model,
    score_pairs,
    scorer,
)
from rmlib.experiments.sweeps import COARSE_FACTORS, sweep_benchmark, sweep_factors
from rmlib.models import RewardModel
from rmlib.pairs import content_hash
from rmlib.records import paths
from rmlib.records.hashing import fingerprint
from rmlib.sources.splits import Splits, load_splits
from rmlib.training.runs import Run

__all__ = [
    "ARMS", "ATTRIBUTE_WEIGHTS_OF", "COARSE_FACTORS", "PAPER_ARMS", "Arm", "ArmRun", "JobFailed", "Splits",
    "choose_learning_rates", "load_splits", "oriented_margins", "record_overlap", "record_test_pairs", "run", "run_all",
    "scalar_model", "score_pairs", "scorer", "sweep_benchmark", "sweep_factors", "tuned",
]  # fmt: skip


# --- run or reuse -----------------------------------------------------------------------------------------------------


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


def run(
    arm: str, settings: Preset, splits: Splits, *, seed: int = 0, results: Path | None = None, progress: bool = True
) -> ArmRun:
    """Train an arm with a preset's settings, or return the finished run; score the test pairs; write a record.

    Parents that an arm starts from are run the same way. Raises ValueError for an unknown arm.
    """
    file = results or results_file(splits, settings)
    _record_comparison(settings, splits, file)
    return _run(arm, settings, splits, seed, file, progress)


def _run(arm: str, settings: Preset, splits: Splits, seed: int, file: Path, progress: bool = False) -> ArmRun:
    started = time.perf_counter()
    found = arm_models.obtain(arm, settings, splits, seed, progress)
    rewards, n_cut = arm_models.rewards_on_test(found.model_folder, splits, settings)
    outcome = outcome_of(splits.test, rewards) | {"n_texts_cut": n_cut} | found.details
    outcome["selection_margins"] = rounded(arm_models.selection_margins(found.model_folder, splits, settings))
    asked: dict[str, Any] = {
        "arm": arm,
        "preset": settings.name,
        "comparison": comparison_of(settings, splits),
        "settings": settings_for(arm, settings, seed).to_dict() | {"backbone": paths.public_name(settings.backbone)},
        "changes": changes(arm),
        "source": asdict(splits.source),
        "n_train": len(splits.train),
    }
    record = records.append(
        file,
        kind="arm",
        asked=asked,
        outcome=outcome,
        seconds=found.run.summary["seconds"] if found.run else time.perf_counter() - started,
        seed=seed,
    )
    return ArmRun(ARMS[arm], seed, found.run, found.model_folder, rewards, record)


def rewards_on_test(
    arm: str, settings: Preset, splits: Splits, *, seed: int, progress: bool = False
) -> Float[np.ndarray, "pair 2"]:
    """Rewards of the test pairs by an arm that is trained, or found among the finished runs; nothing is recorded."""
    found = arm_models.obtain(arm, settings, splits, seed, progress)
    return arm_models.rewards_on_test(found.model_folder, splits, settings)[0]


def _record_comparison(settings: Preset, splits: Splits, file: Path) -> None:
    # Finished runs are not recorded twice, so their age does not tell which comparison was looked at last; this does.
    current = {"comparison": comparison_of(settings, splits)}
    records.append(file, kind="comparison", asked={"beside": settings.name == "finetuned"}, outcome=current)


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
    file, seeds = results or results_file(splits, settings), list(seeds)
    under = dict.fromkeys(arms, seeds) | {arm: list(own) for arm, own in (other_seeds or {}).items() if arm in arms}
    record_overlap(splits, file)
    record_test_pairs(splits, file)
    _record_comparison(settings, splits, file)
    found: dict[arm_models.Job, list[arm_models.Job]] = {}
    for arm, own in under.items():
        found |= arm_models.missing([arm], settings, splits, own)
    missing = dict(sorted(found.items(), key=lambda job: job[0][1]))  # seed by seed
    work = partial(_work, settings=settings, splits=splits, file=file, asked=frozenset(arms))
    show = "{0[0]}, seed {0[1]}".format
    arm_models.run_training(missing, work, settings, splits, processes=processes, show=show)
    jobs = sorted(((arm, seed) for arm in under for seed in under[arm]), key=lambda job: job[1])
    return [_run(arm, settings, splits, seed, file) for arm, seed in jobs]


def _work(job: arm_models.Job, settings: Preset, splits: Splits, file: Path, asked: frozenset[str]) -> None:
    arm, seed = job
    if arm in asked:
        _run(arm, settings, splits, seed, file)
    else:  # only what another arm is made from: no record, and no look at the test pairs
        arm_models.obtain(arm, settings, splits, seed)


def comparison_of(settings: Preset, splits: Splits) -> str:
    """The name that all runs with the same settings on the same splits share, whatever their arm and seed."""
    rates = {"learning_rates": settings.learning_rates} if settings.learning_rates else {}
    return fingerprint(settings.to_dict() | rates, splits.identity)


def results_file(splits: Splits, settings: Preset) -> Path:
    """Where the records of a source and a backbone go."""
    return paths.results_dir() / f"{paths.line_name(splits.source.name, settings.backbone)}.jsonl"


# --- choices made on the selection split, and what they would have been elsewhere -------------------------------------


def choose_learning_rates(
    arms: Sequence[str],
    settings: Preset,
    splits: Splits,
    grid: Sequence[float],
    seeds: Sequence[int],
    *,
    results: Path | None = None,
    processes: int | None = None,
) -> pd.DataFrame:
    """The learning rate of each arm by one rule: the highest mean accuracy over seeds on the selection split.

    Every arm, and every arm that it starts from, tries the same grid under the same seeds; an arm's trials start from
    models trained with the rate chosen for their parent. Extrapolations train nothing and have no rate. Runs are found
    again where they were finished; one record an arm, of kind "learning_rate", holds all trials. Columns:
    learning_rate, accuracy, n_trials, at_edge (the choice is the grid's smallest or largest). Raises ValueError for an
    empty grid.
    """
    return choices.choose(arms, settings, splits, grid, seeds, results or results_file(splits, settings), processes)


def tuned(settings: Preset, splits: Splits, *, results: Path | None = None) -> Preset:
    """The preset with the learning rates recorded for this source, preset and backbone; logged, also where none are.

    Records in their usual place come first, then the committed ones.
    """
    file = results or results_file(splits, settings)
    return choices.tuned(settings, splits, [file, paths.data_dir() / "results" / file.name])


def sweep_beside(
    chosen: ArmRun,
    settings: Preset,
    splits: Splits,
    *,
    items: Dataset | None = None,
    factors: Sequence[float] = COARSE_FACTORS,
    results: Path | None = None,
) -> dict[str, float]:
    """What choosing the factor of an extrapolated arm on the test split, or on a benchmark's `items`, would have shown.

    It chooses nothing: the sweep is recorded (kind "sweep_on_test" or "sweep_on_benchmark") beside the choice that was
    made, to make the leak visible, and `sweeps.beside` of the two is returned. Computed once.
    """
    file, outcome = results or results_file(splits, settings), chosen.record["outcome"]
    asked = {key: chosen.record["asked"][key] for key in ("arm", "preset", "comparison", "source")}
    if items is not None:
        asked["items"] = sorted(set(items["source"][:]))[0]
    kind = "sweep_on_test" if items is None else "sweep_on_benchmark"
    wanted = sorted({*factors, outcome["factor"]})
    record = records.find(file, kind=kind, asked=asked, seed=chosen.seed)
    if record is None or [row["factor"] for row in record["outcome"]["sweep"]] != wanted:
        names = arm_models.waits_for(chosen.arm.name)
        strong, weak = (arm_models.model_of(name, settings, splits, chosen.seed) for name in names)
        if items is None:
            sweep = sweep_factors(weak, strong, splits.test, settings, wanted)
        else:
            sweep = sweep_benchmark(weak, strong, items, settings, wanted)
        record = records.append(file, kind=kind, asked=asked, outcome={"sweep": sweep}, seed=chosen.seed)
    return sweeps.beside(outcome["sweep"], record["outcome"]["sweep"])


# --- baselines and benchmarks -----------------------------------------------------------------------------------------


def run_ruler(
    name: str, ruler: Any, splits: Splits, settings: Preset, *, results: Path | None = None
) -> dict[str, Any]:
    """Score the test pairs by a baseline (anything with a `score`, or rewards as such), and write a `ruler` record."""
    rewards = ruler if isinstance(ruler, np.ndarray) else score_pairs(ruler, splits.test)
    asked = {"ruler": name, "source": asdict(splits.source), "test": content_hash(splits.test)}
    file = results or results_file(splits, settings)
    return records.append(file, kind="ruler", asked=asked, outcome=outcome_of(splits.test, rewards))


def oracle_rewards(pairs: Dataset) -> Float[np.ndarray, "pair 2"]:
    """Rewards that differ by the true preference, which only a simulator knows; raises ValueError elsewhere."""
    preference = pairs["truth_preference"][:]
    if None in preference:
        raise ValueError("only simulated pairs carry a truth; there is no oracle for human labels")
    return np.outer(preference, (-0.5, 0.5))


def run_benchmark(
    name: str, model: Any, items: Dataset, splits: Splits, settings: Preset, *, seed: int | None, results: Path | None
) -> benchmarks.Report:
    """Score a benchmark by anything with a `score`, and write a record of its kind (see `benchmark_records`)."""
    report, outcome = recording.outcome(items, benchmarks.score(model, items, progress=False))
    asked = {"model": name, "items": report.source, "source": asdict(splits.source), "preset": settings.name}
    asked["comparison"] = comparison_of(settings, splits)
    file = results or results_file(splits, settings)
    recording.record_items(items, file)
    records.append(file, kind=report.benchmark, asked=asked, outcome=outcome, seed=seed)
    return report
