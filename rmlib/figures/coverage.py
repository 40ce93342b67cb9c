"""How often intervals of a difference held the truth in simulated studies: the record of `benchmarks/coverage.py`."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from rmlib import records
from rmlib.figures import style
from rmlib.records import paths

LEVEL = 0.95


def coverage_table() -> pd.DataFrame:
    """One row a number of seeds, a spread of seeds and a method: share of intervals that held the truth, and width."""
    newest = records.read(paths.data_dir() / "results" / "benchmarks" / "coverage.jsonl").iloc[-1]
    return pd.DataFrame(newest["outcome.cells"]).assign(studies=newest["asked.studies"])


def coverage_figure(_: Path | None = None) -> Figure:
    """Coverage by number of seeds: a panel for each spread of seeds, a line for each kind of interval."""
    table = coverage_table()
    spreads = table.groupby("sd of seeds, points", sort=True)
    figure, panels = style.new_figure(9, 3.3, len(spreads), sharey=True)
    for axes, (spread, part) in zip(panels, spreads, strict=True):
        for number, (method, rows) in enumerate(part.groupby("method", sort=False)):
            axes.plot(rows["seeds"], rows["held"], label=method, ms=5, **style.looks(style.series(number), line=True))
        axes.axhline(LEVEL, color="0.5", lw=1, ls=":")
        axes.set_title(f"seeds differ by {spread:.1f} points (sd)")
        axes.set_xticks(sorted(part["seeds"].unique()))
    panels[0].set_ylabel("share of intervals that hold the truth")
    panels[len(panels) // 2].set_xlabel("seeds of each model")
    detail = f"{table['studies'].iloc[0]:,} a point; dotted: the {LEVEL:.0%} that the intervals promise"
    return style.finished(figure, "Which intervals hold with few seeds", "simulated studies", detail, legend=2)
