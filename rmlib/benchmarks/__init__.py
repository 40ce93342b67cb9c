"""Benchmarks of reward models, one file each, with the same three verbs: load, score, summarise.

>>> items = benchmarks.load("rewardbench")
>>> report = benchmarks.summarise(items, benchmarks.score(model, items))
"""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset

from rmlib.bars import progress_bar
from rmlib.benchmarks import rewardbench, rewardbench2, rmbench
from rmlib.benchmarks.items import FEATURES, Scorer
from rmlib.benchmarks.report import Report

__all__ = [
    "BENCHMARKS", "FEATURES", "Report", "Scorer", "credits", "load", "rewardbench", "rewardbench2", "rmbench", "score",
    "summarise",
]  # fmt: skip

BENCHMARKS: dict[str, ModuleType] = {
    "rewardbench": rewardbench,
    "rewardbench2": rewardbench2,
    "rmbench": rmbench,
}
Scores = dict[str, list[float]]


def load(name: str, source: str | Path | None = None, **options: Any) -> Dataset:
    """The items of a benchmark (columns: FEATURES). Sources, their default and options: see the `load` of its module.

    Raises ValueError for an unknown name.
    """
    return _module(name).load(*([] if source is None else [source]), **options)


def score(model: Scorer, items: Dataset, *, items_per_call: int = 128, progress: bool = True) -> Scores:
    """The reward of each candidate, {item_id: [rewards in the item's order]}.

    Raises ValueError where the model does not give one finite reward for each response; it names the items.
    """
    scores: Scores = {}
    with progress_bar(total=len(items), desc="scoring", unit="item", show=progress, leave=False) as bar:
        for start in range(0, len(items), items_per_call):
            rows = items[start : start + items_per_call]
            scores |= _score_rows(model, rows["item_id"], rows["prompt"], rows["candidates"])
            bar.update(len(rows["item_id"]))
    return scores


def credits(items: Dataset, scores: Scores, **options: Any) -> pd.DataFrame:
    """What the official rule credits each item with; see `aggregate.Benchmark.credits`, and `summarise` for errors."""
    return _of_items(items).credits(items, scores, **options)


def summarise(items: Dataset, scores: Scores | pd.DataFrame, **options: Any) -> Report:
    """The report of the benchmark that the items belong to, of scores or of credits.

    Options (seed, draws, level, partial, skipped): see `aggregate.Benchmark.summarise`.
    Raises ValueError for no items, or items of several benchmarks.
    """
    return _of_items(items).summarise(items, scores, **options)


def _of_items(items: Dataset) -> ModuleType:
    names = sorted(items.unique("benchmark"))
    if len(names) != 1:
        raise ValueError(f"the items belong to {names or 'no benchmark'}: summarise one benchmark at a time")
    return _module(names[0])


def _module(name: str) -> ModuleType:
    if name not in BENCHMARKS:
        raise ValueError(f"unknown benchmark {name!r}; known: {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]


def _score_rows(model: Scorer, names: list[str], prompts: list[Any], candidates: list[list[str]]) -> Scores:
    sizes = [len(responses) for responses in candidates]
    repeated = [prompt for prompt, size in zip(prompts, sizes, strict=True) for _ in range(size)]
    rewards = np.asarray(model.score(repeated, sum(candidates, [])), dtype=float)
    if rewards.shape != (sum(sizes),):
        raise ValueError(
            f"expected one reward for each of {sum(sizes)} responses, got shape {list(rewards.shape)}; "
            "give a model of several attributes one output first (combining.weigh_attributes)"
        )
    per_item = dict(zip(names, np.split(rewards, np.cumsum(sizes)[:-1]), strict=True))
    broken = [name for name, values in per_item.items() if not np.isfinite(values).all()]
    if broken:
        raise ValueError(f"rewards that are not finite for {len(broken)} items, e.g. {broken[:5]}: the model is broken")
    return {name: values.tolist() for name, values in per_item.items()}
