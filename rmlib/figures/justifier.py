"""Figures of pairwise judges, drawn from their records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rmlib.alignment.justifier_results import OUTCOMES, by_strength, outcome_shares, runs, summary
from rmlib.figures import style

OUTCOME_COLOURS = dict(zip(OUTCOMES, (style.COLOURS[2], style.COLOURS[8], "0.8", style.COLOURS[3]), strict=True))
TRAINING = "outcome.training"


def judges_figure(file: Path) -> Figure:
    """Agreement with held-out preferences, position consistency, and what happens to a pair shown in both orders."""
    table, shares = summary(file), outcome_shares(file)
    figure, panels = style.new_figure(11.5, 0.42 * len(table) + 1.7, 3, sharey=True)
    heights = np.arange(len(table))[::-1]
    for panel, columns in zip(panels, (("agreement", "low", "high"), _prefixed("consistent")), strict=False):
        estimate, low, high = (table[column].to_numpy(dtype=float) for column in columns)
        panel.hlines(heights, low, high, color=style.COLOURS[0], lw=2)
        panel.plot(estimate, heights, "o", color=style.COLOURS[0], ms=6)
        panel.axvline(0.5, color="0.5", lw=1, ls=":")
    panels[0].set(title="agreement with preferences", xlabel="mean of both orders")
    panels[1].set(title="position consistency", xlabel="same winner in both orders", xlim=(-0.03, 1.03))
    left = np.zeros(len(table))
    for kind in OUTCOMES:
        widths = shares[kind].to_numpy()
        panels[2].barh(heights, widths, left=left, height=0.6, color=OUTCOME_COLOURS[kind], label=kind)
        left += widths
    panels[2].set(title="one pair, both orders", xlabel="share of pairs", xlim=(0, 1))
    panels[0].set_yticks(heights, list(table.index))
    panels[0].set_ylim(-0.6, len(table) - 0.4)
    for panel in panels:
        panel.grid(axis="y", visible=False)
    figure.legend(*panels[2].get_legend_handles_labels(), loc="outside lower right", ncols=4, frameon=False)
    style.headline(figure, "Pairwise judges on held-out pairs", _detail(file, table))
    return figure


def judge_strength_figure(file: Path) -> Figure:
    """Agreement by how strong the preference is."""
    table = by_strength(file)
    figure, (axes,) = style.new_figure(7.5, 3.8)
    judges = list(dict.fromkeys(table["judge"]))
    for number, judge in enumerate(judges):
        part, colour = table[table["judge"] == judge], style.COLOURS[number]
        x = part["strength"] + 0.06 * (number - (len(judges) - 1) / 2)
        axes.vlines(x, part["low"], part["high"], color=colour, lw=1.5)
        axes.plot(x, part["estimate"], style.MARKERS[number] + style.LINES[number % 4], color=colour, ms=6, label=judge)
    axes.axhline(0.5, color="0.5", lw=1, ls=":")
    first = table[table["judge"] == judges[0]]
    ticks = [f"{row['strength']}\n{row['n']:,} pairs" for row in first.to_dict("records")]
    axes.set_xticks(first["strength"], ticks)
    axes.set(xlabel="strength of the preference", ylabel="agreement (dotted: chance)")
    figure.legend(loc="outside lower left", ncols=3, frameon=False)
    style.headline(figure, "Agreement by strength of the preference", _detail(file, summary(file)))
    return figure


def fine_tuning_figure(file: Path) -> Figure:
    """Cross-entropy of the written tokens while justifiers are fine-tuned."""
    table = runs(file)
    figure, (axes,) = style.new_figure(7.5, 3.4)
    trained = table[table[TRAINING].notna()]
    for number, (judge, part) in enumerate(trained.groupby("asked.judge", sort=False)):
        for index, training in enumerate(part[TRAINING]):
            curve, named = pd.DataFrame(training["curve"]), str(judge) if index == 0 else None
            line = style.LINES[number % len(style.LINES)]
            axes.plot(curve["step"], curve["loss"], line, color=style.COLOURS[number], lw=1.5, label=named)
    axes.set(xlabel="optimizer step", ylabel="loss (nats a written token)", yscale="log")
    figure.legend(loc="outside lower left", ncols=3, frameon=False)
    title = table.iloc[-1]["asked.source"]["title"]
    style.headline(figure, "Fine-tuning: how surprising the justifications are", f"{title}; one line a seed")
    return figure


def _prefixed(name: str) -> tuple[str, str, str]:
    return name, f"{name} low", f"{name} high"


def _detail(file: Path, table: pd.DataFrame) -> str:
    source, seeds = runs(file).iloc[-1]["asked.source"], int(table["seeds"].max())
    over = "pairs and seeds" if seeds > 1 else "pairs"
    n = int(table["n"].iloc[0])
    text = f"{source['title']}; {n:,} decided test pairs, each in both orders. Dotted: coins. Lines: 95 % intervals "
    return text + f"(agreement: bootstrap over {over}; consistency: Wilson, of the pairs decided in both orders)"
