"""Every figure and table by its name, drawn from the records of a file and saved.

`python -m rmlib.figures` redraws everything from `data/results` into `figures/<source>-<backbone>/`.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from rmlib.figures import (
    alignment,
    alignment_tables,
    arms,
    benchmark_tables,
    benchmarks,
    breakdowns,
    coverage,
    data,
    justifier,
    losses,
    summaries,
)  # fmt: skip
from rmlib.figures.style import save_figure, save_table, set_style
from rmlib.records import RecordError, paths

logger = logging.getLogger(__name__)
Made = TypeVar("Made", Figure, pd.DataFrame)

GENERAL: dict[str, Callable[[Path | None], Figure]] = {
    "losses": losses.losses_figure, "published": benchmarks.published_figure,
    "published_chat_hard": benchmarks.chat_hard_figure,
    "published_benchmarks": benchmarks.published_benchmarks_figure,
    "published_alignment": alignment.published_alignment_figure, "coverage": coverage.coverage_figure,
}  # fmt: skip
FIGURES: dict[str, Callable[[Path], Figure]] = {
    "figure_1": data.figure_1, "agreement": data.agreement_figure, "annotators": data.annotators_figure,
    "aspects": data.aspects_figure, "simulation": data.simulation_figure, "ladder": arms.ladder_figure,
    "differences": arms.differences_figure, "strata": arms.strata_figure,
    "agreement_of_arms": arms.agreement_of_arms_figure, "calibration": arms.calibration_figure,
    "curves": losses.curves_figure, "uncertainty": arms.uncertainty_figure,
    "learning_curve": arms.learning_curve_figure, "inputs": arms.inputs_figure, "sweep": arms.sweep_figure,
    "affine": arms.affine_figure, "rewardbench": benchmarks.benchmark_figure,
    "rewardbench_leaderboard": benchmarks.leaderboard_figure, "rewardbench_length": benchmarks.length_bias_figure,
    "rewardbench_subsets": benchmarks.subsets_figure,
    "rewardbench_beside_published": benchmarks.beside_published_figure, "fine_tuning": justifier.fine_tuning_figure,
    "judges": justifier.judges_figure, "judges_by_strength": justifier.judge_strength_figure,
}  # fmt: skip
TABLES: dict[str, Callable[[Path], pd.DataFrame]] = {
    "kappa": data.kappa_table, "arms": summaries.arms_table, "differences": summaries.differences_table,
    "trials": breakdowns.trials_table, "ensembles": breakdowns.ensemble_table, "strata": breakdowns.strata_table,
    "length": breakdowns.length_table, "agreement_of_arms": breakdowns.agreement_table,
    "temperature": breakdowns.temperature_table, "learning_curve": breakdowns.learning_curve_table,
    "inputs": breakdowns.inputs_table, "paper_and_this_run": summaries.paper_and_this_run,
    "rewardbench": benchmark_tables.benchmark_table, "rewardbench_leaderboard": benchmark_tables.leaderboard_table,
    "rewardbench_pairwise": benchmark_tables.pairwise_table, "rewardbench_bias": benchmark_tables.bias_table,
    "rewardbench_length": benchmark_tables.length_bias_table, "rewardbench_subsets": benchmark_tables.subsets_table,
    "provenance": summaries.provenance_table,
}  # fmt: skip


def draw(name: str, file: Path, folder: Path) -> Figure | None:
    """Draw and save one of the figures; None, and a log line that says what to run, where its records are missing."""
    figure = _made("figure", name, (FIGURES | alignment.FIGURES)[name], file)
    if figure is not None:
        save_figure(figure, name, folder)
    return figure


def tabulate(name: str, file: Path, folder: Path) -> pd.DataFrame | None:
    """Make and save one of the tables; None, and a log line that says what to run, where its records are missing."""
    table = _made("table", name, (TABLES | alignment_tables.TABLES)[name], file)
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


def draw_all(file: Path) -> tuple[list[str], list[str]]:
    """Draw and save every figure and table that the records of a file allow; returns the names of both."""
    folder = paths.figures_dir() / file.stem
    of_policies = file.stem.endswith(alignment.ENDING)
    figures, tables = (alignment.FIGURES, alignment_tables.TABLES) if of_policies else (FIGURES, TABLES)
    drawn = [name for name in figures if draw(name, file, folder) is not None]
    return drawn, [name for name in tables if tabulate(name, file, folder) is not None]


def main() -> None:
    """Redraw everything from the records."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    plt.switch_backend("agg")
    set_style()
    for name, function in GENERAL.items():
        save_figure(function(None), name, paths.figures_dir())
    for file in sorted(paths.results_dir().glob("*.jsonl")):
        drawn, tables = draw_all(file)
        print(f"{file.name}: figures {', '.join(drawn)}; tables {', '.join(tables)}")
        plt.close("all")
