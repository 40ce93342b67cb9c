"""One function per figure or table; they read records and published numbers, nothing else.

`python -m rmlib.figures` redraws everything from `data/results` into `figures/<source>-<backbone>/`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmlib import losses, paths, records, statistics
from rmlib.arms import ARMS, FINETUNED, title
from rmlib.descriptions import DIFFERENCES, PREFERENCES
from rmlib.records import RecordError
from rmlib.summaries import (
    arms_table,
    benchmark_table,
    correct,
    differences_table,
    interval_of,
    ladder,
    paper_and_this_run,
)

logger = logging.getLogger(__name__)

COLOURS = sns.color_palette("colorblind").as_hex()
FAMILIES = {  # colour of an arm: what it is trained from
    "regression": COLOURS[1],
    "Bradley-Terry from scratch": COLOURS[0],
    "Bradley-Terry from regression": COLOURS[2],
    "ruler or control": COLOURS[7],
}
COMPARED = ("regression", "bt", "bt_margin", "bt_scaled", "bt_scaled_init")  # where all arms would crowd a plot
SECTIONS = ("Score", "Chat", "Chat Hard", "Safety", "Reasoning")


def set_style() -> None:
    """One look for notebooks and files."""
    sns.set_theme(
        context="notebook",
        style="whitegrid",
        palette="colorblind",
        rc={"figure.dpi": 80, "savefig.dpi": 160, "axes.titlesize": 11, "axes.titlelocation": "left", "font.size": 10},
    )


def save_figure(figure: Figure, name: str, folder: Path) -> None:
    """Write `name`.pdf and `name`.png into a folder, without dates, so that equal figures are equal files."""
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.pdf", bbox_inches="tight", metadata={"CreationDate": None})
    figure.savefig(folder / f"{name}.png", bbox_inches="tight")


def save_table(table: pd.DataFrame, name: str, folder: Path) -> None:
    """Write a table as `name`.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / f"{name}.csv")


# --- what every title says --------------------------------------------------------------------------------------------


def about(table: pd.DataFrame) -> str:
    """Source, origin of the preferences, backbone: the second line of every title."""
    row = table.iloc[0]
    derived = " (preferences derived from helpfulness)" if "derived" in row["asked.source"]["preferences"] else ""
    backbone = row["asked.settings"]["backbone"]
    frozen = table["asked.settings"].map(lambda settings: settings["trainable"] == "head")
    how = "frozen" if frozen.all() else "fine-tuned" if not frozen.any() else "frozen or fine-tuned"
    return f"{row['asked.source']['title']}{derived}, {backbone} {how}"


def _subtitle(axes: Axes, title: str, detail: str) -> None:
    axes.set_title(f"{title}\n{detail}", loc="left")


def _family(name: str) -> str:
    arm = name.removesuffix(FINETUNED)
    if arm not in ARMS or arm == "bt_shuffled":
        return "ruler or control"
    if arm.startswith("regression"):
        return "regression"
    return "Bradley-Terry from regression" if "init" in arm else "Bradley-Terry from scratch"


# --- data -------------------------------------------------------------------------------------------------------------


def figure_1(file: Path) -> Figure:
    """The paper's Figure 1: how preferences go with the difference in helpfulness."""
    record = records.read(file, kind="pairs").iloc[-1]
    counts = np.array(record["outcome.figure_1"])
    figure, axes = plt.subplots(figsize=(7.5, 4.2))
    share = counts / np.maximum(counts.sum(axis=0, keepdims=True), 1)
    sns.heatmap(
        share,
        annot=counts,
        fmt="d",
        cmap="cividis",
        vmin=0,
        vmax=1,
        xticklabels=DIFFERENCES,
        yticklabels=PREFERENCES,
        cbar_kws={"label": "share of the column"},
        ax=axes,
    )
    axes.invert_yaxis()
    axes.set_xlabel("helpfulness of response 2 minus response 1 (points, 0-4 scale)")
    axes.set_ylabel("preference (positive: response 2)")
    source = record["asked.source"]
    r = record["outcome.r_preference"]["helpfulness"]
    detail = f"{source['title']}, preferences {source['preferences']}; counts, n={counts.sum():,}, r={r:.2f}"
    _subtitle(axes, "Preference against difference in helpfulness", detail)
    return figure


# --- the comparison ---------------------------------------------------------------------------------------------------


def ladder_figure(file: Path) -> Figure:
    """Test accuracy of every arm, with intervals, beside the rulers."""
    table, records_of = arms_table(file), ladder(file)
    figure, axes = plt.subplots(figsize=(8, 0.36 * len(table) + 1.6))
    for position, (arm, row) in enumerate(table[::-1].iterrows()):
        colour = FAMILIES[_family(str(arm))]
        axes.plot([row["low"], row["high"]], [position] * 2, color=colour, lw=2)
        axes.plot(row["estimate"], position, "o", color=colour)
        if row["seeds"] > 1:
            single = correct(records_of, str(arm)).mean(axis=1)
            axes.plot(single, np.full(len(single), position), "|", color=colour, ms=9, alpha=0.7)
    axes.set_yticks(range(len(table)), table["title"][::-1])
    axes.axvline(0.5, color="0.5", lw=1, ls=":")
    axes.set_xlabel("accuracy on held-out pairs (share ordered rightly; a tie is wrong)")
    n, seeds = int(table["n"].iloc[0]), int(table["seeds"].max())
    detail = f"{about(records_of)}\n{n:,} pairs, {seeds} seeds (ticks); dot: mean, line: 95 % bootstrap interval"
    _subtitle(axes, "The ladder of arms", detail)
    handles = [plt.Line2D([], [], color=colour, marker="o", label=name) for name, colour in FAMILIES.items()]
    axes.legend(handles=handles, fontsize=8, loc="best")
    return figure


def differences_figure(file: Path) -> Figure:
    """What each single change does to accuracy, with paired intervals."""
    table = differences_table(file)
    figure, axes = plt.subplots(figsize=(8, 0.4 * len(table) + 1.6))
    for position, (arm, row) in enumerate(table[::-1].iterrows()):
        colour = FAMILIES[_family(str(arm))]
        axes.plot([100 * row["low"], 100 * row["high"]], [position] * 2, color=colour, lw=2)
        axes.plot(100 * row["estimate"], position, "o", color=colour)
    labels = [f"{title(str(a))}\nagainst {title(str(r['against']))}" for a, r in table[::-1].iterrows()]
    axes.set_yticks(range(len(table)), labels, fontsize=8)
    axes.axvline(0, color="0.5", lw=1, ls=":")
    axes.set_xlabel("difference in accuracy (percentage points)")
    detail = f"{about(ladder(file))}\n{int(table['n'].iloc[0]):,} pairs; line: 95 % paired bootstrap interval"
    _subtitle(axes, "What one change does", detail)
    return figure


def strength_figure(file: Path) -> Figure:
    """Accuracy by how strongly the annotators preferred the chosen response."""
    table, pairs = ladder(file), records.read(file, kind="test_pairs").iloc[-1]
    strength = np.array(pairs["outcome.strength"])
    figure, axes = plt.subplots(figsize=(7.5, 4))
    shown = [
        arm for arm in ("regression", "bt", "bt_margin", "bt_scaled", "bt_scaled_init") if arm in set(table["name"])
    ]
    for offset, arm in enumerate(shown):
        values = correct(table, arm)
        axes.plot([], [], "o-", color=COLOURS[offset], label=title(arm))
        for level in np.unique(strength):
            interval = interval_of(values[:, strength == level])
            x = level + (offset - (len(shown) - 1) / 2) * 0.12
            axes.plot([x, x], [interval.low, interval.high], color=COLOURS[offset], lw=1.5)
            axes.plot(
                x,
                interval.estimate,
                "o",
                color=COLOURS[offset],
                label=title(arm) if level == strength.min() else None,
            )
    counts = {level: int((strength == level).sum()) for level in np.unique(strength)}
    axes.set_xticks(list(counts), [f"{level}\n(n={n:,})" for level, n in counts.items()])
    axes.set_xlabel("strength of the preference (1 slightly, 2 better, 3 much better)")
    axes.set_ylabel("accuracy")
    axes.legend(fontsize=8)
    _subtitle(axes, "Accuracy by strength of preference", f"{about(table)}; 95 % bootstrap intervals")
    return figure


def calibration_figure(file: Path) -> Figure:
    """Reliability of the Bradley-Terry probability sigmoid(margin), arm by arm."""
    table = ladder(file)
    figure, axes = plt.subplots(figsize=(5.2, 5))
    axes.plot([0.5, 1], [0.5, 1], color="0.5", ls=":", lw=1)
    shown = [
        arm for arm in ("regression", "bt", "bt_margin", "bt_scaled", "bt_scaled_init") if arm in set(table["name"])
    ]
    for offset, arm in enumerate(shown):
        margin = np.concatenate([np.array(row) for row in table.loc[table["name"] == arm, "outcome.margins"]])
        bins = statistics.calibration_table(margin, bins=8)
        error = statistics.expected_calibration_error(margin, bins=8)
        label = f"{title(arm)}: ECE {error:.3f}"
        axes.plot(bins["confidence"], bins["accuracy"], "o-", color=COLOURS[offset], ms=4, label=label)
    axes.set_xlabel("confidence: sigmoid of |margin|")
    axes.set_ylabel("accuracy")
    axes.legend(fontsize=8)
    _subtitle(axes, "Is the margin a probability?", f"{about(table)}\nall seeds pooled, 8 bins of equal size")
    return figure


def sweep_figure(file: Path) -> Figure:
    """ExPO: accuracy on the selection split over the extrapolation factor."""
    table = ladder(file)
    table = table[table["name"] == "bt_scaled_init_expo"]
    if table.empty:
        raise RecordError(f"{file.name}: no record of bt_scaled_init_expo; run that arm")
    figure, axes = plt.subplots(figsize=(7, 4))
    for offset, (_, row) in enumerate(table.iterrows()):
        sweep = pd.DataFrame(row["outcome.sweep"])
        colour = COLOURS[offset % len(COLOURS)]
        axes.plot(sweep["factor"], sweep["accuracy"], ".-", color=colour, label=f"seed {row['seed']}")
        best = sweep[sweep["factor"] == row["outcome.factor"]].iloc[0]
        axes.plot(best["factor"], best["accuracy"], "o", ms=10, mfc="none", color=colour)
    axes.axvline(1, color="0.5", lw=1, ls=":")
    axes.set_xlabel("factor: weak + factor x (strong - weak); 1 is the strong model, the paper took 1.52")
    axes.set_ylabel("accuracy on the selection split")
    axes.legend(fontsize=8)
    _subtitle(axes, "ExPO sweep, chosen on pairs carved from training (circles)", about(table))
    return figure


def curves_figure(file: Path) -> Figure:
    """Training loss over optimizer steps, one line per arm (mean of the seeds)."""
    table = ladder(file)
    table = table[table["outcome.training"].notna()]
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.6))
    for panel, regression in zip(axes, (False, True), strict=True):
        arms = [arm for arm in table["name"].unique() if arm.startswith("regression") == regression]
        for offset, arm in enumerate(arms):
            curves = [np.array(row["curve"]) for row in table.loc[table["name"] == arm, "outcome.training"]]
            shortest = min(len(curve) for curve in curves)
            mean = np.mean([curve[:shortest] for curve in curves], axis=0)
            smooth = pd.Series(mean[:, 1]).ewm(span=5).mean()
            panel.plot(mean[:, 0], smooth, color=COLOURS[offset % len(COLOURS)], label=title(arm))
        panel.set_xlabel("optimizer step")
        panel.set_ylabel("squared error (points²)" if regression else "loss (nats per pair)")
        panel.legend(fontsize=7)
    _subtitle(axes[0], "Training loss, mean of the seeds, smoothed", about(table))
    figure.tight_layout()
    return figure


# --- the benchmark ----------------------------------------------------------------------------------------------------


def benchmark_figure(file: Path) -> Figure:
    """Section scores of our models on the benchmark that the records name."""
    raw = records.read(file, kind="rewardbench")
    table = benchmark_table(file)
    sections = [name for name in SECTIONS if name in set(table["section"])]
    models = list(dict.fromkeys(table["model"]))
    figure, axes = plt.subplots(figsize=(9, 4.4))
    for offset, model in enumerate(models):
        part = table[table["model"] == model].groupby("section")[["estimate", "low", "high"]].mean().loc[sections]
        x = np.arange(len(sections)) + (offset - (len(models) - 1) / 2) * 0.8 / len(models)
        colour = COLOURS[offset % len(COLOURS)]
        axes.vlines(x, part["low"], part["high"], color=colour, lw=1.5)
        label = title(model)
        axes.plot(x, part["estimate"], "o", ms=4, color=colour, label=label)
    axes.set_xticks(range(len(sections)), sections)
    axes.set_ylabel("accuracy (weighted as in RewardBench)")
    axes.axhline(0.5, color="0.5", lw=1, ls=":")
    axes.legend(fontsize=7, ncol=2, loc="lower left", bbox_to_anchor=(0, -0.42))
    label, n = raw["outcome.label"].iloc[-1], int(raw["outcome.n"].iloc[-1])
    _subtitle(axes, f"RewardBench sections ({label})", f"{about(ladder(file))}; {n:,} items, 95 % bootstrap intervals")
    return figure


def published_figure(_: Path | None = None) -> Figure:
    """The paper's table of reward models on RewardBench (published, 70B)."""
    table = records.published("table1").dropna(subset=["chat"])
    table = table[table["type"] != "external"]
    figure, axes = plt.subplots(figsize=(9, 4.4))
    columns = [name.lower().replace(" ", "_").replace("score", "overall") for name in SECTIONS]
    for offset, row in enumerate(table.to_dict(orient="records")):
        x = np.arange(len(columns)) + (offset - (len(table) - 1) / 2) * 0.08
        label = f"{row['type']}: {row['model']}"
        axes.plot(x, [row[name] for name in columns], "o", ms=4, color=COLOURS[offset % len(COLOURS)], label=label)
    axes.set_xticks(range(len(columns)), SECTIONS)
    axes.set_ylabel("RewardBench (percent)")
    axes.legend(fontsize=7, ncol=2, loc="lower left", bbox_to_anchor=(0, -0.48))
    _subtitle(
        axes, "Published: the paper's reward models, Llama-3.1-70B", "source: the authors' poster; no intervals known"
    )
    return figure


# --- the lesson -------------------------------------------------------------------------------------------------------


def losses_figure(_: Path | None = None) -> Figure:
    """The three Bradley-Terry losses and their slopes over the margin, drawn from the functions that train."""
    margin = torch.linspace(-4, 6, 201, requires_grad=True)
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), sharex=True)
    for colour, name in zip(COLOURS, losses.PAIR_LOSSES, strict=False):
        for style, strength in zip(("-", "--", ":"), (1.0, 2.0, 3.0), strict=True):
            if name == "bradley_terry" and strength > 1:
                continue
            values = losses.pair_loss(name, margin, torch.zeros_like(margin), torch.full_like(margin, strength))
            (slope,) = torch.autograd.grad(values.sum(), margin)
            label = name.replace("_", " ") + ("" if name == "bradley_terry" else f", m={strength:.0f}")
            axes[0].plot(margin.detach(), values.detach(), style, color=colour, label=label)
            axes[1].plot(margin.detach(), slope, style, color=colour)
    for panel, label in zip(axes, ("loss (nats)", "slope (nats per logit)"), strict=True):
        panel.set_xlabel("margin: reward of chosen minus rejected (logits)")
        panel.set_ylabel(label)
    axes[0].legend(fontsize=8)
    _subtitle(axes[0], "Three ways to use a preference of strength m", "Regular, margin and scaled Bradley-Terry")
    figure.tight_layout()
    return figure


FIGURES: dict[str, Callable[[Path], Figure]] = {
    "figure_1": figure_1,
    "ladder": ladder_figure,
    "differences": differences_figure,
    "strength": strength_figure,
    "calibration": calibration_figure,
    "sweep": sweep_figure,
    "curves": curves_figure,
    "rewardbench": benchmark_figure,
}
TABLES: dict[str, Callable[[Path], pd.DataFrame]] = {
    "arms": arms_table,
    "differences": differences_table,
    "paper_and_this_run": paper_and_this_run,
    "rewardbench": benchmark_table,
}


def draw_all(file: Path, folder: Path) -> list[str]:
    """Every figure and table that the records of a file allow; what they do not allow is logged. Returns the names."""
    drawn = []
    for name, function in FIGURES.items():
        try:
            figure = function(file)
        except RecordError as error:
            logger.warning("%s: no figure %r: %s", file.stem, name, error)
            continue
        save_figure(figure, name, folder)
        plt.close(figure)
        drawn.append(name)
    for name, make in TABLES.items():
        try:
            save_table(make(file), name, folder)
        except RecordError as error:
            logger.warning("%s: no table %r: %s", file.stem, name, error)
    return drawn


def main() -> None:
    """Redraw everything from the records."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    plt.switch_backend("agg")
    set_style()
    for name, function in {"losses": losses_figure, "published": published_figure}.items():
        figure = function(None)
        save_figure(figure, name, paths.figures_dir())
        plt.close(figure)
    for file in sorted(paths.results_dir().glob("*.jsonl")):
        drawn = draw_all(file, paths.figures_dir() / file.stem)
        print(f"{file.name}: {', '.join(drawn)}")


if __name__ == "__main__":
    main()
