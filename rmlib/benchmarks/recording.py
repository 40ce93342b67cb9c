"""Records of benchmarks: what figures and tables need to compare models again, without the items' texts.

A record of a benchmark's name, one for each model and seed:

    asked     model, items (the source's label), source, preset, comparison
    outcome   the report (label, n, ties, sections, subsets), credits (`packed.pack`), bias (`bias.outcome`)

A record of kind "benchmark_items", one for each set of items:

    asked     benchmark, items, n
    outcome   chance (score of each section for a model that knows nothing) and comparisons: item, chars_difference,
              markers_difference, one number for each comparison, in the order of `bias.right`
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from rmlib import records
from rmlib.benchmarks import bias, catalogue, packed
from rmlib.benchmarks.chance import chance
from rmlib.benchmarks.report import Report

COMPARED = ("item", "chars_difference", "markers_difference")


def outcome(items: Dataset, scores: Mapping[str, Sequence[float]]) -> tuple[Report, dict[str, Any]]:
    """The report of some scores, and what a record of them holds."""
    columns = catalogue.BENCHMARKS[catalogue.name_of(items)].columns
    credits = catalogue.credits(items, scores)
    report = catalogue.summarise(items, credits)
    kept = {"credits": packed.pack(credits, columns), "bias": bias.outcome(items, scores)}
    return report, report.to_records() | kept


def record_items(items: Dataset, file: Path) -> dict[str, Any]:
    """What the items of a benchmark are like, computed once for each file of records."""
    about = items[0]
    asked = {"benchmark": about["benchmark"], "items": about["source"], "n": len(items)}
    known = records.find(file, kind="benchmark_items", asked=asked)
    if known is not None:
        return known
    table = bias.comparisons(items)
    found = {
        "chance": chance(catalogue.BENCHMARKS[about["benchmark"]], items),
        "comparisons": {column: table[column].tolist() for column in COMPARED},
    }
    return records.append(file, kind="benchmark_items", asked=asked, outcome=found)
