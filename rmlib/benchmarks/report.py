"""The result of one benchmark, as a table to look at and as a record to keep."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from rmlib.records import rows


@dataclass(frozen=True)
class Report:
    """Scores 0..1 with confidence intervals.

    Attributes:
        benchmark, source: as in the items; source is "simulated" where the items are.
        label: how far this is the official benchmark: "complete", or in words what is simulated, missing (*partial*) or
            of another size. It belongs into every title.
        complete: whether the items are the official ones in number and subsets, all scored; never for simulated items.
        n, ties: number of items, and how many of them were decided by equal rewards (None: the source does not say).
        sections: index section, columns n (scored items), estimate, low, high. The overall Score comes last; it is
            absent where the benchmark has none, and where it is partial unless that was asked for.
        subsets: index subset, columns section, n, n_official, estimate, low, high, ties, skipped; n is of scored items.
        skipped: number of items without a credit, by reason.
    """

    benchmark: str
    source: str
    label: str
    complete: bool
    n: int
    ties: int | None
    sections: pd.DataFrame
    subsets: pd.DataFrame
    skipped: Mapping[str, int] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """One line: which benchmark, how far it is the official one, how many items, ties and skipped items."""
        ties = "ties not recorded" if self.ties is None else f"{self.ties:,} ties"
        skipped = "".join(f", {count:,} skipped: {reason}" for reason, count in self.skipped.items())
        return f"{self.benchmark} ({self.label}): {self.n:,} items, {ties}{skipped}"

    def to_records(self) -> dict[str, Any]:
        """Everything as plain dictionaries, ready to be the outcome of `records.append`."""
        about = {key: getattr(self, key) for key in ("benchmark", "source", "label", "complete", "n", "ties")}
        return about | {
            "skipped": dict(self.skipped),
            "sections": dict(zip(self.sections.index, rows(self.sections), strict=True)),
            "subsets": dict(zip(self.subsets.index, rows(self.subsets), strict=True)),
        }

    def __str__(self) -> str:
        return f"{self.title}\n{self.sections.round(3).to_string()}\n{self.subsets.round(3).to_string()}"

    def _repr_html_(self) -> str:
        tables = "".join(table.round(3).to_html() for table in (self.sections, self.subsets))
        return f"<p><b>{self.title}</b></p>{tables}"
