"""The truth of simulated answers."""

import numpy as np
import pytest

from rmlib.records.errors import DataError
from rmlib.sources import simulated
from rmlib.sources.simulated.gold import Gold

PROMPTS = [[{"role": "user", "content": text}] for text in ("one", "two")]


def test_the_truth_of_the_pairs_is_found_again_from_prompt_and_text_alone() -> None:
    pairs = simulated.load().select(range(300))
    for side in (1, 2):
        expected = [truth["helpfulness"] for truth in pairs[f"truth_{side}"][:]]
        np.testing.assert_allclose(Gold().score(pairs["prompt"][:], pairs[f"response_{side}"][:]), expected)


def test_an_empty_answer_and_one_without_a_word_have_a_truth_of_almost_nothing() -> None:
    prompt = simulated.load()[0]["prompt"]
    assert (Gold().score([prompt] * 3, ["", " ", "** -"]) < 0.5).all()


def test_a_prompt_without_a_known_truth_is_refused() -> None:
    with pytest.raises(DataError, match=r"1 of 1 prompts are no simulated ones"):
        Gold().score([PROMPTS[0]], ["an answer"])
