"""How every figure looks: style, colours, what a title says, rows of intervals, saving."""

import hashlib
import io
import json
import re
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation
from numpy.typing import ArrayLike
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from rmlib.experiments.arms import ARMS, FINETUNED, GREY, Look, title
from rmlib.figures.drawn import drawn

COLOURS = sns.color_palette("colorblind").as_hex()
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # beside colours, so that no line is told apart by colour alone
LINES = ("-", "--", ":", "-.")
RULERS: dict[str, Look] = {"longer": (GREY, "1", "--"), "bag of words": (GREY, "2", ":")}  # others: a grey dot
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
    The PNG holds what is drawn (`drawn`, as JSON under that name), the PDF its hash; both say what the numbers are of.
    """
    folder.mkdir(parents=True, exist_ok=True)
    contents, about = json.dumps(drawn(figure)), str(figure.get_label())
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    frame = figure.get_tightbbox().padded(plt.rcParams["savefig.pad_inches"])
    of_pdf = {"CreationDate": None, "Subject": about, "Keywords": hashlib.sha256(contents.encode()).hexdigest()}
    figure.savefig(folder / f"{name}.pdf", bbox_inches=frame, metadata=of_pdf)
    of_png = PngInfo()
    of_png.add_itxt("Description", about)
    of_png.add_text("drawn", contents, zip=True)
    figure.savefig(folder / f"{name}.png", bbox_inches=frame, pil_kwargs={"pnginfo": of_png})


def save_table(table: pd.DataFrame, name: str, folder: Path) -> None:
    """Write a table as `name`.csv; numbers with six significant digits, the same on every machine."""
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / f"{name}.csv", float_format="%.6g")


def headline(figure: Figure, text: str, about: str, detail: str = "", *rest: str) -> None:
    """A title over the whole figure, and below it, smaller, what the numbers are of: source, n, seeds, interval.

    Of `about` the source alone is drawn, without what follows a semicolon or stands in brackets; `rest` is not drawn.
    All of it is the figure's label, which its files keep.
    """
    source = re.sub(r" \([^()]*\)", "", about.split("; ")[0])
    lines = textwrap.wrap("; ".join(filter(None, (source, detail))), int(figure.get_figwidth() * DETAIL_CHARS_PER_INCH))
    small: dict[str, Any] = {"fontsize": DETAIL_POINTS, "color": "0.3", "linespacing": 1.3}
    bold: dict[str, Any] = {"fontsize": 11.5, "fontweight": "bold"}
    above_details = 11.0 + 1.35 * DETAIL_POINTS * len(lines)
    for points, content, look in ((6.0, "\n".join(lines), small), (above_details, text, bold)):
        place = figure.transFigure + ScaledTranslation(0, points / 72, figure.dpi_scale_trans)
        figure.text(0.005, 1, content, transform=place, va="bottom", ha="left", **look)
    figure.set_label("; ".join(filter(None, (text, about, detail, *rest))))


def finished(figure: Figure, text: str, *details: str, legend: int = 0, **look: Any) -> Figure:
    """The figure with its `headline` and, below it, a legend.

    `legend`: what the labelled marks of the panels mean, in so many columns; a label that several panels have is shown
    once. `look` changes the legend.
    """
    if legend:
        handles: dict[str, Artist] = {}
        for axes in figure.axes:
            for handle, words in zip(*axes.get_legend_handles_labels(), strict=True):
                handles.setdefault(words, handle)
        below: dict[str, Any] = {"loc": "outside lower left", "frameon": False, "ncols": legend}
        figure.legend(handles.values(), handles.keys(), **below | look)
    headline(figure, text, *details)
    return figure


def label(name: str) -> str:
    """What a figure calls an arm or a ruler."""
    return title(name) if name.removesuffix(FINETUNED) in ARMS else f"Ruler: {name}"


def look_of(name: str, *, line: bool = False) -> dict[str, Any]:
    """Colour and marker of an arm, as declared beside it, or of a ruler, and with `line` its kind of line.

    An arm fine-tuned beside frozen ones has its own colour and marker, hollow.
    """
    arm = name.removesuffix(FINETUNED)
    hollow = {"mfc": "white"} if arm != name else {}
    return looks(ARMS[arm].look if arm in ARMS else RULERS.get(name, (GREY, ".", "-.")), line=line) | hollow


def looks(look: Look, *, line: bool = False) -> dict[str, Any]:
    """Colour and marker of a look, and with `line` its kind of line, as matplotlib takes them."""
    colour, marker, kind = look
    return {"color": colour, "marker": marker} | ({"ls": kind} if line else {})


def series(number: int) -> Look:
    """The look of a series that is neither arm nor ruler, the first being 0."""
    return COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)], LINES[number % len(LINES)]


def points(axes: Axes, places: ArrayLike, table: pd.DataFrame, look: Mapping[str, Any], **changed: Any) -> None:
    """Marks at `estimate` and upright lines from `low` to `high`, of one look (`look_of`).

    `changed` changes the marks, which are joined by a line where it names one (`ls`).
    """
    axes.vlines(places, table["low"], table["high"], color=look["color"], lw=1.5)
    own: dict[str, Any] = {"ls": "", "ms": 5} | dict(look) | changed
    axes.plot(places, table["estimate"], **own)


def rows(
    axes: Axes, heights: ArrayLike, table: pd.DataFrame, colour: str, line: float = 2,
    columns: Sequence[str] = INTERVAL, **look: Any,
) -> None:  # fmt: skip
    """Marks at an estimate and level lines (`line` points wide) from `low` to `high`, where the table has them.

    `columns` name the three in the table; `look` changes the marks.
    """
    estimate, low, high = columns
    if {low, high} <= set(table.columns):
        axes.hlines(heights, table[low], table[high], colors=colour, lw=line)
    axes.scatter(table[estimate], heights, color=colour, **{"s": 24, "zorder": 3} | look)


def forest(
    axes: Axes, table: pd.DataFrame, xlabel: str = "", *,
    words: Sequence[str] | None = None, chance: float | None = None, columns: Sequence[str] = INTERVAL,
    own: Sequence[Mapping[str, Any]] | None = None,
) -> np.ndarray:  # fmt: skip
    """One row (see `rows`) per line of the table, the first on top, and a dotted line at `chance`. Returns the heights.

    The index (arms or rulers) gives the looks, and what stands beside the rows, unless `own` and `words` do.
    """
    names, heights = list(map(str, table.index)), np.arange(len(table))[::-1]
    for place, look in enumerate(own or map(look_of, names)):
        mark = {"marker": look["marker"], "facecolors": look.get("mfc", look["color"]), "s": 34}
        rows(axes, heights[[place]], table.iloc[[place]], look["color"], columns=columns, **mark)
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
