"""How every figure looks: style, colours, what a title says, rows of intervals, saving."""

import io
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation
from numpy.typing import ArrayLike
from PIL import Image

from rmlib.experiments.arms import ARMS, CONTROL_ARMS, FINETUNED, title

COLOURS = sns.color_palette("colorblind").as_hex()
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # beside colours, so that no line is told apart by colour alone
LINES = ("-", "--", ":", "-.")
FAMILIES = {  # colour of an arm: what it is trained from
    "regression": COLOURS[1],
    "Bradley-Terry from scratch": COLOURS[0],
    "Bradley-Terry from regression": COLOURS[2],
    "ruler or control": COLOURS[7],
}
INTERVAL = ("estimate", "low", "high")  # columns of a table of intervals
DETAIL_POINTS = 8.5
DETAIL_CHARS_PER_INCH = 15  # of the details' font, so that they are wrapped to the width of their figure


def set_style() -> None:
    """One look for notebooks and files; a notebook gets its figures as `small_png`."""
    sizes: dict[str, float] = {"axes.titlesize": 10, "axes.labelsize": 10, "xtick.labelsize": 9, "ytick.labelsize": 9}
    sizes |= {"legend.fontsize": 8.5, "font.size": 9}
    rest = {"figure.dpi": 90, "savefig.dpi": 160, "axes.titlelocation": "left", "grid.color": "0.9"}
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind", rc=sizes | rest)
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None and "inline" in plt.get_backend():
        plt.switch_backend(plt.get_backend())  # loads it now: later it would put its own formatter in this one's place
        shell.display_formatter.formatters["image/png"].for_type(Figure, small_png)


def new_figure(width: float, height: float, columns: int = 1, **options: Any) -> tuple[Figure, Sequence[Axes]]:
    """A figure (inches) of one row of panels, in which labels and legends make room for each other."""
    figure, axes = plt.subplots(1, columns, figsize=(width, height), layout="constrained", squeeze=False, **options)
    return figure, list(axes[0])


def small_png(figure: Figure) -> bytes:
    """A figure as a PNG of 128 colours: a third of the size, for notebooks that are kept with their figures."""
    full, small = io.BytesIO(), io.BytesIO()
    figure.savefig(full, format="png", dpi=figure.dpi, bbox_inches="tight")
    picture = Image.open(full).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    picture.save(small, format="png", optimize=True)
    return small.getvalue()


def save_figure(figure: Figure, name: str, folder: Path) -> None:
    """Write `name`.pdf and `name`.png into a folder, without dates, so that equal figures are equal files.

    The figure is laid out here, once for both and for what is shown after: keep it until nothing is added any more.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    frame = figure.get_tightbbox().padded(plt.rcParams["savefig.pad_inches"])
    figure.savefig(folder / f"{name}.pdf", bbox_inches=frame, metadata={"CreationDate": None})
    figure.savefig(folder / f"{name}.png", bbox_inches=frame)


def save_table(table: pd.DataFrame, name: str, folder: Path) -> None:
    """Write a table as `name`.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / f"{name}.csv")


def headline(figure: Figure, text: str, *details: str) -> None:
    """A title over the whole figure, and below it, smaller, what the numbers are of: source, n, seeds, interval."""
    width = int(figure.get_figwidth() * DETAIL_CHARS_PER_INCH)
    lines = [line for detail in details for line in textwrap.wrap(detail, width)]
    small: dict[str, Any] = {"fontsize": DETAIL_POINTS, "color": "0.3", "linespacing": 1.3}
    bold: dict[str, Any] = {"fontsize": 11.5, "fontweight": "bold"}
    above_details = 11.0 + 1.35 * DETAIL_POINTS * len(lines)
    for points, content, look in ((6.0, "\n".join(lines), small), (above_details, text, bold)):
        place = figure.transFigure + ScaledTranslation(0, points / 72, figure.dpi_scale_trans)
        figure.text(0.005, 1, content, transform=place, va="bottom", ha="left", **look)


def finished(
    figure: Figure, text: str, *details: str, legend: int = 0, families: Iterable[str] = (), **look: Any
) -> Figure:
    """The figure with its `headline` and, below it, a legend.

    `legend`: what the labelled marks of the panels mean, in so many columns; a label that several panels have is shown
    once. `families`: what the colours of these arms and rulers mean. `look` changes the legend.
    """
    below: dict[str, Any] = {"loc": "outside lower left", "frameon": False}
    if legend:
        handles: dict[str, Artist] = {}
        for axes in figure.axes:
            for handle, words in zip(*axes.get_legend_handles_labels(), strict=True):
                handles.setdefault(words, handle)
        figure.legend(handles.values(), handles.keys(), ncols=legend, **below | look)
    shown = {family(name) for name in families}
    if shown:
        colours = {name: colour for name, colour in FAMILIES.items() if name in shown}
        lines = [Line2D([], [], color=colour, marker="o", lw=2, ms=5, label=name) for name, colour in colours.items()]
        figure.legend(handles=lines, ncols=4, **below | look)
    headline(figure, text, *details)
    return figure


def family(name: str) -> str:
    """The key of FAMILIES that an arm belongs to; anything that is no arm is a ruler."""
    arm = name.removesuffix(FINETUNED)
    if arm not in ARMS or arm in CONTROL_ARMS:
        return "ruler or control"
    if arm.startswith("regression"):
        return "regression"
    return "Bradley-Terry from regression" if "init" in arm else "Bradley-Terry from scratch"


def label(name: str) -> str:
    """What a figure calls an arm or a ruler."""
    return title(name) if name.removesuffix(FINETUNED) in ARMS else f"Ruler: {name}"


def look_of(series: int, *, line: bool = False) -> dict[str, Any]:
    """Colour and marker of a series, the first being 0, and with `line` its kind of line."""
    own = {"color": COLOURS[series % len(COLOURS)], "marker": MARKERS[series % len(MARKERS)]}
    return own | ({"ls": LINES[series % len(LINES)]} if line else {})


def points(axes: Axes, places: ArrayLike, table: pd.DataFrame, series: int, **look: Any) -> None:
    """Marks at `estimate` and upright lines from `low` to `high`, in the colour and with the marker of a series.

    `look` changes the marks, which are joined by a line where it names one (`ls`).
    """
    own = look_of(series)
    axes.vlines(places, table["low"], table["high"], color=own["color"], lw=1.5)
    axes.plot(places, table["estimate"], **own | {"ls": "", "ms": 5} | look)


def rows(
    axes: Axes, heights: ArrayLike, table: pd.DataFrame, colours: str | list[str], line: float = 2,
    columns: Sequence[str] = INTERVAL, **look: Any,
) -> None:  # fmt: skip
    """Marks at an estimate and level lines (`line` points wide) from `low` to `high`, where the table has them.

    `columns` name the three in the table; `look` changes the marks.
    """
    estimate, low, high = columns
    if {low, high} <= set(table.columns):
        axes.hlines(heights, table[low], table[high], colors=colours, lw=line)
    axes.scatter(table[estimate], heights, c=colours, **{"s": 24, "zorder": 3} | look)


def forest(
    axes: Axes, table: pd.DataFrame, xlabel: str = "", *,
    words: Sequence[str] | None = None, chance: float | None = None, columns: Sequence[str] = INTERVAL,
) -> np.ndarray:  # fmt: skip
    """One row (see `rows`) per line of the table, the first on top, and a dotted line at `chance`. Returns the heights.

    The index (arms or rulers) gives the colours, and what stands beside the rows, unless `words` do.
    """
    names, heights = list(map(str, table.index)), np.arange(len(table))[::-1]
    rows(axes, heights, table, [FAMILIES[family(name)] for name in names], columns=columns, s=28)
    axes.set_yticks(heights, [label(name) for name in names] if words is None else words)
    axes.set(xlabel=xlabel, ylim=(-0.6, len(table) - 0.4))
    axes.grid(axis="y", visible=False)
    if chance is not None:
        axes.axvline(chance, color="0.5", lw=1, ls=":")
    return heights


def beside(axes: Axes, heights: Iterable[float], texts: Iterable[str]) -> None:
    """Numbers to the right of the rows."""
    for height, text in zip(heights, texts, strict=True):
        axes.text(1.01, height, text, transform=axes.get_yaxis_transform(), va="center", fontsize=8, color="0.3")
