"""How far the items of a report are the official benchmark: the words that belong into its title."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import pandas as pd


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
    table: pd.DataFrame,
    subsets: Mapping[str, Subset],
    totals: Mapping[str, int],
    *,
    unscored: Collection[str],
    simulated: bool,
) -> str:
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
