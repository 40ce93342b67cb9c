"""One function per figure; they read records and published numbers, nothing else.

`python -m rmlib.figures` redraws everything from `data/results` into `figures/<source>-<backbone>/`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.figure import Figure

from rmlib import losses
from rmlib.figures.arm_breakdowns import (
    agreement_of_arms_figure,
    learning_curve_figure,
    strata_figure,
    uncertainty_figure,
)
from rmlib.figures.arms import (
    about,
    affine_figure,
    calibration_figure,
    curves_figure,
    differences_figure,
    ladder_figure,
    strength_figure,
    sweep_figure,
)
from rmlib.figures.benchmark_tables import (
    benchmark_table,
    bias_table,
    leaderboard_table,
    length_bias_table,
    pairwise_table,
    subsets_table,
)
from rmlib.figures.benchmarks import (
    benchmark_figure,
    beside_published_figure,
    chat_hard_figure,
    leaderboard_figure,
    length_bias_figure,
    published_benchmarks_figure,
    published_figure,
    subsets_figure,
)
from rmlib.figures.breakdowns import (
    agreement_table,
    ensemble_table,
    learning_curve_table,
    length_table,
    strata_table,
    temperature_table,
    trials_table,
)
from rmlib.figures.data import agreement_figure, annotators_figure, aspects_figure, kappa_table, simulation_figure
from rmlib.figures.inputs import inputs_figure, inputs_table
from rmlib.figures.justifier import fine_tuning_figure, judge_strength_figure, judges_figure
from rmlib.figures.losses import loss_at_figure
from rmlib.figures.style import COLOURS, LINES, headline, new_figure, save_figure, save_table, set_style
from rmlib.figures.summaries import arms_table, differences_table, latest, paper_and_this_run, provenance_table
from rmlib.pairs.descriptions import DIFFERENCES, PREFERENCES
from rmlib.records import RecordError, paths

__all__ = [
    "FIGURES",
    "GENERAL",
    "TABLES",
    "about",
    "affine_figure",
    "agreement_figure",
    "agreement_of_arms_figure",
    "annotators_figure",
    "aspects_figure",
    "benchmark_figure",
    "beside_published_figure",
    "calibration_figure",
    "chat_hard_figure",
    "curves_figure",
    "differences_figure",
    "draw",
    "figure_1",
    "fine_tuning_figure",
    "judge_strength_figure",
    "judges_figure",
    "kappa_table",
    "ladder_figure",
    "leaderboard_figure",
    "learning_curve_figure",
    "length_bias_figure",
    "loss_at_figure",
    "losses_figure",
    "published_benchmarks_figure",
    "published_figure",
    "save_figure",
    "save_table",
    "set_style",
    "simulation_figure",
    "strata_figure",
    "strength_figure",
    "subsets_figure",
    "sweep_figure",
    "tabulate",
    "uncertainty_figure",
]

logger = logging.getLogger(__name__)
Made = TypeVar("Made")


def figure_1(file: Path) -> Figure:
    """The paper's Figure 1: how preferences go with the difference in helpfulness.

    Raises RecordError where no pair has both a preference and ratings.
    """
    record = latest(file, "pairs")
    counts = np.array(record["outcome.figure_1"])
    if not counts.any():
        raise RecordError(f"{file.name}: no pair has both a preference and ratings: Figure 1 needs data with both")
    figure, (axes,) = new_figure(7.5, 4)
    sns.heatmap(
        counts / np.maximum(counts.sum(axis=0, keepdims=True), 1),
        annot=counts,
        fmt="d",
        annot_kws={"fontsize": 9},
        cmap="cividis",
        vmin=0,
        vmax=1,
        xticklabels=DIFFERENCES,
        yticklabels=PREFERENCES,
        cbar_kws={"label": "share of the column"},
        ax=axes,
    )
    axes.invert_yaxis()
    axes.tick_params(axis="y", rotation=0)
    axes.set_xlabel("helpfulness of response 2 minus response 1 (points, 0-4 scale)")
    axes.set_ylabel("preference (positive: response 2)")
    source, r = record["asked.source"], record["outcome.r_preference"]["helpfulness"]
    known = f"n={counts.sum():,} with a preference and both ratings" + ("" if r is None else f", Pearson r={r:.2f}")
    detail = f"{source['title']}, preferences {source['preferences']}; counts of pairs: {known}"
    headline(figure, "Preference against difference in helpfulness", detail)
    return figure


def losses_figure(_: Path | None = None) -> Figure:
    """The three Bradley-Terry losses and their slopes over the margin, drawn from the functions that train."""
    margin = torch.linspace(-4, 6, 201, requires_grad=True)
    figure, axes = new_figure(10, 3.6, 2, sharex=True)
    for colour, name in zip(COLOURS, losses.PAIR_LOSSES, strict=False):
        for style, strength in zip(LINES, (1.0, 2.0, 3.0), strict=False):
            if name == "bradley_terry" and strength > 1:
                continue
            values = losses.pair_loss(name, margin, torch.zeros_like(margin), torch.full_like(margin, strength))
            (slope,) = torch.autograd.grad(values.sum(), margin)
            words = name.replace("_bradley_terry", f" BT, m={strength:.0f}").replace("bradley_terry", "regular BT")
            # Scaled BT with m=1 is regular BT: the wide line stays visible below it.
            look = {"ls": style, "color": colour, "lw": 5 if name == "bradley_terry" else 1.5}
            axes[0].plot(margin.detach(), values.detach(), label=words, **look)
            axes[1].plot(margin.detach(), slope, **look)
    for panel, words in zip(axes, ("loss (nats)", "slope (nats per logit)"), strict=True):
        panel.set_xlabel("margin: reward of chosen minus rejected (logits)")
        panel.set_ylabel(words)
    axes[0].legend(loc="upper right", frameon=False)
    headline(figure, "Three ways to use a preference of strength m", "Bradley-Terry losses, drawn from rmlib.losses")
    return figure


GENERAL: dict[str, Callable[[Path | None], Figure]] = {
    "losses": losses_figure,
    "published": published_figure,
    "published_chat_hard": chat_hard_figure,
    "published_benchmarks": published_benchmarks_figure,
}
FIGURES: dict[str, Callable[[Path], Figure]] = {
    "figure_1": figure_1,
    "agreement": agreement_figure,
    "annotators": annotators_figure,
    "aspects": aspects_figure,
    "simulation": simulation_figure,
    "ladder": ladder_figure,
    "differences": differences_figure,
    "strength": strength_figure,
    "strata": strata_figure,
    "agreement_of_arms": agreement_of_arms_figure,
    "calibration": calibration_figure,
    "curves": curves_figure,
    "uncertainty": uncertainty_figure,
    "learning_curve": learning_curve_figure,
    "inputs": inputs_figure,
    "sweep": sweep_figure,
    "affine": affine_figure,
    "rewardbench": benchmark_figure,
    "rewardbench_leaderboard": leaderboard_figure,
    "rewardbench_length": length_bias_figure,
    "rewardbench_subsets": subsets_figure,
    "rewardbench_beside_published": beside_published_figure,
    "fine_tuning": fine_tuning_figure,
    "judges": judges_figure,
    "judges_by_strength": judge_strength_figure,
}
TABLES: dict[str, Callable[[Path], pd.DataFrame]] = {
    "kappa": kappa_table,
    "arms": arms_table,
    "differences": differences_table,
    "trials": trials_table,
    "ensembles": ensemble_table,
    "strata": strata_table,
    "length": length_table,
    "agreement_of_arms": agreement_table,
    "temperature": temperature_table,
    "learning_curve": learning_curve_table,
    "inputs": inputs_table,
    "paper_and_this_run": paper_and_this_run,
    "rewardbench": benchmark_table,
    "rewardbench_leaderboard": leaderboard_table,
    "rewardbench_pairwise": pairwise_table,
    "rewardbench_bias": bias_table,
    "rewardbench_length": length_bias_table,
    "rewardbench_subsets": subsets_table,
    "provenance": provenance_table,
}


def draw(name: str, file: Path, folder: Path) -> Figure | None:
    """Draw and save one of FIGURES; None, and a log line that says what to run, where its records are missing."""
    figure = _made("figure", name, FIGURES[name], file)
    if figure is not None:
        save_figure(figure, name, folder)
    return figure


def tabulate(name: str, file: Path, folder: Path) -> pd.DataFrame | None:
    """Make and save one of TABLES; None, and a log line that says what to run, where its records are missing."""
    table = _made("table", name, TABLES[name], file)
    if table is not None:
        save_table(table, name, folder)
    return table


def _made(what: str, name: str, make: Callable[[Path], Made], file: Path) -> Made | None:
    """What `make` makes of the records of a file; None, and a log line, where they are missing."""
    try:
        return make(file)
    except RecordError as error:
        logger.warning("%s: no %s %r: %s", file.stem, what, name, error)
        return None


def main() -> None:
    """Redraw everything from the records."""
    from rmlib.figures import alignment  # with what it needs, which no other figure does

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    plt.switch_backend("agg")
    set_style()
    for name, function in GENERAL.items():
        save_figure(function(None), name, paths.figures_dir())
    save_figure(alignment.published_alignment_figure(), "published_alignment", paths.figures_dir())
    for file in sorted(paths.results_dir().glob("*.jsonl")):
        if file.stem.endswith(alignment.ENDING):
            print(f"{file.name}: {', '.join(alignment.draw_all(file))}")
            continue
        folder = paths.figures_dir() / file.stem
        drawn = [name for name in FIGURES if draw(name, file, folder)]
        tables = [name for name in TABLES if tabulate(name, file, folder) is not None]
        print(f"{file.name}: figures {', '.join(drawn)}; tables {', '.join(tables)}")
        plt.close("all")
