"""What a figure draws, as words and numbers: kept inside its files, so that a later drawing can be held against it.

Pixels depend on fonts and on how matplotlib was built; this depends on the records and on the code of the figure.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter
from numpy.typing import ArrayLike

KEPT = 200  # numbers of a long row; all of them count in its mean


def drawn(figure: Figure) -> list[dict[str, Any]]:
    """The words of a figure, then of each panel its words, limits, ticks by name, and marks; as JSON knows it.

    Left out is what depends on the size of letters: places on the page, and ticks that matplotlib chooses.
    """
    words = [text.get_text() for text in figure.texts]
    legends = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return [{"words": words, "about": figure.get_label(), "legends": legends}, *map(_panel, figure.axes)]


def _panel(axes: Axes) -> dict[str, Any]:
    legend = axes.get_legend()
    return {
        "words": [axes.get_title(loc="left"), axes.get_title(), axes.get_xlabel(), axes.get_ylabel()],
        "legend": [] if legend is None else [text.get_text() for text in legend.get_texts()],
        "limits": [axes.get_xscale(), axes.get_yscale(), _numbers([*axes.get_xlim(), *axes.get_ylim()])],
        "ticks": [*_ticks(axes.xaxis), *_ticks(axes.yaxis)],
        "texts": [[text.get_text(), _numbers(text.get_position())] for text in axes.texts],
        "lines": [
            [line.get_color(), str(line.get_marker()), line.get_linestyle(), *map(_numbers, line.get_data())]
            for line in axes.lines
        ],
        "marks": [
            [_colours(marks.get_edgecolor()), _numbers(marks.get_offsets()), _numbers(marks.get_array())]
            + [_numbers(path.vertices) for path in marks.get_paths()[:KEPT]]
            for marks in axes.collections
        ],
        "bars": [[_colours([bar.get_facecolor()]), _numbers(bar.get_path().vertices)] for bar in axes.patches],
    }


def _ticks(axis: Axis) -> list[str]:
    formatter = axis.get_major_formatter()
    return list(formatter.seq) if isinstance(formatter, FixedFormatter) else []


def _colours(colours: Iterable[Any]) -> list[str]:
    return [to_hex(colour) for colour in colours]


def _numbers(values: ArrayLike | None) -> list[float]:
    """Numbers with five significant digits; of a long row some at equal distances, and before them the mean of all."""
    row: np.ndarray = np.ma.filled(np.ma.asarray([] if values is None else values, dtype=float), np.nan).ravel()
    if len(row) > KEPT:
        row = np.append(np.nanmean(row), row[:: -(-len(row) // KEPT)])
    return [float(f"{value:.5g}") for value in row]
