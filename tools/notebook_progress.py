"""One progress bar over the cells of several notebooks, measured in the seconds that they took before."""

import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import nbformat
from nbformat import NotebookNode
from tqdm import tqdm

SHORTEST_SECONDS = 0.1  # so that a cell that took no time still moves the bar
BAR = "{desc} |{bar}| {percentage:3.0f}%, {elapsed} gone, about {remaining} left"


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The cells that a kernel executes: code that is not empty."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def expected_seconds(notebook: Path, last_run: Path | None) -> list[tuple[str, float]]:
    """Source and expected seconds of each code cell: as in the last run, else as committed, else one second."""
    last: dict[str, float] = {}
    if last_run is not None and last_run.is_file():
        for cell in code_cells(nbformat.read(last_run, as_version=4)):
            last[cell.source] = cell.metadata.get("papermill", {}).get("duration")
    expected = []
    for cell in code_cells(nbformat.read(notebook, as_version=4)):
        seconds = last.get(cell.source) or cell.metadata.get("rmlib", {}).get("seconds", 1.0)
        expected.append((cell.source, max(seconds, SHORTEST_SECONDS)))
    return expected


class Progress:
    """A bar with the time left, which moves while a cell is running too; a context manager.

    Its methods `cell_starts` and `cell_ends` are hooks of nbclient. `cell` is the number that the running cell has
    in its notebook (`In [7]`), `seconds` what each finished cell of that notebook took, by its source.
    """

    def __init__(self, notebooks: Sequence[tuple[Path, Path | None]], *, show: bool = True) -> None:
        """`notebooks`: each with the executed copy of its last run, whose times are read now, or None."""
        self.cell = 0
        self.seconds: dict[str, float] = {}
        self._expected = {notebook: expected_seconds(notebook, last_run) for notebook, last_run in notebooks}
        self._running: tuple[float, float] | None = None  # when the running cell began, how long it is expected to take
        self._done_seconds = 0.0
        # A terminal redraws the line; a log file gets a new one each time.
        self._every_seconds = 1.0 if sys.stderr.isatty() else 60.0
        total = sum(seconds for cells in self._expected.values() for _, seconds in cells)
        self._bar = tqdm(desc="starting", total=total, bar_format=BAR, file=sys.stderr, disable=not show)
        self._stop = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Self:
        self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._ticker.join()
        self._show()
        self._bar.close()

    def notebook_starts(self, notebook: Path) -> None:
        """Count cells from one again, and show the notebook's name."""
        self.cell, self.seconds, self._weights = 0, {}, dict(self._expected[notebook])
        self._bar.set_description_str(notebook.stem, refresh=False)
        self._show()

    def cell_starts(self, cell: NotebookNode, **_: Any) -> None:
        """nbclient's `on_cell_execute`."""
        self.cell += 1
        self._running = (time.monotonic(), self._weights.get(cell.source, 0.0))

    def cell_ends(self, cell: NotebookNode, **_: Any) -> None:
        """nbclient's `on_cell_executed`."""
        assert self._running is not None
        began, expected = self._running
        self._running = None
        self.seconds[cell.source] = time.monotonic() - began
        self._done_seconds += expected

    def _tick(self) -> None:
        while not self._stop.wait(self._every_seconds):
            self._show()

    def _show(self) -> None:
        running = self._running
        part = min(time.monotonic() - running[0], 0.95 * running[1]) if running else 0.0
        self._bar.n = min(self._done_seconds + part, self._bar.total)
        self._bar.refresh()
