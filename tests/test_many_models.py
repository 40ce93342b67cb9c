"""Comparing many models: exact tests against scipy, statsmodels and hand counts, and ranks that noise shares."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from rmlib import statistics
from rmlib.statistics import compare_models


def compare(credits, *, groups=None, draws=2000, **options):
    """Models by their plain mean credit, items (or groups of items) redrawn."""
    arrays = {model: np.atleast_2d(values) for model, values in credits.items()}
    n = next(iter(arrays.values())).shape[1]
    codes = np.unique(np.arange(n) if groups is None else groups, return_inverse=True)[1]
    units = codes.max() + 1
    times = np.random.default_rng(0).multinomial(units, np.full(units, 1 / units), size=draws)[:, codes]
    drawn = np.vstack([np.ones(n), times]) / np.vstack([[n], times.sum(axis=1, keepdims=True)])
    scores = {model: drawn @ values.T for model, values in arrays.items()}
    return compare_models(credits, scores, groups=groups, seed=0, **options)


def noisy(shares, n=400, seed=0):
    """Models that are right on items of one difficulty scale, more often the higher their share."""
    rng = np.random.default_rng(seed)
    return {f"m{i}": (rng.random(n) < share).astype(float) for i, share in enumerate(shares)}


# --- differences ------------------------------------------------------------------------------------------------------


def test_p_values_are_those_of_a_paired_t_test_adjusted_by_holm():
    credits = noisy([0.6, 0.65, 0.8])
    table = compare(credits, draws=20_000).differences
    expected = [
        stats.ttest_rel(credits[a], credits[b]).pvalue
        for a, b in zip(*(table[c] for c in ("model", "against")), strict=True)
    ]
    np.testing.assert_allclose(np.log(table["p"]), np.log(expected), rtol=0.05)
    np.testing.assert_allclose(table["p (Holm)"], multipletests(table["p"], method="holm")[1], rtol=1e-9)


def test_runs_that_differ_widen_a_difference_and_its_interval_agrees_with_p():
    rng = np.random.default_rng(3)
    skill = np.array([0.5, 0.8, 0.65])[:, None]
    credits = {"a": (rng.random((3, 300)) < skill).astype(float), "b": (rng.random((3, 300)) < 0.5).astype(float)}
    row = compare(credits).differences.iloc[0]
    by_hand = stats.ttest_rel(credits["a"].mean(axis=1), credits["b"].mean(axis=1)).pvalue  # the seeds' alone
    assert row["p"] > by_hand > 0.05 and row["low"] < 0 < row["high"]
    steady = compare({name: values[1] for name, values in credits.items()}).differences.iloc[0]
    assert steady["p"] < 0.001 and steady["low"] > 0


def test_the_interval_of_a_difference_has_the_analytic_width():
    credits = noisy([0.7, 0.6])
    row = compare(credits, draws=4000).differences.iloc[0]
    apart = credits["m0"] - credits["m1"]
    assert row["estimate"] == pytest.approx(apart.mean())
    assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * apart.std() / np.sqrt(len(apart)), rel=0.05)


def test_shared_credit_is_tested_as_a_paired_t_test_does():
    rng = np.random.default_rng(2)
    a, b = rng.choice([0, 0.25, 0.5, 1], 500), rng.choice([0, 0.25, 1], 500)
    row = compare({"a": a, "b": b}).differences.iloc[0]
    assert row["p"] == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=0.1)


def test_a_few_items_of_shared_credit_cannot_be_more_certain_than_their_signs():
    row = compare({"a": [1.0, 1.0, 1.0, 0.5], "b": [0.5, 0.5, 0.5, 0.5]}).differences.iloc[0]
    assert row["p"] >= 2 ** (1 - 3)  # all three that differ go one way: 2 of the 8 ways to give signs


def test_items_of_one_group_are_tested_and_redrawn_together():
    better, worse = np.ones(40), np.zeros(40)
    alone = compare({"a": better, "b": worse}).differences.iloc[0]
    together = compare({"a": better, "b": worse}, groups=np.repeat([0, 1, 2, 3], 10)).differences.iloc[0]
    assert alone["p"] == pytest.approx(2 * 0.5**40) and together["p"] == pytest.approx(2 * 0.5**4)
    assert alone["low"] > 0 and together["low"] == pytest.approx(0)  # four groups that agree are not enough
    mixed = np.repeat([1.0, 0.0, 1.0, 0.0], 10)
    width = [
        compare({"a": mixed, "b": worse}, **more).leaderboard.loc["a"]
        for more in ({}, {"groups": np.repeat(range(4), 10)})
    ]
    assert width[1]["high"] - width[1]["low"] > 2 * (width[0]["high"] - width[0]["low"])


# --- the leaderboard --------------------------------------------------------------------------------------------------


def test_identical_models_share_a_rank_and_the_interval_of_their_places():
    base = noisy([0.7])["m0"]
    table = compare({"a": base, "b": base.copy(), "worse": np.zeros(400)}).leaderboard
    assert table["rank"].to_dict() == {"a": 1, "b": 1, "worse": 3}
    assert (
        table.loc["a", ["rank_low", "rank_high"]].tolist()
        == table.loc["b", ["rank_low", "rank_high"]].tolist()
        == [1, 1]
    )
    assert table.loc["worse", ["rank_low", "rank_high"]].tolist() == [3, 3]


def test_a_model_that_is_better_on_every_item_stands_alone():
    table = compare({"low": np.zeros(30), **noisy([0.5, 0.5], n=30), "high": np.ones(30)}).leaderboard
    assert table.index[0] == "high" and table["rank"].tolist().count(1) == 1
    assert table.loc["low", "rank"] == 4


def test_models_within_noise_share_the_first_rank_and_their_places_overlap():
    table = compare(noisy([0.7, 0.7, 0.7, 0.7])).leaderboard
    assert table["rank"].tolist() == [1] * 4
    places = np.arange(1, 5)
    assert (
        (table["rank_low"] <= places).all() and (places <= table["rank_high"]).all() and table["rank_high"].iloc[0] > 1
    )


def test_few_items_cannot_separate_what_many_do():
    shares = [0.55, 0.75]
    assert compare(noisy(shares, n=12)).leaderboard["rank"].tolist() == [1, 1]
    assert compare(noisy(shares, n=2000)).leaderboard["rank"].tolist() == [1, 2]


def test_no_model_ranks_before_one_with_a_higher_score():
    table = compare(noisy(np.linspace(0.5, 0.8, 12), n=300)).leaderboard
    assert table["estimate"].is_monotonic_decreasing and table["rank"].is_monotonic_increasing
    assert 1 < table["rank"].nunique() < 12


def test_equal_models_are_called_different_about_as_rarely_as_the_level_says():
    clear = [compare(noisy([0.6, 0.6], n=200, seed=s), draws=200).differences["clear"][0] for s in range(200)]
    assert np.mean(clear) <= 0.08  # 5 % at most, and the error of 200 trials


def test_the_interval_of_a_score_is_that_of_the_ordinary_bootstrap():
    values = noisy([0.6])["m0"]
    row = compare({"m": values}, draws=4000).leaderboard.loc["m"]
    expected = statistics.bootstrap_interval(values, seed=5, draws=4000)
    assert [row["low"], row["high"]] == pytest.approx([expected.low, expected.high], abs=0.01)


def test_seeds_are_averaged_and_widen_the_interval():
    right, wrong = np.ones(50), np.zeros(50)
    table = compare({"two runs": np.array([right, wrong]), "one": np.tile([1.0, 0.0], 25)}).leaderboard
    assert table["estimate"].tolist() == [0.5, 0.5] and table["seeds"].to_dict() == {"two runs": 2, "one": 1}
    assert table.loc["two runs", ["low", "high"]].tolist() == [0, 1]


def test_the_order_in_which_models_are_given_does_not_matter():
    credits = noisy([0.5, 0.6, 0.7])
    forward, backward = compare(credits).leaderboard, compare(dict(reversed(credits.items()))).leaderboard
    np.testing.assert_allclose(forward.to_numpy(), backward.loc[forward.index].to_numpy(), atol=1e-12)


@pytest.mark.parametrize(
    ("credits", "problem"),
    [
        ({"a": [0.0, 2.0]}, "must lie in 0..1"),
        ({"a": [0.0, np.nan]}, "not finite"),
        ({"a": [0.0, 1.0], "b": [0.0]}, "'b' has credits for 1 items, the first model for 2"),
    ],
)
def test_credits_that_cannot_be_compared_are_refused(credits, problem):
    scores = {model: np.zeros((3, 1)) for model in credits}
    with pytest.raises(ValueError, match=problem):
        compare_models(credits, scores, seed=0)


def test_scores_of_other_models_draws_or_runs_are_refused():
    with pytest.raises(ValueError, match="credits are of no model"):
        compare_models({}, {}, seed=0)
    with pytest.raises(ValueError, match=r"credits are of \['a'\], scores of \['b'\]"):
        compare_models({"a": [0.0, 1.0]}, {"b": np.zeros((3, 1))}, seed=0)
    with pytest.raises(ValueError, match=r"scores of 'b' have shape \[3, 2\], not \[3, 1\]"):
        credits = {"a": [0.0, 1.0], "b": [0.0, 1.0]}
        compare_models(credits, {"a": np.zeros((3, 1)), "b": np.zeros((3, 2))}, seed=0)


# --- rulers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "markers"),
    [
        ("Plain text, 3 - 2 = 1, a * b * c and snake_case_names.", 0),
        ("# Title\n\n## Part\n#hashtag", 2),
        ("- one\n* two\n  + three\n1. four\n2) five", 5),
        ("**bold** and **more**, `code`, [link](https://example.org)", 4),
        ("```python\nx = 1\n```", 2),
        ("| a | b |\n|---|---|\n| 1 | 2 |", 3),
        ("> quoted\nnot quoted", 1),
    ],
)
def test_markdown_counts_markers(text, markers):
    assert statistics.Markdown().score([[]], [text]).tolist() == [markers]


def test_the_constant_ruler_ties_everything():
    assert statistics.Constant().score([[]] * 3, ["a", "bb", ""]).tolist() == [0, 0, 0]
