"""Batches made ahead of time: each is what it would have been, made once, and its errors arrive."""

import threading

import pytest

from rmlib.training.forward import Lookahead


def test_what_was_started_is_made_once_elsewhere_and_what_was_not_here() -> None:
    made = []

    def make(indices: list[int]) -> int:
        made.append((tuple(indices), threading.current_thread() is threading.main_thread()))
        return sum(indices)

    ahead = Lookahead(make)
    ahead.start([[1, 2], [3]])
    ahead.start([[3], [4, 5]])
    assert [ahead.take(indices) for indices in ([1, 2], [3], [4, 5], [6])] == [3, 3, 9, 6]
    assert made == [((1, 2), False), ((3,), False), ((4, 5), False), ((6,), True)]


def test_an_error_in_the_thread_is_raised_where_its_batch_is_taken() -> None:
    def fail(indices: list[int]) -> None:
        raise ValueError(f"no batch of {indices}")

    ahead = Lookahead(fail)
    ahead.start([[1]])
    with pytest.raises(ValueError, match=r"no batch of \[1\]"):
        ahead.take([1])
