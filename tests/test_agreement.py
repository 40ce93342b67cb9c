"""Agreement against scikit-learn, krippendorff and a bootstrap written out; bias and correlations by hand."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import krippendorff
import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from rmlib.annotations import agreement
from rmlib.pairs import ATTRIBUTES, make_pairs
from rmlib.statistics import wilson_interval

LEVELS = ("interval", "ordinal")
Items = Sequence[Sequence[int]]


def table(rows: Sequence[dict[str, Any]]) -> Dataset:
    """One pair for each row of what differs: preference, ratings, annotations."""
    fixed = {"split": "train", "response_1": "one", "response_2": "two"}
    prompts = [[{"role": "user", "content": f"question {number}"}] for number in range(len(rows))]
    return make_pairs([fixed | {"prompt": p} | row for p, row in zip(prompts, rows, strict=True)], origin="test")


def voted(*votes: int) -> dict[str, Any]:
    return {"annotations": [{"preference": vote} for vote in votes]}


def both(helpfulness_1: float, helpfulness_2: float) -> dict[str, Any]:
    return {"ratings_1": {"helpfulness": helpfulness_1}, "ratings_2": {"helpfulness": helpfulness_2}}


def noisy_items(n: int, seed: int) -> list[list[int]]:
    """Labels -3, -1, 1, 2, 3 of two to five annotators who see one truth through noise."""
    rng = np.random.default_rng(seed)
    labels = np.array([-3, -1, 1, 2, 3])
    truth = rng.integers(5, size=n)
    return [labels[np.clip(t + rng.integers(-2, 3, size=rng.integers(2, 6)), 0, 4)].tolist() for t in truth]


def by_libraries(items: Items) -> dict[str, float]:
    """The five measures from scikit-learn, krippendorff and counting, without the code under test."""
    couples = [couple for labels in items for couple in itertools.permutations(labels, 2)]
    first, second = zip(*couples, strict=True)
    wide = np.full((max(map(len, items)), len(items)), np.nan)
    for column, labels in enumerate(items):
        wide[: len(labels), column] = labels
    kappas = {f"kappa, {w} weights": cohen_kappa_score(first, second, weights=w) for w in ("quadratic", "linear")}
    alphas: dict[str, Any] = {}
    for level in LEVELS:
        alphas[f"alpha, {level}"] = krippendorff.alpha(wide, level_of_measurement=level)
    return kappas | alphas | {"raw agreement": float(np.mean([a == b for a, b in couples]))}


def test_estimates_are_those_of_the_libraries() -> None:
    items = noisy_items(60, seed=1)
    found = agreement.agreement([*items, [2], [], [-100, 1]], seed=0, draws=10)
    assert found["estimate"].to_dict() == pytest.approx(by_libraries(items))
    assert (found["n"] == 60).all()


def test_intervals_are_those_of_a_bootstrap_that_redraws_items_one_by_one() -> None:
    items, rng = noisy_items(60, seed=2), np.random.default_rng(3)
    drawn = [by_libraries([items[i] for i in rng.integers(60, size=60)]) for _ in range(400)]
    found = agreement.agreement(items, seed=0, draws=4000)
    for name, row in found.iterrows():
        low, high = np.quantile([values[str(name)] for values in drawn], [0.025, 0.975])
        tolerance = 0.12 * (high - low)  # of quantiles of 400 draws
        assert row["low"] == pytest.approx(low, abs=tolerance) and row["high"] == pytest.approx(high, abs=tolerance)


@pytest.mark.parametrize("seed", range(8))
def test_a_single_draw_is_one_of_the_ways_to_redraw_the_items(seed: int) -> None:
    items = [[-3, 1, 1, 2], [-3, -3, 1, 2, 2], [2, 1, -3, 2, 2, 2], [-3, 1, 2]]
    row = agreement.agreement(items, seed=seed, draws=1)
    assert (row["low"] == row["high"]).all()
    ways = [by_libraries(drawn) for drawn in itertools.combinations_with_replacement(items, 4)]
    assert any(row["low"].to_dict() == pytest.approx(way, abs=1e-12) for way in ways)


def test_the_order_of_items_and_of_annotations_does_not_matter() -> None:
    items = noisy_items(40, seed=4)
    turned = [labels[::-1] for labels in reversed(items)]
    pd.testing.assert_frame_equal(agreement.agreement(items, seed=5), agreement.agreement(turned, seed=5))


def test_the_interval_holds_the_truth_about_19_times_in_20() -> None:
    # Two annotators who agree with probability 0.7 (copy with 0.4, else toss a coin): kappa is 0.4.
    rng = np.random.default_rng(6)
    held = 0
    for seed in range(200):
        first = rng.integers(2, size=150)
        second = np.where(rng.random(150) < 0.4, first, rng.integers(2, size=150))
        row = agreement.agreement(np.stack([first, second], axis=1).tolist(), seed=seed, draws=400).iloc[0]
        held += row["low"] <= 0.4 <= row["high"]
    assert 0.89 <= held / 200 <= 0.99  # 95 % and four standard errors of 200 trials


def test_one_label_alone_leaves_kappa_and_alpha_undefined() -> None:
    found = agreement.agreement([[1, 1], [1, 1, 1]], seed=0, draws=5)
    assert found.loc["raw agreement"].tolist() == [1, 1, 1, 2]
    assert found.drop(index="raw agreement")[["estimate", "low", "high"]].isna().all(axis=None)
    with pytest.raises(ValueError, match="no item has two labels"):
        agreement.agreement([[1], []], seed=0)


def test_stages_hold_the_votes_that_the_pipeline_keeps() -> None:
    votes = [(-1, -1, -2, 3), (1, 1, 2), (-1, 1, 1), (-3, 1, 3), (2, -100, 2), (1, -1, 1)]
    found = agreement.agreement_by_stage(table([voted(*given) for given in votes]), seed=0, draws=20)
    expected: dict[str, list[list[int]]] = {
        "raw": [[-1, -1, -2, 3], [1, 1, 2], [-1, 1, 1], [-3, 1, 3], [2, 2], [1, -1, 1]],
        "three most similar": [[-1, -1, -2], [1, 1, 2], [-1, 1, 1], [-3, 1, 3], [2, 2], [1, -1, 1]],
        "processed": [[-1, -1, -2], [1, 1, 2], [-1, 1, 1], [1, -1, 1]],
        "processed, without 0": [[-1, -1, -2], [1, 1, 2]],
    }
    assert set(found.index.get_level_values("label")) == {"preference"}
    for stage, items in expected.items():
        assert found.loc["preference"].loc[stage]["estimate"].to_dict() == pytest.approx(by_libraries(items))


def test_stages_of_ratings_go_by_helpfulness_and_drop_both_responses_of_a_pair() -> None:
    def rated(side: str, helpfulness: Sequence[int], correctness: Sequence[int]) -> list[dict[str, Any]]:
        zipped = zip(helpfulness, correctness, strict=True)
        return [{side: {"helpfulness": h, "correctness": c}} for h, c in zipped]

    first = rated("ratings_1", [4, 0, 3, 4], [1, 4, 2, 1]) + rated("ratings_2", [1, 2], [0, 1])
    dropped = rated("ratings_1", [0, 2, 4], [0, 3, 4]) + rated("ratings_2", [3, 3, 2], [3, 3, 3])
    found = agreement.agreement_by_stage(table([{"annotations": first}, {"annotations": dropped}]), seed=0, draws=9)
    expected = {
        "raw": [[1, 4, 2, 1], [0, 1], [0, 3, 4], [3, 3, 3]],
        "three most similar": [[1, 2, 1], [0, 1], [0, 3, 4], [3, 3, 3]],
        "processed": [[1, 2, 1], [0, 1]],
    }
    assert set(found.index.get_level_values("label")) == {"helpfulness", "correctness"}  # nobody rated the others
    for stage, items in expected.items():
        assert found.loc["correctness"].loc[stage]["estimate"].to_dict() == pytest.approx(by_libraries(items))
    with pytest.raises(ValueError, match="no pair has two annotations"):
        agreement.agreement_by_stage(table([{}, voted(1)]), seed=0)


def test_votes_dealt_out_at_random_agree_by_selection_alone() -> None:
    rng = np.random.default_rng(7)
    pairs = table([voted(*rng.choice([-1, 0, 1], size=5).tolist()) for _ in range(400)])
    found = agreement.selection_alone(pairs, seed=0, draws=100)
    for votes in ("as given", "dealt at random"):  # the given ones are noise, too
        assert abs(found.loc[votes, "raw"]["estimate"]) < 0.05
        assert found.loc[votes, "three most similar"]["estimate"] > 0.7
    agreed = agreement.selection_alone(table([voted(1, 1), voted(-1, -1), voted(2, 2, 2)]), seed=0, draws=9)
    assert agreed.loc["as given", "raw"]["estimate"] == 1 > agreed.loc["dealt at random", "raw"]["estimate"]


def test_position_bias_by_hand() -> None:
    rows = [{"preference": 2} | voted(1, 2, 0, -100), {"preference": 1} | voted(-1), {"preference": -1} | voted(3)]
    found = agreement.position_bias(table([*rows, {"preference": 0}, {"preference": None} | voted(1, 1)]), seed=0)
    assert found["estimate"].tolist() == pytest.approx([0.5, 2 / 3, 5 / 6])
    assert found["n"].tolist() == [4, 3, 6]
    wilson = wilson_interval(2, 3)
    assert found.iloc[1][["low", "high"]].tolist() == [wilson.low, wilson.high]
    assert (found["low"] <= found["estimate"]).all() and (found["estimate"] <= found["high"]).all()


def test_the_bias_of_single_annotations_is_as_uncertain_as_the_pairs_they_belong_to() -> None:
    # Five equal votes a pair: as uncertain as one vote a pair, whose standard error is 0.5 / sqrt(100).
    pairs = table([voted(*[1 if number % 2 else -1] * 5) for number in range(100)])
    row = agreement.position_bias(pairs, seed=0).iloc[2]
    assert row["estimate"] == 0.5 and row["n"] == 500
    assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * 0.05, rel=0.1)


def test_without_preferences_there_is_no_bias_to_report() -> None:
    found = agreement.position_bias(table([{}, both(1, 2)]), seed=0)
    assert found["n"].tolist() == [0, 0, 0] and found["estimate"].isna().all()


def test_correlations_of_preference_and_rating_differences() -> None:
    rows = [(2, 0, 3), (-1, 3, 3), (0, 2, 2), (3, 0, 4), (-2, 4, 1)]
    pairs = table(
        [{"preference": p} | both(first, second) for p, first, second in rows] + [{"preference": 1}, both(1, 4)]
    )
    found = agreement.preference_correlations(pairs)
    x, y = [row[0] for row in rows], [row[2] - row[1] for row in rows]
    assert list(found.index) == list(ATTRIBUTES)
    assert found.loc["helpfulness", "r"] == pytest.approx(np.corrcoef(x, y)[0, 1])
    z = math.atanh(stats.pearsonr(x, y).statistic)
    expected = [math.tanh(z + side * 1.959964 / math.sqrt(2)) for side in (-1, 1)]
    assert found.loc["helpfulness", ["low", "high"]].tolist() == pytest.approx(expected, abs=1e-6)
    assert found["n"].tolist() == [5, 0, 0, 0, 0] and found["r"].isna().sum() == 4


def test_a_difference_that_never_varies_has_no_correlation() -> None:
    pairs = table([{"preference": preference} | both(1, 2) for preference in (1, 2, 3, -1)])
    assert math.isnan(agreement.preference_correlations(pairs).loc["helpfulness", "r"])
