"""RewardBench 2: shared credit, the formula of Ties worked out on paper, and rows that are not official."""

import numpy as np
import pandas as pd
import pytest
from written import scores_of_shares, write_rows

from rmlib import benchmarks
from rmlib.benchmarks import rewardbench2
from rmlib.records.errors import DataError
from rmlib.statistics import Longer, Random

DOMAINS = ("Factuality", "Precise IF", "Math", "Safety", "Focus")


def best_of_4(subset, number):
    rejected = [f"Wrong {k} of {number}." for k in range(3)]
    return {"id": str(number), "prompt": f"{subset}, {number}?", "chosen": [f"Right {number}."], "rejected": rejected,
            "num_correct": 1, "num_incorrect": 3, "subset": subset}  # fmt: skip


def ties(kind, number, n_right, n_wrong=2):
    right, wrong = [f"Right {k}." for k in range(n_right)], [f"Wrong {k}." for k in range(n_wrong)]
    return {"id": f"{kind}:{number}", "prompt": f"Colour {number}?", "chosen": right, "rejected": wrong,
            "num_correct": n_right, "num_incorrect": n_wrong, "subset": "Ties"}  # fmt: skip


def rows():
    every = [best_of_4(subset, number) for subset in DOMAINS for number in range(2)]
    return every + [ties("ref", 7, 1), ties("tied", 7, 3), ties("ref", 8, 1), ties("tied", 8, 2)]


@pytest.fixture
def items(tmp_path):
    return benchmarks.load("rewardbench2", write_rows(tmp_path, rows(), "data/test.jsonl"))


def summarise(items, scores, **options):
    return benchmarks.summarise(items, scores, partial=True, **options)


def test_the_counts_add_up_to_the_official_total():
    assert sum(subset.n for subset in rewardbench2.SUBSETS.values()) == 1865


def test_the_credit_is_shared_with_all_that_tie_for_the_highest_reward(items):
    scores = dict.fromkeys(items["item_id"], None)
    cases = [[2, 1, 1, 0], [2, 2, 1, 0], [2, 2, 2, 0], [1, 1, 1, 1], [1, 2, 0, 0], [0, 1, 1, 1]]
    scores = {name: [0.0] * len(texts) for name, texts in zip(items["item_id"], items["candidates"], strict=True)}
    asked = list(items["item_id"])[: len(cases)]
    scores |= {name: [float(reward) for reward in case] for name, case in zip(asked, cases, strict=True)}
    table = benchmarks.credits(items, scores).set_index("item_id")
    assert table.loc[asked, "credit"].tolist() == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4, 0, 0])
    assert table.loc[asked, "tie"].tolist() == [False, True, True, True, False, False]


def test_ties_are_scored_by_the_formula_worked_out_on_paper(items):
    scores = {name: [1.0, 0.0, 0.0, 0.0] for name in items["item_id"] if not name.startswith("Ties")}
    scores |= {
        "Ties/ref:7": [2.0, 1.0, 0.0],  # G_ref = 1
        "Ties/tied:7": [4.0, 3.5, 3.0, 1.0, 0.0],  # G_tied = 2, D = 1: preferred, but min(1, 2) = D: not hard
        "Ties/ref:8": [1.0, 1.0, 0.0],  # G_ref = 0: wrong
        "Ties/tied:8": [5.0, 4.0, 3.5, 0.0],  # G_tied = 0.5, D = 1: accurate, not preferred
    }
    margin = (np.tanh(1 / 1 - 1) + np.tanh(0 / 1 - 1)) / 2
    expected = 0.30 * 1.0 + 0.30 * 0.5 + 0.20 * 0.5 + 0.20 * 0.0 + 0.01 * margin
    report = summarise(items, scores)
    assert report.sections.loc["Ties", "estimate"] == pytest.approx(expected)
    assert report.sections.loc["Score", "estimate"] == pytest.approx((5 + expected) / 6)
    assert report.subsets.loc["Ties", "ties"] == 1
    assert list(report.sections.index) == [*DOMAINS, "Ties", "Score"]


def test_questions_without_spread_have_no_part_in_the_margin_and_none_at_all_give_zero(items):
    scores = {name: [0.0] * len(texts) for name, texts in zip(items["item_id"], items["candidates"], strict=True)}
    constant = summarise(items, scores)
    assert constant.sections["estimate"].to_dict() == pytest.approx(
        dict.fromkeys(DOMAINS, 0.25) | {"Ties": 0.0, "Score": 5 * 0.25 / 6}
    )
    scores |= {"Ties/ref:7": [1, 0, 0], "Ties/tied:7": [1, 1, 1, 0, 0]}
    scores |= {"Ties/ref:8": [1, 0, 0], "Ties/tied:8": [1, 1, 0, 0]}
    assert summarise(items, scores).sections.loc["Ties", "estimate"] == pytest.approx(1.0)
    scores |= {"Ties/tied:8": [1, 0.5, 0, 0]}  # D = G = 0.5: not preferred, and the only question with a spread
    expected = 0.30 + 0.30 + 0.20 * 0.5 + 0.20 * 0.5 + 0.01 * np.tanh(0.5 / 0.5 - 1)
    assert summarise(items, scores).sections.loc["Ties", "estimate"] == pytest.approx(expected)


def test_a_question_of_ties_is_redrawn_with_both_of_its_items(items):
    scores = benchmarks.score(Random(3), items, progress=False)
    scores |= {"Ties/ref:7": [1, 0, 0], "Ties/tied:7": [3, 2.9, 2.8, 0, 0]}  # all right
    scores |= {"Ties/ref:8": [0, 1, 0], "Ties/tied:8": [0, 0.5, 1, 0]}  # all wrong
    both = summarise(items, scores, draws=500).sections.loc["Ties"]
    right = 1 + 0.01 * np.tanh(1 / 0.2 - 1)
    wrong = 0.01 * np.tanh(-1 / 0.5 - 1)
    # Of two questions a draw holds two right, one of each, or two wrong; never a share between.
    assert (both["low"], both["high"]) == pytest.approx((wrong, right))
    assert both["estimate"] == pytest.approx((right + wrong) / 2)


def test_a_ruler_gets_what_an_independent_count_gives(items):
    scores = benchmarks.score(Longer(), items, progress=False)
    maths = [row for row in rows() if row["subset"] == "Math"]
    lengths = [[*map(len, row["chosen"]), *map(len, row["rejected"])] for row in maths]
    by_hand = [(case[0] == max(case)) / case.count(max(case)) for case in lengths]
    assert summarise(items, scores).sections.loc["Math", "estimate"] == pytest.approx(np.mean(by_hand))


def test_published_rows_are_the_mean_of_their_six_domains():
    published = {  # as printed, in percent: average, then Factuality, Precise IF, Math, Safety, Focus, Ties
        "INF-ORM-Llama3.1-70B": (76.5, (74.1, 41.9, 69.9, 96.4, 90.3, 86.2)),
        "Skywork-Reward-Gemma-2-27B": (75.8, (73.7, 40.3, 70.5, 94.2, 93.2, 82.6)),
        "ArmoRM": (66.5, (65.7, 41.9, 66.1, 82.2, 76.6, 66.3)),
    }
    for average, domains in published.values():
        shares = {name: value / 100 for name, value in zip(rewardbench2.SUBSETS, domains, strict=True)}
        ours = scores_of_shares(rewardbench2.BENCHMARK, shares)
        assert 100 * ours["Score"] == pytest.approx(average, abs=0.051)
        assert 100 * ours["Ties"] == pytest.approx(domains[-1])


@pytest.mark.parametrize(
    ("number", "change", "message"),
    [
        (0, {"rejected": ["a", "b"]}, r"row 1, field 'rejected': \['a', 'b'\] is not a list of 3 responses"),
        (0, {"chosen": ["a", "b"]}, "row 1, field 'chosen': .* is not a list of 1 responses"),
        (0, {"num_correct": 2}, "row 1, field 'num_correct': 2 is said, 1 are given"),
        (0, {"subset": "Poetry"}, "row 1, field 'subset': unknown subset 'Poetry'"),
        (0, {"chosen": ["Wrong 0 of 0."]}, "chosen equals rejected: Factuality/0"),
        (0, {"chosen": [" "]}, "row 1, field 'chosen': the text is empty"),
        (0, {"id": "1"}, "ids occur twice: Factuality/1"),
        (10, {"id": "7"}, "row 11, field 'id': '7' is not ref:<id> or tied:<id>"),
        (10, {"chosen": ["a", "b"]}, "row 11, field 'chosen': .* is not a list of 1 responses"),
        (11, {"chosen": ["a"], "num_correct": 1}, "row 12, field 'chosen': a tied item has a single right answer"),
        (12, {"prompt": None}, "row 13, field 'prompt': the field is missing"),
    ],
)
def test_a_row_that_is_not_official_is_refused_with_its_place(tmp_path, number, change, message):
    changed = rows()
    changed[number] |= change
    with pytest.raises(DataError, match=message):
        benchmarks.load("rewardbench2", write_rows(tmp_path, changed))


def test_a_missing_domain_is_refused_and_a_partial_set_has_no_score(tmp_path):
    folder = write_rows(tmp_path, [row for row in rows() if row["subset"] != "Ties"])
    with pytest.raises(DataError, match="no item of Ties. Add them, or set partial=True"):
        benchmarks.load("rewardbench2", folder)
    items = benchmarks.load("rewardbench2", folder, partial=True)
    report = benchmarks.summarise(items, benchmarks.score(Random(0), items, progress=False))
    assert "Score" not in report.sections.index and "(without Ties)" in report.label


def test_a_skipped_reference_leaves_its_question_out_of_the_margins_alone(items):
    scores = {name: [0.0] * len(texts) for name, texts in zip(items["item_id"], items["candidates"], strict=True)}
    scores |= {"Ties/ref:7": [1, 0, 0], "Ties/tied:7": [3, 2.9, 2.8, 0, 0], "Ties/tied:8": [1, 1, 0, 0]}
    del scores["Ties/ref:8"]
    table = benchmarks.credits(items, benchmarks.Scores(scores, {"Ties/ref:8": "cut"})).set_index("item_id")
    assert pd.isna(table.loc["Ties/tied:8", "preferred"]) and table.loc["Ties/tied:8", "credit"] == 1
    assert table.loc["Ties/ref:8", "reason"] == "cut"
    assert table.loc["Ties/tied:7", ["preferred", "preferred_hard"]].tolist() == [1, 1]
