"""Simulated annotators: the published protocol, and the rules of rmlib.annotations."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rmlib import annotations
from rmlib.pairs.schema import NEITHER_VALID
from rmlib.sources import simulated
from rmlib.sources.simulated import annotators
from rmlib.sources.simulated.annotators import HELPFULNESS, Annotated, Given, Noise, Parameters, Pool
from rmlib.statistics import wilson_interval
from tools.simulated_data import Sample


@pytest.fixture(scope="module")
def sample() -> Sample:
    """Other texts and other chance than those of the fit and of the embedded data."""
    return Sample.draw(4_000, seed=11, show=False)


@pytest.fixture(scope="module")
def block(sample: Sample) -> Annotated:
    return annotators.annotate(sample.truths, sample.noise, sample.pool, annotators.fitted())


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return list(simulated.generate(2_000, seed=7))


def perfect(**changed: Any) -> Parameters:
    """Annotators who read everything and add nothing but themselves."""
    scale = {"offset": [0.0] * 5, "gain": [1.0] * 5, "halo": [0.0] * 5, "noise": [0.0] * 5}
    single = {"misread": 0, "contested": 0, "misread_contested": 0, "vote_noise": 0, "better": 1, "much_better": 1}
    return Parameters.of(scale | single | {"found": 1} | changed)


def drawn(n_pairs: int, seed: int = 0) -> tuple[Noise, Pool]:
    rng = np.random.default_rng(seed)
    return Noise.draw(rng, n_pairs), Pool.draw(rng)


# --- what annotators do -----------------------------------------------------------------------------------------------


def test_annotators_without_noise_rate_the_truth_but_for_their_leniency() -> None:
    truths = np.random.default_rng(1).integers(0, 5, (200, 2, 5)).astype(float)
    noise, pool = drawn(200)
    block = annotators.annotate(truths, noise, pool, perfect())
    assert np.array_equal(block.ratings, np.repeat(truths[:, None], 5, axis=1))  # lenient by at most 0.3: rounded away
    assert not block.misread.any()


def test_a_vote_is_the_difference_in_utility_cut_at_the_thresholds() -> None:
    """Truths whose utilities differ by -2.5, -1.5, -0.5, 0.5, 1.5, 2.5; recency, 0.05, changes none of the votes."""
    truths = np.full((6, 2, 5), 2.0)
    truths[:, 0, HELPFULNESS] = [3.5, 3.0, 2.5, 1.0, 1.0, 1.0]
    truths[:, 1, HELPFULNESS] = [1.0, 1.5, 2.0, 1.5, 2.5, 3.5]
    noise, pool = drawn(6)
    votes = annotators.annotate(truths, noise, pool, perfect()).votes
    assert votes.tolist() == [[vote] * 5 for vote in (-3, -2, -1, 1, 2, 3)]


def test_the_true_preference_weighs_more_than_helpfulness() -> None:
    truths = np.zeros((1, 2, 5))
    truths[0, 0] = (3, 0, 4, 0, 1)
    truths[0, 1] = (2, 4, 1, 4, 3)
    weights = annotators.UTILITY
    by_hand = (2 - 3) * weights["helpfulness"] + (1 - 4) * weights["coherence"] + (3 - 1) * weights["verbosity"]
    assert annotators.true_preference(truths) == pytest.approx([by_hand])
    assert annotators.true_preference(truths[:, ::-1]) == pytest.approx([-by_hand])


def test_two_responses_that_seem_useless_are_sometimes_called_invalid_and_others_never() -> None:
    noise, pool = drawn(400)
    truths = np.zeros((400, 2, 5))
    useless = annotators.annotate(truths, noise, pool, perfect(offset=[-1.0] * 5)).votes == NEITHER_VALID
    share = wilson_interval(int(useless.sum()), useless.size)
    assert share.low < annotators.NEITHER_SHARE < share.high
    truths[:, 1, HELPFULNESS] = 4.0
    assert not (annotators.annotate(truths, noise, pool, perfect()).votes == NEITHER_VALID).any()


def test_misreading_spoils_ratings_and_vote_together(block: Annotated, sample: Sample) -> None:
    """Where one response was misread, both the rating and the direction of the vote are further from the truth."""
    off = np.abs(block.ratings[..., HELPFULNESS] - np.median(block.ratings[..., HELPFULNESS], axis=1)[:, None])
    assert off[block.misread].mean() > 2 * off[~block.misread].mean()
    truth = np.sign(annotators.true_preference(sample.truths))[:, None]
    right, misread = np.sign(block.votes) == truth, block.misread.any(axis=-1)
    assert right[~misread].mean() > right[misread].mean() + 0.15


def test_further_annotators_are_called_only_where_the_first_three_disagree_on_helpfulness(block: Annotated) -> None:
    span = np.ptp(block.ratings[:, :3, :, HELPFULNESS], axis=1).max(axis=1)
    assert block.called[:, :3].all()
    extra = block.called[:, 3:].any(axis=1)
    assert not extra[span <= 2].any() and extra[span > 2].any()
    assert set(block.called.sum(axis=1).tolist()) == {3, 4, 5}


def test_no_annotator_is_called_twice_for_a_pair_and_all_get_their_share(sample: Sample) -> None:
    assert all(len(set(team)) == annotators.N_MOST for team in sample.noise.team.tolist())
    counts = np.bincount(sample.noise.team.ravel(), minlength=annotators.POOL)
    assert counts.min() > 0.8 * counts.mean() and counts.max() < 1.2 * counts.mean()


def test_the_pool_is_unbiased_as_a_whole_and_careless_annotators_misread_more(block: Annotated) -> None:
    _, pool = drawn(1)
    assert abs(pool.leniency.mean()) < 1e-12 and pool.leniency.min() < 0 < pool.leniency.max()
    own = Pool.draw(np.random.default_rng(11))
    assert own.carelessness.mean() == pytest.approx(1) and own.noisiness.mean() == pytest.approx(1)


def test_exchanging_the_responses_turns_votes_round_but_for_recency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotators, "RECENCY", 0.0)
    truths = np.random.default_rng(2).uniform(0, 4, (300, 2, 5))
    noise, pool = drawn(300)
    turned = replace(
        noise,
        misread=noise.misread[:, :, ::-1],
        imagined=noise.imagined[:, :, ::-1],
        rating=noise.rating[:, :, ::-1],
        vote=-noise.vote,
    )
    fitted = annotators.fitted()
    one = annotators.annotate(truths, noise, pool, fitted)
    other = annotators.annotate(truths[:, ::-1], turned, pool, fitted)
    valid = one.votes != NEITHER_VALID
    assert np.array_equal(one.votes[valid], -other.votes[valid])
    assert np.array_equal(one.ratings, other.ratings[:, :, ::-1])


def test_parameters_survive_being_written(tmp_path: Path) -> None:
    annotators.fitted().save(tmp_path / "p.json")
    assert Parameters.load(tmp_path / "p.json") == annotators.fitted()


# --- labels: the same as rmlib.annotations, item by item --------------------------------------------------------------

VOTES = arrays.arrays(int, (40, 5), elements=st.sampled_from([-3, -2, -1, 1, 2, 3, NEITHER_VALID]))
CALLED = arrays.arrays(bool, (40, 5))


@given(votes=VOTES, called=CALLED)
def test_preferences_are_those_of_the_published_rule(votes: np.ndarray, called: np.ndarray) -> None:
    given_ = Given(called, votes, np.zeros((40, 5, 2, 5), dtype=int))
    three, kept = annotators.kept_votes(given_)
    for row, (values, there) in enumerate(zip(votes.tolist(), called.tolist(), strict=True)):
        items = list(itertools.compress(values, there))
        expected = annotations.overall_preference(items)
        assert kept[row] == (expected is not None)
        assert not kept[row] or three[row].tolist() == annotations.three_most_similar(items)
        assert np.array_equal(
            annotators.overall_preferences(given_)[row], np.nan if expected is None else expected, equal_nan=True
        )


def test_labels_of_generated_rows_are_those_of_the_published_rules(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert row["preference"] == annotations.overall_preference([a["preference"] for a in row["annotations"]])
        sides = [annotations.overall_ratings(row["annotations"], side) for side in ("ratings_1", "ratings_2")]
        assert [row["ratings_1"], row["ratings_2"]] == ([None, None] if None in sides else sides)
    assert sum(row["ratings_1"] is None for row in rows) > 20
