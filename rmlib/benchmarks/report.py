"""The result of one benchmark as a table and as a record, and the words that say how far it is the official one."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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
        n, ties: number of items, and how many of them were decided by equal rewards.
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
    ties: int
    sections: pd.DataFrame
    subsets: pd.DataFrame
    skipped: Mapping[str, int] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """One line: which benchmark, how far it is the official one, how many items, ties and skipped items."""
        skipped = "".join(f", {count:,} skipped: {reason}" for reason, count in self.skipped.items())
        return f"{self.benchmark} ({self.label}): {self.n:,} items, {self.ties:,} ties{skipped}"

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


# --- how far the items are the official benchmark ---------------------------------------------------------------------


class Subset(NamedTuple):
    """Where a subset belongs, how many items it officially has (None: not known), and its weight in the section.

    Without a weight it counts by its items, so that a section is the mean over all of them.
    """

    section: str
    n: int | None
    weight: float | None = None


def members_of(subsets: Mapping[str, Subset]) -> dict[str, list[str]]:
    """The subsets of each section, in their official order."""
    members: dict[str, list[str]] = {}
    for name, subset in subsets.items():
        members.setdefault(subset.section, []).append(name)
    return members


def label_of(
    table: pd.DataFrame, subsets: Mapping[str, Subset], totals: Mapping[str, int], *,
    unscored: Collection[str], simulated: bool,
) -> str:  # fmt: skip
    """The word "complete", or in words what is simulated, *partial*, or of another size than the official items.

    Args:
        table: the credits; items with a reason that is not among the `unscored` ones were skipped.
        totals: the official number of items of sections whose subsets have no known one.
    """
    counts = table["subset"].value_counts()
    missing = [name for name in subsets if name not in counts]
    short, other = _sizes(counts, subsets, totals, simulated)
    if missing:
        which = f" (without {', '.join(missing)})" if len(missing) <= 5 else ""
        short.insert(0, f"{len(subsets) - len(missing)} of {len(subsets)} subsets{which}")
    skipped = table["reason"].notna() & ~table["reason"].isin(list(unscored))
    if skipped.any():
        short.append(f"{skipped.sum():,} of {len(table):,} items skipped")
    words = (["simulated"] if simulated else []) + ([f"partial: {', '.join(short)}"] if short else []) + other
    return ", ".join(words) or "complete"


def _sizes(
    counts: pd.Series, subsets: Mapping[str, Subset], totals: Mapping[str, int], simulated: bool
) -> tuple[list[str], list[str]]:
    """Words for what is partial in number, and for what is of another size or not known."""
    members = members_of(subsets)
    official = {name: subset.n for name, subset in subsets.items() if name in counts and subset.n is not None}
    found = {name: int(counts[name]) for name in official}
    present = [section for section, names in members.items() if set(names) <= set(counts.index)]
    for section in totals.keys() & set(present):
        official[section], found[section] = totals[section], int(counts[members[section]].sum())
    short, other = [], []
    if found != official:
        total = sum(totals.values()) + sum(subset.n or 0 for subset in subsets.values())
        shares = f"{counts.sum():,} of {total:,} items"
        if all(found[name] <= official[name] for name in official) and not simulated:
            short.append(shares)
        else:
            other.append(f"not the official counts: {shares}")
    unknown = [section for section in present if section not in totals and subsets[members[section][0]].n is None]
    if unknown:
        other.append(f"official number of items not known for {', '.join(unknown)}")
    return short, other
