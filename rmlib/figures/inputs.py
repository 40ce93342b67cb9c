"""What frozen heads may read, side by side: the comparisons of a file that differ in the inputs of their grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rmlib import records, statistics
from rmlib.experiments.arms import title
from rmlib.figures.arms import about
from rmlib.figures.style import COLOURS, MARKERS, beside, headline, new_figure
from rmlib.figures.summaries import BOOTSTRAP_SEED, described_pairs, interval_of, prompt_groups, rulers_beside
from rmlib.records import RecordError

CHOSEN = "chosen in each fold on its selection pairs"


def inputs_table(file: Path) -> pd.DataFrame:
    """Accuracy of one arm by what its heads read: on the selection pairs, on the test pairs, and there at equal length.

    The arm that most grids of the file have, each with its newest records; all read the same test pairs. The first row
    takes in each fold the inputs whose heads order its selection pairs best: a result, where the best of the other rows
    would be a choice on the test. Rulers follow. Raises RecordError where no two grids differ in their inputs.
    """
    runs = _runs(file)
    rows = [{"inputs": CHOSEN, **_row(file, _nested(file, runs), np.nan, "")}]
    for name, table in runs.items():
        margins = np.array(table["outcome.margins"].tolist(), dtype=float)
        selected = float(np.mean([np.mean([one["accuracy"] for one in row["selected"]]) for row in _trainings(table)]))
        choices = [one for row in _trainings(table)[:1] for one in row["selected"]]
        edge = f"{sum(bool(one['at_edge']) for one in choices)} of {len(choices)}"
        rows.append({"inputs": name, **_row(file, margins, selected, edge)})
    for _, ruler in rulers_beside(file, next(iter(runs.values())).iloc[-1]).iterrows():
        margins = np.array([ruler["outcome.margins"]], dtype=float)
        rows.append({"inputs": f"ruler: {ruler['asked.ruler']}", **_row(file, margins, np.nan, "")})
    return pd.DataFrame(rows).set_index("inputs")


def inputs_figure(file: Path) -> Figure:
    """`inputs_table` drawn: test accuracy and accuracy at equal length, with intervals."""
    table, runs = inputs_table(file), _runs(file)
    newest = next(iter(runs.values()))
    heights = np.arange(len(table))[::-1]
    figure, (axes,) = new_figure(8.5, 0.33 * len(table) + 1.5)
    for offset, name in enumerate(("accuracy", "at equal length")):
        at = heights + 0.12 - 0.24 * offset
        axes.hlines(at, table[f"{name} low"], table[f"{name} high"], color=COLOURS[offset], lw=1.5)
        axes.plot(table[name], at, MARKERS[offset], color=COLOURS[offset], ms=4, label=name)
    axes.set_yticks(heights, list(table.index))
    beside(axes, heights, [f"{value:.3f}" for value in table["accuracy"]])
    axes.axvline(0.5, color="0.5", lw=1, ls=":")
    axes.set_xlabel("accuracy on the held-out pairs (a tie is wrong; dotted: chance)")
    figure.legend(loc="outside lower left", ncols=2, frameon=False)
    seeds, n = {len(part) for part in runs.values()}, int(table["n"].iloc[0])
    detail = f"{title(_arm(file))}, {min(seeds)} to {max(seeds)} seeds; {n:,} decided test pairs; "
    detail += "line: 95 % bootstrap interval over folds and seeds; right: accuracy"
    headline(figure, "What frozen heads read", about(newest), detail)
    return figure


def _grids(file: Path) -> pd.DataFrame:
    table = records.read(file, kind="arm").sort_values("time", kind="stable")
    if "asked.grid" not in table:
        raise RecordError(
            f"{file.name}: no grid of heads on a frozen backbone; run `python -m rmlib.experiments frozen`"
        )
    table = table[table["asked.grid"].notna() & table["outcome.training"].notna()]
    return table.assign(inputs=table["asked.grid"].map(described))


def _arm(file: Path) -> str:
    """The arm that most inputs were tried on; of several the first recorded."""
    counts = _grids(file).groupby("asked.arm", sort=False)["inputs"].nunique()
    if counts.max() < 2:
        raise RecordError(f"{file.name}: no two grids differ in their inputs; run rmlib.experiments with --inputs")
    return str(counts.idxmax())


def _runs(file: Path) -> dict[str, pd.DataFrame]:
    """The newest records of the arm on each kind of inputs, one a seed; all of the newest one's test pairs."""
    arm, table = _arm(file), _grids(file)
    table = table[table["asked.arm"] == arm]
    newest = table.iloc[-1]
    table = table[(table["asked.source"] == newest["asked.source"])]
    parts = {str(name): part for name, part in table.groupby("inputs", sort=True)}
    return {name: part[part["asked.comparison"] == part["asked.comparison"].iloc[-1]] for name, part in parts.items()}


def described(grid: dict[str, Any]) -> str:
    """The inputs of a grid in words."""
    layer = "last layer" if grid.get("layer") is None else f"layer {grid['layer']}"
    extra = " + surface" if grid.get("surface") else " + log length" if grid["log_length"] else ""
    return layer + extra + (", standardised" if grid["standardise"] else "")


def _trainings(table: pd.DataFrame) -> list[dict[str, Any]]:
    return list(table["outcome.training"])


def _nested(file: Path, runs: dict[str, pd.DataFrame]) -> np.ndarray:
    """Margins `[seed, pair]` of the inputs chosen in each fold by the mean accuracy on its selection pairs."""
    shared = min(len(table) for table in runs.values())
    margins = {name: np.array(table["outcome.margins"].tolist()[:shared], dtype=float) for name, table in runs.items()}
    accuracy = pd.DataFrame({name: [one["accuracy"] for one in _trainings(table)[0]["selected"]]
                             for name, table in runs.items()})  # fmt: skip
    best = accuracy.idxmax(axis=1).tolist()  # one name a fold
    n = next(iter(margins.values())).shape[1]
    groups = described_pairs(file, n).get("group", pd.Series(np.zeros(n, dtype=int))).to_numpy()
    return np.stack([margins[best[fold]][:, pair] for pair, fold in enumerate(groups)], axis=1)


def _row(file: Path, margins: np.ndarray, selected: float, edge: str) -> dict[str, Any]:
    n = margins.shape[1]
    right, groups = (margins > 0).astype(int), prompt_groups(file, n)
    plain = interval_of(right, groups)
    length = described_pairs(file, n)["chars_difference"]
    values = right[0] if len(right) == 1 else right
    equal = statistics.length_controlled_accuracy(values, length, seed=BOOTSTRAP_SEED, groups=groups)
    row: dict[str, Any] = {"selection accuracy": selected, "at edge": edge}
    for name, found in (("accuracy", plain), ("at equal length", equal)):
        row |= {name: found.estimate, f"{name} low": found.low, f"{name} high": found.high}
    return row | {"seeds": len(margins), "n": n}
