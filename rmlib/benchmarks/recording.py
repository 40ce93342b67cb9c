"""Records of benchmarks: what figures and tables need to compare models again, without the items' texts.

A record of a benchmark's name, one for each model and seed:

    asked     model, items (the source's label), source, preset, comparison
    outcome   the report (label, n, ties, sections, subsets), credits (`pack`), bias (`bias.outcome`)

A record of kind "benchmark_items", one for each set of items:

    asked     benchmark, items, n
    outcome   chance (score of each section for a model that knows nothing) and comparisons: item, chars_difference,
              markers_difference, one number for each comparison, in the order of `bias.right`
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset

from rmlib import records
from rmlib.benchmarks import bias, catalogue
from rmlib.benchmarks.report import Report

COMPARED = ("item", "chars_difference", "markers_difference")


def outcome(items: Dataset, scores: Mapping[str, Sequence[float]]) -> tuple[Report, dict[str, Any]]:
    """The report of some scores, and what a record of them holds."""
    columns = catalogue.BENCHMARKS[catalogue.name_of(items)].columns
    credits = catalogue.credits(items, scores)
    report = catalogue.summarise(items, credits)
    return report, report.to_records() | {"credits": pack(credits, columns), "bias": bias.outcome(items, scores)}


def record_items(items: Dataset, file: Path) -> dict[str, Any]:
    """What the items of a benchmark are like, computed once for each file of records."""
    about = items[0]
    asked = {"benchmark": about["benchmark"], "items": about["source"], "n": len(items)}
    known = records.find(file, kind="benchmark_items", asked=asked)
    if known is not None:
        return known
    table = bias.comparisons(items)
    found = {
        "chance": bias.chance(catalogue.BENCHMARKS[about["benchmark"]], items),
        "comparisons": {column: table[column].tolist() for column in COMPARED},
    }
    return records.append(file, kind="benchmark_items", asked=asked, outcome=found)


def pack(credits: pd.DataFrame, columns: Sequence[str] = ("credit",)) -> dict[str, Any]:
    """A benchmark's credits as plain values: `subsets` (name and number of items), `columns`, and `group` if there.

    Items come subset by subset, in their order; a column is a list of one number an item, None where it has no value.
    """
    table = credits.iloc[np.argsort(pd.factorize(credits["subset"])[0], kind="stable")]
    kept = [*columns, *(["weight"] if "weight" in table else [])]
    packed: dict[str, Any] = {
        "subsets": {str(name): int(n) for name, n in table["subset"].value_counts(sort=False).items()},
        "columns": {column: [_plain(value) for value in table[column].astype(float)] for column in kept},
    }
    if "group" in table and table["group"].duplicated().any():
        packed["group"] = pd.factorize(table["group"])[0].tolist()
    return packed


def unpack(packed: Mapping[str, Any]) -> pd.DataFrame:
    """What was packed, as a table: subset, the columns, and group (a number) where there was one."""
    names, counts = zip(*packed["subsets"].items(), strict=True)
    columns = {name: np.array(values, dtype=float) for name, values in packed["columns"].items()}
    groups = {"group": packed["group"]} if "group" in packed else {}
    return pd.DataFrame({"subset": np.repeat(names, counts), **columns, **groups})


def _plain(value: float) -> float | int | None:
    """The value as JSON has it, a whole number in one sign rather than three."""
    if np.isnan(value):
        return None
    return int(value) if value.is_integer() else value
