"""What a benchmark, and a model on it, pays for beside quality: length, formatting, too much confidence.

The unit is a *comparison*: one right candidate of an item against one wrong one. A pair is one comparison, a best-of-4
item three, an item of RM-Bench nine. Intervals redraw items, with all their comparisons, and seeds where there are
several. What is left is chance: the score of a model that knows nothing.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset
from jaxtyping import Float
from numpy.typing import ArrayLike

from rmlib import records, statistics
from rmlib.benchmarks.benchmark import Benchmark
from rmlib.benchmarks.items import compared, rows_of
from rmlib.benchmarks.sums import Sums
from rmlib.statistics import Interval

UNSCORED = "-"  # stands for a comparison of an item without scores
LENGTH_BINS = 5  # of equally many comparisons
FEWEST = 2 * LENGTH_BINS  # comparisons that are worth bins


def comparisons(items: Dataset) -> pd.DataFrame:
    """One row for each right candidate against each wrong one of an item (`items.compared`), in the order of the items.

    Columns: item (a number), right, wrong (the candidates' numbers), chars_difference, markers_difference (right minus
    wrong: characters, markdown markers).
    """
    rows = []
    for number, item in enumerate(rows_of(items, "candidates", "correct", "pairs")):
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
        "right": "".join(UNSCORED if np.isnan(value) else "1" if value > 0 else "0" for value in every),
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


def _groups(table: pd.DataFrame) -> np.ndarray | None:
    """Which comparisons are of one item; None where each is alone."""
    return None if table["item"].is_unique else table["item"].to_numpy()


# --- what a model that knows nothing gets -----------------------------------------------------------------------------

MOST_ORDERS = 720  # 6!: what is more is drawn
DRAWS = 50  # of the items of a subset whose items are scored together


def chance(benchmark: Benchmark, items: Dataset, *, partial: bool = True, seed: int = 0) -> dict[str, float]:
    """The expected score 0..1 of each section, and the overall one where there is one, for rewards in random order.

    Exact where an item has up to six candidates and is scored alone; else from random orders (of items that are scored
    together, as the Ties of RewardBench 2, from 50 random scorings of the subset).
    """
    rng = np.random.default_rng(seed)

    @cache
    def expected(correct: tuple[bool, ...], pairs: tuple[tuple[int, int], ...] | None, subset: str) -> dict[str, float]:
        item = {"item_id": "", "subset": subset, "correct": correct, "pairs": pairs, "candidates": correct}
        return _mean_credit(benchmark, item, rng)

    is_together = np.array([subset in benchmark.formulas for subset in items["subset"][:]])
    alone, together = (items.select(np.flatnonzero(each)) for each in (~is_together, is_together))
    rows = [
        {"subset": subset} | expected(tuple(correct), None if pairs is None else tuple(map(tuple, pairs)), subset)
        for subset, correct, pairs in zip(alone["subset"][:], alone["correct"][:], alone["pairs"][:], strict=True)
    ]
    tables = [pd.DataFrame(rows)] if rows else []
    if len(together):
        sizes = dict(zip(together["item_id"][:], map(len, together["correct"][:]), strict=True))
        for _ in range(DRAWS):
            tables.append(benchmark.credits(together, {name: rng.random((n,)).tolist() for name, n in sizes.items()}))
    table = pd.concat(tables, ignore_index=True).reindex(columns=["subset", *benchmark.columns])
    sums = Sums.draw(table, benchmark.columns, seed=seed, draws=0)
    return {name: float(drawn[0]) for name, drawn in benchmark.scores(sums, partial=partial).items()}


def _mean_credit(benchmark: Benchmark, item: Mapping[str, Any], rng: np.random.Generator) -> dict[str, float]:
    """The mean of each column of the rule over all orders of an item's candidates, or over many random ones."""
    n = len(item["candidates"])
    if math.factorial(n) <= MOST_ORDERS:
        orders = np.array(list(permutations(range(n))), dtype=float)
    else:
        orders = rng.random((MOST_ORDERS, n))
    table = pd.DataFrame([benchmark.rule(order, item) for order in orders])
    return {column: float(table[column].mean()) for column in benchmark.columns if column in table}
