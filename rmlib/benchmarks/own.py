"""A user's own pairs as a benchmark: strict accuracy over all of them and by subset, with intervals.

One pair a row: `prompt` (a text, or messages), `chosen` and `rejected` (a text, or a list of one assistant message, as
preference data sets have them), and if wanted `subset` and `id`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset

from rmlib.benchmarks.benchmark import Benchmark, Rewards, Scores, Subset
from rmlib.benchmarks.items import field, file_rows, make_item, table_of
from rmlib.benchmarks.report import Report
from rmlib.pairs import preference_view
from rmlib.records.errors import Place, check_text
from rmlib.statistics import wilson_interval

NAME, ONLY_SUBSET = "own", "all"


def load(
    source: str | Path, *, revision: str = "main", partial: bool = False, keep_degenerate: bool = False
) -> Dataset:
    """The pairs of a file or folder (.jsonl, .json, .parquet), candidates [chosen, rejected], in their order.

    `revision` and `partial` mean nothing here. Raises FileNotFoundError; DataError for a malformed row, an id that
    occurs twice in a subset, and, unless keep_degenerate, equal or empty responses.
    """
    rows, label = file_rows(source)
    items = [_item(row, place, keep_degenerate) for place, row in rows]
    return table_of(
        items,
        Place(str(source)),
        benchmark=NAME,
        label=label,
        subsets=(),
        partial=True,
        keep_degenerate=keep_degenerate,
    )


def of_pairs(pairs: Dataset, source: str) -> Dataset:
    """The decided pairs of a table as such items, named by pair_id, with a subset for each strength of preference.

    `source` is what a report calls them. Raises DataError where a decided pair has equal or empty responses.
    """
    place = Place(source)
    items = [
        _item(row | {"id": row["pair_id"], "subset": f"strength {row['strength']:g}"}, place, False)
        for row in preference_view(pairs).select_columns(["pair_id", "prompt", "chosen", "rejected", "strength"])
    ]
    return table_of(items, place, benchmark=NAME, label=source, subsets=(), partial=True, keep_degenerate=False)


def credits(items: Dataset, scores: Scores, **options: Any) -> pd.DataFrame:
    """1 where the chosen response has more reward, else 0 (a tie is wrong); options as for every benchmark."""
    return _benchmark(items).credits(items, scores, **options)


def summarise(items: Dataset, scores: Scores | pd.DataFrame, *, level: float = 0.95, **options: Any) -> Report:
    """The accuracy of each subset and over all pairs (Wilson intervals); options as for every benchmark."""
    report = _benchmark(items).summarise(items, scores, level=level, **options)
    skipped = sum(report.skipped.values())
    label = f"own pairs, partial: {skipped:,} skipped" if skipped else "own pairs"
    sections = report.sections.loc[["Score"]].copy()
    n, right = int(report.subsets["n"].sum()), report.subsets["n"] * report.subsets["estimate"]
    if np.allclose(right, np.round(right)):  # resampled within its subsets, a mean varies less than one over new pairs
        interval = wilson_interval(round(float(right.sum())), n, level=level)
        sections.loc["Score", ["low", "high"]] = [interval.low, interval.high]
    return replace(report, label=label, complete=not skipped, sections=sections)


def _benchmark(items: Dataset) -> Benchmark:
    return Benchmark(NAME, {name: Subset(name, None) for name in sorted(set(items["subset"][:]))}, _credit, micro=True)


def _credit(rewards: Rewards, item: Mapping[str, Any]) -> dict[str, Any]:
    margin = rewards[0] - rewards[1]
    return {"credit": float(margin > 0), "tie": bool(margin == 0)}


def _item(row: Mapping[str, Any], place: Place, keep_degenerate: bool) -> dict[str, Any]:
    subset = check_text(row.get("subset") or ONLY_SUBSET, place.at("subset"))
    number = place.row if row.get("id") is None else row["id"]
    name = str(number) if subset == ONLY_SUBSET else f"{subset}/{number}"
    responses = {side: [_text(field(row, side, place))] for side in ("chosen", "rejected")}
    prompt = field(row, "prompt", place)
    return make_item(name, subset, prompt, responses, place, keep_degenerate=keep_degenerate)


def _text(response: Any) -> Any:
    """The content of a single assistant message; anything else as it is, to be checked."""
    if isinstance(response, list) and len(response) == 1 and isinstance(response[0], Mapping):
        return response[0].get("content") if response[0].get("role") == "assistant" else response
    return response
