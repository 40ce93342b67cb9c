"""The next batch is made in a thread while this one trains: what is made does not depend on when."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Made = TypeVar("Made")


class Lookahead(Generic[Made]):
    """Makes things from lists of indices, ahead of time where it was told of them."""

    def __init__(self, make: Callable[[Sequence[int]], Made]) -> None:
        self.make = make
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lookahead")  # starts no thread before it is given work
        self._made: dict[tuple[int, ...], Future[Made]] = {}

    def start(self, lists: Iterable[Sequence[int]]) -> None:
        """Make these next, but for what is made already or on its way."""
        for indices in lists:
            if tuple(indices) not in self._made:
                self._made[tuple(indices)] = self._thread.submit(self.make, indices)

    def take(self, indices: Sequence[int]) -> Made:
        """What belongs to these indices: waited for where it is on its way, else made now."""
        started = self._made.pop(tuple(indices), None)
        return self.make(indices) if started is None else started.result()
