"""The result of one benchmark, as a table to look at and as a record to keep."""

from dataclasses import dataclass
from typing import Any

import pandas as pd


@dataclass(frozen=True)
class Report:
    """Accuracies 0..1 with confidence intervals.

    Attributes:
        benchmark, source: as in the items; source is "simulated" where the items are.
        label: how far this is the official benchmark: "complete", or in words what is simulated, missing or of another
            size. It belongs into every title.
        complete: whether the items are the official ones in number and subsets; never for simulated items.
        n, ties: number of items, and how many of them have candidates with equal rewards.
        sections: index section, columns n, estimate, low, high. The overall Score is absent where subsets are missing.
        subsets: index subset, columns section, n, n_official, estimate, low, high, ties.
    """

    benchmark: str
    source: str
    label: str
    complete: bool
    n: int
    ties: int
    sections: pd.DataFrame
    subsets: pd.DataFrame

    @property
    def title(self) -> str:
        """One line: which benchmark, how far it is the official one, how many items and ties."""
        return f"{self.benchmark} ({self.label}): {self.n:,} items, {self.ties:,} ties"

    def to_records(self) -> dict[str, Any]:
        """Everything as plain dictionaries, ready to be the outcome of `records.append`."""
        about = {key: getattr(self, key) for key in ("benchmark", "source", "label", "complete", "n", "ties")}
        return about | {
            "sections": self.sections.to_dict(orient="index"),
            "subsets": self.subsets.to_dict(orient="index"),
        }

    def __str__(self) -> str:
        return f"{self.title}\n{self.sections.round(3).to_string()}\n{self.subsets.round(3).to_string()}"

    def _repr_html_(self) -> str:
        tables = "".join(table.round(3).to_html() for table in (self.sections, self.subsets))
        return f"<p><b>{self.title}</b></p>{tables}"
