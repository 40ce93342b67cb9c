"""What all benchmarks share between rewards and report: a made-up benchmark worked out on paper."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset, concatenate_datasets
from hypothesis import given
from hypothesis import strategies as st

from rmlib import benchmarks
from rmlib.benchmarks.benchmark import Benchmark, Scores, aligned
from rmlib.benchmarks.items import Given
from rmlib.benchmarks.report import Subset
from rmlib.benchmarks.sums import Sums


def first_wins(rewards, item):
    return {"credit": float(rewards[0] == rewards.max()), "tie": bool((rewards[1:] == rewards[0]).any()), "n": 2.0}


def item_of(row, place):
    return Given(row["id"], row["subset"], "?", {"good": [row["good"]], "bad": row["bad"]})


PLAIN = Benchmark(
    "made up", {"a": Subset("one", 2), "b": Subset("one", 4), "c": Subset("two", None)}, first_wins, item_of,
    overall=("one", "two"), extra={"twice": "n"}, totals={"two": 1},
)  # fmt: skip


def items_of(counts, source="folder sha256:0"):
    rows = [
        {"item_id": f"{subset}/{k}", "subset": subset, "prompt": [{"role": "user", "content": "?"}]}
        | {"candidates": ["x", "y", "z"], "correct": [True, False, False], "pairs": None}
        | {"benchmark": "made up", "source": source}
        for subset, n in counts.items()
        for k in range(n)
    ]
    return Dataset.from_list(rows, features=benchmarks.FEATURES)


def scores_of(items, right):
    return {name: [1.0, 0.0, 0.0] if name in right else [0.0, 1.0, 0.0] for name in items["item_id"]}


FULL = items_of({"a": 2, "b": 4, "c": 1})


def test_subsets_without_weights_pool_their_items_and_sections_count_alike_in_the_score():
    report = PLAIN.summarise(FULL, scores_of(FULL, {"a/0", "a/1", "b/0"}))
    assert report.sections["estimate"].to_dict() == {"one": 3 / 6, "two": 0, "twice": 2, "Score": 1 / 4}
    assert report.label == "complete" and report.complete
    assert report.sections["n"].to_dict() == {"one": 6, "two": 1, "twice": 7, "Score": 7}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a/0": [1.0, 0.0]}, r"not one score a candidate for 1 ids, e.g. \['a/0'\]"),
        ({"a/0": [1.0, 0.0, 0.0, 0.0]}, "not one score a candidate for 1 ids"),
        ({"a/0": [1.0, float("nan"), 0.0]}, r"scores that are not finite for 1 ids, e.g. \['a/0'\]"),
        ({"a/0": [1.0, float("inf"), 0.0]}, "scores that are not finite"),
        ({"d/0": [1.0, 0.0, 0.0]}, r"no item for 1 ids, e.g. \['d/0'\]"),
    ],
)
def test_scores_that_cannot_be_credited_are_refused_by_id(change, message):
    with pytest.raises(ValueError, match=message):
        PLAIN.summarise(FULL, scores_of(FULL, set()) | change)


def test_skipped_items_need_a_known_id_and_have_no_reward():
    scores = scores_of(FULL, {"a/0"})
    assert aligned(FULL, Scores({n: s for n, s in scores.items() if n != "a/1"}, {"a/1": "cut"}))[1] is None
    with pytest.raises(ValueError, match=r"no item for 1 ids, e.g. \['z/0'\]"):
        aligned(FULL, Scores(scores, {"z/0": "cut"}))
    table = PLAIN.credits(FULL, Scores(scores, {"a/1": "cut"}))  # named as skipped: its scores are not used
    assert np.isnan(table.loc[1, "credit"]) and table.loc[1, "reason"] == "cut"


def test_unknown_subsets_are_refused():
    with pytest.raises(ValueError, match="unknown subsets d; made up has a, b, c"):
        PLAIN.credits(items_of({"d": 1}), {"d/0": [1.0, 0.0, 0.0]})


@pytest.mark.parametrize(
    ("counts", "source", "label"),
    [
        ({"a": 2, "b": 4, "c": 1}, "simulated", "simulated"),
        ({"a": 2, "b": 3, "c": 1}, "s", "partial: 6 of 7 items"),
        ({"a": 2, "b": 3, "c": 1}, "simulated", "simulated, not the official counts: 6 of 7 items"),
        ({"a": 2, "b": 5, "c": 1}, "s", "not the official counts: 8 of 7 items"),
        ({"a": 2, "b": 4, "c": 2}, "s", "not the official counts: 8 of 7 items"),
        ({"a": 2, "c": 1}, "s", "partial: 2 of 3 subsets (without b)"),
    ],
)
def test_the_label_says_how_far_the_items_are_official(counts, source, label):
    items = items_of(counts, source)
    report = PLAIN.summarise(items, scores_of(items, set()))
    assert report.label == label and not report.complete
    assert ("Score" in report.sections.index) == ("partial" not in label)


def test_a_section_whose_official_number_is_not_known_says_so():
    subsets = {"a": Subset("one", 1), "c": Subset("two", None)}
    unknown = Benchmark("made up", subsets, first_wins, item_of, overall=("one", "two"))
    items = items_of({"a": 1, "c": 3})
    report = unknown.summarise(items, scores_of(items, set()))
    assert report.label == "official number of items not known for two" and not report.complete
    assert "Score" in report.sections.index


def test_reasons_that_belong_to_the_rule_do_not_make_a_report_partial():
    items = items_of({"a": 2, "b": 4, "c": 1})
    scores = {name: score for name, score in scores_of(items, set()).items() if name != "a/0"}
    ruled = replace(PLAIN, overall=(), extra={}, unscored=frozenset({"people tied"}))
    report = ruled.summarise(items, Scores(scores, {"a/0": "people tied"}))
    assert report.label == "complete" and report.skipped == {"people tied": 1}


def test_a_subset_without_any_credit_has_an_empty_interval_and_survives_a_record():
    skipped = {"c/0": "cut"}
    scores = {name: score for name, score in scores_of(FULL, set()).items() if name not in skipped}
    report = PLAIN.summarise(FULL, Scores(scores, skipped), partial=True)
    assert np.isnan(report.subsets.loc["c", "estimate"]) and report.to_records()["subsets"]["c"]["estimate"] is None


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(1, 5)), min_size=2, max_size=8), st.integers(0, 3))
def test_sums_give_the_weighted_mean_first_and_draws_within_the_range_of_the_values(values, seed):
    credits, weights = zip(*values, strict=True)
    table = pd.DataFrame({"subset": "a", "credit": credits, "weight": weights})
    drawn = Sums.draw(table, ["credit"], seed=seed, draws=30).mean(["a"])
    assert drawn[0] == pytest.approx(np.average(credits, weights=weights), abs=1e-12)
    assert (drawn >= min(credits) - 1e-9).all() and (drawn <= max(credits) + 1e-9).all()


def test_draws_have_the_variance_of_the_mean_of_redrawn_items():
    credits = np.random.default_rng(0).random(50)
    drawn = Sums.draw(pd.DataFrame({"subset": "a", "credit": credits}), ["credit"], seed=1, draws=20_000).mean(["a"])
    assert drawn[1:].std() == pytest.approx(credits.std() / np.sqrt(50), rel=0.02)
    assert drawn[1:].mean() == pytest.approx(credits.mean(), abs=0.002)


def test_what_is_redrawn_depends_on_the_subset_and_not_on_the_others():
    alone = pd.DataFrame({"subset": "a", "credit": [0.0, 1.0, 1.0]})
    among = pd.concat([pd.DataFrame({"subset": "b", "credit": [1.0, 0.0]}), alone])
    one, other = (Sums.draw(table, ["credit"], seed=3, draws=100).mean(["a"]) for table in (alone, among))
    assert (one == other).all()
    assert (one != Sums.draw(alone, ["credit"], seed=4, draws=100).mean(["a"])).any()


def test_missing_values_are_left_out_of_a_mean():
    table = pd.DataFrame({"subset": ["a"] * 3 + ["b"] * 2, "credit": [1.0, np.nan, 0.0, np.nan, np.nan]})
    sums = Sums.draw(table, ["credit"], seed=0, draws=5)
    assert sums.mean(["a"])[0] == 0.5 and np.isnan(sums.mean(["b"])).all()


def test_items_of_several_benchmarks_are_not_mixed():
    other = FULL.remove_columns("benchmark").add_column("benchmark", ["rewardbench"] * len(FULL))
    both = concatenate_datasets([FULL, other.select_columns(FULL.column_names)])
    with pytest.raises(ValueError, match=r"belong to \['made up', 'rewardbench'\]: summarise one benchmark at a time"):
        benchmarks.summarise(both, {})
