"""Groups, effect sizes, agreement, power, temperature, strata, length control and learning curves.

Against scipy, statsmodels, scikit-learn, simulation and hand arithmetic.
"""

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import optimize
from scipy.special import expit
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.proportion import proportion_confint

from rmlib.statistics import (
    accuracy_by_stratum,
    agreement,
    bootstrap_interval,
    brier,
    discordant_odds_ratio,
    fit_power_law,
    fit_temperature,
    length_controlled_accuracy,
    mcnemar,
    paired_difference,
)

# --- groups -----------------------------------------------------------------------------------------------------------


def test_copies_of_an_item_in_one_group_give_the_interval_of_the_items_without_copies():
    values = np.random.default_rng(0).random((3, 60))
    once = bootstrap_interval(values, seed=1, groups=np.arange(60))
    copied = bootstrap_interval(np.repeat(values, 5, axis=1), seed=1, groups=np.repeat(np.arange(60), 5))
    assert (copied.estimate, copied.low, copied.high) == pytest.approx((once.estimate, once.low, once.high))
    assert copied.n == 300


def test_an_interval_over_groups_has_the_width_of_the_cluster_robust_standard_error_of_statsmodels():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(150), rng.integers(1, 9, size=150))
    values = rng.normal(size=150)[groups] + rng.normal(size=len(groups))
    peer = sm.OLS(values, np.ones(len(groups))).fit(cov_type="cluster", cov_kwds={"groups": groups})
    interval, alone = (bootstrap_interval(values, seed=0, groups=g, draws=8000) for g in (groups, None))
    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 * peer.bse[0], rel=0.05)
    assert alone.high - alone.low < 0.7 * (interval.high - interval.low)


def test_groups_take_one_sign_together_in_the_exact_test():
    a, b = np.array([[1, 1, 1, 0, 1, 0, 1], [0, 0, 1, 1, 0, 0, 0]])
    groups = ["x", "x", "y", "y", "z", "z", "z"]  # net 2, -1 and 2
    signs = np.stack(np.meshgrid(*[[-1, 1]] * 3), axis=-1).reshape(-1, 3)
    expected = np.mean(np.abs(signs @ [2, 1, 2]) >= 3)
    assert mcnemar(a, b, groups=groups) == pytest.approx(expected)


def test_groups_of_other_items_and_a_single_group_are_refused():
    with pytest.raises(ValueError, match=r"groups have shape \[2\] for 3 items"):
        bootstrap_interval([1.0, 0, 1], seed=0, groups=[1, 2])
    with pytest.raises(ValueError, match="all items are of one group"):
        paired_difference([1, 0, 1], [1, 1, 0], groups=["one"] * 3)


# --- effect sizes and agreement ---------------------------------------------------------------------------------------


def test_the_odds_ratio_is_that_of_the_items_that_differ_with_the_exact_interval():
    a, b = np.repeat([1, 1, 0, 0], [40, 12, 4, 9]), np.repeat([1, 0, 1, 0], [40, 12, 4, 9])
    ratio = discordant_odds_ratio(a, b)
    low, high = proportion_confint(12, 16, method="beta")
    assert (ratio.estimate, ratio.n) == (pytest.approx(3), 16)
    assert (ratio.low, ratio.high) == pytest.approx((low / (1 - low), high / (1 - high)))
    back = discordant_odds_ratio(b, a)
    assert (back.low, back.high) == pytest.approx((1 / ratio.high, 1 / ratio.low))


def test_over_seeds_an_item_counts_once_for_the_one_that_is_right_more_often():
    a = [[1, 1, 0, 1], [1, 0, 0, 1], [0, 1, 1, 1]]
    b = [[0, 1, 1, 1], [0, 1, 0, 0], [1, 0, 1, 0]]  # net: 1, 0, -1, 2
    assert discordant_odds_ratio(a, b).estimate == pytest.approx(2)


def test_odds_without_any_item_for_b_have_no_upper_bound_and_without_any_item_are_not_known():
    ratio = discordant_odds_ratio([1, 1, 1], [0, 0, 1])
    assert ratio.estimate == ratio.high == np.inf and 0 < ratio.low < 1
    same = discordant_odds_ratio([1, 0], [1, 0])
    assert np.isnan([same.estimate, same.low, same.high]).all() and same.n == 0


def test_kappa_is_that_of_scikit_learn_and_its_interval_about_that_of_statsmodels():
    rng = np.random.default_rng(0)
    a = rng.normal(0.6, size=800)
    b = a + rng.normal(size=800)
    result = agreement(a, b, seed=0, draws=4000)
    assert result.kappa.estimate == pytest.approx(cohen_kappa_score(a > 0, b > 0))
    table = [[np.sum(((a > 0) == i) & ((b > 0) == j)) for j in (0, 1)] for i in (0, 1)]
    peer = cohens_kappa(np.array(table))
    assert (result.kappa.low, result.kappa.high) == pytest.approx((peer.kappa_low, peer.kappa_upp), abs=0.01)
    assert result.share.estimate == pytest.approx(np.mean((a > 0) == (b > 0)))


def test_agreement_with_oneself_is_whole_and_of_strangers_only_chance():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0.5, size=(2, 3, 2000))
    assert agreement(a, a, seed=0).kappa.estimate == pytest.approx(1)
    assert agreement(a, a, seed=0).share.low == pytest.approx(1)
    strangers = agreement(a, b, seed=0)
    assert strangers.kappa.low < 0 < strangers.kappa.high and strangers.share.estimate > 0.55


def test_kappa_is_not_a_number_where_both_are_always_right():
    result = agreement([1.0, 2.0], [3.0, 1.0], seed=0)
    assert np.isnan(result.kappa.estimate) and result.share.estimate == 1


# --- temperature ------------------------------------------------------------------------------------------------------


def margins(n: int, temperature: float, seed: int = 0) -> np.ndarray:
    """Margins that are logits once divided by the temperature."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(scale=2, size=n)
    return temperature * np.abs(logit) * np.where(rng.random(n) < expit(np.abs(logit)), 1, -1)


def test_the_temperature_minimises_the_loss_and_its_interval_is_that_of_logistic_regression():
    margin = margins(600, 2.5)
    fitted = fit_temperature(margin, seed=0, draws=4000)
    found = optimize.minimize_scalar(lambda t: np.logaddexp(0, -margin / t).mean(), bounds=(0.1, 20))
    assert fitted.estimate == pytest.approx(found.x, rel=1e-4)
    side = np.where(np.arange(600) % 2, 1, -1)  # a pair from its other side has the same likelihood
    peer = sm.Logit((side > 0).astype(int), (margin * side)[:, None]).fit(disp=0)
    assert 1 / fitted.estimate == pytest.approx(peer.params[0], rel=1e-4)
    high, low = 1 / peer.conf_int()[0]
    assert (fitted.low, fitted.high) == pytest.approx((low, high), rel=0.05)
    assert fitted.low < 2.5 < fitted.high


def test_the_temperature_scales_with_the_margins_and_mends_their_brier_score():
    once, thrice = (fit_temperature(scale * margins(300, 1.0), seed=0) for scale in (1, 3))
    assert thrice.estimate == pytest.approx(3 * once.estimate)
    assert (thrice.low, thrice.high) == pytest.approx((3 * once.low, 3 * once.high))
    unseen = 3 * margins(5000, 1.0, seed=1)
    assert brier(thrice.apply(unseen)) < brier(unseen)
    # In the long run a logit of 2 * normal, right as often as it says, has the Brier score E[p (1 - p)].
    logits = np.random.default_rng(2).normal(scale=2, size=200_000)
    assert brier(thrice.apply(unseen)) == pytest.approx(np.mean(expit(logits) * expit(-logits)), abs=0.01)


def test_margins_on_the_wrong_side_have_an_infinite_temperature_and_margins_never_wrong_have_none():
    wrong = fit_temperature([-1.0, -2, 1] * 20, seed=0)
    assert wrong.estimate == wrong.high == np.inf
    assert (wrong.apply([3.0, -1]) == 0).all()
    right = fit_temperature([1.0, 2, 3], seed=0)
    assert right.estimate == 0
    with pytest.raises(ValueError, match="temperature of 0 makes every margin infinite"):
        right.apply([1.0])
    with pytest.raises(ValueError, match="all margins are 0"):
        fit_temperature([0.0, 0.0], seed=0)
    with pytest.raises(ValueError, match="margin has one seed"):
        fit_temperature([[1.0, -1.0]], seed=0)


# --- strata and length ------------------------------------------------------------------------------------------------


def test_accuracy_by_stratum_by_hand():
    correct = [[1, 0, 1, 1, 0], [1, 1, 1, 0, 0]]
    table = accuracy_by_stratum(correct, [1, 1, 2, 2, 3], seed=0)
    assert table["estimate"].tolist() == [0.75, 0.75, 0.0] and table["n"].tolist() == [2, 2, 1]
    same = bootstrap_interval(np.array([[1, 0], [1, 1]]), seed=0)
    assert table.loc[1, ["low", "high"]].tolist() == [same.low, same.high]


def test_a_stratum_of_one_group_has_no_interval_to_speak_of():
    table = accuracy_by_stratum([1, 0, 1, 1], ["a", "a", "b", "b"], seed=0, groups=[1, 1, 2, 3])
    assert table.loc["a", ["low", "high"]].tolist() == [0, 1]
    with pytest.raises(ValueError, match=r"strata have shape \[1\] for 2 items"):
        accuracy_by_stratum([1, 0], [1], seed=0)


def test_length_control_is_the_intercept_of_the_logistic_regression_of_statsmodels():
    rng = np.random.default_rng(0)
    length = rng.normal(200, 500, size=1500)
    right = rng.random(1500) < expit(0.4 + 1.2 * np.tanh(length / np.sqrt(np.mean(length**2))))
    interval = length_controlled_accuracy(right, length, seed=0)
    covariate = np.tanh(length / np.sqrt(np.mean(length**2)))
    peer = sm.Logit(right.astype(int), sm.add_constant(covariate)).fit(disp=0)
    assert interval.estimate == pytest.approx(expit(peer.params[0]), abs=1e-3)
    low, high = expit(peer.conf_int()[0])
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.006)
    assert interval.estimate < right.mean() - 0.04  # chosen responses are longer here, and length helps


def test_a_model_that_takes_the_longer_response_is_right_half_the_time_once_length_is_held_equal():
    length = np.random.default_rng(0).normal(300, 500, size=600)
    interval = length_controlled_accuracy(length > 0, length, seed=0)
    assert np.mean(length > 0) > 0.7 and interval.low < 0.5 < interval.high


def test_a_model_that_does_not_look_at_length_keeps_its_accuracy():
    rng = np.random.default_rng(0)
    right = rng.random((3, 2000)) < 0.7
    interval = length_controlled_accuracy(right, rng.normal(0, 100, size=2000), seed=0)
    assert interval.estimate == pytest.approx(right.mean(), abs=0.005)
    assert length_controlled_accuracy([1, 1, 1, 1], [1.0, -1, 2, -2], seed=0).estimate > 0.9


def test_lengths_that_cannot_be_controlled_for_are_refused():
    with pytest.raises(ValueError, match="must be finite and not all 0"):
        length_controlled_accuracy([1, 0], [0.0, 0.0], seed=0)
    with pytest.raises(ValueError, match=r"shape \[1\] for 2 items"):
        length_controlled_accuracy([1, 0], [3.0], seed=0)


# --- learning curves --------------------------------------------------------------------------------------------------

SIZES = [100, 400, 1600, 6400, 25_600]


def answers(errors: list[float], n: int, *, seeds: int = 3, rng: np.random.Generator | None = None) -> np.ndarray:
    """`[size, seed, item]`: exactly these errors, or drawn with these probabilities."""
    if rng is None:
        return np.array([[np.arange(n) >= round(error * n)] * seeds for error in errors])
    return rng.random((len(errors), seeds, n)) >= np.array(errors)[:, None, None]


def test_an_exact_power_law_is_found_again():
    # 0.1 + 0.3 (n / 100)^-0.5
    law = fit_power_law(SIZES, answers([0.4, 0.25, 0.175, 0.1375, 0.11875], 800), seed=0)
    found = law.scale.estimate, law.exponent.estimate, law.floor.estimate
    assert found == pytest.approx((0.3, 0.5, 0.1), abs=1e-3)
    assert law.curve([100, 400])["estimate"].tolist() == pytest.approx([0.4, 0.25], abs=1e-3)


def test_the_law_is_that_of_scipy_s_curve_fit_and_its_interval_holds_the_truth():
    correct = answers([0.4, 0.25, 0.175, 0.1375, 0.11875], 2000, rng=np.random.default_rng(0))
    law = fit_power_law(SIZES, correct, seed=0)
    (scale, exponent, floor), _ = optimize.curve_fit(
        lambda n, a, b, c: a * (n / 100) ** -b + c, np.array(SIZES), 1 - correct.mean(axis=(1, 2)), p0=[0.2, 0.4, 0.1]
    )
    found = law.scale.estimate, law.exponent.estimate, law.floor.estimate
    assert found == pytest.approx((scale, exponent, floor), rel=1e-2)
    for interval, truth in ((law.scale, 0.3), (law.exponent, 0.5), (law.floor, 0.1)):
        assert interval.low < truth < interval.high
    assert law.floor_is_shown and law.fall_is_shown and "no floor shown" not in str(law)
    band = law.curve(SIZES)
    assert (band["low"] < band["estimate"]).all() and (band["estimate"] < band["high"]).all()


def test_a_floor_that_the_data_do_not_show_is_said_not_to_be():
    few = [100, 150, 220, 330, 500]
    correct = answers([0.4 * (n / 100) ** -0.2 for n in few], 300, rng=np.random.default_rng(0))
    law = fit_power_law(few, correct, seed=0)
    assert law.floor.low == 0 and not law.floor_is_shown
    assert "no floor shown" in str(law)


def test_error_that_does_not_fall_has_no_exponent():
    law = fit_power_law(SIZES, answers([0.5] * 5, 400, rng=np.random.default_rng(0)), seed=0)
    assert not law.fall_is_shown and str(law) == "error does not fall with size beyond chance"


def test_curves_that_cannot_be_fitted_are_refused():
    correct = answers([0.4, 0.3, 0.2, 0.1, 0.1], 20)
    with pytest.raises(ValueError, match=r"4 or more, ascending, got \[1, 2, 3\]"):
        fit_power_law([1, 2, 3], correct[:3], seed=0)
    with pytest.raises(ValueError, match="4 or more, ascending"):
        fit_power_law(SIZES[::-1], correct, seed=0)
    with pytest.raises(ValueError, match="correct has one seed"):
        fit_power_law(SIZES, correct[:, :1], seed=0)
    with pytest.raises(ValueError, match=r"with 5 sizes, got shape \[4, 3, 20\]"):
        fit_power_law(SIZES, correct[:4], seed=0)
    with pytest.raises(ValueError, match="must hold 0 and 1 alone"):
        fit_power_law(SIZES, 2 * correct, seed=0)
    with pytest.raises(ValueError, match="correct is empty"):
        fit_power_law(SIZES, np.empty((5, 3, 0)), seed=0)
