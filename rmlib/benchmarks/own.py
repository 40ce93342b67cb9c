"""A user's own pairs as a benchmark: strict accuracy over all of them and by subset, with intervals.

A file or a folder in any layout that `sources.folder` reads (data/README.md shows each), with its options. Where rows
have `subset` and `id`, these name the items. `parts` chooses held-out pairs (validation) or training pairs.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset

from rmlib.benchmarks.benchmark import Benchmark, Scored
from rmlib.benchmarks.items import Given, Row, field, make_item, table_of
from rmlib.benchmarks.report import Report, Subset
from rmlib.benchmarks.rewardbench import prefers_chosen
from rmlib.pairs import pair_id
from rmlib.pairs.schema import SPLITS
from rmlib.pairs.table import responses_of_row
from rmlib.pairs.views import decided_rows, has_two, is_decided, left_out
from rmlib.records.errors import DataError, Place, check_text
from rmlib.records.files import warn_of
from rmlib.sources import folder
from rmlib.sources.options import OPTION_NAMES, Options, refuse_unknown
from rmlib.statistics import wilson_interval

logger = logging.getLogger(__name__)

NAME, ONLY_SUBSET = "own", "all"


def of_pairs(pairs: Dataset, source: str, names: Mapping[str, Row] | None = None) -> Dataset:
    """The decided pairs of a table as such items.

    `source` is what a report calls them; `names` gives {pair_id: {id, subset}}, by default the pair_id, and a subset
    for each strength of preference. Raises DataError where a decided pair has equal or empty responses.
    """
    place, rows = Place(source), []
    for row in decided_rows(pairs):
        own = {"id": row["pair_id"], "subset": f"strength {row['strength']:g}"}
        named = own if names is None else names.get(row["pair_id"], own | {"subset": ONLY_SUBSET})
        rows.append({**row, **named})
    if not rows:
        raise DataError(place, "no decided pair", "Give pairs of which one response is better")
    items = [make_item(_item(row, place), place, keep_degenerate=False) for row in rows]
    return table_of(items, place, benchmark=NAME, label=source, subsets=(), partial=True, keep_degenerate=False)


@dataclass(frozen=True)
class OwnPairs(Benchmark):
    """Whatever subsets the items name, each is a section of its own."""

    def load(self, source: str | Path | None = None, *, parts: str | Sequence[str] = (), **options: Any) -> Dataset:
        """The decided pairs of a file or folder; `options` are those of `sources.options.Options`.

        `parts`: "validation" for those that are held out, "train" for the others; by default all, which is warned of
        where training on this source would take some of them. Left out, counted and logged: ties, and all that
        `sources.folder.load` leaves out. Raises ValueError without a source and for unknown parts, and DataError naming
        file, row and field.
        """
        if source is None or source == "hub":
            raise ValueError(self.without_hub)
        wanted = [parts] if isinstance(parts, str) else list(parts)
        if unknown := [part for part in wanted if part not in SPLITS]:
            raise ValueError(f"unknown part {unknown[0]!r}; own has {' and '.join(SPLITS)}")
        if options.pop("keep_degenerate", False):
            raise ValueError("equal responses say nothing of a reward: own pairs have no keep_degenerate")
        options = {name: value for name, value in options.items() if name not in ("partial", "revision")}
        refuse_unknown(options, OPTION_NAMES, self.name)
        reading, name = folder.read(source, Options(**options)), Path(source).name
        pairs = folder.table(reading)
        counts = Counter(pairs["split"][:])
        if wanted:
            pairs = pairs.select([n for n, split in enumerate(pairs["split"][:]) if split in wanted])
        elif counts["train"]:
            message = "%s: %d of %d pairs are training pairs; parts='validation' scores the held-out ones alone"
            logger.warning(f"{message} (--parts validation in the shell)", name, counts["train"], len(pairs))
        if not is_decided(pairs).any():
            raise DataError(Place(name), *_why_none(pairs, counts, wanted))
        warn_of(Counter({f"not scored: {reason}": n for reason, n in left_out(pairs).items() if n}), name, logger)
        return of_pairs(pairs, folder.label_of(source), _names(reading))

    def credits(self, items: Dataset, scores: Scored) -> pd.DataFrame:
        """1 where the chosen response has more reward, else 0 (a tie is wrong)."""
        return _with_subsets_of(items).credits(items, scores)

    def summarise(
        self, items: Dataset, scores: Scored | pd.DataFrame, *, level: float = 0.95, **options: Any
    ) -> Report:
        """The accuracy of each subset and over all pairs (Wilson intervals); options as for every benchmark."""
        report = _with_subsets_of(items).summarise(items, scores, level=level, **options)
        if report.ties == report.n > 1:
            logger.warning(
                "all %d items are ties: the model tells no two responses apart, as one that diverged", report.n
            )
        skipped = sum(report.skipped.values())
        label = f"own pairs, partial: {skipped:,} skipped" if skipped else "own pairs"
        sections = report.sections.loc[["Score"]].copy()
        n, right = int(report.subsets["n"].sum()), report.subsets["n"] * report.subsets["estimate"]
        if np.allclose(right, np.round(right)):  # resampled within its subsets, a mean varies less than over new pairs
            interval = wilson_interval(round(float(right.sum())), n, level=level)
            sections.loc["Score", ["low", "high"]] = [interval.low, interval.high]
        return replace(report, label=label, complete=not skipped, sections=sections)


def _why_none(pairs: Dataset, counts: Mapping[str, int], wanted: Sequence[str]) -> tuple[str, str]:
    """The problem and its remedy where none of the pairs that are to be scored is decided."""
    if len(pairs) == 0:
        problem = (
            f"none of {sum(counts.values())} pairs is in parts {', '.join(wanted)}; {counts['validation']} held out"
        )
        return problem, "Leave parts out to score all, or hold pairs out by a column split or by the option split"
    reasons = ", ".join(f"{reason} {n}" for reason, n in left_out(pairs).items() if n)
    held_out = Counter(pairs["split"][:])["validation"]
    problem = f"no decided pair among {len(pairs)}, of which {held_out} held out: {reasons}"
    if has_two(pairs).any():
        return problem, "Give pairs of which one response is better"
    return problem, "Give pairs of two responses: a score compares them, which ratings of single responses do not"


def _names(reading: folder.Reading) -> dict[str, dict[str, str]]:
    """{pair_id, of either order: {id, subset}}, from the first row of each pair.

    A row without an id is named by its number, beside the name of its file where there are several. Where names repeat,
    every item is named by its pair_id, which is warned of.
    """
    several = len({place.origin for place, _ in reading.rows}) > 1
    names: dict[str, dict[str, str]] = {}
    for place, row in reading.rows:
        number = place.row if row["id"] is None else row["id"]
        subset = ONLY_SUBSET if row["subset"] is None else check_text(str(row["subset"]), place.at("subset"))
        name = {"id": f"{place.origin}/{number}" if several else str(number), "subset": str(subset)}
        first, second = responses_of_row(row)
        same = pair_id(row["prompt"], first, second), pair_id(row["prompt"], second, first)
        if not names.keys() & set(same):
            names.update(dict.fromkeys(same, name))
    ids = Counter((name["subset"], name["id"]) for name in names.values())
    if repeated := [f"{subset}/{number}" for (subset, number), count in ids.items() if count > 2]:
        message = "%d ids name several pairs, so that all items are named by pair_id: %s"
        logger.warning(message, len(repeated), ", ".join(repeated[:10]))
        return {pair: name | {"id": pair} for pair, name in names.items()}
    return names


def _with_subsets_of(items: Dataset) -> Benchmark:
    subsets = {name: Subset(name, None) for name in sorted(items.unique("subset"))}
    return Benchmark(NAME, subsets, prefers_chosen, _item, micro=True)


def _item(row: Row, place: Place) -> Given:
    subset = check_text(row.get("subset") or ONLY_SUBSET, place.at("subset"))
    responses = {side: [field(row, side, place)] for side in ("chosen", "rejected")}
    name = str(row["id"]) if subset == ONLY_SUBSET else f"{subset}/{row['id']}"
    return Given(name, subset, field(row, "prompt", place), responses)


BENCHMARK = OwnPairs(
    NAME, {}, prefers_chosen, _item, about=__doc__,
    without_hub="name the file of your pairs, or their folder, as source (in the shell: --source); layouts: "
    "data/README.md",
    micro=True,
)  # fmt: skip
