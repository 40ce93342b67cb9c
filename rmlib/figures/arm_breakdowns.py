"""Figures behind an accuracy: where the arms are right, how far they agree, how error falls with data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmlib.figures.arms import about, compared
from rmlib.figures.breakdowns import agreement_table, curve_of, fitted_curves, learning_curves, strata_table
from rmlib.figures.style import COLOURS, LINES, MARKERS, headline, label, new_figure
from rmlib.figures.summaries import accuracy_by_uncertainty, interval_of, ladder, margins, prompt_groups
from rmlib.records import RecordError

SMALLEST_STRATUM = 10  # pairs; the accuracy of fewer says nothing
UNITS = {
    "strength": "strength of the preference",
    "rating gap": "helpfulness, chosen minus rejected (points)",
    "length gap": "length, chosen minus rejected (characters)",
}


def strata_figure(file: Path) -> Figure:
    """Accuracy by strength of the preference, by rating gap and by length gap, arm by arm."""
    runs, table = ladder(file), strata_table(file)
    shown = compared(runs, file)
    properties = [name for name in UNITS if name in set(table["property"])]
    widths = [table.loc[table["property"] == name, "stratum"].nunique() + 1 for name in properties]
    figure, panels = new_figure(12.5, 4.2, len(properties), sharey=True, width_ratios=widths)
    for panel, name in zip(panels, properties, strict=True):
        _strata(panel, table[table["property"] == name].loc[shown], shown)
        panel.set_xlabel(UNITS[name])
    panels[0].set_ylabel("accuracy")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower left", ncols=len(shown), frameon=False)
    n = len(runs["outcome.margins"].iloc[-1])
    detail = f"{n:,} decided test pairs (n under each group); line: 95 % bootstrap interval over pairs and seeds; "
    detail += f"groups of fewer than {SMALLEST_STRATUM} pairs are not drawn; dotted: chance; lengths in fifths of pairs"
    headline(figure, "Where the arms are right", about(runs), detail)
    return figure


def _strata(axes: Axes, table: pd.DataFrame, arms: list[str]) -> None:
    sizes = table.loc[[arms[0]]].set_index("stratum")["n"]
    places = np.arange(len(sizes))
    for offset, arm in enumerate(arms):
        part = table.loc[[arm]].reset_index().query("n >= @SMALLEST_STRATUM")
        x = part.index + (offset - (len(arms) - 1) / 2) * 0.13
        axes.vlines(x, part["low"], part["high"], color=COLOURS[offset], lw=1.5)
        look: dict[str, Any] = {"color": COLOURS[offset], "marker": MARKERS[offset], "ls": "", "ms": 4.5}
        axes.plot(x, part["estimate"], label=label(arm), **look)
    axes.set_xticks(places, [f"{str(name).replace(' to ', chr(10) + 'to ')}\nn={n}" for name, n in sizes.items()])
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlim(-0.6, len(sizes) - 0.4)
    axes.axhline(0.5, color="0.5", lw=1, ls=":")


def agreement_of_arms_figure(file: Path) -> Figure:
    """How far each two arms order the test pairs alike: share of pairs, and kappa of being right."""
    table = agreement_table(file)
    names = list(dict.fromkeys([*table.index, *table["with"]]))
    figure, panels = new_figure(12.5, 0.33 * len(names) + 1.9, 2, sharey=True)
    titles = {"share": "Share of pairs ordered alike (%)", "kappa": "Cohen's kappa of being right (x 100)"}
    for panel, (column, title) in zip(panels, titles.items(), strict=True):
        matrix = table.pivot(columns="with", values=column).reindex(index=names, columns=names)
        shown = 100 * matrix.combine_first(matrix.T).loc[names, names]
        limits = {"vmin": 0 if column == "share" else -100, "vmax": 100}
        colours = "cividis" if column == "share" else "PuOr"
        look: dict[str, Any] = {"annot": True, "fmt": ".0f", "annot_kws": {"fontsize": 7.5}, "cbar": False}
        sns.heatmap(shown, ax=panel, cmap=colours, linewidths=0.5, **look, **limits)
        panel.grid(False)
        panel.set_title(title)
        panel.set_xlabel("")
        panel.set_ylabel("")
        panel.set_xticklabels([str(i + 1) for i in range(len(names))], rotation=0)
    panels[0].set_yticklabels([f"{label(name)}  {i + 1}" for i, name in enumerate(names)], rotation=0)
    widest = (
        50 * (table["share high"] - table["share low"]).max(),
        50 * (table["kappa high"] - table["kappa low"]).max(),
    )
    detail = f"{int(table['n'].iloc[0]):,} decided test pairs, seed by seed; on the diagonal each two seeds of an arm "
    detail += "(empty: one seed, or always right); 95 % bootstrap intervals in the table, at the widest "
    detail += f"±{widest[0]:.0f} (share) and ±{widest[1]:.0f} (kappa)"
    headline(figure, "Do the arms order the same pairs?", about(ladder(file)), detail)
    return figure


def uncertainty_figure(file: Path) -> Figure:
    """Accuracy of the seeds of an arm together, by how far they disagree. RecordError where every arm has one seed."""
    runs = ladder(file)
    shown = [arm for arm in compared(runs, file) if len(margins(runs, arm)) > 1]
    if not shown:
        raise RecordError(f"{file.name}: every arm has one seed; disagreement needs two")
    figure, panels = new_figure(11, 3.6, 2, sharey=True)
    for panel, relative in zip(panels, (False, True), strict=True):
        for offset, arm in enumerate(shown):
            table = accuracy_by_uncertainty(margins(runs, arm), relative=relative)
            x = np.arange(1, len(table) + 1) + (offset - (len(shown) - 1) / 2) * 0.12
            look: dict[str, Any] = {"color": COLOURS[offset], "marker": MARKERS[offset], "ls": "", "ms": 5}
            panel.vlines(x, table["low"], table["high"], color=COLOURS[offset], lw=1.5)
            panel.plot(x, table["estimate"], label="" if relative else label(arm), **look)
        panel.axhline(0.5, color="0.5", lw=1, ls=":")
        panel.set_xticks(range(1, len(table) + 1), ["least", *[""] * (len(table) - 2), "most"])
        panel.set_xlabel(f"{len(table)} groups of equally many pairs")
    panels[0].set_title("By disagreement: standard deviation of the seeds' margins")
    panels[1].set_title("By disagreement over the size of the mean margin")
    panels[0].set_ylabel("accuracy of the seeds together")
    figure.legend(loc="outside lower left", ncols=5, frameon=False)
    detail = f"{table['n'].sum():,} decided test pairs; {len(margins(runs, shown[0]))} seeds, each divided by its root "
    detail += "mean square margin; line: 95 % Wilson interval; dotted: chance"
    headline(figure, "Is disagreement a warning?", about(runs), detail)
    return figure


def learning_curve_figure(file: Path) -> Figure:
    """Test error over the number of training pairs, with a power law fitted to each arm."""
    table, laws = learning_curves(file), fitted_curves(file)
    figure, (axes,) = new_figure(8.5, 4.4)
    for offset, (_, record) in enumerate(table.iterrows()):
        sizes, answers = curve_of(record)
        colour, law = COLOURS[offset % len(COLOURS)], laws[record["asked.arm"]]
        groups = prompt_groups(file, answers.shape[2])
        points = pd.DataFrame([vars(interval_of(1 - part, groups)) for part in answers])
        x = np.array(sizes) * 1.02 ** (offset - (len(table) - 1) / 2)  # so that intervals of arms stand side by side
        axes.vlines(x, points["low"], points["high"], color=colour, lw=1.5)
        axes.plot(x, points["estimate"], MARKERS[offset % len(MARKERS)], color=colour, ms=5)
        line = law.curve(np.geomspace(sizes[0], sizes[-1], 60))
        name = f"{label(record['asked.arm'])}\n{str(law).replace('], ', '],' + chr(10))}"
        style: dict[str, Any] = {"color": colour, "ls": LINES[offset % len(LINES)], "lw": 1.5}
        axes.plot(line["size"], line["estimate"], **style)
        axes.plot([], [], marker=MARKERS[offset % len(MARKERS)], ms=5, label=name, **style)
        axes.fill_between(line["size"], line["low"], line["high"], color=colour, alpha=0.12, lw=0)
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("training pairs (log scale)")
    axes.set_ylabel("error: share of test pairs ordered wrongly")
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False)
    seeds = len(table["asked.seeds"].iloc[-1])
    detail = f"{answers.shape[2]:,} decided test pairs, {seeds} seeds (subset, head, order); points and bands: 95 % "
    detail += "bootstrap intervals over seeds and pairs; curve: error = a n^-exponent + floor, by least squares"
    headline(figure, "How error falls with training pairs", about(table), detail)
    return figure
