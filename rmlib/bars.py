"""Progress bars."""

from collections.abc import Iterable
from typing import Any

from tqdm.auto import tqdm


def progress_bar(iterable: Iterable[Any] | None = None, *, show: bool = True, **options: Any) -> tqdm:
    """A tqdm bar for a shell or a notebook; TQDM_DISABLE=1 in the environment silences every one."""
    # An explicit disable=False would override the environment.
    return tqdm(iterable, **options) if show else tqdm(iterable, **options, disable=True)
