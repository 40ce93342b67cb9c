"""Figures of the comparison of arms, drawn from its records: accuracies, differences, calibration, curves, sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rmlib import records, statistics
from rmlib.experiments.arms import CONTROL_ARMS, FINETUNED, changes
from rmlib.figures.style import (
    COLOURS,
    FAMILIES,
    LINES,
    MARKERS,
    beside,
    family,
    family_legend,
    forest,
    headline,
    label,
    new_figure,
)
from rmlib.figures.summaries import (
    DETECTABLE,
    arms_table,
    correct,
    described_pairs,
    differences_table,
    interval_of,
    ladder,
    optional,
)
from rmlib.pairs import ANNOTATED
from rmlib.records import RecordError

COMPARED = ("regression", "bt", "bt_margin", "bt_scaled", "bt_scaled_init")  # where all arms would crowd a plot
SMALLEST_BIN = 10  # pairs; the accuracy of fewer says nothing
SWEPT_BESIDE = {
    "sweep_on_test": "Test split: for comparison, never chosen on",
    "sweep_on_benchmark": "Benchmark: for comparison, never chosen on",
}
LOSS_TITLES = {
    "regression": "Regression (points²)",
    "bradley_terry": "Regular BT (nats)",
    "margin_bradley_terry": "Margin BT (nats)",
    "scaled_bradley_terry": "Scaled BT (nats)",
}


def about(table: pd.DataFrame) -> str:
    """What the records of a comparison were made from: source, origin of the preferences, backbone, training pairs."""
    settings = table["asked.settings"]
    frozen = settings.map(lambda values: values["trainable"] == "head")
    how = "head trained" if frozen.all() else "head or all weights trained" if frozen.any() else "all weights trained"
    if any(values["lora_rank"] for values in settings):
        how = "adapters trained"
    row = table.iloc[-1]
    backbone, n_train = row["asked.settings"]["backbone"], int(row["asked.n_train"])
    return f"{_source(table)}; backbone {backbone}, {how} on {n_train:,} pairs"


def _source(table: pd.DataFrame) -> str:
    source = table.iloc[-1]["asked.source"]
    return source["title"] + ("" if source["preferences"] == ANNOTATED else f", preferences {source['preferences']}")


def compared(table: pd.DataFrame, file: Path) -> list[str]:
    """The few arms that a crowded plot shows; RecordError where none of them is recorded."""
    names = set(table["name"])
    shown = [arm for arm in COMPARED if arm in names] or [n for arm in COMPARED if (n := arm + FINETUNED) in names]
    if not shown:
        raise RecordError(f"{file.name}: no record of {', '.join(COMPARED)}; run notebook 02")
    return shown


def ladder_figure(file: Path) -> Figure:
    """Test accuracy of every arm, with intervals, beside the rulers."""
    table, runs = arms_table(file), ladder(file)
    names = [str(arm) for arm in table.index]
    figure, (axes,) = new_figure(8, 0.3 * len(table) + 1.3)
    heights = forest(axes, table, names)
    n, seeds = int(table["n"].iloc[0]), int(table["seeds"].max())
    for height, name in zip(heights, names, strict=True):
        single = correct(runs, name).mean(axis=1) if name in set(runs["name"]) and seeds > 1 else []
        axes.plot(single, np.full(len(single), height), "|", color=FAMILIES[family(name)], ms=8)
    axes.set_yticks(heights, [label(name) for name in names])
    beside(axes, heights, [f"{value:.3f}" for value in table["estimate"]])
    axes.axvline(0.5, color="0.5", lw=1, ls=":")
    axes.set_xlabel("accuracy: share of held-out pairs ordered rightly (a tie is wrong; dotted: chance)")
    family_legend(figure, names)
    shown = f"ticks: seeds (up to {seeds}), dot: their mean" if seeds > 1 else "1 seed"
    detail = f"{n:,} decided test pairs; {shown}, line: 95 % bootstrap interval"
    headline(figure, "The ladder of arms: one change a step", about(runs), detail)
    return figure


def differences_figure(file: Path) -> Figure:
    """What each single change does to accuracy, with paired intervals; controls, far below, only where all are."""
    table = differences_table(file)
    changed = table[~table.index.isin(CONTROL_ARMS)]
    table = table if changed.empty else changed
    names = [str(arm) for arm in table.index]
    points = table.assign(**{key: 100 * table[key] for key in ("estimate", "low", "high")})
    figure, (axes,) = new_figure(8, 0.38 * len(table) + 1.3)
    heights = forest(axes, points, names)
    found = 100 * table[DETECTABLE]
    axes.hlines(heights, -found, found, color="0.88", lw=9, zorder=0)
    lines = [f"{label(name)}\nagainst {label(str(table.loc[name, 'against']))}" for name in names]
    axes.set_yticks(heights, lines, fontsize=8)
    beside(axes, heights, [f"{row['estimate']:+.1f}, p={row['p (Holm)']:.2g}" for _, row in points.iterrows()])
    axes.axvline(0, color="0.5", lw=1, ls=":")
    axes.set_xlabel("difference in accuracy (percentage points)")
    family_legend(figure, names)
    test = "right: the difference, and p of the exact McNemar test, Holm-adjusted"
    detail = f"{int(table['n'].iloc[0]):,} decided test pairs; line: 95 % paired bootstrap interval; {test}"
    headline(figure, "What one change does", about(ladder(file)), detail, could_have_shown(table))
    return figure


def could_have_shown(table: pd.DataFrame) -> str:
    """What the test pairs could have shown at all: the range of the column DETECTABLE, in words."""
    sizes = 100 * table[DETECTABLE].dropna()
    if sizes.empty:
        return "too few test pairs to find any difference with 80 % power"
    limits = f"±{sizes.min():.1f} to ±{sizes.max():.1f}"
    return f"grey: true differences too small to be found with 80 % power at p=0.05, unadjusted ({limits})"


def strength_figure(file: Path) -> Figure:
    """Accuracy by how strongly the annotators preferred the chosen response."""
    table = ladder(file)
    strength = described_pairs(file, len(table["outcome.margins"].iloc[-1]))["strength"].to_numpy()
    shown, levels = compared(table, file), np.unique(strength)
    figure, (axes,) = new_figure(8, 3.6)
    for offset, arm in enumerate(shown):
        values = correct(table, arm)
        intervals = [interval_of(values[:, strength == level]) for level in levels]
        x = levels + (offset - (len(shown) - 1) / 2) * 0.12
        look: dict[str, Any] = {
            "color": COLOURS[offset],
            "marker": MARKERS[offset],
            "ls": "",
            "ms": 5,
            "label": label(arm),
        }
        axes.vlines(x, [i.low for i in intervals], [i.high for i in intervals], color=COLOURS[offset], lw=1.5)
        axes.plot(x, [i.estimate for i in intervals], **look)
    words = {1: "slightly better", 2: "better", 3: "much better"}
    ticks = [f"{level}: {words[int(level)]}\n{(strength == level).sum():,} pairs" for level in levels]
    axes.set_xticks(levels, ticks)
    axes.axhline(0.5, color="0.5", lw=1, ls=":")
    axes.set_xlabel("strength of the preference")
    axes.set_ylabel("accuracy")
    figure.legend(loc="outside lower left", ncols=3, frameon=False)
    detail = f"{len(strength):,} decided test pairs; line: 95 % bootstrap interval over pairs and seeds"
    headline(figure, "Accuracy by strength of preference", about(table), detail)
    return figure


def calibration_figure(file: Path) -> Figure:
    """Reliability of the Bradley-Terry probability sigmoid(margin), arm by arm."""
    table = ladder(file)
    figure, (axes,) = new_figure(7.2, 4.2)
    axes.plot([0.5, 1], [0.5, 1], color="0.5", ls=":", lw=1, label="perfectly calibrated")
    for offset, arm in enumerate(compared(table, file)):
        margin = np.concatenate([np.array(row) for row in table.loc[table["name"] == arm, "outcome.margins"]])
        bins = statistics.calibration_table(margin, bins=8)
        area = 300 * bins["n"] / bins["n"].sum()
        bins = bins[bins["n"] >= SMALLEST_BIN]
        distance = statistics.expected_calibration_error(margin, bins=8)
        look: dict[str, Any] = {"color": COLOURS[offset], "label": f"{label(arm)}\nECE {distance:.3f}"}
        axes.plot(bins["confidence"], bins["accuracy"], marker=MARKERS[offset], ms=3, lw=1.2, **look)
        axes.scatter(
            bins["confidence"], bins["accuracy"], s=area[bins.index], color=COLOURS[offset], marker=MARKERS[offset]
        )
    axes.set_xlabel("confidence: sigmoid of |margin|")
    axes.set_ylabel("accuracy")
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False)
    pooled = (
        f"all seeds pooled; 8 bins of equal width, drawn from {SMALLEST_BIN} pairs on; area of a point: share of pairs"
    )
    error = "ECE, expected calibration error: mean distance from the diagonal over all bins"
    headline(figure, "Is the margin a probability?", about(table), pooled, error)
    return figure


def sweep_figure(file: Path) -> Figure:
    """ExPO: accuracy over the extrapolation factor, on the selection split and wherever else a sweep was recorded."""
    table = ladder(file)
    table = table[table["name"] == "bt_scaled_init_expo"]
    if table.empty:
        raise RecordError(f"{file.name}: no record of bt_scaled_init_expo; run notebook 03")
    if "outcome.factor" not in table:
        raise RecordError(f"{file.name}: each fold has a factor of its own, and one figure would show none of them")
    parts = [("Selection split: where the factor is chosen (ring)", table)]
    for kind, name in SWEPT_BESIDE.items():
        swept = optional(file, kind)
        swept = swept if swept.empty else swept[swept["asked.comparison"] == table["asked.comparison"].iloc[-1]]
        parts += [] if swept.empty else [(name, swept)]
    figure, panels = new_figure(3.8 * len(parts) + 2, 3.4, len(parts), sharey=True)
    for panel, (name, rows) in zip(panels, parts, strict=True):
        for offset, row in enumerate(rows.to_dict(orient="records")):
            sweep, colour = pd.DataFrame(row["outcome.sweep"]).set_index("factor")["accuracy"], COLOURS[offset]
            look: dict[str, Any] = {"color": colour, "ls": LINES[offset % 4], "marker": MARKERS[offset % 7], "ms": 4}
            panel.plot(sweep.index, sweep, label=f"seed {row['seed']}", **look)
            if rows is table:
                best = row["outcome.factor"]
                panel.plot(best, sweep[best], "o", ms=11, mfc="none", color=colour)
        panel.axvline(1, color="0.5", lw=1, ls=":")
        panel.set_title(name)
        panel.set_xlabel("factor (1: the strong model; the paper took 1.52)")
    panels[0].set_ylabel("accuracy")
    seeds = panels[0].get_legend_handles_labels()  # others may show fewer
    panels[-1].legend(*seeds, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    detail = "weak: regression, strong: scaled BT from it; weights are weak + factor x (strong - weak)"
    headline(figure, "ExPO: how far to walk past the strong model", about(table), detail)
    return figure


def affine_figure(file: Path) -> Figure:
    """Do calibrated rewards read as ratings? Mean rating over the reward, in bins of equally many responses."""
    table = records.read(file, kind="affine")
    table = table[table["asked.comparison"].isin(ladder(file)["asked.comparison"].unique())]
    if table.empty:
        raise RecordError(f"{file.name}: no affine fit of the comparison shown; run notebook 03")
    figure, (axes,) = new_figure(7.2, 4)
    for offset, row in enumerate(table.to_dict(orient="records")):
        bins = pd.DataFrame(row["outcome.bins"])
        r = row["outcome.r"]
        name = f"{label(row['asked.arm'])}\n{row['outcome.scale']:.2f} x reward {row['outcome.offset']:+.2f}"
        name += f"\nr={r['estimate']:.2f} [{r['low']:.2f}, {r['high']:.2f}]"
        axes.vlines(bins["reward"], bins["low"], bins["high"], color=COLOURS[offset], lw=1.5)
        look: dict[str, Any] = {"color": COLOURS[offset], "marker": MARKERS[offset], "ms": 5, "lw": 1}
        axes.plot(bins["reward"], bins["estimate"], label=name, **look)
    ends = np.array([axes.get_xlim(), axes.get_ylim()])
    line = [ends.min(), ends.max()]
    axes.plot(line, line, color="0.5", ls=":", lw=1, zorder=0, label="reward equals rating")
    axes.set_xlabel("reward on the rating scale (points, 0-4)")
    axes.set_ylabel("mean helpfulness rating (points)")
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False)
    n = int(table["outcome.r"].iloc[-1]["n"])
    detail = f"{n:,} rated test responses, seed {table['seed'].iloc[-1]}; bins of equally many responses, "
    detail += "lines: 95 % bootstrap interval of the mean; scale and offset fitted on the selection split"
    headline(figure, "Rewards as ratings, after an affine map", about(ladder(file)), detail)
    return figure


def curves_figure(file: Path) -> Figure:
    """Training loss over optimizer steps: one panel per loss, one line per arm (mean of the seeds)."""
    table = ladder(file)
    table = table[table["outcome.training"].notna()]
    loss_of = {name: changes(name.removesuffix(FINETUNED))["loss"] for name in table["name"].unique()}
    panels = [loss for loss in LOSS_TITLES if loss in loss_of.values()]
    figure, axes = new_figure(3 * len(panels), 3.4, len(panels))
    for panel, loss in zip(axes, panels, strict=True):
        drawn: list[str] = []
        for name in (name for name in loss_of if loss_of[name] == loss):
            curves = [np.array(row["curve"]) for row in table.loc[table["name"] == name, "outcome.training"]]
            shortest = min(len(curve) for curve in curves)
            mean = np.mean([curve[:shortest] for curve in curves], axis=0)
            smooth = pd.Series(mean[:, 1]).ewm(span=5).mean()
            style = LINES[drawn.count(family(name)) % len(LINES)]
            panel.plot(mean[:, 0], smooth, style, color=FAMILIES[family(name)], lw=1.8, label=label(name))
            drawn.append(family(name))
        if len(set(drawn)) < len(drawn):  # colour alone does not name the line
            panel.legend(fontsize=7.5)
        panel.set_title(LOSS_TITLES[loss])
        panel.set_xlabel("optimizer step")
    axes[0].set_ylabel("training loss")
    family_legend(figure, loss_of)
    detail = "mean of the seeds, smoothed; each loss has its own scale"
    headline(figure, "Training loss", about(table), detail)
    return figure
