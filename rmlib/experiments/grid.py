"""The arms of the comparison on a frozen backbone: the whole grid of an arm's settings trains as one stack of heads."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from datasets import Dataset, concatenate_datasets
from jaxtyping import Float, Int

from rmlib import losses, records, statistics
from rmlib.annotations import vote_share
from rmlib.experiments import sweeps
from rmlib.experiments.arms import ARMS, changes, line_of, waits_for
from rmlib.experiments.grid_fits import ArmFit, Fold, Grid, GridError, default_grid, heads_margins_at, rewards_of_pairs
from rmlib.experiments.presets import Preset
from rmlib.experiments.recording import record_arm, record_folds, results_file, whole
from rmlib.models import backbones
from rmlib.models.surface_features import N_FEATURES
from rmlib.pairs.views import margins_of_chosen, ratings_of
from rmlib.records.hashing import fingerprint
from rmlib.sources import Splits
from rmlib.training.encoded import Encoded
from rmlib.training.head_stacks import AnyHeads

__all__ = ["Grid", "GridError", "GridResult", "default_grid", "run_grid"]

logger = logging.getLogger(__name__)

# Settings that the grid varies or that its full batch replaces.
VARIED = ("learning_rate", "weight_decay", "pairs_per_step", "epochs", "seed")


@dataclass(frozen=True)
class Found:
    """What one fold gave: the fit of each arm, rewards `[seed, pair, 2]` of both splits, texts of the test cut."""

    fits: dict[str, ArmFit]
    on_test: dict[str, np.ndarray]
    on_selection: dict[str, np.ndarray]
    beside: list[list[dict[str, float]]]  # of each seed the sweep of ExPO's factor on the test pairs
    n_cut: int


@dataclass(frozen=True)
class GridResult:
    """What a grid found; rewards are those of the test pairs, the seeds in the grid's order."""

    grid: Grid
    test: Dataset
    trials: pd.DataFrame  # arm, fold, learning_rate, weight_decay, seed; accuracy and loss on the selection split
    selected: pd.DataFrame  # of each trained arm and fold the chosen setting, and how many were tried
    heads: dict[str, list[AnyHeads]]  # one stack of seeds for each fold
    rewards: dict[str, Float[np.ndarray, "seed pair 2"]]
    left_out: dict[str, str]  # arms that these pairs cannot train, with the reason
    folds: Int[np.ndarray, "decided"]  # which fold each decided test pair is of

    def margins(self, arm: str) -> Float[np.ndarray, "seed decided"]:
        """Chosen minus rejected for the decided test pairs, in the order of the table."""
        if arm not in self.rewards:
            raise GridError(f"arm {arm!r} is not in this grid; it has {', '.join(self.rewards)}")
        return margins_of_chosen(self.test, self.rewards[arm])

    def accuracy(self, arm: str) -> statistics.Interval:
        """Test accuracy with its interval over pairs and seeds.

        Of several folds the pairs of one are redrawn together: what they share may decide them all.

        Raises GridError for an arm that is not there, ValueError for fewer than two seeds.
        """
        groups = self.folds if len(set(self.folds)) > 1 else None
        return statistics.bootstrap_interval(self.margins(arm) > 0, seed=0, groups=groups)


def run_grid(
    arms: Sequence[str], splits: Splits | Sequence[Splits], settings: Preset, grid: Grid, *, results: Path | None = None
) -> GridResult:
    """Train the grid of every arm, choose each arm's setting on the selection split, read the test split once; record.

    One rule chooses for all arms (`grid_fits.choose`). An arm that is made from others is made from their chosen heads,
    seed by seed. Arms that need ratings or votes which these pairs lack are left out, logged and recorded with the
    reason. What was trained before is read from `runs/`. Of several splits, the folds of a source, each has a choice of
    its own, and their test pairs are pooled, one after another.

    Raises ValueError for an unknown arm, GridError for one that needs rankings, where no arm is left, for an empty
    split, where a pair is tested in two folds, and for a backbone whose weights depend on the seed.
    """
    folds = [splits] if isinstance(splits, Splits) else splits
    started = time.perf_counter()
    _check(arms, folds, settings)
    left_out = _left_out(arms, folds)
    arms = [arm for arm in arms if arm not in left_out]
    frozen = settings.change(trainable="head", max_steps=grid.n_steps)
    beyond = N_FEATURES if grid.surface else int(grid.log_length)
    inputs = Encoded(_distinct(folds), frozen.preference, beyond, grid.layer)
    found = [_run_fold(arms, Fold(splits, frozen, grid, inputs)) for splits in folds]
    result = _pooled(arms, folds, grid, found, left_out)
    file = results or results_file(folds[0], settings)
    _record(result, folds, frozen, found, file, time.perf_counter() - started)
    return result


def _check(arms: Sequence[str], folds: Sequence[Splits], settings: Preset) -> None:
    for arm in arms:
        if changes(arm)["loss"] == losses.RANKING_LOSS:
            raise GridError(f"arm {arm!r} learns from rankings; the heads of a grid learn from pairs and ratings")
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
    tested = Counter(pair_id for splits in folds for pair_id in splits.test["pair_id"][:])
    if twice := [pair_id for pair_id, count in tested.items() if count > 1]:
        raise GridError(f"{len(twice)} pairs are tested in more than one fold, the first {twice[0]}")


def _left_out(arms: Sequence[str], folds: Sequence[Splits]) -> dict[str, str]:
    """Arms that the pairs of a fold cannot serve, with the reason; GridError where no other is left."""
    parts = [part for splits in folds for part in (splits.train, splits.selection)]
    rated = all(not np.isnan(ratings_of(part, ("helpfulness",))).all() for part in parts)
    voted = all(not np.isnan(vote_share(part)).all() for part in parts)
    reasons: dict[str, str] = {}
    for arm in arms:
        line = [changes(name) for name in line_of(arm)]
        if not rated and any(c["loss"] == "regression" or {"regression_weight", "affine"} & c.keys() for c in line):
            reasons[arm] = "needs ratings, and these pairs have none"
        elif not voted and any(c.get("soft_labels") for c in line):
            reasons[arm] = "needs votes, and these pairs have none"
    if reasons:
        listed = "; ".join(f"{arm} {reason}" for arm, reason in reasons.items())
        if len(reasons) == len(arms):
            raise GridError(f"{folds[0].source.name}: no arm of {len(arms)} can be trained: {listed}")
        logger.warning("%s: %d of %d arms left out: %s", folds[0].source.name, len(reasons), len(arms), listed)
    return reasons


def _distinct(folds: Sequence[Splits]) -> Dataset:
    """Every pair that a head learns or is chosen from, once."""
    pairs = concatenate_datasets([part for splits in folds for part in (splits.train, splits.selection)])
    _, first = np.unique(pairs["pair_id"][:], return_index=True)
    return pairs.select(np.sort(first))


def _run_fold(arms: Sequence[str], fold: Fold) -> Found:
    fits = fold.fit(arms)
    texts, n_cut = fold.inputs.texts(fold.splits.test)
    texts = fold.scaling(texts)
    on_test, on_selection = (
        {arm: rewards_of_pairs(fit.heads, read) for arm, fit in fits.items()}
        for read in (texts, fold.read("selection"))
    )
    return Found(fits, on_test, on_selection, _sweeps_on_test(fits, fold, texts), n_cut)


def _pooled(
    arms: Sequence[str], folds: Sequence[Splits], grid: Grid, found: Sequence[Found], left_out: dict[str, str]
) -> GridResult:
    each = [(arm, fold, one.fits[arm]) for arm in arms for fold, one in enumerate(found)]
    return GridResult(
        grid,
        whole(folds).test,
        pd.DataFrame([{"arm": arm, "fold": fold, **trial} for arm, fold, fit in each for trial in fit.trials]),
        pd.DataFrame([{"arm": arm, "fold": fold, **fit.selected} for arm, fold, fit in each if fit.selected]),
        {arm: [one.fits[arm].heads for one in found] for arm in arms},
        {arm: np.concatenate([one.on_test[arm] for one in found], axis=1) for arm in arms},
        left_out,
        np.repeat(np.arange(len(folds)), [int(splits.counts()["decided"]["test"]) for splits in folds]),
    )


def _sweeps_on_test(fits: dict[str, ArmFit], fold: Fold, texts: torch.Tensor) -> list[sweeps.Sweep]:
    """What choosing the factor on the test pairs would have shown, seed by seed; it chooses nothing.

    The coarse factors and the chosen one, as in `experiments.sweep_beside`; none where no arm is extrapolated.
    """
    found: list[sweeps.Sweep] = []
    for arm in (arm for arm in fits if "extrapolate" in ARMS[arm].change):
        strong, weak = (fold.fit([name])[name].heads for name in waits_for(arm))
        each = zip(heads_margins_at(weak, strong, fold.splits.test, texts), fits[arm].details, strict=True)
        for margins, own in each:
            factors = sorted({*sweeps.COARSE_FACTORS, own["factor"]})
            found.append(sweeps.rows(lambda factor, at=margins: sweeps.ordering_of(at(factor)), factors))  # type: ignore[misc]
    return found


# --- records ----------------------------------------------------------------------------------------------------------


def _record(
    result: GridResult, folds: Sequence[Splits], settings: Preset, found: Sequence[Found], file: Path, seconds: float
) -> None:
    """One record of all trials, and one for each arm and seed; those that are there already are not written again."""
    comparison = fingerprint(settings.to_dict(), result.grid.to_dict(), [splits.identity for splits in folds])
    shared = record_folds(comparison, settings, folds, file)
    asked = shared | {"grid": result.grid.to_dict() | {"n_folds": len(folds)}}
    tried: dict[str, Any] = {"trials": records.rows(result.trials), "n_trials": len(result.trials)}
    tried |= {"selected": records.rows(result.selected), "left_out": result.left_out}
    records.append(file, kind="grid", asked=asked | {"arms": list(result.rewards)}, outcome=tried, seconds=seconds)
    # Of many folds selection margins would be most of the file, and no temperature is theirs together.
    alone = found[0] if len(folds) == 1 else None
    for arm in result.rewards:
        for index, seed in enumerate(result.grid.seeds):
            selected = margins_of_chosen(folds[0].selection, alone.on_selection[arm][index]) if alone else None
            record_arm(
                file, arm, settings, asked, seed=seed, seconds=seconds / len(result.rewards),
                pairs=result.test, rewards=result.rewards[arm][index], n_cut=sum(one.n_cut for one in found),
                made=_made(arm, index, found), selection_margins=selected, without=VARIED,
            )  # fmt: skip
    for seed, sweep in zip(result.grid.seeds, alone.beside if alone else [], strict=False):
        expo = {key: shared[key] for key in ("preset", "comparison", "source")} | {"arm": "bt_scaled_init_expo"}
        records.append(file, kind="sweep_on_test", asked=expo, outcome={"sweep": sweep}, seed=seed)


def _made(arm: str, index: int, found: Sequence[Found]) -> dict[str, Any]:
    """How the heads of an arm came about: by training, or with what was fitted (of several folds a list of both)."""
    fits = [one.fits[arm] for one in found]
    outcome: dict[str, Any] = {}
    if fits[0].trials:
        outcome["training"] = {
            "n_steps": int(fits[0].curve[-1][0]),
            "n_trials": sum(len(fit.trials) for fit in fits),
            "selected": [fit.selected for fit in fits],
            "curve": np.mean([fit.curve for fit in fits], axis=0).round(6).tolist(),
        }
    if fits[0].details:
        details = [fit.details[index] for fit in fits]
        outcome |= details[0] if len(details) == 1 else {"folds": details}
    return outcome
