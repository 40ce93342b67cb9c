"""What frozen heads may read, side by side: the comparisons of a file that differ in the inputs of their grid."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.figure import Figure

from rmlib import records, statistics
from rmlib.experiments.arms import title
from rmlib.figures import summaries
from rmlib.figures.arms import about
from rmlib.figures.style import COLOURS, MARKERS, beside, finished, new_figure, rows
from rmlib.figures.summaries import BOOTSTRAP_SEED, by_seed, columns_of, described_pairs, interval_of, prompt_groups
from rmlib.records import RecordError

CHOSEN = "chosen in each fold on its selection pairs"


def inputs_table(file: Path) -> pd.DataFrame:
    """Accuracy of one arm by what its heads read: on the selection pairs, on the test pairs, and there at equal length.

    The arm that most grids of the file have, each with its newest records; all read the same test pairs. The first row
    takes in each fold the inputs whose heads order its selection pairs best: a result, where the best of the other rows
    would be a choice on the test. Rulers follow. Raises RecordError where no two grids differ in their inputs.
    """
    runs = _runs(file)
    found = {CHOSEN: _row(file, _nested(file, runs))}
    for name, table in runs.items():
        selected = [one for training in table["outcome.training"] for one in training["selected"]]
        choices = table["outcome.training"].iloc[0]["selected"]  # the same for every seed
        row = _row(file, _margins(table)) | {"selection accuracy": np.mean([one["accuracy"] for one in selected])}
        found[name] = row | {"at edge": f"{sum(bool(one['at_edge']) for one in choices)} of {len(choices)}"}
    for ruler, margins in summaries.rulers_beside(file, next(iter(runs.values())).iloc[-1]).items():
        found[f"ruler: {ruler}"] = _row(file, margins)
    return pd.DataFrame.from_dict(found, orient="index").rename_axis("inputs")


def inputs_figure(file: Path) -> Figure:
    """`inputs_table` drawn: test accuracy and accuracy at equal length, with intervals."""
    table, runs = inputs_table(file), _runs(file)
    newest = next(iter(runs.values()))
    heights = np.arange(len(table))[::-1]
    figure, (axes,) = new_figure(8.5, 0.33 * len(table) + 1.5)
    for offset, name in enumerate(("accuracy", "at equal length")):
        look: dict[str, Any] = {"marker": MARKERS[offset], "s": 16, "linewidths": 1, "label": name}
        columns = (name, f"{name} low", f"{name} high")
        rows(axes, heights + 0.12 - 0.24 * offset, table, COLOURS[offset], 1.5, columns, **look)
    axes.set_yticks(heights, list(table.index))
    beside(axes, heights, [f"{value:.3f}" for value in table["accuracy"]])
    axes.axvline(0.5, color="0.5", lw=1, ls=":")
    axes.set_xlabel("accuracy on the held-out pairs (a tie is wrong; dotted: chance)")
    seeds, n = {len(part) for part in runs.values()}, int(table["n"].iloc[0])
    detail = f"{title(newest['asked.arm'].iloc[-1])}, {min(seeds)} to {max(seeds)} seeds; {n:,} decided test pairs; "
    detail += "line: 95 % bootstrap interval over folds and seeds; right: accuracy"
    return finished(figure, "What frozen heads read", about(newest), detail, legend=2)


def _runs(file: Path) -> dict[str, pd.DataFrame]:
    """The newest records on each kind of inputs, one a seed; all of one arm and of the newest one's test pairs.

    The arm is that which most inputs were tried on; of several the first recorded.
    """
    table = records.read(file, kind="arm").sort_values("time", kind="stable")
    if "asked.grid" not in table:
        missing = "no grid of heads on a frozen backbone"
        raise RecordError(f"{file.name}: {missing}; run `python -m rmlib.experiments frozen`")
    table = table[table["asked.grid"].notna() & table["outcome.training"].notna()]
    table = table.assign(inputs=table["asked.grid"].map(described))
    counts = table.groupby("asked.arm", sort=False)["inputs"].nunique()
    if counts.max() < 2:
        raise RecordError(f"{file.name}: no two grids differ in their inputs; run rmlib.experiments with --inputs")
    table = table[table["asked.arm"] == counts.idxmax()]
    table = table[table["asked.source"] == table["asked.source"].iloc[-1]]
    parts = {str(name): part for name, part in table.groupby("inputs", sort=True)}
    return {name: part[part["asked.comparison"] == part["asked.comparison"].iloc[-1]] for name, part in parts.items()}


def described(grid: dict[str, Any]) -> str:
    """The inputs of a grid in words."""
    layer = "last layer" if grid.get("layer") is None else f"layer {grid['layer']}"
    extra = " + surface" if grid.get("surface") else " + log length" if grid["log_length"] else ""
    return layer + extra + (", standardised" if grid["standardise"] else "")


def _margins(table: pd.DataFrame) -> Float[np.ndarray, "seed pair"]:
    return np.array(table["outcome.margins"].tolist(), dtype=float)


def _nested(file: Path, runs: dict[str, pd.DataFrame]) -> Float[np.ndarray, "seed pair"]:
    """Margins of the inputs chosen in each fold by the mean accuracy on its selection pairs."""
    shared = min(len(table) for table in runs.values())
    margins = {name: _margins(table)[:shared] for name, table in runs.items()}
    selected = {name: table["outcome.training"].iloc[0]["selected"] for name, table in runs.items()}
    accuracy = pd.DataFrame({name: [one["accuracy"] for one in folds] for name, folds in selected.items()})
    best = accuracy.idxmax(axis=1).tolist()  # one name a fold
    n = next(iter(margins.values())).shape[1]
    groups = described_pairs(file, n).get("group", pd.Series(np.zeros(n, dtype=int))).to_numpy()
    return np.stack([margins[best[fold]][:, pair] for pair, fold in enumerate(groups)], axis=1)


def _row(file: Path, margins: Float[np.ndarray, "seed pair"]) -> dict[str, Any]:
    n = margins.shape[1]
    right, groups = (margins > 0).astype(int), prompt_groups(file, n)
    length = described_pairs(file, n)["chars_difference"]
    equal = statistics.length_controlled_accuracy(by_seed(right), length, seed=BOOTSTRAP_SEED, groups=groups)
    row: dict[str, Any] = {"selection accuracy": np.nan, "at edge": ""}
    row |= columns_of("accuracy", interval_of(right, groups)) | columns_of("at equal length", equal)
    return row | {"seeds": len(margins), "n": n}
