"""Descriptions of pairs against tables written by hand, numpy and pandas."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset

from rmlib.pairs import ATTRIBUTES, descriptions, make_pairs

# preference, helpfulness of response 1 and of response 2, response 1, response 2
ROWS: list[tuple[int | None, int | None, int | None, str, str]] = [
    (3, 0, 4, "a", "longer"),  # difference 4, the longer one preferred
    (3, 0, 4, "longer", "b"),  # difference 4, the shorter one preferred
    (-1, 2, 1, "as", "am"),  # difference -1, equally long: not the longer one
    (0, 2, 2, "tie one", "tie"),
    (1, 3, 3, "x", "a long one"),  # difference 0, the longer one preferred
    (None, 1, 4, "no label", "no"),
    (-2, None, None, "unrated, long", "u"),  # the longer one preferred
]


def ratings(helpfulness: int | None, verbosity: int) -> dict[str, float] | None:
    if helpfulness is None:
        return None
    return dict.fromkeys(ATTRIBUTES, float(helpfulness)) | {"verbosity": float(verbosity)}


@pytest.fixture
def pairs() -> Dataset:
    rows: list[dict[str, Any]] = []
    for index, (preference, first, second, one, two) in enumerate(ROWS):
        turns = [{"role": "user", "content": f"question {index}"}]
        if index == 0:
            turns = [*turns, {"role": "assistant", "content": "what?"}, {"role": "user", "content": "this"}]
        row = {"split": "validation" if index == 4 else "train", "prompt": turns, "response_1": one, "response_2": two}
        row |= {"preference": preference, "ratings_1": ratings(first, index % 3), "ratings_2": ratings(second, 2)}
        rows.append(row)
    return make_pairs(rows, origin="test")


def test_figure_1_counts_the_pairs_that_have_a_preference_and_both_ratings(pairs: Dataset) -> None:
    counts = descriptions.preference_by_helpfulness(pairs)
    assert counts.shape == (7, 9)
    by_hand = {(3, 4): 2, (-1, -1): 1, (0, 0): 1, (1, 0): 1}
    assert {cell: counts.loc[cell] for cell in by_hand} == by_hand and counts.to_numpy().sum() == 5


def test_mean_ratings_fall_into_the_nearest_whole_difference(pairs: Dataset) -> None:
    rows = [row | {"pair_id": None} for row in pairs.select([0])]
    rows[0]["ratings_2"] = dict.fromkeys(ATTRIBUTES, 2.7)
    counts = descriptions.preference_by_helpfulness(make_pairs(rows, origin="test"))
    assert counts.loc[3, 3] == 1


def test_the_frame_holds_differences_lengths_and_turns(pairs: Dataset) -> None:
    table = descriptions.frame(pairs)
    assert table["helpfulness_difference"].fillna(99).tolist() == [4, 4, -1, 0, 0, 3, 99]
    assert table["chars_1"].tolist() == [len(row[3]) for row in ROWS]
    assert table["turns"].tolist() == [2, 1, 1, 1, 1, 1, 1]
    assert table["prompt_chars"].iloc[0] == len("question 0" + "what?" + "this")


def test_correlations_are_numpy_s_over_the_pairs_that_have_both(pairs: Dataset) -> None:
    found = descriptions.describe(pairs)["r_preference"]
    preference = [3, 3, -1, 0, 1]
    assert found["helpfulness"] == pytest.approx(np.corrcoef(preference, [4, 4, -1, 0, 0])[0, 1])
    assert found["verbosity"] == pytest.approx(np.corrcoef(preference, [2, 1, 0, 2, 1])[0, 1])


def test_a_correlation_of_something_constant_is_none(pairs: Dataset) -> None:
    assert descriptions.describe(pairs.select([0, 1]))["r_preference"]["helpfulness"] is None


def test_the_ratings_table_is_that_of_pandas_over_all_responses(pairs: Dataset) -> None:
    table = descriptions.ratings_table(pairs)
    responses = pd.DataFrame(
        {"helpfulness": [0, 0, 2, 2, 3, 1, 4, 4, 1, 2, 3, 4], "verbosity": [0, 1, 2, 0, 1, 2] + [2] * 6}
    )
    for name in responses:
        expected = [responses[name].mean(), responses[name].std(), responses[name].corr(responses["helpfulness"])]
        assert table.loc[name].tolist() == pytest.approx(expected)
    lengths = pd.Series([len(row[3]) for row in ROWS] + [len(row[4]) for row in ROWS], dtype=float)
    assert table.loc["response chars", "mean"] == pytest.approx(lengths.mean())
    assert table.loc["response chars", "sd"] == pytest.approx(lengths.std())


def test_the_description_counts_what_is_there_and_what_is_left_out(pairs: Dataset) -> None:
    found = descriptions.describe(pairs)
    assert found["n_pairs"] == {"train": 6, "validation": 1} and found["n_multi_turn"] == {"train": 1}
    assert found["left_out"] == {"ties": 1, "no preference": 1}
    assert found["preference_counts"] == {"-3": 0, "-2": 1, "-1": 1, "0": 1, "1": 1, "2": 0, "3": 2}
    assert found["longer_preferred"] == pytest.approx(3 / 5)  # of the five decided pairs
    assert np.array(found["figure_1"]).sum() == 5
    assert found["ratings"]["helpfulness"]["mean"] == pytest.approx(26 / 12)
