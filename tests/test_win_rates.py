"""Win rates by hand and by simulation: ties, lengths, prompts redrawn together, judges that see both orders."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from rmlib.alignment import win_rates
from rmlib.benchmarks.judges import Verdict

PROMPT = [{"role": "user", "content": "one"}]


def test_a_win_rate_counts_ties_half_and_shows_the_lengths() -> None:
    found = win_rates.win_rate([1, 1, 0, 0.5], [30, 20, 10, 40], [10, 10, 10, 10])
    assert found.rate.estimate == 0.625 and found.ties == 0.25
    assert (found.length, found.length_before) == (25.0, 10.0)
    assert found.row()["win rate"] == 0.625 and found.row()["n"] == 4


def test_at_equal_length_the_longer_one_has_no_merit_and_a_better_one_keeps_its_own() -> None:
    rng = np.random.default_rng(0)
    difference = rng.normal(40, 60, size=1500)
    before = np.full(1500, 500.0)
    covariate = np.tanh(difference / np.sqrt(np.mean(difference**2)))
    for merit in (0.0, 1.0):  # the law that AlpacaEval 2 takes to be true
        wins = (rng.random(1500) < 1 / (1 + np.exp(-(merit + 2 * covariate)))).astype(float)
        found = win_rates.win_rate(wins, before + difference, before)
        assert found.equal_length is not None
        assert found.equal_length.estimate == pytest.approx(1 / (1 + np.exp(-merit)), abs=0.06)
        assert found.rate.estimate > found.equal_length.estimate + 0.03


def test_answers_of_equal_length_leave_nothing_to_control_for() -> None:
    assert win_rates.win_rate([1, 0], [5, 5], [5, 5]).equal_length is None
    with pytest.raises(ValueError, match="credits must be"):
        win_rates.win_rate([0.3], [1], [1])
    with pytest.raises(ValueError, match="lengths of shape"):
        win_rates.win_rate([1.0, 0.0], [1], [1])


def test_answers_to_one_prompt_are_redrawn_together() -> None:
    credit, length = np.repeat([1.0, 0.0] * 20, 25), np.arange(1000) % 7
    alone = win_rates.win_rate(credit, length, np.zeros(1000)).rate
    together = win_rates.win_rate(credit, length, np.zeros(1000), groups=np.repeat(np.arange(40), 25)).rate
    assert together.high - together.low > 3 * (alone.high - alone.low)


def test_credits_by_scores() -> None:
    np.testing.assert_array_equal(win_rates.credits([2, 1, 1], [1, 2, 1]), [1, 0, 0.5])
    with pytest.raises(ValueError, match="finite"):
        win_rates.credits([np.nan], [1])


class Judge:
    """Knows its favourites, or always takes the first, or never says."""

    name = "double"

    def compare(self, prompt: Any, responses: Sequence[str]) -> Verdict:
        if "silent" in responses[0] + responses[1]:
            return Verdict(None, "unparsable")
        if "same" in responses[0] + responses[1]:
            return Verdict(0)
        return Verdict(int("good" in responses[1]))

    def rate(self, prompt: Any, response: str) -> Verdict:
        raise NotImplementedError

    def identity(self) -> None:
        return None


def test_a_judge_sees_both_orders_and_one_that_takes_the_first_gives_half() -> None:
    new, before = ["good", "bad", "same", "silent"], ["bad", "good", "other", "bad"]
    found, problems = win_rates.judge_credits(Judge(), [PROMPT] * 4, new, before, progress=False)
    np.testing.assert_array_equal(found, [1, 0, 0.5, 0.5])
    assert problems == {"unparsable": 1}
