"""Benchmarks of reward models, one file each, with the same three verbs: load, score, summarise.

>>> items = benchmarks.load("rewardbench")
>>> report = benchmarks.summarise(items, benchmarks.score(model, items))
"""

from pathlib import Path
from types import ModuleType
from typing import Any

from datasets import Dataset

from rmlib.benchmarks import rewardbench
from rmlib.benchmarks.items import FEATURES, Scorer
from rmlib.benchmarks.report import Report
from rmlib.benchmarks.scoring import Scores, score

__all__ = ["BENCHMARKS", "FEATURES", "Report", "Scorer", "Scores", "load", "rewardbench", "score", "summarise"]

BENCHMARKS: dict[str, ModuleType] = {"rewardbench": rewardbench}


def load(name: str, source: str | Path = "simulated", **options: Any) -> Dataset:
    """The items of a benchmark (columns: FEATURES). Sources and options: see the `load` of its module.

    Raises ValueError for an unknown name.
    """
    return _module(name).load(source, **options)


def summarise(items: Dataset, scores: Scores, **options: Any) -> Report:
    """The report of the benchmark that the items belong to; options (seed, draws, level): see its module.

    Raises ValueError for no items, or items of several benchmarks.
    """
    names = sorted(set(items["benchmark"]))
    if len(names) != 1:
        raise ValueError(f"the items belong to {names or 'no benchmark'}: summarise one benchmark at a time")
    return _module(names[0]).summarise(items, scores, **options)


def _module(name: str) -> ModuleType:
    if name not in BENCHMARKS:
        raise ValueError(f"unknown benchmark {name!r}; known: {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]
