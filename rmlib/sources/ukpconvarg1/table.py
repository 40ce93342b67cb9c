"""The table of pairs of UKPConvArg1, with who voted, what was published as gold, and counts beside those published."""

import logging
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset

from rmlib.pairs import CONSENSUS, make_pairs, pair_id
from rmlib.records.errors import DataError, Place, shown
from rmlib.records.files import folder_of
from rmlib.sources.cache import cached
from rmlib.sources.ukpconvarg1.files import Comparison, present, read, read_strict

logger = logging.getLogger(__name__)

SUBSETS = ("all", "gold", "strict")
N_FOLDS = 5
N_VOTES = 5  # that each pair was to get
PUBLISHED = {
    "pairs": 16_927, "votes": 84_445, "workers": 3_815, "arguments": 1_052, "topics": 32, "debates": 16,
    "pairs with gold": 16_081, "pairs decided by gold": 12_792, "pairs of the strict set": 11_650,
}  # fmt: skip


def load(source: str | Path, *, subset: str = "all", fold: int = 0, n_folds: int = N_FOLDS) -> Dataset:
    """The pairs of a folder in either layout, one row a pair, each vote an annotation with the reason as written.

    Args:
        subset: "all"; "gold", pairs with a published gold label; "strict", the pairs that `strict.csv` names.
        fold: of `n_folds`; its debates, both sides of each, are the validation split. The folder's debates in
            alphabetical order are cut into `n_folds` runs of like length; 16 folds hold out each debate in turn.
    The preference is the `consensus` of the votes, whatever the subset. Counts that differ from the published ones are
    warned of; pairs left out (same texts twice) are counted by `make_pairs`. A second load of the same files takes the
    table from the cache. Raises DataError naming file, row and field, and for an unknown subset or fold.
    """
    _check_options(subset, fold, n_folds)
    folder = folder_of(source)
    make = partial(_table, folder, subset, fold, n_folds)
    return cached("ukpconvarg1", present(folder), make, subset=subset, fold=fold, n_folds=n_folds)


def workers(source: str | Path) -> pd.DataFrame:
    """Who voted: index worker; n_votes, and competence (0..1) as published, estimated by MACE (Hovy et al., 2013).

    Where a worker's competence is not the same in all votes, the median is given, with a warning. Raises DataError.
    """
    votes = pd.DataFrame([vote for comparison in read(folder_of(source)) for vote in comparison.votes])
    competence = votes.groupby("worker")["competence"]
    varying = int((competence.nunique() > 1).sum())
    if varying:
        logger.warning("UKPConvArg1: %d workers have more than one published competence: the median is given", varying)
    return pd.DataFrame({"n_votes": competence.size(), "competence": competence.median()})


def gold(source: str | Path) -> pd.Series:
    """The published gold label, -1 (argument 1), 0 (equal) or +1, by `pair_id`; pairs without one are left out.

    Of pairs with the same texts the first counts, as in the table of `load`. Raises DataError.
    """
    labels: dict[str, int | None] = {}
    for comparison in read(folder_of(source)):
        if comparison.texts[0] != comparison.texts[1]:
            labels.setdefault(pair_id(_prompt(comparison.topic), *comparison.texts), comparison.gold)
    return pd.Series(labels, dtype="Int64", name="gold").rename_axis("pair_id").dropna()


def counts(source: str | Path) -> pd.DataFrame:
    """What the files hold, before any pair is left out, beside what was published: columns published and found.

    The strict set is null where no file tells it. Raises DataError.
    """
    folder = folder_of(source)
    return _counts(read(folder), read_strict(folder, needed=False))


def consensus(votes: Iterable[int]) -> int:
    """The preference that votes of -1, 0, +1 imply: sign of their sum, times 1, 2, 3 where it is 1-2, 3-4, 5 up.

    The margin is a number of votes, not a share: where only four voted and all agree, it is 4.
    """
    margin = sum(votes)
    return int(np.sign(margin)) * min(3, (abs(margin) + 1) // 2)


def _table(folder: Path, subset: str, fold: int, n_folds: int) -> Dataset:
    comparisons = read(folder)
    strict = read_strict(folder, needed=subset == "strict")
    _warn(comparisons, strict)
    held_out = _held_out({comparison.debate for comparison in comparisons}, fold, n_folds)
    kept = [c for c in comparisons if subset == "all" or (c.gold is not None if subset == "gold" else c.name in strict)]
    rows = [_row(comparison, "validation" if comparison.debate in held_out else "train") for comparison in kept]
    if {row["split"] for row in rows} != {"train", "validation"}:
        problem = f"fold {fold} of {n_folds} leaves train or validation without a pair (subset {subset!r})"
        raise DataError(Place(str(folder)), problem, "Choose another fold or fewer folds, or add debates")
    return make_pairs(
        rows, origin="UKPConvArg1", preferences=CONSENSUS, places=[c.place for c in kept], repeats="first"
    )


def _row(comparison: Comparison, split: str) -> dict[str, Any]:
    return {
        "split": split,
        "prompt": _prompt(comparison.topic),
        "response_1": comparison.texts[0],
        "response_2": comparison.texts[1],
        "preference": consensus(vote.preference for vote in comparison.votes),
        "annotations": [
            {"annotator": vote.worker, "preference": vote.preference, "justification": vote.reason}
            for vote in comparison.votes
        ],
    }


def _prompt(topic: str) -> list[dict[str, str]]:
    """The task that both arguments answer; title and position come from the topic's name, which both layouts share."""
    debate, _, side = topic.rpartition("_")
    title, position = (slug.replace("-", " ").strip().capitalize() for slug in (debate, side))
    text = f"The debate: {title}.\nThe position to defend: {position}.\n\nGive a convincing argument for this position."
    return [{"role": "user", "content": text}]


def _check_options(subset: str, fold: int, n_folds: int) -> None:
    if subset not in SUBSETS:
        raise DataError(Place("UKPConvArg1"), f"unknown subset {shown(subset)}", f"Use one of {', '.join(SUBSETS)}")
    if n_folds < 2 or not 0 <= fold < n_folds:
        raise DataError(Place("UKPConvArg1"), f"there is no fold {fold} of {n_folds}", "Use 0 <= fold < n_folds >= 2")


def _held_out(debates: set[str], fold: int, n_folds: int) -> set[str]:
    return {debate for index, debate in enumerate(sorted(debates)) if index * n_folds // len(debates) == fold}


def _counts(comparisons: Sequence[Comparison], strict: set[str]) -> pd.DataFrame:
    found = {
        "pairs": len(comparisons),
        "votes": sum(len(c.votes) for c in comparisons),
        "workers": len({vote.worker for c in comparisons for vote in c.votes}),
        "arguments": len({(c.topic, argument) for c in comparisons for argument in c.arguments}),
        "topics": len({c.topic for c in comparisons}),
        "debates": len({c.debate for c in comparisons}),
        "pairs with gold": sum(c.gold is not None for c in comparisons),
        "pairs decided by gold": sum(bool(c.gold) for c in comparisons),
        "pairs of the strict set": sum(c.name in strict for c in comparisons) if strict else None,
    }
    return pd.DataFrame({"published": PUBLISHED, "found": found}, dtype="Int64")


def _warn(comparisons: Sequence[Comparison], strict: set[str]) -> None:
    table = _counts(comparisons, strict).dropna()
    differing = table[table["published"] != table["found"]]
    if len(differing):
        listed = ", ".join(f"{row.Index} {row.found:,} instead of {row.published:,}" for row in differing.itertuples())
        logger.warning("UKPConvArg1: not the full release: %s", listed)
    missing = len(strict - {comparison.name for comparison in comparisons})
    if missing:
        logger.warning("UKPConvArg1: the strict set names %d pairs that are not there", missing)
    unusual = sum(len(comparison.votes) != N_VOTES for comparison in comparisons)
    if unusual:
        logger.warning(
            "UKPConvArg1: %d pairs have other than %d votes; margins count those there are", unusual, N_VOTES
        )
