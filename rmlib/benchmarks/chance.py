"""What a benchmark gives to a model that knows nothing: every order of the candidates is as likely as any other."""

import math
from collections.abc import Mapping
from functools import cache
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset

from rmlib.benchmarks.benchmark import Benchmark
from rmlib.benchmarks.sums import Sums

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

    subsets = items["subset"][:]
    alone = [index for index, subset in enumerate(subsets) if subset not in benchmark.formulas]
    rows = []
    for index, (correct, pairs) in enumerate(zip(items["correct"][:], items["pairs"][:], strict=True)):
        if subsets[index] not in benchmark.formulas:
            key = None if pairs is None else tuple(tuple(pair) for pair in pairs)
            rows.append({"subset": subsets[index], **expected(tuple(correct), key, subsets[index])})
    tables = [pd.DataFrame(rows)] if rows else []
    if len(alone) < len(items):
        together = items.select(np.setdiff1d(np.arange(len(items)), alone))
        tables += [_random_credits(benchmark, together, rng) for _ in range(DRAWS)]
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


def _random_credits(benchmark: Benchmark, items: Dataset, rng: np.random.Generator) -> pd.DataFrame:
    sizes = zip(items["item_id"][:], items["correct"][:], strict=True)
    return benchmark.credits(items, {name: rng.random(len(correct)).tolist() for name, correct in sizes})
