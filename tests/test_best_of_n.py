"""Best of n by hand: the best among ended samples, the curve over n, texts that repeat."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from rmlib.alignment import best_of_n
from rmlib.alignment.policies import Samples
from rmlib.alignment.rewards import AlignmentError

PROMPTS = [[{"role": "user", "content": text}] for text in ("one", "two")]


def samples_of(texts: Sequence[str], ended: Sequence[bool]) -> Samples:
    n = len(texts) // 2
    return Samples(PROMPTS, n, [np.array([4])] * 2, [np.array([3, 2])] * len(texts), list(texts), np.array(ended))


def test_the_best_of_n_is_chosen_among_the_ended_samples() -> None:
    samples = samples_of(["a", "b", "c", "d", "e", "f"], [True, True, False, False, False, False])
    reward = np.array([[1.0, 2.0, 9.0], [1.0, 3.0, 2.0]])
    assert best_of_n.best_of_n(samples, reward) == ["b", "e"]


def test_the_curve_of_best_of_n_by_hand() -> None:
    samples = samples_of(["a", "b", "c", "d"] * 2, [True] * 8)
    proxy, gold = np.array([[0.0, 1.0, 2.0, 3.0]] * 2), np.array([[0.0, 1.0, 5.0, 2.0], [4.0, 4.0, 4.0, 0.0]])
    rows = best_of_n.curve(samples, proxy, {"gold": gold})
    assert [row["n"] for row in rows] == [1, 2, 4]
    # Best of two: rank 2, 3 and 4 win 1, 2 and 3 of the 6 pairs.
    np.testing.assert_allclose(rows[1]["gold"], [(1 + 2 * 5 + 3 * 2) / 6, (4 + 2 * 4) / 6], atol=1e-4)
    assert rows[2]["gold"] == [2.0, 0.0] and rows[2]["divergence"] == pytest.approx(np.log(4) - 0.75)


def test_equal_texts_of_a_prompt_are_scored_once_and_a_reward_that_is_no_number_is_refused() -> None:
    samples = samples_of(["a", "a", "b", "a"], [True] * 4)
    seen: list[str] = []

    class Length:
        def score(self, prompts: Sequence[Any], responses: Sequence[str]) -> np.ndarray:
            seen.extend(responses)
            return np.array([float(ord(text)) for text in responses])

    np.testing.assert_array_equal(best_of_n.distinct_scores(Length(), samples), [[97, 97], [98, 97]])
    assert seen == ["a", "b", "a"]
    with pytest.raises(AlignmentError, match="2 ended samples have a reward"):
        best_of_n.curve(samples, np.array([[1.0, np.nan], [np.inf, 0.0]]), {})
