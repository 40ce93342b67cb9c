"""The log of a run as TensorBoard scalars, while it runs."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from rmlib.training.runs import read_log

FOLDER = "tensorboard"


class Curves:
    """Scalars beside the log of a run's folder, at most `every_seconds` behind it.

    The first time the whole log is written anew: after a run was killed, what lay there may lack steps, or have some
    twice. A run that is shorter gets its scalars at its end.
    """

    def __init__(self, folder: Path, *, every_seconds: float = 30.0) -> None:
        self.folder, self.every_seconds = folder, every_seconds
        self._rows: list[dict[str, Any]] = []
        self._writer: Any = None
        self._written = time.monotonic()

    def add(self, row: dict[str, Any]) -> None:
        """A row that the log has by now."""
        self._rows.append(row)
        if time.monotonic() - self._written >= self.every_seconds:
            self._write()

    def close(self) -> None:
        """Write what is left."""
        self._write()
        self._writer.close()

    def _write(self) -> None:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            shutil.rmtree(self.folder / FOLDER, ignore_errors=True)
            self._writer, self._rows = SummaryWriter(str(self.folder / FOLDER)), read_log(self.folder)
        for row in self._rows:
            for name, value in row.items():
                self._writer.add_scalar(name, value, row["step"])
        self._writer.flush()
        self._rows, self._written = [], time.monotonic()
