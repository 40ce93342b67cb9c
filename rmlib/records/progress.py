"""Progress bars: ours alone, since one for each operation on a table would drown those of runs."""

import os
from collections.abc import Iterable
from typing import Any

from datasets import disable_progress_bars
from tqdm.auto import tqdm

disable_progress_bars()  # those of datasets


def progress_bar(iterable: Iterable[Any] | None = None, *, show: bool = True, **options: Any) -> tqdm:
    """A tqdm bar for a shell or a notebook; TQDM_DISABLE=1 in the environment silences every one."""
    silenced = os.environ.get("TQDM_DISABLE", "0") != "0"  # read here: tqdm's bar for notebooks does not look
    return tqdm(iterable, disable=silenced or not show, **options)
