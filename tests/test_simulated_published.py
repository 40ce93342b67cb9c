"""Simulated statistics beside the published ones: those of the textbook, with their intervals and tolerances."""

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import cohen_kappa_score

from rmlib import annotations
from rmlib.pairs import ATTRIBUTES, make_pairs
from rmlib.pairs.descriptions import ratings_table
from rmlib.pairs.schema import NEITHER_VALID
from rmlib.records import published
from rmlib.sources import simulated
from rmlib.sources.simulated.published import FIRST, THEN, beside_published, kappa, targets
from rmlib.statistics import wilson_interval

N = 2_000
VOTES = arrays.arrays(int, (40, 5), elements=st.sampled_from([-3, -2, -1, 1, 2, 3, NEITHER_VALID]))
CALLED = arrays.arrays(bool, (40, 5))


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return list(simulated.generate(N, seed=7))


@pytest.fixture(scope="module")
def pairs(rows: list[dict[str, Any]]) -> Dataset:
    return make_pairs(rows, origin="generated")


@pytest.fixture(scope="module")
def table(pairs: Dataset) -> pd.DataFrame:
    return beside_published(pairs, draws=300)


def items_of(values: np.ndarray, there: np.ndarray) -> list[list[int]]:
    return [row[mask].tolist() for row, mask in zip(values, there, strict=True)]


@given(votes=VOTES, called=CALLED)
def test_kappa_from_sums_is_weighted_kappa(votes: np.ndarray, called: np.ndarray) -> None:
    valid = called & (votes != NEITHER_VALID)
    if (valid.sum(axis=1) > 1).sum() < 2:
        return
    several = valid & (valid.sum(axis=1) > 1)[:, None]  # labels that never meet another are no part of it
    expected = annotations.weighted_kappa(items_of(votes, several))
    with np.errstate(invalid="ignore"):
        assert kappa("k", votes, several).estimate == pytest.approx(expected, nan_ok=True)


def test_raw_kappa_of_generated_votes_is_that_of_scikit_learn(rows: list[dict[str, Any]], table: pd.DataFrame) -> None:
    votes = [[a["preference"] for a in row["annotations"] if a["preference"] != NEITHER_VALID] for row in rows]
    couples = [couple for values in votes for couple in itertools.permutations(values, 2)]
    expected = cohen_kappa_score(*zip(*couples, strict=True), weights="quadratic")
    assert table.loc["kappa of preferences, raw", "simulated"] == pytest.approx(expected)


def test_processed_kappa_is_that_of_kept_votes_with_zeros_still_in(
    rows: list[dict[str, Any]], table: pd.DataFrame
) -> None:
    kept = [row for row in rows if row["preference"] is not None]
    votes = [annotations.three_most_similar([a["preference"] for a in row["annotations"]]) for row in kept]
    expected = annotations.weighted_kappa(votes)
    assert table.loc["kappa of preferences, processed", "simulated"] == pytest.approx(expected)


def test_kappas_of_ratings_are_those_of_the_three_stages(rows: list[dict[str, Any]], table: pd.DataFrame) -> None:
    stages: dict[str, list[list[float]]] = {"initial": [], "improved": [], "post-processed": []}
    for row, side in itertools.product(rows, ("ratings_1", "ratings_2")):
        seen = [annotation[side] for annotation in row["annotations"]]
        kept = [seen[i]["verbosity"] for i in annotations.kept_positions([ratings["helpfulness"] for ratings in seen])]
        stages["initial"].append([ratings["verbosity"] for ratings in seen])
        stages["improved"].append(kept)
        stages["post-processed"] += [kept] if row["ratings_1"] is not None else []
    for stage, items in stages.items():
        expected = annotations.weighted_kappa(items)
        assert table.loc[f"kappa of verbosity, {stage}", "simulated"] == pytest.approx(expected)


def test_means_deviations_and_correlations_are_those_of_the_table_of_ratings(
    pairs: Dataset, table: pd.DataFrame
) -> None:
    expected = ratings_table(pairs)
    for name, what in itertools.product(ATTRIBUTES, ("mean", "sd", "r with helpfulness")):
        if (name, what) != ("helpfulness", "r with helpfulness"):
            assert table.loc[f"{name}: {what}", "simulated"] == pytest.approx(expected.loc[name, what])


def test_the_correlation_of_preference_and_difference_is_numpys(
    rows: list[dict[str, Any]], table: pd.DataFrame
) -> None:
    both = [row for row in rows if row["preference"] is not None and row["ratings_1"] is not None]
    gaps = [row["ratings_2"]["helpfulness"] - row["ratings_1"]["helpfulness"] for row in both]
    expected = np.corrcoef([row["preference"] for row in both], gaps)[0, 1]
    assert table.loc["r of preference and helpfulness difference", "simulated"] == pytest.approx(expected)


def test_shares_are_counts_over_counts(rows: list[dict[str, Any]], table: pd.DataFrame) -> None:
    kept = [row["preference"] for row in rows if row["preference"] is not None]
    rated = [row for row in rows if row["ratings_1"] is not None]
    found = table["simulated"]
    assert found["share of ties among kept preferences"] == pytest.approx(kept.count(0) / len(kept))
    dropped = sum(row["preference"] is None for row in rated)
    assert found["share of pairs without a preference"] == pytest.approx(dropped / len(rated))
    assert found["share of pairs without ratings"] == pytest.approx(1 - len(rated) / N)
    assert found["annotators per pair"] == pytest.approx(np.mean([len(row["annotations"]) for row in rows]))
    assert found["mean preference"] == pytest.approx(np.mean(kept))


def test_the_oracle_is_counted_over_decided_pairs_and_by_strength(
    rows: list[dict[str, Any]], table: pd.DataFrame
) -> None:
    decided = [row for row in rows if row["preference"]]
    right = [row["preference"] * row["truth_preference"] > 0 for row in decided]
    assert table.loc["accuracy of the oracle on decided pairs", "simulated"] == pytest.approx(np.mean(right))
    by_strength = {s: [r for r, row in zip(right, decided, strict=True) if abs(row["preference"]) == s] for s in (1, 3)}
    for strength, values in by_strength.items():
        assert table.loc[f"accuracy of the oracle, strength {strength}", "simulated"] == pytest.approx(np.mean(values))
    assert np.mean(by_strength[1]) < np.mean(by_strength[3])


def test_intervals_are_near_those_of_the_textbook(rows: list[dict[str, Any]], table: pd.DataFrame) -> None:
    kept = [row["preference"] for row in rows if row["preference"] is not None]
    row = table.loc["share of ties among kept preferences"]
    wilson = wilson_interval(kept.count(0), len(kept))
    assert (row["low"], row["high"]) == pytest.approx((wilson.low, wilson.high), abs=0.004)


def test_every_interval_holds_its_estimate_and_the_seed_alone_decides(pairs: Dataset, table: pd.DataFrame) -> None:
    bounded = table.dropna(subset=["low"])
    assert len(bounded) > 35
    assert ((bounded["low"] <= bounded["simulated"]) & (bounded["simulated"] <= bounded["high"])).all()
    assert beside_published(pairs, draws=300).equals(table)
    assert not beside_published(pairs, seed=1, draws=300)["low"].equals(table["low"])


def test_published_values_are_read_and_within_tolerance_follows(table: pd.DataFrame) -> None:
    kappas = published("agreement").set_index(["label", "stage"])["kappa"]
    assert table.loc["kappa of preferences, processed", "published"] == kappas["preference", "processed"]
    assert table.loc["kappa of coherence, initial", "published"] == kappas["coherence", "initial"]
    descriptive = published("helpsteer2_descriptive").set_index("variable")
    assert table.loc["complexity: sd", "published"] == descriptive.loc["complexity", "standard_deviation"]
    counts = published("preferences").set_index("quantity")["value"]
    released = sum(counts[f"{split} pairs in the released file"] for split in ("training", "validation"))
    paper = sum(counts[f"{split} pairs in the paper"] for split in ("training", "validation"))
    assert table.loc["share of ties among kept preferences", "published"] == pytest.approx(1 - paper / released)
    known = table["published"].notna() & table["tolerance"].notna()
    expected = (table["simulated"] - table["published"]).abs() <= table["tolerance"]
    assert table.loc[known, "within tolerance"].tolist() == expected[known].tolist()
    assert table.loc[~known, "within tolerance"].isna().all()


def test_pairs_without_truth_are_not_compared(rows: list[dict[str, Any]]) -> None:
    without = make_pairs([row | {"truth_preference": None} for row in rows[:50]], origin="x")
    with pytest.raises(ValueError, match="50 pairs have no truth_preference"):
        beside_published(without)


def test_ranks_and_targets_fit_together() -> None:
    assert not set(FIRST) & set(THEN)
    unknown = {"share of prompts with several turns"}  # a matter of texts, not of annotators
    assert set(targets().index) - unknown <= {*FIRST, *THEN}
    assert set(FIRST) <= set(targets().index)
