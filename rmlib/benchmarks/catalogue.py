"""The benchmarks by name, and the verbs that find out by themselves which one is meant: load, credits, summarise."""

from pathlib import Path
from typing import Any

import pandas as pd
from datasets import Dataset

from rmlib.benchmarks import hhh, judgebench, own, ppe, rewardbench, rewardbench2, rmb, rmbench
from rmlib.benchmarks.benchmark import Benchmark, Scored
from rmlib.benchmarks.report import Report

BENCHMARKS: dict[str, Benchmark] = {
    module.BENCHMARK.name: module.BENCHMARK
    for module in (rewardbench, rewardbench2, rmbench, judgebench, rmb, ppe, hhh, own)
}


def load(name: str, source: str | Path | None = None, **options: Any) -> Dataset:
    """The items of a benchmark (columns: items.FEATURES); options and errors: see `Benchmark.load`.

    Raises ValueError for an unknown name.
    """
    return _benchmark(name).load(source, **options)


def credits(items: Dataset, scores: Scored) -> pd.DataFrame:
    """What the official rule credits each item with; see `Benchmark.credits`, and `summarise` for errors."""
    return _benchmark(name_of(items)).credits(items, scores)


def summarise(items: Dataset, scores: Scored | pd.DataFrame, **options: Any) -> Report:
    """The report of the benchmark that the items belong to, of scores or of credits.

    Options (seed, draws, level, partial): see `Benchmark.summarise`. What `score` skipped is known.
    Raises ValueError for no items, or items of several benchmarks.
    """
    return _benchmark(name_of(items)).summarise(items, scores, **options)


def name_of(items: Dataset) -> str:
    """The one benchmark that the items belong to. Raises ValueError for no items, or items of several benchmarks."""
    names = sorted(items.unique("benchmark"))
    if len(names) != 1:
        raise ValueError(f"the items belong to {names or 'no benchmark'}: summarise one benchmark at a time")
    return names[0]


def _benchmark(name: str) -> Benchmark:
    if name not in BENCHMARKS:
        raise ValueError(f"unknown benchmark {name!r}; known: {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]
