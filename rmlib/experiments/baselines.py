"""What arms are compared with: rulers and the oracle on the test pairs, and scores on benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from jaxtyping import Float

from rmlib import benchmarks, records, statistics
from rmlib.benchmarks import recording
from rmlib.experiments.presets import Preset
from rmlib.experiments.recording import comparison_of, results_file, whole
from rmlib.experiments.scoring import outcome_of, score_pairs
from rmlib.pairs import content_hash
from rmlib.pairs.views import preference_view
from rmlib.sources import Splits


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
    name: str, model: Any, items: Dataset, splits: Splits, settings: Preset, *, seed: int | None
) -> benchmarks.Report:
    """Score a benchmark by anything with a `score`, and record it (see `rmlib.benchmarks.recording`)."""
    report, outcome = recording.outcome(items, benchmarks.score(model, items, progress=False))
    asked = {"model": name, "items": report.source, "source": asdict(splits.source), "preset": settings.name}
    asked["comparison"] = comparison_of(settings, splits)
    file = results_file(splits, settings)
    recording.record_items(items, file)
    records.append(file, kind=report.benchmark, asked=asked, outcome=outcome, seed=seed)
    return report


def record_rulers(folds: Sequence[Splits], settings: Preset, file: Path) -> None:
    """Length and chance on the test pairs of all folds."""
    pooled = whole(folds)
    rulers = {"longer": statistics.Longer(), "shorter": statistics.Shorter(), "random": statistics.Random(0)}
    for name, ruler in rulers.items():
        run_ruler(name, ruler, pooled, settings, results=file)


def record_words(folds: Sequence[Splits], settings: Preset, file: Path) -> None:
    """The ruler of words without their order, learnt on the training pairs of each fold: minutes on many pairs."""
    parts = [score_pairs(statistics.BagOfWords.fit(preference_view(one.train)), one.test) for one in folds]
    run_ruler("bag of words", np.concatenate(parts), whole(folds), settings, results=file)
