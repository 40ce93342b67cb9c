"""Tables made from a file of records, made once for each content of the file: a figure and its table share the work."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from pathlib import Path

import pandas as pd

MOST_TABLES = 4  # of each function


def kept(make: Callable[[Path], pd.DataFrame]) -> Callable[[Path], pd.DataFrame]:
    """A function from a file to a table, which makes it again only where the file has changed since."""

    @lru_cache(maxsize=MOST_TABLES)
    def made(file: Path, changed_ns: int, size: int) -> pd.DataFrame:
        return make(file)

    @wraps(make)
    def found(file: Path) -> pd.DataFrame:
        state = file.stat() if file.is_file() else None
        if state is None:
            return make(file)  # which says what is missing
        return made(file, state.st_mtime_ns, state.st_size).copy()

    return found
