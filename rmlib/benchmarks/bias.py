"""What a benchmark, and a model on it, pays for beside quality: length, formatting, too much confidence.

The unit is a *comparison*: one right candidate of an item against one wrong one. A pair is one comparison, a best-of-4
item three, an item of RM-Bench nine. Intervals redraw items, with all their comparisons, and seeds where there are
several.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset
from jaxtyping import Float
from numpy.typing import ArrayLike

from rmlib import records, statistics
from rmlib.benchmarks.items import compared
from rmlib.benchmarks.packed import MISSING
from rmlib.statistics import Interval

LENGTH_BINS = 5  # of equally many comparisons
FEWEST = 2 * LENGTH_BINS  # comparisons that are worth bins


def comparisons(items: Dataset) -> pd.DataFrame:
    """One row for each right candidate against each wrong one of an item (`items.compared`), in the order of the items.

    Columns: item (a number), right, wrong (the candidates' numbers), chars_difference, markers_difference (right minus
    wrong: characters, markdown markers).
    """
    rows = []
    known = [name for name in ("candidates", "correct", "pairs") if name in items.features]
    for number, values in enumerate(zip(*(items[name][:] for name in known), strict=True)):
        item = dict(zip(known, values, strict=True))
        lengths = [len(text) for text in item["candidates"]]
        markers = statistics.Markdown().score([], item["candidates"]).astype(int).tolist()
        for right, wrong in compared(item):
            gaps = lengths[right] - lengths[wrong], markers[right] - markers[wrong]
            rows.append((number, right, wrong, *gaps))
    return pd.DataFrame(rows, columns=["item", "right", "wrong", "chars_difference", "markers_difference"])


def margins(
    items: Dataset, table: pd.DataFrame, scores: Mapping[str, Sequence[float]]
) -> Float[np.ndarray, "comparison"]:
    """Reward of the right minus reward of the wrong candidate, for each of the `comparisons`; NaN without scores."""
    rewards = [scores.get(name) for name in items["item_id"][:]]
    triples = zip(table["item"].tolist(), table["right"].tolist(), table["wrong"].tolist(), strict=True)
    found = [np.nan if (of := rewards[item]) is None else of[right] - of[wrong] for item, right, wrong in triples]
    return np.array(found, dtype=float)


def outcome(items: Dataset, scores: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """What a record keeps: `right`, a text of 0 and 1, one for each comparison (a tie is wrong), and calibration.

    "-" stands for a comparison of an item without scores. ece, brier and calibration (rows) are those of `statistics`,
    of the margins in logits.
    """
    every = margins(items, comparisons(items), scores)
    margin = every[~np.isnan(every)]
    return {
        "right": "".join(MISSING if np.isnan(value) else "1" if value > 0 else "0" for value in every),
        "tied": int((margin == 0).sum()),
        "ece": statistics.expected_calibration_error(margin),
        "brier": statistics.brier(margin),
        "calibration": records.rows(statistics.calibration_table(margin)),
    }


def accuracy_by_length(right: ArrayLike, table: pd.DataFrame, *, seed: int, bins: int = LENGTH_BINS) -> pd.DataFrame:
    """Share of comparisons ordered rightly in bins of equally many by length difference, with 95 % intervals.

    `right`: 0 and 1, `[comparison]` or `[seed, comparison]`. Index bin; columns shortest, longest, mean (characters,
    right minus wrong), estimate, low, high, n. There are fewer bins where many differences are equal, and one where
    there are fewer than ten comparisons.
    """
    difference = table["chars_difference"]
    codes = pd.qcut(difference, bins if len(table) >= FEWEST else 1, labels=False, duplicates="drop")
    codes = codes.fillna(0).astype(int)  # all differences are equal: no edges
    found = statistics.accuracy_by_stratum(right, codes, seed=seed, groups=_groups(table))
    ranges = difference.groupby(codes).agg(shortest="min", longest="max", mean="mean")
    return ranges.join(found).rename_axis("bin")


def equal_length(right: ArrayLike, table: pd.DataFrame, *, seed: int, draws: int = 500) -> Interval | None:
    """Share ordered rightly at equal length (`statistics.length_controlled_accuracy`); None where no length differs."""
    if not table["chars_difference"].any():
        return None
    options: dict[str, Any] = {"seed": seed, "groups": _groups(table), "draws": draws}
    return statistics.length_controlled_accuracy(right, table["chars_difference"], **options)


def all_comparisons(right: ArrayLike, table: pd.DataFrame, *, seed: int) -> Interval:
    """Share of all comparisons ordered rightly; unlike a score, every comparison counts alike."""
    return statistics.bootstrap_interval(right, seed=seed, groups=_groups(table))


def _groups(table: pd.DataFrame) -> np.ndarray | None:
    """Which comparisons are of one item; None where each is alone."""
    return None if table["item"].is_unique else table["item"].to_numpy()
