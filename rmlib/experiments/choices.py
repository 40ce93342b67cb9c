"""Choices made on the selection split: learning rates, and what choosing a factor elsewhere would have shown."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import groupby, product
from pathlib import Path
from typing import Any

import pandas as pd
from datasets import Dataset

from rmlib import benchmarks, combining, records, statistics
from rmlib.experiments import arm_models, sweeps
from rmlib.experiments.arms import changes, line_of, waits_for
from rmlib.experiments.derived import margins_at
from rmlib.experiments.grid_fits import choose
from rmlib.experiments.presets import Preset
from rmlib.experiments.recording import results_file
from rmlib.experiments.run_or_reuse import ArmRun
from rmlib.experiments.scoring import scorer
from rmlib.models import RewardModel
from rmlib.records import paths
from rmlib.sources import Splits

logger = logging.getLogger(__name__)

KIND = "learning_rate"
RULE = "highest mean accuracy over seeds on the selection split, the smallest rate among equals"
Trial = tuple[str, float, int]  # arm, learning rate, seed


def choose_learning_rates(
    arms: Sequence[str],
    settings: Preset,
    splits: Splits,
    grid: Sequence[float],
    seeds: Sequence[int],
    *,
    processes: int | None = None,
) -> pd.DataFrame:
    """The learning rate of each arm by one rule: the highest mean accuracy over seeds on the selection split.

    Every arm, and every arm that it starts from, tries the same grid under the same seeds; an arm's trials start from
    models trained with the rate chosen for their parent. Extrapolations train nothing and have no rate. Runs are found
    again where they were finished; one record an arm, of kind "learning_rate", holds all trials. Columns:
    learning_rate, accuracy, n_trials, at_edge (the choice is the grid's smallest or largest). Raises ValueError for an
    empty grid.
    """
    file = results_file(splits, settings)
    if not grid or not seeds or min(grid) <= 0:
        raise ValueError(f"a choice needs positive learning rates and seeds, got {list(grid)} and {list(seeds)}")
    rates: dict[str, float] = {}
    rows = []
    wanted = sorted(arm for arm in line_of(*arms) if "extrapolate" not in changes(arm))
    for _, level in groupby(sorted(wanted, key=_depth), _depth):
        preset = replace(settings, learning_rates=dict(rates))
        trained = list(level)
        jobs: dict[Trial, Sequence[Trial]] = dict.fromkeys(product(trained, grid, seeds), ())
        accuracy = partial(_accuracy, settings=preset, splits=splits)
        show = "{0[0]} at {0[1]:g}, seed {0[2]}".format
        arm_models.run_training(jobs, accuracy, settings, splits, processes=processes, show=show)
        for arm in trained:
            trials = [
                {"learning_rate": rate, "seed": seed, "accuracy": accuracy((arm, rate, seed))}
                for rate, seed in product(sorted(grid), seeds)
            ]
            chosen = choose(trials)
            row = {key: chosen[key] for key in ("learning_rate", "accuracy", "n_trials", "at_edge")}
            asked = _asked(arm, settings, splits) | {"grid": sorted(grid), "seeds": list(seeds), "rule": RULE}
            records.append(file, kind=KIND, asked=asked, outcome=row | {"trials": trials})
            rates[arm] = row["learning_rate"]
            rows.append({"arm": arm} | row)
    return pd.DataFrame(rows).set_index("arm")


def _depth(arm: str) -> int:
    """How many arms it starts from, itself counted: parents come first."""
    return len(line_of(arm))


def _accuracy(trial: Trial, settings: Preset, splits: Splits) -> float:
    """Of the decided selection pairs, by an arm that is trained at a rate under a seed, now or before."""
    arm, rate, seed = trial
    tried = replace(settings, learning_rates=settings.learning_rates | {arm: rate})
    folder = arm_models.obtain(arm, tried, splits, seed).model_folder
    return statistics.accuracy(arm_models.selection_margins(folder, splits, tried))


def _asked(arm: str, settings: Preset, splits: Splits) -> dict[str, Any]:
    backbone = paths.public_name(settings.backbone)
    return {"arm": arm, "preset": settings.name, "backbone": backbone, "source": asdict(splits.source)}


def tuned(settings: Preset, splits: Splits) -> Preset:
    """The preset with the learning rates recorded for this source, preset and backbone; logged, also where none are.

    Records in their usual place come first, then the committed ones.
    """
    file = results_file(splits, settings)
    committed = paths.data_dir() / "results" / file.name
    rates = _recorded(settings, splits, file) or _recorded(settings, splits, committed)
    if rates:
        listed = ", ".join(f"{arm} {rate:g}" for arm, rate in rates.items())
        logger.info("learning rates from their record, chosen on the selection split: %s", listed)
    else:
        logger.info("no record of chosen learning rates for this source and preset: each stage keeps its own")
    return replace(settings, learning_rates=rates)


def _recorded(settings: Preset, splits: Splits, file: Path) -> dict[str, float]:
    """The latest choice for each arm of this preset, backbone and source."""
    rates: dict[str, float] = {}
    if file.is_file():
        table = records.read(file).sort_values("time", kind="stable")
        for _, row in table[table["kind"] == KIND].iterrows():
            asked = _asked(row["asked.arm"], settings, splits)
            if all(row[f"asked.{key}"] == value for key, value in asked.items()):
                rates[asked["arm"]] = float(row["outcome.learning_rate"])
    return rates


def sweep_beside(
    chosen: ArmRun,
    settings: Preset,
    splits: Splits,
    *,
    items: Dataset | None = None,
    factors: Sequence[float] = sweeps.COARSE_FACTORS,
) -> dict[str, float]:
    """What choosing the factor of an extrapolated arm on the test split, or on a benchmark's `items`, would have shown.

    It chooses nothing: the sweep is recorded (kind "sweep_on_test" or "sweep_on_benchmark") beside the choice that was
    made, to make the leak visible, and `sweeps.beside` of the two is returned. Computed once.
    """
    file, outcome = results_file(splits, settings), chosen.record["outcome"]
    asked = {key: chosen.record["asked"][key] for key in ("arm", "preset", "comparison", "source")}
    if items is not None:
        asked["items"] = sorted(set(items["source"][:]))[0]
    kind = "sweep_on_test" if items is None else "sweep_on_benchmark"
    wanted = sorted({*factors, outcome["factor"]})
    record = records.find(file, kind=kind, asked=asked, seed=chosen.seed)
    if record is None or [row["factor"] for row in record["outcome"]["sweep"]] != wanted:
        names = waits_for(chosen.arm.name)
        strong, weak = (arm_models.model_of(name, settings, splits, chosen.seed) for name in names)
        if items is None:
            margins = margins_at(weak, strong, splits.test, frozen=settings.frozen)
            sweep = sweeps.rows(lambda factor: sweeps.ordering_of(margins(factor)), wanted)
        else:
            sweep = sweeps.rows(partial(_on_benchmark, items, weak, strong, settings.frozen), wanted)
        record = records.append(file, kind=kind, asked=asked, outcome={"sweep": sweep}, seed=chosen.seed)
    return sweeps.beside(outcome["sweep"], record["outcome"]["sweep"])


def _on_benchmark(
    items: Dataset, weak: RewardModel, strong: RewardModel, frozen: bool, factor: float
) -> dict[str, float]:
    """The overall score 0..1 on a benchmark's items, as `accuracy`; ValueError where items of a subset are missing."""
    ranker: Any = scorer(combining.extrapolate(weak, strong, factor), frozen=frozen)
    report = benchmarks.summarise(items, benchmarks.score(ranker, items, progress=False))
    if "Score" not in report.sections.index:
        raise ValueError(f"{report.title}: no overall Score, since subsets are missing; sweep over complete items")
    return {"accuracy": float(report.sections["estimate"]["Score"])}
