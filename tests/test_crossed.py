"""One difference over prompts and seeds: interval and p agree, and cover where seeds are few."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from rmlib.statistics import mcnemar
from rmlib.statistics.crossed import crossed_difference

TABLES = st.tuples(st.integers(2, 5), st.integers(3, 30)).flatmap(
    lambda shape: arrays(np.int8, shape, elements=st.integers(-1, 1))
)


@given(TABLES, st.sampled_from([0.9, 0.95, 0.99]))
@settings(max_examples=150, deadline=None)
def test_the_interval_excludes_zero_exactly_where_p_is_below_the_level(table: np.ndarray, level: float) -> None:
    found = crossed_difference(table.astype(float))
    interval = found.interval(level)
    if abs(abs(found.estimate) - found.half_width(level)) > 1e-9:
        assert (interval.low > 0 or interval.high < 0) == (found.p_value < 1 - level)


@given(TABLES)
@settings(max_examples=50, deadline=None)
def test_turning_the_two_models_round_mirrors_the_interval_and_keeps_p(table: np.ndarray) -> None:
    one, other = crossed_difference(table.astype(float)), crossed_difference(-table.astype(float))
    assert other.interval().low == pytest.approx(-one.interval().high, abs=1e-12)
    assert other.p_value == pytest.approx(one.p_value) and other.detectable() == pytest.approx(
        one.detectable(), nan_ok=True
    )


def test_one_seed_is_the_t_test_over_items_and_a_thousand_items_alike_that_over_seeds() -> None:
    rng = np.random.default_rng(0)
    row = rng.normal(0.2, 1, 40)
    assert crossed_difference(row).p_value == pytest.approx(stats.ttest_1samp(row, 0).pvalue, rel=1e-6)
    seeds = np.array([0.02, 0.05, 0.01])
    table = np.repeat(seeds[:, None], 1000, axis=1)
    assert crossed_difference(table).p_value == pytest.approx(stats.ttest_1samp(seeds, 0).pvalue, rel=1e-6)


def test_a_seedless_p_is_close_to_mcnemar_where_items_are_many() -> None:
    rng = np.random.default_rng(1)
    a, b = (rng.random((2, 2000)) < [[0.75], [0.72]]).astype(int)
    assert crossed_difference(a - b).p_value == pytest.approx(mcnemar(a, b), abs=0.01)


def test_doubled_items_of_one_group_say_no_more_than_one() -> None:
    table = np.random.default_rng(2).integers(-1, 2, (3, 50)).astype(float)
    once, twice = crossed_difference(table), crossed_difference(np.repeat(table, 2, 1), groups=np.arange(100) // 2)
    assert (twice.estimate, twice.units, twice.n) == (pytest.approx(once.estimate), 50, 100)
    assert twice.interval().low == pytest.approx(once.interval().low)


def test_weights_make_the_official_score_and_strata_take_out_what_lies_between_them() -> None:
    difference = np.array([[1.0, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0]])
    parts = np.array([0, 0, 0, 1, 1, 1])
    found = crossed_difference(difference, weights=np.array([1, 1, 1, 3, 3, 3]), strata=parts)
    assert found.estimate == pytest.approx(0.25) and found.of_items == pytest.approx(0)
    assert crossed_difference(difference).of_items > 0


@pytest.mark.parametrize(("n_seeds", "spread"), [(2, 0.0), (2, 0.15), (3, 0.05), (3, 0.15), (5, 0.15)])
def test_the_interval_holds_the_truth_as_often_as_it_says_with_few_seeds(n_seeds: int, spread: float) -> None:
    """Two models that differ in nothing but the luck of their seeds and prompts; 300 studies, 2 sd of their share."""
    rng, held = np.random.default_rng([n_seeds, int(100 * spread)]), 0
    for _ in range(300):
        skill = rng.normal(0.8, 1.2, 200) + rng.normal(0, 0.5, (2, 1, 200)) + rng.normal(0, 0.5, (2, n_seeds, 200))
        right = skill + rng.normal(0, spread, (2, n_seeds, 1)) > 0
        held += crossed_difference(right[0].astype(float) - right[1]).p_value >= 0.05
    assert held / 300 > 0.95 - 2 * np.sqrt(0.95 * 0.05 / 300)


def test_wrong_shapes_weights_and_single_items_are_refused() -> None:
    table = np.zeros((2, 4))
    for options in ({"weights": [1, 1]}, {"weights": [0, 0, 0, 0]}, {"weights": [1, 1, 1, -1]}, {"groups": [1] * 4}):
        with pytest.raises(ValueError, match="weights must be|one group"):
            crossed_difference(table, **options)
    with pytest.raises(ValueError, match="one item"):
        crossed_difference(np.zeros((2, 1)))


def test_the_detectable_difference_is_found_as_often_as_it_says() -> None:
    """With many items and seeds the law is normal: 2.80 standard errors are found in four of five studies."""
    table = np.random.default_rng(5).normal(0, 1, (1, 5000))[0]
    error = table.std(ddof=1) / np.sqrt(5000)
    assert crossed_difference(table).detectable() == pytest.approx(2.8016 * error, rel=1e-3)
