"""The runs of a folder as a table, some of them side by side, and their losses as a figure.

runs_table()                                  # everything below runs/train, the latest first
side_by_side(["3f2a…", "91bc…"])              # what differs between runs: settings, then results
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rmlib.figures.style import COLOURS, LINES, new_figure
from rmlib.records import paths
from rmlib.training.runs import FINISHED_FILE, LOG_FILE, SETTINGS_FILE, read_log
from rmlib.training.settings import TrainSettings

STATE = ("step", "pairs", "tokens", "seconds", "loss", "selection_loss", "selection_accuracy")
SHOWN_OF_A_NAME = 8  # hex digits


def runs_table(folder: str | Path | None = None) -> pd.DataFrame:
    """One row for each run below a folder (default: where `train` puts them), the latest first.

    Columns: state ("finished" or "unfinished"), backbone, loss, seed, learning_rate, then of the last logged step its
    number, pairs, tokens, seconds, loss and what was measured on selection pairs, tokens a second, and when the log was
    last written (UTC). A folder without settings is no run, and left out.
    """
    rows = [_row(file.parent) for file in _place(folder).glob(f"*/{SETTINGS_FILE}")]
    rows.sort(key=lambda row: row["written"], reverse=True)
    return pd.DataFrame(rows, columns=None if rows else ["run"]).set_index("run")


def side_by_side(runs: Sequence[str | Path], folder: str | Path | None = None) -> pd.DataFrame:
    """Runs as columns: the settings in which they differ, then how each stood at its last logged step.

    A run is a folder, or the first digits of a run's name below `folder`. Raises ValueError for a name that fits no
    run, or several.
    """
    found = [_find(run, _place(folder)) for run in runs]
    settings = {place.name: _settings(place) for place in found}
    names = TrainSettings.__dataclass_fields__
    differing = [name for name in names if len({str(own[name]) for own in settings.values()}) > 1]
    columns = {}
    for place in found:
        benchmarks = {name: value for name, value in _last(place).items() if "/" in name}
        row = {name: value for name, value in _row(place).items() if name not in ("run", "written", *names)}
        columns[place.name] = {name: settings[place.name][name] for name in differing} | row | benchmarks
    return pd.DataFrame(columns)


def history_figure(runs: Sequence[str | Path], folder: str | Path | None = None, *, window: int = 0) -> Figure:
    """Loss of each step of some runs, and selection accuracy where it was measured.

    A loss is drawn pale, and over it its running mean over `window` steps (default: a fiftieth of the run).
    """
    figure, (left, right) = new_figure(9, 3.2, 2)
    for index, place in enumerate(_find(run, _place(folder)) for run in runs):
        rows = pd.DataFrame(read_log(place))
        if rows.empty:
            continue
        colour, line = COLOURS[index % len(COLOURS)], LINES[index // len(COLOURS) % len(LINES)]
        smooth = rows["loss"].rolling(window or max(1, len(rows) // 50), min_periods=1).mean()
        left.plot(rows["step"], rows["loss"], color=colour, alpha=0.2, linewidth=0.8)
        left.plot(rows["step"], smooth, line, color=colour, label=place.name[:SHOWN_OF_A_NAME])
        if "selection_accuracy" in rows:
            seen = rows.dropna(subset="selection_accuracy")
            right.plot(seen["step"], seen["selection_accuracy"], line, color=colour, marker="o", markersize=3)
    left.set(xlabel="step", ylabel="loss of the step's pairs")
    right.set(xlabel="step", ylabel="accuracy on selection pairs")
    if left.get_legend_handles_labels()[0]:
        left.legend()
    return figure


def _place(folder: str | Path | None) -> Path:
    return paths.runs_dir() / "train" if folder is None else Path(folder)


def _find(run: str | Path, place: Path) -> Path:
    if (Path(run) / SETTINGS_FILE).is_file():
        return Path(run)
    found = [file.parent for file in sorted(place.glob(f"{run}*/{SETTINGS_FILE}"))]
    if len(found) != 1:
        names = ", ".join(each.name for each in found[:5]) or "none"
        raise ValueError(f"{run} should be a run's folder, or begin one run's name; runs that fit: {names}")
    return found[0]


def _settings(place: Path) -> dict[str, Any]:
    """All of them, defaults included, so that runs of two versions can be compared."""
    return vars(TrainSettings.from_dict(json.loads((place / SETTINGS_FILE).read_text())["settings"]))


def _last(place: Path) -> dict[str, Any]:
    """The last row of a run's log; empty where nothing was logged."""
    if (place / FINISHED_FILE).is_file():
        return json.loads((place / FINISHED_FILE).read_text())
    return next(reversed(read_log(place)), {})


def _row(place: Path) -> dict[str, Any]:
    settings, last = _settings(place), _last(place)
    log = place / LOG_FILE if (place / LOG_FILE).is_file() else place / SETTINGS_FILE
    row: dict[str, Any] = {"run": place.name}
    row["state"] = "finished" if (place / FINISHED_FILE).is_file() else "unfinished"
    row |= {name: settings[name] for name in ("backbone", "loss", "seed", "learning_rate")}
    row |= {name if name != "loss" else "last loss": last.get(name, np.nan) for name in STATE}
    row["tokens a second"] = row["tokens"] / row["seconds"] if row["seconds"] else np.nan
    row["written"] = datetime.fromtimestamp(log.stat().st_mtime, UTC).replace(microsecond=0)
    return row
