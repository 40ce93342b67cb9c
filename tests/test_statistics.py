"""Intervals, tests and rulers against scipy, statsmodels, scikit-learn and hand arithmetic."""

import itertools
import time
from dataclasses import asdict

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import brier_score_loss
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from rmlib.statistics import (
    BagOfWords,
    Interval,
    Longer,
    Random,
    Shorter,
    accuracy,
    bootstrap_interval,
    brier,
    calibration_table,
    correlation_interval,
    expected_calibration_error,
    holm,
    mcnemar,
    paired_difference,
    wilson_interval,
)
from rmlib.statistics.intervals import redrawn, redrawn_sums

PROMPT = [{"role": "user", "content": "Why?"}]


def test_an_interval_prints_estimate_bounds_and_number_of_items():
    assert str(Interval(0.7123, 0.69, 0.7341, 1000)) == "0.712 [0.690, 0.734], n=1000"
    assert asdict(Interval(0.5, 0.25, 0.75, 4)) == {"estimate": 0.5, "low": 0.25, "high": 0.75, "n": 4}


def test_a_tie_counts_as_wrong():
    assert accuracy([1.0, 0.0, -1.0, 2.0]) == 0.5


@pytest.mark.parametrize("successes", [0, 3, 28])
def test_the_wilson_interval_is_that_of_statsmodels(successes):
    low, high = proportion_confint(successes, 28, method="wilson")
    interval = wilson_interval(successes, 28)
    assert (interval.low, interval.high) == pytest.approx((low, high))


def test_the_bootstrap_agrees_with_that_of_scipy():
    values = np.random.default_rng(0).gamma(2.0, size=101)
    interval = bootstrap_interval(values, seed=1, draws=20_000)
    peer = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(2))
    bounds = peer.confidence_interval
    assert (interval.low, interval.high) == pytest.approx((bounds.low, bounds.high), abs=0.02)
    assert interval.estimate == pytest.approx(values.mean())


def test_the_bootstrap_of_an_accuracy_is_as_wide_as_the_normal_approximation():
    correct = np.arange(4000) % 10 < 7
    interval = bootstrap_interval(correct, seed=0, draws=10_000)
    half = 1.96 * np.sqrt(0.7 * 0.3 / 4000)
    assert (interval.estimate, interval.low, interval.high) == pytest.approx((0.7, 0.7 - half, 0.7 + half), abs=6e-4)


def test_bootstrap_intervals_cover_the_true_mean_about_as_often_as_they_say():
    rng = np.random.default_rng(0)
    intervals = [bootstrap_interval(rng.random(200) < 0.6, seed=run, draws=400) for run in range(400)]
    covered = sum(interval.low <= 0.6 <= interval.high for interval in intervals)
    assert stats.binomtest(covered, 400, 0.95).pvalue > 0.001


def test_redrawing_seeds_widens_the_interval_as_the_variance_of_their_means_says():
    # Items are alike within a seed, so all the variance lies between seeds: var = population variance / seeds.
    means = np.linspace(0.4, 0.8, 8)
    interval = bootstrap_interval(np.repeat(means[:, None], 50, axis=1), seed=0, draws=20_000)
    half = 1.96 * means.std() / np.sqrt(8)
    assert (interval.high - interval.low) / 2 == pytest.approx(half, rel=0.05)
    assert interval.n == 50


def test_items_that_differ_but_seeds_that_agree_give_the_interval_of_one_seed():
    correct = np.random.default_rng(0).random(400) < 0.7
    one = bootstrap_interval(correct, seed=3, draws=20_000)
    four = bootstrap_interval(np.tile(correct, (4, 1)), seed=4, draws=20_000)
    assert (four.low, four.high) == pytest.approx((one.low, one.high), abs=4e-3)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    values = np.random.default_rng(0).normal(size=50)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_draws_made_in_blocks_are_those_made_at_once(monkeypatch):
    (whole,) = redrawn(101, seed=1, draws=503)
    monkeypatch.setattr("rmlib.statistics.intervals._COUNTS_AT_ONCE", 7 * 101)
    cut = list(redrawn(101, seed=1, draws=503))
    assert len(cut) == 72 and np.array_equal(np.concatenate(cut), whole)


def test_sums_are_redrawn_whole_groups_at_a_time_and_come_first_as_they_are():
    terms = np.random.default_rng(0).normal(size=(6, 2))
    sums = redrawn_sums(terms, seed=0, draws=400, groups=["a", "b", "a", "c", "b", "c"])
    of_groups = np.array([terms[[0, 2]].sum(axis=0), terms[[1, 4]].sum(axis=0), terms[[3, 5]].sum(axis=0)])
    possible = [np.sum([of_groups[i] for i in three], axis=0) for three in itertools.product(range(3), repeat=3)]
    assert sums.shape == (401, 2) and sums[0] == pytest.approx(terms.sum(axis=0))
    assert all(any(np.allclose(row, other) for other in possible) for row in sums)
    assert len(np.unique(sums.round(9), axis=0)) == 10  # three of three with replacement, in any order


def test_two_thousand_draws_of_five_seeds_and_a_thousand_items_take_about_a_second():
    values = np.random.default_rng(0).random((5, 1000))
    started = time.process_time()
    bootstrap_interval(values, seed=0, draws=2000)
    assert time.process_time() - started < 2  # twice the aim: the machine may be shared


def test_bad_values_are_refused_with_the_reason():
    with pytest.raises(ValueError, match="values is empty"):
        bootstrap_interval([], seed=0)
    with pytest.raises(ValueError, match="one seed: give at least two, or values\\[0\\]"):
        bootstrap_interval(np.ones((1, 5)), seed=0)
    with pytest.raises(ValueError, match=r"got shape \[2, 2, 2\]"):
        bootstrap_interval(np.ones((2, 2, 2)), seed=0)
    with pytest.raises(ValueError, match=r"1 values that are not finite, the first at \[1\]"):
        accuracy([1.0, float("nan")])
    with pytest.raises(ValueError, match=r"shape \[1, 3\], correct_b \[1, 2\]"):
        paired_difference([1, 0, 1], [1, 0])
    with pytest.raises(ValueError, match="correct_b must hold 0 and 1 alone; for margins pass margin > 0"):
        mcnemar([1, 0], [0.5, 1])


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_one_seed_gives_the_exact_mcnemar_test_of_statsmodels(outcomes):
    a, b = np.array(outcomes).T
    table = [[sum(a & b), sum(a & ~b)], [sum(~a & b), sum(~a & ~b)]]
    assert mcnemar(a, b) == pytest.approx(statsmodels_mcnemar(table, exact=True).pvalue)


def test_several_seeds_give_the_p_value_found_by_trying_every_sign():
    a = np.array([[1, 1, 1, 0, 1, 0], [1, 1, 0, 0, 1, 1], [1, 0, 1, 0, 1, 1]])
    b = np.array([[0, 0, 1, 1, 0, 0], [0, 1, 0, 0, 0, 1], [0, 0, 0, 0, 1, 1]])
    net = (a - b).sum(axis=0)  # 3, 1, 1, -1, 2, 0
    signs = np.stack(np.meshgrid(*[[-1, 1]] * 6), axis=-1).reshape(-1, 6)
    expected = np.mean(np.abs(signs @ np.abs(net)) >= abs(net.sum()))
    assert mcnemar(a, b) == pytest.approx(expected)


def test_repeating_a_seed_does_not_make_a_difference_more_certain():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 80)) < [[0.7], [0.5]]
    assert mcnemar(np.tile(a, (5, 1)), np.tile(b, (5, 1))) == pytest.approx(mcnemar(a, b))


def test_a_paired_difference_has_the_width_of_the_paired_normal_approximation():
    # 1000 items: 100 only a, 40 only b, so the difference is 0.06 and its variance (0.14 - 0.06^2) / 1000.
    a = np.repeat([1, 1, 0, 0], [600, 100, 40, 260])
    b = np.repeat([1, 0, 1, 0], [600, 100, 40, 260])
    result = paired_difference(a, b)
    half = 1.96 * np.sqrt((0.14 - 0.06**2) / 1000)
    found = result.interval()
    assert (found.low, found.high) == pytest.approx((0.06 - half, 0.06 + half), abs=1e-4)
    assert result.p_value == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-6)
    assert str(result).startswith("+0.060 [+0.0")


def test_exchanging_the_two_turns_the_difference_round_and_keeps_p():
    rng = np.random.default_rng(1)
    a, b = rng.random((2, 3, 200)) < 0.6
    forth, back = paired_difference(a, b), paired_difference(b, a)
    assert forth.p_value == pytest.approx(back.p_value)
    assert forth.interval().low == pytest.approx(-back.interval().high)


@settings(max_examples=12, deadline=None)  # the peer takes a quarter of a second a call
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_is_that_of_statsmodels(p_values):
    np.testing.assert_allclose(holm(p_values), multipletests(p_values, method="holm")[1])


def test_holm_refuses_what_is_no_probability():
    with pytest.raises(ValueError, match=r"must lie in 0..1, got 0.1..1.2"):
        holm([0.1, 1.2])


def test_a_correlation_has_the_interval_of_fishers_transformation():
    x = np.random.default_rng(0).normal(size=103)
    y = x + np.random.default_rng(1).normal(size=103)
    interval = correlation_interval(x, y)
    r = np.corrcoef(x, y)[0, 1]
    expected = np.tanh(np.arctanh(r) + np.array([-1.96, 1.96]) / 10)  # standard error 1 / sqrt(103 - 3)
    assert (interval.estimate, interval.low, interval.high) == pytest.approx((r, *expected), abs=1e-4)


def test_calibration_error_by_hand():
    sure = np.log(0.9 / 0.1)  # a confidence of 0.9; right in 3 of 4 pairs
    unsure = np.log(0.6 / 0.4)  # a confidence of 0.6; right in 1 of 2 pairs
    margin = [sure, sure, -sure, sure, unsure, -unsure]
    table = calibration_table(margin, bins=5)
    np.testing.assert_allclose(table[["confidence", "accuracy", "n"]], [[0.6, 0.5, 2], [0.9, 0.75, 4]])
    assert expected_calibration_error(margin, bins=5) == pytest.approx((2 * 0.1 + 4 * 0.15) / 6)


def test_calibration_error_vanishes_where_the_model_is_right_as_often_as_it_says():
    rng = np.random.default_rng(0)
    size = rng.exponential(2, size=200_000)
    margin = size * np.where(rng.random(size.size) < 1 / (1 + np.exp(-size)), 1, -1)
    assert expected_calibration_error(margin) < 0.004
    assert expected_calibration_error(4 * margin) > 0.05


def test_brier_is_that_of_scikit_learn_and_a_quarter_for_ties():
    margin = np.random.default_rng(0).normal(size=100)
    probability = 1 / (1 + np.exp(-np.concatenate([margin, -margin])))
    outcome = np.repeat([1, 0], 100)  # each pair from both sides
    assert brier(margin) == pytest.approx(brier_score_loss(outcome, probability))
    assert brier([0.0, 0.0]) == 0.25
    assert brier([-1000.0]) == 1


def test_longer_and_shorter_count_characters():
    responses = ["abc", "", "ü" * 7]
    np.testing.assert_array_equal(Longer().score([PROMPT] * 3, responses), [3, 0, 7])
    np.testing.assert_array_equal(Shorter().score([PROMPT] * 3, responses), [-3, 0, -7])


def test_random_rewards_are_uniform_and_depend_on_seed_prompt_and_response_alone():
    responses = [f"response {index}" for index in range(5000)]
    prompts = [PROMPT] * 5000
    rewards = Random(0).score(prompts, responses)
    assert stats.kstest(rewards, "uniform").pvalue > 0.001
    np.testing.assert_array_equal(Random(0).score(prompts[:9], responses[:9]), rewards[:9])
    np.testing.assert_array_equal(Random(0).score(prompts, responses[::-1]), rewards[::-1])
    assert abs(np.corrcoef(rewards, Random(1).score(prompts, responses))[0, 1]) < 0.05
    assert Random(0).score([[{"role": "user", "content": "Who?"}]], responses[:1])[0] != rewards[0]


def _preferences(n: int, seed: int, chosen_word: str = "because") -> Dataset:
    """Pairs of eight random words; in nine of ten the chosen response has one word more, the rejected "banana"."""
    rng = np.random.default_rng(seed)
    words = np.array(["tree", "house", "river", "stone", "cloud", "apple"])
    rows = []
    for _ in range(n):
        filler = [" ".join(rng.choice(words, size=8)) for _ in range(2)]
        extra = [chosen_word, "banana"] if rng.random() < 0.9 else ["banana", chosen_word]
        texts = [f"{text} {word}" for text, word in zip(filler, extra, strict=True)]
        chosen, rejected = ([{"role": "assistant", "content": text}] for text in texts)
        rows.append({"prompt": PROMPT, "chosen": chosen, "rejected": rejected, "strength": 1.0})
    return Dataset.from_list(rows)


def _margins(model: BagOfWords, preferences: Dataset) -> np.ndarray:
    chosen, rejected = ([m[-1]["content"] for m in preferences[side]] for side in ("chosen", "rejected"))
    return model.score(preferences["prompt"], chosen) - model.score(preferences["prompt"], rejected)


def test_bag_of_words_finds_the_words_that_decide_and_generalises_as_well_as_they_allow():
    model = BagOfWords.fit(_preferences(300, seed=0))
    weight = dict(zip(model.vectorizer.get_feature_names_out(), model.weights, strict=True))
    assert max(weight, key=weight.__getitem__) == "because" and min(weight, key=weight.__getitem__) == "banana"
    assert accuracy(_margins(model, _preferences(400, seed=1))) == pytest.approx(0.9, abs=0.05)


def test_exchanging_chosen_and_rejected_turns_the_bag_of_words_round():
    preferences = _preferences(60, seed=0)
    turned = preferences.rename_columns({"chosen": "rejected", "rejected": "chosen"})
    np.testing.assert_allclose(BagOfWords.fit(preferences).weights, -BagOfWords.fit(turned).weights, atol=1e-3)


def test_bag_of_words_knows_no_order_and_gives_unknown_words_no_weight():
    model = BagOfWords.fit(_preferences(60, seed=0))
    forwards, backwards, longer = model.score([PROMPT] * 3, ["tree because", "because tree", "tree because zebra"])
    assert forwards == backwards == longer


def test_bag_of_words_needs_enough_pairs():
    with pytest.raises(ValueError, match="4 pairs are too few for 5 folds; give at least 10"):
        BagOfWords.fit(_preferences(4, seed=0))
