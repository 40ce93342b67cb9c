"""Simulated annotators: the published protocol, the rules of rmlib.annotations, and the fit to published statistics."""

import itertools
import random
from dataclasses import replace
from pathlib import Path
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
from rmlib.sources.simulated import annotators, beside_published, calibration, labels, measures, reasons
from rmlib.sources.simulated.annotators import HELPFULNESS, Annotated, Given, Noise, Parameters, Pool
from rmlib.sources.simulated.truth import DEFECTS
from rmlib.statistics import wilson_interval

N = 2_000


@pytest.fixture(scope="module")
def sample() -> calibration.Sample:
    """Other texts and other chance than those of the fit and of the embedded data."""
    return calibration.Sample.draw(4_000, seed=11, show=False)


@pytest.fixture(scope="module")
def block(sample: calibration.Sample) -> Annotated:
    return annotators.annotate(sample.truths, sample.noise, sample.pool, annotators.fitted())


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return list(simulated.generate(N, seed=7))


@pytest.fixture(scope="module")
def pairs(rows: list[dict[str, Any]]) -> Dataset:
    return make_pairs(rows, origin="generated")


@pytest.fixture(scope="module")
def table(pairs: Dataset) -> pd.DataFrame:
    return beside_published.compare(pairs, draws=300)


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


def test_misreading_spoils_ratings_and_vote_together(block: Annotated, sample: calibration.Sample) -> None:
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


def test_no_annotator_is_called_twice_for_a_pair_and_all_get_their_share(sample: calibration.Sample) -> None:
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
    three, kept = labels.kept_votes(given_)
    for row, (values, there) in enumerate(zip(votes.tolist(), called.tolist(), strict=True)):
        items = list(itertools.compress(values, there))
        expected = annotations.overall_preference(items)
        assert kept[row] == (expected is not None)
        assert not kept[row] or three[row].tolist() == annotations.three_most_similar(items)
        assert np.array_equal(labels.preferences(given_)[row], np.nan if expected is None else expected, equal_nan=True)


def test_labels_of_generated_rows_are_those_of_the_published_rules(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        assert row["preference"] == annotations.overall_preference([a["preference"] for a in row["annotations"]])
        sides = [annotations.overall_ratings(row["annotations"], side) for side in ("ratings_1", "ratings_2")]
        assert [row["ratings_1"], row["ratings_2"]] == ([None, None] if None in sides else sides)
    assert sum(row["ratings_1"] is None for row in rows) > 20


# --- measures and comparison ------------------------------------------------------------------------------------------


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
        assert measures.kappa("k", votes, several).estimate == pytest.approx(expected, nan_ok=True)


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
    assert beside_published.compare(pairs, draws=300).equals(table)
    assert not beside_published.compare(pairs, seed=1, draws=300)["low"].equals(table["low"])


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
        beside_published.compare(without)


# --- calibration ------------------------------------------------------------------------------------------------------


def test_the_committed_parameters_meet_every_tolerance_of_the_first_rank(sample: calibration.Sample) -> None:
    found = calibration.against_targets(sample.statistics(annotators.fitted())).loc[list(measures.FIRST)]
    assert found["published"].notna().all()
    assert found[found["within tolerance"] != True].to_dict("index") == {}  # noqa: E712 (a column of objects)


def test_ranks_and_targets_fit_together() -> None:
    assert not set(measures.FIRST) & set(measures.THEN)
    unknown = {"share of prompts with several turns"}  # a matter of texts, not of annotators
    assert set(measures.targets().index) - unknown <= {*measures.FIRST, *measures.THEN}
    assert set(measures.FIRST) <= set(measures.targets().index)


def test_a_fit_lowers_the_misfit_and_is_the_same_each_time() -> None:
    small = calibration.Sample.draw(300, seed=3, show=False)
    one, more, again = (calibration.fit(small, max_trials=trials, show=False) for trials in (1, 3, 3))
    worse, better = (float(np.square(calibration.misfits(fit.table["fitted"])).sum()) for fit in (one, more))
    assert better < 0.5 * worse
    assert more.parameters == again.parameters
    found = small.statistics(more.parameters)
    assert more.table["fitted"].to_dict() == found  # what is written is what was tried, rounding included


def test_a_misfit_is_measured_in_tolerances_and_the_first_rank_counts_for_more() -> None:
    exact = dict.fromkeys(measures.THEN, 0.0) | measures.targets().to_dict()
    assert not calibration.misfits(exact).any()
    name = "kappa of preferences, processed"
    off = exact | {name: exact[name] + measures.FIRST[name]}
    assert sorted(calibration.misfits(off))[-1] == pytest.approx(calibration.URGENCY)
    off = exact | {"annotators per pair": exact["annotators per pair"] - measures.THEN["annotators per pair"]}
    assert calibration.misfits(off).sum() == pytest.approx(-1)
    assert calibration.misfits(exact | {name: np.nan}).max() == 100


# --- justifications ---------------------------------------------------------------------------------------------------

NOTHING: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())


@pytest.mark.parametrize(
    ("vote", "statement"),
    [
        (-3, "@Response 1 is much better than @Response 2."),
        (-1, "@Response 1 is slightly better than @Response 2."),
        (2, "@Response 2 is better than @Response 1."),
        (NEITHER_VALID, "Neither response is valid."),
    ],
)
def test_the_statement_says_what_was_voted(vote: int, statement: str) -> None:
    said = reasons.justify(random.Random(0), vote, [0.0] * 5, NOTHING)
    assert said[0] == statement
    assert said[2] in (f"{said[0]} {said[1]}", f"{said[1]} {said[0]}")


def spoken_of(elaboration: str, known: dict[str, tuple[str, ...]], good: int) -> set[str]:
    """The keys whose wordings occur in the elaboration."""
    return {
        name
        for name, wordings in known.items()
        if any(wording.format(good=good, bad=3 - good) in elaboration for wording in wordings)
    }


def test_the_elaboration_names_what_is_better_and_what_is_wrong_with_the_other() -> None:
    """Response 2 preferred: better in correctness and a little in coherence; only the other's own faults count."""
    rng = random.Random(0)
    faults = (frozenset({"wrong", "padded", "style"}), frozenset({"padded"}))
    for _ in range(30):
        _, elaboration, _ = reasons.justify(rng, 3, [0.1, 2.0, 0.2, -3.0, 0.0], faults)
        assert spoken_of(elaboration, reasons.FAULTS, good=2) == {"wrong", "style"}
        assert spoken_of(elaboration, reasons.BETTER, good=2) == {"correctness"}


def test_a_preference_for_response_1_turns_differences_round() -> None:
    _, elaboration, _ = reasons.justify(random.Random(0), -2, [-1.0, 2.0, 0.0, 0.0, -2.0], NOTHING)
    assert spoken_of(elaboration, reasons.BETTER, good=1) == {"verbosity", "helpfulness"}


def test_every_defect_and_attribute_has_wordings_of_its_own() -> None:
    assert set(reasons.FAULTS) == set(DEFECTS) and set(reasons.BETTER) == set(ATTRIBUTES)
    every = [w for known in (reasons.FAULTS, reasons.BETTER) for wordings in known.values() for w in wordings]
    assert len(set(every)) == len(every) == 3 * (len(DEFECTS) + len(ATTRIBUTES))


def test_stronger_preferences_are_explained_at_greater_length(rows: list[dict[str, Any]]) -> None:
    every = [annotation for row in rows for annotation in row["annotations"]]
    words = {s: [len(a["elaboration"].split()) for a in every if abs(a["preference"]) == s] for s in (1, 2, 3)}
    assert np.mean(words[1]) + 2 < np.mean(words[2]) < np.mean(words[3]) - 2


def test_what_reasons_name_is_true_more_often_than_not(rows: list[dict[str, Any]]) -> None:
    """Of the responses said to be better in an attribute, most are, though annotators may err."""
    for name in ("correctness", "coherence", "complexity", "verbosity"):
        gaps = []
        for row in rows:
            for annotation in row["annotations"]:
                good = 2 if annotation["preference"] > 0 else 1
                if name in spoken_of(annotation["elaboration"], {name: reasons.BETTER[name]}, good):
                    gaps.append(row[f"truth_{good}"][name] - row[f"truth_{3 - good}"][name])
        assert len(gaps) > 100 and np.mean(gaps) > 0.2, name


def test_faults_that_are_named_are_there() -> None:
    """The incoherent response of a pair is said to be so, and the coherent one never is."""
    named: dict[bool, int] = {True: 0, False: 0}
    for row in simulated.generate(600, seed=9):
        for annotation in row["annotations"]:
            bad = 1 if annotation["preference"] > 0 else 2
            if spoken_of(annotation["elaboration"], {"incoherent": reasons.FAULTS["incoherent"]}, 3 - bad):
                named[row[f"truth_{bad}"]["coherence"] < 4] += 1
    assert named[True] > 20 and named[False] == 0
