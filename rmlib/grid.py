"""The arms of the comparison on a frozen backbone: the whole grid of an arm's settings trains as one stack of heads.

Features are computed once (`features`), the heads of all arms, learning rates, weight decays and seeds are trained
together (`heads`), each arm's setting is chosen on the selection split by one rule, and the test split is read once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset, concatenate_datasets
from jaxtyping import Float

from rmlib import backbones, experiments, paths, records, scoring, statistics
from rmlib.arms import changes, settings_for
from rmlib.grid_fits import ArmFit, Fold, Grid, GridError
from rmlib.grid_inputs import Inputs
from rmlib.head_stacks import Heads
from rmlib.models import fingerprint
from rmlib.presets import Preset
from rmlib.splits import Splits

__all__ = ["Grid", "GridError", "GridResult", "run_folds", "run_grid"]

# What a linear head on kept features expresses.
CHANGES = {"loss", "attributes", "initialise_from", "shuffle_labels"}
# Settings that the grid varies or that its full batch replaces.
VARIED = ("learning_rate", "weight_decay", "pairs_per_step", "epochs", "seed")


@dataclass(frozen=True)
class GridResult:
    """What a grid found; rewards are those of the test pairs, the seeds in the grid's order."""

    grid: Grid
    test: Dataset
    trials: pd.DataFrame  # arm, fold, learning_rate, weight_decay, seed; accuracy and loss on the selection split
    selected: pd.DataFrame  # of each arm and fold the chosen setting, and how many were tried
    heads: dict[str, list[Heads]]  # one stack of seeds for each fold
    rewards: dict[str, Float[np.ndarray, "seed pair 2"]]

    def margins(self, arm: str) -> Float[np.ndarray, "seed decided"]:
        """Chosen minus rejected for the decided test pairs, in the order of the table."""
        if arm not in self.rewards:
            raise GridError(f"arm {arm!r} is not in this grid; it has {', '.join(self.rewards)}")
        return np.array([experiments.oriented_margins(self.test, rewards) for rewards in self.rewards[arm]])

    def accuracy(self, arm: str, among: Sequence[str] | None = None) -> statistics.Interval:
        """Test accuracy with its interval over pairs and seeds; `among` keeps the pairs with these ids.

        Raises GridError for an arm that is not there, ValueError for fewer than two seeds or no such pair.
        """
        ids = np.array(self.test["pair_id"])[np.array([bool(p) for p in self.test["preference"]])]
        keep = np.isin(ids, ids if among is None else list(among))
        return statistics.bootstrap_interval(self.margins(arm)[:, keep] > 0, seed=0)


def run_grid(
    arms: Sequence[str], splits: Splits, settings: Preset, grid: Grid, *, results: Path | None = None
) -> GridResult:
    """Train the grid of every arm, choose each arm's setting on the selection split, read the test split once; record.

    Per arm the setting with the highest accuracy on the decided selection pairs (mean of the seeds) is chosen, among
    equals the one with the lower loss, then the smaller learning rate, then the smaller weight decay. An arm that
    starts from regression starts from that arm's chosen heads, seed by seed. What was trained before is read from
    `runs/`. Raises ValueError for an unknown arm, GridError for one that no linear head expresses, for an empty split
    and for a backbone whose weights depend on the seed.
    """
    return run_folds(arms, [splits], settings, grid, results=results)


def run_folds(
    arms: Sequence[str], folds: Sequence[Splits], settings: Preset, grid: Grid, *, results: Path | None = None
) -> GridResult:
    """`run_grid` on each fold with a choice of its own; the test pairs of all folds are pooled, one fold after another.

    Raises GridError where a pair is tested in two folds, and as `run_grid`.
    """
    started = time.perf_counter()
    _check(arms, folds, settings)
    frozen = settings.change(trainable="head", max_steps=grid.n_steps)
    inputs = Inputs(_distinct(folds), frozen.preference, grid.log_length)
    fitted: list[dict[str, ArmFit]] = []
    rewards: list[dict[str, np.ndarray]] = []
    n_cut = 0
    for splits in folds:
        fold = Fold(splits, frozen, grid, inputs)
        fits = fold.fit(arms)
        texts, cut = inputs.test(splits.test)
        texts, n_cut = fold.scaling(texts), n_cut + cut
        shape = (len(grid.seeds), len(splits.test), 2)
        rewards.append({arm: fit.heads.rewards(texts).reshape(shape).numpy() for arm, fit in fits.items()})
        fitted.append(fits)
    result = _pooled(arms, folds, grid, fitted, rewards)
    file = results or experiments.results_file(folds[0], settings)
    _record(result, folds, frozen, fitted, n_cut, file, time.perf_counter() - started)
    return result


def _check(arms: Sequence[str], folds: Sequence[Splits], settings: Preset) -> None:
    for arm in arms:
        if unknown := changes(arm).keys() - CHANGES:
            raise GridError(f"arm {arm!r} changes {sorted(unknown)}, which no linear head on kept features expresses")
    if not folds:
        raise GridError("there is no fold to train on")
    if settings.backbone == backbones.EMBEDDED:
        raise GridError(
            f"the weights of {backbones.EMBEDDED!r} are drawn from the seed, so its features differ by seed; take a "
            "pretrained backbone, or the folder of a trained one"
        )
    for splits in folds:
        decided = splits.counts()["decided"]
        if (decided == 0).any():
            raise GridError(f"{splits.source.name}: no decided pair in {list(decided.index[decided == 0])}")
    tested = Counter(pair_id for splits in folds for pair_id in splits.test["pair_id"])
    if twice := [pair_id for pair_id, count in tested.items() if count > 1]:
        raise GridError(f"{len(twice)} pairs are tested in more than one fold, the first {twice[0]}")


def _distinct(folds: Sequence[Splits]) -> Dataset:
    """Every pair that a head learns or is chosen from, once."""
    seen: set[str] = set()
    parts = []
    for table in (part for splits in folds for part in (splits.train, splits.selection)):
        rows = [row for row, pair_id in enumerate(table["pair_id"]) if pair_id not in seen]
        seen |= set(table["pair_id"])
        parts.append(table.select(rows))
    return concatenate_datasets([part for part in parts if len(part)])


def _pooled(
    arms: Sequence[str],
    folds: Sequence[Splits],
    grid: Grid,
    fitted: Sequence[dict[str, ArmFit]],
    rewards: Sequence[dict[str, np.ndarray]],
) -> GridResult:
    each = [(arm, fold, fits[arm]) for arm in arms for fold, fits in enumerate(fitted)]
    return GridResult(
        grid,
        concatenate_datasets([splits.test for splits in folds]),
        pd.DataFrame([{"arm": arm, "fold": fold, **trial} for arm, fold, fit in each for trial in fit.trials]),
        pd.DataFrame([{"arm": arm, "fold": fold, **fit.selected} for arm, fold, fit in each]),
        {arm: [fits[arm].heads for fits in fitted] for arm in arms},
        {arm: np.concatenate([of_fold[arm] for of_fold in rewards], axis=1) for arm in arms},
    )


def _record(
    result: GridResult,
    folds: Sequence[Splits],
    settings: Preset,
    fitted: Sequence[dict[str, ArmFit]],
    n_cut: int,
    file: Path,
    seconds: float,
) -> None:
    """One record of the grid with all its trials, and one for each arm and seed, as `experiments.run` writes it."""
    whole = _whole(folds, result.test)
    shared: dict[str, Any] = {
        "preset": settings.name,
        "comparison": fingerprint(settings.to_dict(), asdict(result.grid), [splits.identity for splits in folds]),
        "source": asdict(whole.source),
        "n_train": round(float(np.mean([len(splits.train) for splits in folds]))),  # of a fold
        "grid": asdict(result.grid) | {"n_folds": len(folds)},
    }
    experiments.record_test_pairs(whole, file)
    current = {"comparison": shared["comparison"]}
    records.append(file, kind="comparison", asked={"beside": settings.name == "finetuned"}, outcome=current)
    arms = list(result.rewards)
    tried: dict[str, Any] = {"trials": records.rows(result.trials), "n_trials": len(result.trials)}
    tried |= {"selected": records.rows(result.selected)}
    records.append(file, kind="grid", asked=shared | {"arms": arms}, outcome=tried, seconds=seconds)
    for arm in arms:
        own = settings_for(arm, settings, seed=0).to_dict() | {"backbone": paths.public_name(settings.backbone)}
        kept = {name: value for name, value in own.items() if name not in VARIED}
        training = {
            "n_steps": result.grid.n_steps,
            "n_trials": int((result.trials["arm"] == arm).sum()),
            "selected": [fits[arm].selected for fits in fitted],
            "curve": np.mean([fits[arm].curve for fits in fitted], axis=0).round(6).tolist(),
        }
        for seed, rewards in zip(result.grid.seeds, result.rewards[arm], strict=True):
            outcome = scoring.outcome_of(result.test, rewards) | {"n_texts_cut": n_cut, "training": training}
            asked = shared | {"arm": arm, "settings": kept, "changes": changes(arm)}
            records.append(file, kind="arm", asked=asked, outcome=outcome, seconds=seconds / len(arms), seed=seed)


def _whole(folds: Sequence[Splits], test: Dataset) -> Splits:
    """One fold as it is; of several the source that stands for them, with their test pairs together."""
    first = folds[0]
    if len(folds) == 1:
        return first
    title = f"{first.source.title.split(' (')[0]} ({len(test):,} pairs, each tested in one of {len(folds)} folds)"
    digest = fingerprint([splits.source.content_hash for splits in folds])
    return replace(first, source=replace(first.source, title=title, content_hash=digest), test=test)
