"""Benchmarks of reward models, one file each, with the same three verbs: load, score, summarise.

>>> items = benchmarks.load("rewardbench")
>>> report = benchmarks.summarise(items, benchmarks.score(model, items))
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
from datasets import Dataset

from rmlib.benchmarks import hhh, judgebench, own, ppe, rewardbench, rewardbench2, rmb, rmbench
from rmlib.benchmarks.items import FEATURES
from rmlib.benchmarks.report import Report
from rmlib.benchmarks.scoring import Scores, score
from rmlib.models import Scorer

__all__ = [
    "BENCHMARKS", "FEATURES", "Report", "Scorer", "Scores", "credits", "hhh", "judgebench", "load", "name_of", "own",
    "ppe", "rewardbench", "rewardbench2", "rmb", "rmbench", "score", "summarise",
]  # fmt: skip

BENCHMARKS: dict[str, ModuleType] = {
    "rewardbench": rewardbench,
    "rewardbench2": rewardbench2,
    "rmbench": rmbench,
    "judgebench": judgebench,
    "rmb": rmb,
    "ppe": ppe,
    "hhh": hhh,
    "own": own,
}
Rewards = Mapping[str, Sequence[float]]  # {item_id: [reward of each candidate]}


def load(name: str, source: str | Path | None = None, **options: Any) -> Dataset:
    """The items of a benchmark (columns: FEATURES). Sources, their default and options: see the `load` of its module.

    Raises ValueError for an unknown name.
    """
    return _module(name).load(*([] if source is None else [source]), **options)


def credits(items: Dataset, scores: Rewards, **options: Any) -> pd.DataFrame:
    """What the official rule credits each item with; see `aggregate.Benchmark.credits`, and `summarise` for errors."""
    return _module(name_of(items)).credits(items, scores, **_skipped(scores) | options)


def summarise(items: Dataset, scores: Rewards | pd.DataFrame, **options: Any) -> Report:
    """The report of the benchmark that the items belong to, of scores or of credits.

    Options (seed, draws, level, partial, skipped): see `aggregate.Benchmark.summarise`. What `score` skipped is known.
    Raises ValueError for no items, or items of several benchmarks.
    """
    return _module(name_of(items)).summarise(items, scores, **_skipped(scores) | options)


def name_of(items: Dataset) -> str:
    """The one benchmark that the items belong to. Raises ValueError for no items, or items of several benchmarks."""
    names = sorted(items.unique("benchmark"))
    if len(names) != 1:
        raise ValueError(f"the items belong to {names or 'no benchmark'}: summarise one benchmark at a time")
    return names[0]


def _skipped(scores: Rewards | pd.DataFrame) -> dict[str, Any]:
    return {"skipped": scores.skipped} if isinstance(scores, Scores) and scores.skipped else {}


def _module(name: str) -> ModuleType:
    if name not in BENCHMARKS:
        raise ValueError(f"unknown benchmark {name!r}; known: {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]
