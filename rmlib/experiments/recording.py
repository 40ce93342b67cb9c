"""What is recorded: of an arm under a seed, of a comparison, and of the pairs that all of its records share."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets
from jaxtyping import Float

from rmlib import records
from rmlib.experiments.arms import changes, settings_for
from rmlib.experiments.presets import Preset
from rmlib.experiments.scoring import outcome_of, rounded
from rmlib.pairs import content_hash, descriptions, overlap
from rmlib.pairs.views import is_decided
from rmlib.records import paths
from rmlib.records.hashing import fingerprint, prompt_key
from rmlib.sources import Splits

logger = logging.getLogger(__name__)


def comparison_of(settings: Preset, splits: Splits) -> str:
    """The name that all runs with the same settings on the same splits share, whatever their arm and seed."""
    rates = {"learning_rates": settings.learning_rates} if settings.learning_rates else {}
    return fingerprint(settings.to_dict() | rates, splits.identity)


def results_file(splits: Splits, settings: Preset) -> Path:
    """Where the records of a source and a backbone go."""
    return paths.results_dir() / f"{paths.line_name(splits.source.name, settings.backbone)}.jsonl"


# --- arms -------------------------------------------------------------------------------------------------------------


def shared_by(settings: Preset, folds: Sequence[Splits], comparison: str) -> dict[str, Any]:
    """What the records of all arms of a comparison share; of several folds, training pairs are those of a mean fold."""
    return {
        "preset": settings.name,
        "comparison": comparison,
        "source": asdict(whole(folds).source),
        "n_train": round(float(np.mean([len(splits.train) for splits in folds]))),
    }


def settings_of(arm: str, settings: Preset, seed: int) -> dict[str, Any]:
    """An arm's settings as records show them: the backbone by its public name."""
    return settings_for(arm, settings, seed).to_dict() | {"backbone": paths.public_name(settings.backbone)}


def record_arm(
    file: Path,
    arm: str,
    settings: Preset,
    shared: dict[str, Any],
    *,
    seed: int,
    seconds: float,
    pairs: Dataset,
    rewards: Float[np.ndarray, "pair 2"],
    n_cut: int,
    made: dict[str, Any],
    selection_margins: Float[np.ndarray, "decided"] | None = None,
    without: Sequence[str] = (),
) -> dict[str, Any]:
    """Append the record of an arm under a seed, which every way to run an arm writes.

    `shared`: as `shared_by`; `pairs`: tested on, with their rewards and the number of texts cut; `made`: how the model
    came about; `without`: settings that say nothing of this run.
    """
    own = {name: value for name, value in settings_of(arm, settings, seed).items() if name not in without}
    outcome = outcome_of(pairs, rewards) | {"n_texts_cut": n_cut} | made
    if selection_margins is not None:
        outcome["selection_margins"] = rounded(selection_margins)
    asked = shared | {"arm": arm, "settings": own, "changes": changes(arm)}
    return records.append(file, kind="arm", asked=asked, outcome=outcome, seconds=seconds, seed=seed)


def record_comparison(comparison: str, settings: Preset, file: Path) -> None:
    """That a file now shows this comparison.

    Finished runs are not recorded twice, so their age does not tell which comparison was looked at last; this does.
    """
    asked, outcome = {"beside": settings.name == "finetuned"}, {"comparison": comparison}
    records.append(file, kind="comparison", asked=asked, outcome=outcome)


def record_folds(comparison: str, settings: Preset, folds: Sequence[Splits], file: Path) -> dict[str, Any]:
    """`record_comparison`, and what its test pairs are like, of which those of one fold belong together.

    Returns `shared_by` of the same.
    """
    kept = [is_decided(splits.test).sum() for splits in folds]
    groups = np.repeat(np.arange(len(folds)), kept).tolist() if len(folds) > 1 else None
    record_test_pairs(whole(folds), file, groups=groups)
    record_comparison(comparison, settings, file)
    return shared_by(settings, folds, comparison)


def whole(folds: Sequence[Splits]) -> Splits:
    """One fold as it is; of several the source that stands for them, with their test pairs one after another."""
    first = folds[0]
    if len(folds) == 1:
        return first
    test = concatenate_datasets([splits.test for splits in folds])
    title = f"{first.source.title.split(' (')[0]} ({len(test):,} pairs, each tested in one of {len(folds)} folds)"
    digest = fingerprint([splits.source.content_hash for splits in folds])
    return replace(first, source=replace(first.source, title=title, content_hash=digest), test=test)


# --- pairs ------------------------------------------------------------------------------------------------------------


def record_overlap(splits: Splits, results: Path, items: Dataset | None = None) -> dict[str, Any]:
    """What occurs twice among the pairs, and what of a benchmark's items lies in them (`overlap.report`), as recorded.

    Computed once for each source and benchmark; a second call takes the record. The summary is logged either way.
    """
    n_pairs = {"train": len(splits.train), "selection": len(splits.selection), "test": len(splits.test)}
    benchmark = None if items is None else items[0]["source"]
    asked = {"source": asdict(splits.source), "n_pairs": n_pairs, "items": benchmark}
    record = records.find(results, kind="overlap", asked=asked)
    if record is None:
        found = overlap.report(concatenate_datasets([splits.train, splits.selection, splits.test]), items)
        outcome = {"summary": overlap.summary(found), **asdict(found)}
        record = records.append(results, kind="overlap", asked=asked, outcome=outcome)
    across = [row for row in record["outcome"]["duplicates"] if row["scope"] == "train and validation"]
    shared = {row["kind"]: row["exact_ids"] for row in across if row["exact_texts"] and row["kind"] != "response"}
    level = logging.WARNING if "pair" in shared else logging.INFO
    logger.log(level, "%s: %s; first in both splits: %s", splits.source.title, record["outcome"]["summary"], shared)
    return record["outcome"]


def record_test_pairs(splits: Splits, results: Path, groups: Sequence[int] | None = None) -> dict[str, Any]:
    """What the decided test pairs are like, in the order of every record's margins: prompt, strength, differences.

    Prompts are numbered: pairs of one prompt have one number. `groups` numbers what reaches beyond a prompt and is
    redrawn together, such as the fold that held a pair out.
    """
    asked = {"source": asdict(splits.source), "test": content_hash(splits.test)}
    if known := records.find(results, kind="test_pairs", asked=asked):
        return known
    outcome = _test_pairs(splits.test) | ({} if groups is None else {"group": list(groups)})
    return records.append(results, kind="test_pairs", asked=asked, outcome=outcome)


def _test_pairs(pairs: Dataset) -> dict[str, Any]:
    table = descriptions.frame(pairs)
    table["prompt"] = np.unique([prompt_key(prompt) for prompt in pairs["prompt"][:]], return_inverse=True)[1]
    table = table[is_decided(pairs)]
    sign = np.sign(table["preference"].astype(int))
    helpfulness = (table["helpfulness_difference"] * sign).astype(float)
    return {
        "prompt": table["prompt"].tolist(),
        "strength": table["preference"].astype(int).abs().tolist(),
        "helpfulness_difference": [None if np.isnan(value) else value for value in helpfulness.tolist()],
        "chars_difference": ((table["chars_2"] - table["chars_1"]) * sign).tolist(),
    }
