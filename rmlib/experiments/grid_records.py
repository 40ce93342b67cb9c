"""What a grid writes: one record of all its trials, and one for each arm and seed as `experiments.run` writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import concatenate_datasets

from rmlib import experiments, records
from rmlib.experiments import scoring
from rmlib.experiments.arms import changes, settings_for
from rmlib.experiments.grid_choice import ArmFit
from rmlib.experiments.presets import Preset
from rmlib.records import paths
from rmlib.records.hashing import fingerprint
from rmlib.sources.splits import Splits

if TYPE_CHECKING:
    from rmlib.experiments.grid import GridResult

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


def write(
    result: GridResult, folds: Sequence[Splits], settings: Preset, found: Sequence[Found], file: Path, seconds: float
) -> None:
    """All records of a grid; those that are there already are not written again."""
    pooled = whole(folds)
    shared: dict[str, Any] = {
        "preset": settings.name,
        "comparison": fingerprint(settings.to_dict(), result.grid.to_dict(), [splits.identity for splits in folds]),
        "source": asdict(pooled.source),
        "n_train": round(float(np.mean([len(splits.train) for splits in folds]))),  # of a fold
    }
    record_comparison(shared["comparison"], settings, folds, pooled, file)
    asked = shared | {"grid": result.grid.to_dict() | {"n_folds": len(folds)}}
    tried: dict[str, Any] = {"trials": records.rows(result.trials), "n_trials": len(result.trials)}
    tried |= {"selected": records.rows(result.selected), "left_out": result.left_out}
    records.append(file, kind="grid", asked=asked | {"arms": list(result.rewards)}, outcome=tried, seconds=seconds)
    for arm in result.rewards:
        own = settings_for(arm, settings, seed=0).to_dict() | {"backbone": paths.public_name(settings.backbone)}
        kept = {name: value for name, value in own.items() if name not in VARIED}
        named = asked | {"arm": arm, "settings": kept, "changes": changes(arm)}
        for index, seed in enumerate(result.grid.seeds):
            outcome = scoring.outcome_of(result.test, result.rewards[arm][index])
            outcome |= {"n_texts_cut": sum(one.n_cut for one in found)} | _made(arm, index, found)
            if len(folds) == 1:  # of many folds they would be most of the file, and no temperature is theirs together
                margins = scoring.oriented_margins(folds[0].selection, found[0].on_selection[arm][index])
                outcome["selection_margins"] = scoring.rounded(margins)
            records.append(
                file, kind="arm", asked=named, outcome=outcome, seconds=seconds / len(result.rewards), seed=seed
            )
    for seed, sweep in zip(result.grid.seeds, found[0].beside if len(found) == 1 else [], strict=False):
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


def record_comparison(name: str, settings: Preset, folds: Sequence[Splits], whole: Splits, file: Path) -> None:
    """That a file now shows this comparison, and what its test pairs are like; those of one fold belong together."""
    kept = [np.array([bool(value) for value in splits.test["preference"][:]]).sum() for splits in folds]
    groups = np.repeat(np.arange(len(folds)), kept).tolist() if len(folds) > 1 else None
    experiments.record_test_pairs(whole, file, groups=groups)
    current = {"comparison": name}
    records.append(file, kind="comparison", asked={"beside": settings.name == "finetuned"}, outcome=current)


def whole(folds: Sequence[Splits]) -> Splits:
    """One fold as it is; of several the source that stands for them, with their test pairs one after another."""
    first = folds[0]
    if len(folds) == 1:
        return first
    test = concatenate_datasets([splits.test for splits in folds])
    title = f"{first.source.title.split(' (')[0]} ({len(test):,} pairs, each tested in one of {len(folds)} folds)"
    digest = fingerprint([splits.source.content_hash for splits in folds])
    return replace(first, source=replace(first.source, title=title, content_hash=digest), test=test)
