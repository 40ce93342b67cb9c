"""A user's own pairs as a benchmark: strict accuracy over all of them and by subset, with intervals.

One pair a row: `prompt` (a text, or messages), `chosen` and `rejected` (a text, or a list of one assistant message, as
preference data sets have them), and if wanted `subset` and `id`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset

from rmlib.benchmarks.benchmark import Benchmark, Scored
from rmlib.benchmarks.items import Given, Row, field, make_item, table_of
from rmlib.benchmarks.report import Report, Subset
from rmlib.benchmarks.rewardbench import prefers_chosen
from rmlib.pairs import preference_view
from rmlib.records.errors import Place, check_text
from rmlib.statistics import wilson_interval

NAME, ONLY_SUBSET = "own", "all"


def of_pairs(pairs: Dataset, source: str) -> Dataset:
    """The decided pairs of a table as such items, named by pair_id, with a subset for each strength of preference.

    `source` is what a report calls them. Raises DataError where a decided pair has equal or empty responses.
    """
    place = Place(source)
    rows = [
        row | {"id": row["pair_id"], "subset": f"strength {row['strength']:g}"}
        for row in preference_view(pairs).select_columns(["pair_id", "prompt", "chosen", "rejected", "strength"])
    ]
    items = [make_item(_item(row, place), place, keep_degenerate=False) for row in rows]
    return table_of(items, place, benchmark=NAME, label=source, subsets=(), partial=True, keep_degenerate=False)


@dataclass(frozen=True)
class OwnPairs(Benchmark):
    """Whatever subsets the items name, each is a section of its own."""

    def credits(self, items: Dataset, scores: Scored) -> pd.DataFrame:
        """1 where the chosen response has more reward, else 0 (a tie is wrong)."""
        return _with_subsets_of(items).credits(items, scores)

    def summarise(
        self, items: Dataset, scores: Scored | pd.DataFrame, *, level: float = 0.95, **options: Any
    ) -> Report:
        """The accuracy of each subset and over all pairs (Wilson intervals); options as for every benchmark."""
        report = _with_subsets_of(items).summarise(items, scores, level=level, **options)
        skipped = sum(report.skipped.values())
        label = f"own pairs, partial: {skipped:,} skipped" if skipped else "own pairs"
        sections = report.sections.loc[["Score"]].copy()
        n, right = int(report.subsets["n"].sum()), report.subsets["n"] * report.subsets["estimate"]
        if np.allclose(right, np.round(right)):  # resampled within its subsets, a mean varies less than over new pairs
            interval = wilson_interval(round(float(right.sum())), n, level=level)
            sections.loc["Score", ["low", "high"]] = [interval.low, interval.high]
        return replace(report, label=label, complete=not skipped, sections=sections)


def _with_subsets_of(items: Dataset) -> Benchmark:
    subsets = {name: Subset(name, None) for name in sorted(items.unique("subset"))}
    return Benchmark(NAME, subsets, prefers_chosen, _item, micro=True)


def _item(row: Row, place: Place) -> Given:
    subset = check_text(row.get("subset") or ONLY_SUBSET, place.at("subset"))
    number = place.row if row.get("id") is None else row["id"]
    responses = {side: [_text(field(row, side, place))] for side in ("chosen", "rejected")}
    name = str(number) if subset == ONLY_SUBSET else f"{subset}/{number}"
    return Given(name, subset, field(row, "prompt", place), responses)


def _text(response: Any) -> Any:
    """The content of a single assistant message; anything else as it is, to be checked."""
    if isinstance(response, list) and len(response) == 1 and isinstance(response[0], Mapping):
        return response[0].get("content") if response[0].get("role") == "assistant" else response
    return response


BENCHMARK = OwnPairs(
    NAME, {}, prefers_chosen, _item, about=__doc__,
    without_hub="name the file of your pairs: rows of prompt, chosen, rejected [, subset, id]", micro=True,
)  # fmt: skip
