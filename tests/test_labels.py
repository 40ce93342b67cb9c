"""From annotations to labels: cases worked by hand, exhaustive search, and kappa against scikit-learn."""

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction
from statistics import mean, pvariance
from typing import Any

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from hypothesis import assume, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from rmlib import annotations
from rmlib.pairs import ATTRIBUTES, make_pairs

VOTES = st.lists(st.sampled_from([-3, -2, -1, 0, 1, 2, 3]), max_size=7)
Values = Sequence[int | float | None]


def table(entries: Sequence[list[dict[str, Any]] | None]) -> Dataset:
    """A table of one pair for each list of annotations."""
    rows = [
        {
            "split": "train",
            "prompt": [{"role": "user", "content": f"question {number}"}],
            "response_1": "one",
            "response_2": "two",
            "annotations": entry,
        }
        for number, entry in enumerate(entries)
    ]
    return make_pairs(rows, origin="test")


def voted(*votes: int) -> list[dict[str, Any]]:
    return [{"preference": vote} for vote in votes]


def rated(side: str, *helpfulness: float) -> list[dict[str, Any]]:
    return [{side: {"helpfulness": value}} for value in helpfulness]


@pytest.mark.parametrize(
    ("values", "positions"),
    [
        ([3, 1, 2], (0, 1, 2)),  # three are kept in the order given
        ([2, 2], (0, 1)),  # fewer than three: all
        ([], ()),
        ([-100, 1, None, 2, 3, 3], (3, 4, 5)),  # neither -100 nor None counts; 2 3 3 spans less than 1 2 3
        ([-3, 1, 2, 3], (1, 2, 3)),  # smallest range
        ([1, 1, 3, 3, 3], (2, 3, 4)),
        ([1, 1, -1, -2, -3], (2, 3, 4)),  # 1 1 -1 spans 2, too, but varies more (8/9 against 2/3)
        ([1, 1, 2, 2, 3], (0, 2, 3)),  # 1 1 2, 1 2 2, 2 2 3 span and vary alike; the mean 5/3 is nearest to 9/5
        ([1, 1, 2, 2], (0, 1, 2)),  # 1 1 2 and 1 2 2 are equally far from 3/2: the first
        ([3, 1, 2, 3, 1], (0, 2, 3)),  # 3 2 3 and 1 2 1 are equally far from 2: the first
        ([-3, -1, -2, -1, -3], (0, 2, 4)),
        ([0.5, 4.0, 0.5, 1.0], (0, 2, 3)),
    ],
)
def test_the_three_most_similar_go_by_range_then_variance_then_mean_then_order(
    values: Values, positions: tuple[int, ...]
) -> None:
    assert annotations.kept_positions(values) == positions
    assert annotations.three_most_similar(values) == [values[position] for position in positions]


@given(VOTES.filter(lambda votes: len(votes) >= 3))
def test_the_choice_is_the_best_of_all_choices_of_three(votes: list[int]) -> None:
    exact = [Fraction(vote) for vote in votes]

    def order(positions: tuple[int, ...]) -> tuple[Fraction, Fraction, Fraction, tuple[int, ...]]:
        chosen = [exact[position] for position in positions]
        return max(chosen) - min(chosen), pvariance(chosen), abs(mean(chosen) - mean(exact)), positions

    best = min(order(positions) for positions in itertools.combinations(range(len(votes)), 3))
    assert annotations.kept_positions(votes) == best[-1]


@given(VOTES, st.integers(0, 7))
def test_exchanging_the_responses_or_adding_invalid_annotations_changes_no_choice(votes: list[int], at: int) -> None:
    mirrored = annotations.three_most_similar([-vote for vote in votes])
    assert mirrored == [-vote for vote in annotations.three_most_similar(votes)]
    assert annotations.three_most_similar([*votes[:at], -100, None, *votes[at:]]) == [-vote for vote in mirrored]


def test_a_value_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="annotation nan is not a finite number"):
        annotations.three_most_similar([1, 2, math.nan, 3])


@pytest.mark.parametrize(
    ("values", "preference"),
    [
        ([1, 2, 2], 2),  # 5/3
        ([-1, -1, -2], -1),  # -4/3
        ([-1, 1, 1], 0),  # 1/3
        ([1, 2, 3], 2),
        ([-2, 1, 1], None),  # span 3
        ([-3, 1, 3, 3, 2], 3),  # 3 3 2: 8/3
        ([2, 2], None),  # fewer than three valid
        ([2, 2, -100], None),
        ([2, 2, -100, 3], 2),  # 7/3
        ([], None),
    ],
)
def test_the_overall_preference_is_the_rounded_mean_of_three_within_a_span_of_2(
    values: list[int], preference: int | None
) -> None:
    assert annotations.overall_preference(values) == preference


def test_ratings_follow_the_three_annotations_most_alike_in_helpfulness() -> None:
    given = [
        {"ratings_1": {"helpfulness": 4.0, "correctness": 0.0, "verbosity": 1.0}, "ratings_2": None},
        {"ratings_1": {"helpfulness": 0.0, "correctness": 4.0, "verbosity": 4.0}, "ratings_2": None},
        {"ratings_1": {"helpfulness": 3.0, "correctness": 2.0, "verbosity": 1.0}, "ratings_2": {"helpfulness": 2.0}},
        {"ratings_1": {"helpfulness": 4.0, "correctness": 3.0, "verbosity": None}, "ratings_2": {"helpfulness": 3.0}},
    ]
    first = annotations.overall_ratings(given, "ratings_1")  # without the second annotation
    assert first == {"helpfulness": 4, "correctness": 2, "coherence": None, "complexity": None, "verbosity": 1}
    second = annotations.overall_ratings(given, "ratings_2")  # two remain, 5/2 rounds to even
    assert second is not None and second["helpfulness"] == 2
    with pytest.raises(ValueError, match="unknown side '1'"):
        annotations.overall_ratings(given, "1")


@pytest.mark.parametrize(
    ("helpfulness", "expected"),
    [([0, 4, 4, 1, 3], 4), ([0, 2, 4], None), ([0, 2, 2], 1), ([3, 4], 4), ([1, 4], None), ([3], 3), ([], None)],
)
def test_a_response_is_dropped_whose_retained_helpfulness_spans_more_than_2(
    helpfulness: list[float], expected: float | None
) -> None:
    ratings = annotations.overall_ratings(rated("ratings_1", *helpfulness), "ratings_1")
    assert (ratings and ratings["helpfulness"]) == expected


def test_each_step_for_preferences_says_what_it_dropped() -> None:
    entries = [None, rated("ratings_1", 3), voted(1, -100, 2), voted(-2, 1, 1), voted(-1, 1, 1), voted(2, 3, 3, -3)]
    entries.append([*voted(-1, -1, -100, -1), *rated("ratings_2", 1)])
    pairs = table(entries)
    ids = pairs["pair_id"][:]
    steps = annotations.preference_steps(pairs)
    assert list(steps.labels.items()) == list(zip(ids, [None, None, None, None, 0, 3, -1], strict=True))
    assert [len(steps.survived[name]) for name in ids] == [0, 0, 1, 3, 4, 5, 5]  # steps that each pair passed
    rows = [[7, 2, 5, 17], [5, 1, 4, 13], [4, 0, 4, 12], [4, 1, 3, 9], [3, 1, 2, 6]]
    expected = pd.DataFrame(rows, columns=["pairs in", "dropped", "left", "annotations left"])
    assert steps.table().reset_index(drop=True).equals(expected)


def test_each_step_for_ratings_says_what_it_dropped() -> None:
    both = [*rated("ratings_1", 3, 4, 4, 0), *rated("ratings_2", 2, 2)]  # as the released disagreements give them
    one_sided, far = rated("ratings_1", 1, 1, 1), [*rated("ratings_1", 0, 2, 4), *rated("ratings_2", 1, 1, 1)]
    pairs = table([both, one_sided, far, None, voted(1, 1, 1)])
    ids = pairs["pair_id"][:]
    steps = annotations.rating_steps(pairs)
    label = steps.labels[ids[0]]
    assert label is not None and [side["helpfulness"] for side in label] == [4, 2]
    assert list(steps.labels.values())[1:] == [None] * 4
    assert [len(steps.survived[name]) for name in ids] == [3, 0, 2, 0, 0]
    assert steps.table().to_numpy().tolist() == [[5, 3, 2, 12], [2, 0, 2, 11], [2, 1, 1, 5]]


@pytest.mark.parametrize("weights", ["quadratic", "linear"])
@given(items=st.lists(VOTES.map(lambda votes: [vote for vote in votes if vote]), max_size=8))
def test_weighted_kappa_equals_scikit_learn_on_all_pairs_in_both_orders(items: list[list[int]], weights: Any) -> None:
    couples = [couple for labels in items for couple in itertools.permutations(labels, 2)]
    assume(len({label for couple in couples for label in couple}) > 1)
    expected = cohen_kappa_score(*zip(*couples, strict=True), weights=weights)
    assert annotations.weighted_kappa(items, weights) == pytest.approx(expected, abs=1e-12)


def test_weighted_kappa_by_hand() -> None:
    # Ranks 0 1 2; six pairs in both orders: three equal 3s, (-1, 1) twice. Margins -1: 2/10, 1: 2/10, 3: 6/10.
    # Disagreement 4/10 of cost 1; expected 2 (.2 .2 1 + .2 .6 4 + .2 .6 1) = 1.28 squared, 2 (.04 + .24 + .12) = .8.
    items = [[3, 3, 3], [-1, 1], [1, -1], [2], [], [-100, 2]]
    assert annotations.weighted_kappa(items) == pytest.approx(1 - 0.4 / 1.28)
    assert annotations.weighted_kappa(items, "linear") == pytest.approx(1 - 0.4 / 0.8)


def test_kappa_needs_two_labels_of_an_item_and_is_undefined_for_one_label_alone() -> None:
    with pytest.raises(ValueError, match="no item has two labels"):
        annotations.weighted_kappa([[1], [2, -100], []])
    with pytest.raises(ValueError, match="unknown weights 'cubic'"):
        annotations.weighted_kappa([[1, 2]], "cubic")  # type: ignore[arg-type]
    assert math.isnan(annotations.weighted_kappa([[1, 1], [1, 1, 1]]))


def test_the_frame_has_one_row_per_annotation_whatever_the_order_of_the_table() -> None:
    entry = {"annotator": "ann", "preference": None, "ratings_2": dict.fromkeys(ATTRIBUTES, 2.0)}
    pairs = table([voted(1, 2), None, [entry], voted(-100)]).select([3, 2, 1, 0])
    frame = annotations.annotation_frame(pairs)
    assert frame["row"].tolist() == [0, 1, 3, 3] and frame["annotator"].tolist()[1] == "ann"
    assert frame["preference"].fillna(9).tolist() == [-100, 9, 1, 2]
    np.testing.assert_array_equal(frame["verbosity_2"], [np.nan, 2, np.nan, np.nan])
    assert frame["verbosity_1"].isna().all()
    assert annotations.preference_items(pairs) == [[-100], [], [], [1, 2]]
    assert annotations.preference_items(table([None, None])) == [[], []]


def test_the_share_of_votes_counts_all_valid_ones_and_never_reaches_certainty() -> None:
    pairs = table([voted(1, 1, 1), voted(-3, -2, 1), voted(2, 0), voted(-1, -100), voted(-100), None])
    # (votes for response 2 + 1/2) / (valid votes + 1); the 0 is half a vote for each side.
    expected = [3.5 / 4, 1.5 / 4, 2.0 / 3, 0.5 / 2, np.nan, np.nan]
    np.testing.assert_allclose(annotations.vote_share(pairs), expected)


@hypothesis_settings(max_examples=25)
@given(VOTES)
def test_exchanging_the_responses_mirrors_the_share_of_votes(votes: list[int]) -> None:
    share, mirrored = annotations.vote_share(table([voted(*votes), voted(*(-vote for vote in votes))]))
    np.testing.assert_allclose(share, 1 - mirrored)
