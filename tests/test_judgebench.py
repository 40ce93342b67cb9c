"""JudgeBench: ties go to B, the mean over all pairs, and the counts behind published accuracies."""

import gzip
import json

import numpy as np
import pytest
from datasets import concatenate_datasets
from written import write_rows

from rmlib import benchmarks
from rmlib.benchmarks import judgebench
from rmlib.benchmarks.scoring import read_scores
from rmlib.records.errors import DataError
from rmlib.records.files import read_rows
from rmlib.statistics import Longer, Random, Shorter

SOURCES = {"mmlu-pro-law": 4, "livebench-reasoning": 2, "livebench-math": 1, "livecodebench": 1}
MODEL = judgebench.MODELS["gpt"]


def row(number, source="mmlu-pro-law", label="A>B", model=MODEL):
    about = {"pair_id": f"p{number}", "original_id": "7", "source": source, "response_model": model, "label": label}
    texts = {"question": f"Question {number}?", "response_A": f"It is A {number}.", "response_B": f"B {number}."}
    return about | texts


def rows():
    sources = [source for source, n in SOURCES.items() for _ in range(n)]
    return [row(k, source, judgebench.LABELS[k % 2]) for k, source in enumerate(sources)]


@pytest.fixture
def items(tmp_path):
    return benchmarks.load("judgebench", write_rows(tmp_path, rows(), "data/gpt-00000-of-00001.jsonl"))


def scores_of(items, correct):
    """Rewards that decide the first `correct[category]` pairs of each category rightly, the rest wrongly."""
    seen, scores = dict.fromkeys(correct, 0), {}
    for name, subset, right in zip(items["item_id"], items["subset"], items["correct"], strict=True):
        category = subset.partition("/")[2]
        good = seen[category] < correct[category]
        seen[category] += 1
        scores[name] = [float(a == good) for a in right]
    return scores


def test_a_tie_is_a_decision_for_b(items):
    table = benchmarks.credits(items, {name: [1.0, 1.0] for name in items["item_id"]})
    assert table["credit"].tolist() == [0, 1] * 4 and table["tie"].all()  # labels A>B, B>A in turn


def test_a_decision_is_right_where_it_is_the_label(items):
    table = benchmarks.credits(items, {name: [2.0, 1.0] for name in items["item_id"]})
    assert table["credit"].tolist() == [1, 0] * 4 and not table["tie"].any()


def test_the_score_is_the_mean_over_all_pairs_not_over_categories(items):
    scores = scores_of(items, {"knowledge": 4, "reasoning": 0, "math": 0, "coding": 0})
    sections = benchmarks.summarise(items, scores, partial=True).sections["estimate"]
    assert sections.to_dict() == {"knowledge": 1, "reasoning": 0, "math": 0, "coding": 0, "Score": 4 / 8}


@pytest.mark.parametrize(
    ("model", "percent", "overall"),
    [  # recomputed from the repository's outputs: knowledge, reasoning, math, coding; all
        ("GRM-Gemma-2B", (62.99, 53.06, 64.29, 54.76), 59.43),
        ("Skywork-Reward-Gemma-2-27B", (59.74, 66.33, 83.93, 50.00), 64.29),
        ("Skywork-Reward-Llama-3.1-8B", (59.09, 64.29, 76.79, 50.00), 62.29),
        ("internlm2-20b-reward", (62.34, 69.39, 66.07, 50.00), 63.43),
        ("internlm2-7b-reward", (56.49, 61.22, 71.43, 50.00), 59.43),
    ],
)
def test_the_counts_behind_published_accuracies_give_the_published_overall(tmp_path, model, percent, overall):
    names, n = list(judgebench.CATEGORIES.values()), (154, 98, 56, 42)
    counts = {name: round(share * size / 100) for name, share, size in zip(names, percent, n, strict=True)}
    sources = [f"{source}-x" for source, size in zip(judgebench.CATEGORIES, n, strict=True) for _ in range(size)]
    listed = [row(k, source, judgebench.LABELS[k % 2]) for k, source in enumerate(sources)]
    items = benchmarks.load("judgebench", write_rows(tmp_path, listed))
    report = benchmarks.summarise(items, scores_of(items, counts), draws=10)
    assert report.label == "complete" and report.complete
    found = (100 * report.sections["estimate"]).round(2).tolist()
    assert found == pytest.approx([*percent, overall])


def test_items_of_both_splits_have_no_joint_result(items, tmp_path):
    claude = [row(f"c{k}", source, model=judgebench.MODELS["claude"]) for k, source in enumerate(SOURCES)]
    other = benchmarks.load("judgebench", write_rows(tmp_path / "claude", claude), parts="claude")
    both = concatenate_datasets([items, other])
    scores = benchmarks.score(Random(0), both, progress=False)
    assert len(benchmarks.credits(both, scores)) == 12
    with pytest.raises(ValueError, match="items of claude and gpt: judgebench has a result for each; pass one split"):
        benchmarks.summarise(both, scores)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "A=B"}, "row 2, field 'label': 'A=B' is not a label. Use A>B or B>A"),
        ({"label": None}, "row 2, field 'label': the field is missing"),
        ({"source": "gsm8k"}, "row 2, field 'source': unknown source 'gsm8k'"),
        ({"response_model": "me"}, "row 2, field 'response_model': unknown 'me'"),
        ({"response_A": 3}, "row 2, field 'response_A': 3 is not a text"),
        ({"pair_id": "p0"}, "ids occur twice: gpt/p0"),
    ],
)
def test_a_row_that_is_not_official_is_refused_with_its_place(tmp_path, change, message):
    changed = rows()
    changed[1] |= change
    with pytest.raises(DataError, match=message):
        benchmarks.load("judgebench", write_rows(tmp_path, changed))


def test_one_split_is_read_and_the_other_left_alone(tmp_path):
    claude = [row(f"c{k}", source, model=judgebench.MODELS["claude"]) for k, source in enumerate(SOURCES)]
    folder = write_rows(tmp_path, [*rows(), *claude])
    assert len(benchmarks.load("judgebench", folder)) == 8
    other = benchmarks.load("judgebench", folder, parts="claude")
    assert set(other["subset"]) == {f"claude/{name}" for name in judgebench.CATEGORIES.values()}
    with pytest.raises(ValueError, match="unknown part 'both'; judgebench has gpt, claude"):
        benchmarks.load("judgebench", folder, parts="both")
    with pytest.raises(DataError, match="no item of gpt/coding, gpt/knowledge"):
        benchmarks.load("judgebench", write_rows(tmp_path / "claude", claude))


def test_equal_responses_are_kept_by_the_official_rule_and_reported(tmp_path, caplog):
    changed = rows()
    changed[1]["response_B"] = changed[1]["response_A"]
    folder = write_rows(tmp_path, changed)
    items = benchmarks.load("judgebench", folder)
    assert "kept 1 items whose responses are equal: gpt/p1" in caplog.text
    table = benchmarks.credits(items, benchmarks.score(Random(0), items, progress=False))
    assert table.loc[1, ["credit", "tie"]].tolist() == [1, True]  # label B>A
    with pytest.raises(DataError, match="chosen equals rejected: gpt/p1"):
        benchmarks.load("judgebench", folder, keep_degenerate=False)


def test_the_real_claude_split_is_complete_and_meets_the_rulers_as_counted_apart(shared_data):
    items = benchmarks.load("judgebench", shared_data("judgebench"), parts="claude")
    scores = [benchmarks.score(ruler, items, progress=False) for ruler in (Longer(), Shorter())]
    reports = [benchmarks.summarise(items, given) for given in scores]
    (file,) = shared_data("judgebench").glob("*claude*.jsonl.gz")
    listed = [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
    for report, sign in zip(reports, (1, -1), strict=True):
        assert report.label == "complete" and report.n == 270
        lengths = [(sign * len(one["response_A"]), sign * len(one["response_B"]), one["label"]) for one in listed]
        by_hand = np.mean([("A>B" if a > b else "B>A") == label for a, b, label in lengths])
        assert report.sections.loc["Score", "estimate"] == pytest.approx(by_hand)


# --- the official output files of reward models -----------------------------------------------------------------------


def judged(number, *scores, **more):
    """A row as the official code writes it: the pair, and a game for each order of its responses."""
    games = [{"judgment": {"judge_model": "m", "prompt": "", "response": "", "scores": two}} for two in scores]
    given = {"judge_name": "reward_model", "judgments": [game | {"decision": "A>B"} for game in games]}
    return row(number) | given | more


def test_an_official_output_file_is_read_as_it_is_and_only_for_its_own_texts(tmp_path, caplog):
    kinds = [
        judged(0, [2.5, 1.0], [1.0, 2.5]),
        judged(1, [0.5, 3.0]),  # of a single game
        judged(2, judgments=[None, None]),
        judged(3, judgments=[None, judged(3, [1.0, 4.0])["judgments"][0]]),
        judged(4, [1.0, 0.9], [1.0, 0.9]),
    ]
    file = write_rows(tmp_path, kinds, "out.jsonl") / "out.jsonl"
    items = benchmarks.load("judgebench", file, partial=True)
    scores = read_scores(file, items)
    assert scores == {"gpt/p0": [2.5, 1], "gpt/p1": [0.5, 3], "gpt/p3": [4, 1], "gpt/p4": [1, 0.9]}
    assert scores.skipped == {"gpt/p2": "no judgment in the official file"}
    assert "row 5: gpt/p4 has other winners in the two orders" in caplog.text and "texts_hash" not in caplog.text
    other = benchmarks.load("judgebench", write_rows(tmp_path / "b", [row(0) | {"question": "?"}]), partial=True)
    with pytest.raises(DataError, match="gpt/p0 has other texts than those that were scored"):
        read_scores(file, other)


@pytest.mark.parametrize(
    ("games", "problem"),
    [
        ([{"judgment": {"response": "A is better"}, "decision": "A>B"}], "'reward_model' gave no scores"),
        ([{"decision": "A>B"}], r"not of the official layout \(KeyError\('judgment'\)\)"),
        ([{"judgment": {"scores": [1.0]}}], "not of the official layout"),
        ("A>B", "not of the official layout"),
    ],
)
def test_a_file_of_judges_or_of_another_layout_is_refused(tmp_path, games, problem):
    file = write_rows(tmp_path, [judged(0, judgments=games)], "out.jsonl") / "out.jsonl"
    with pytest.raises(DataError, match=f"row 1, field 'judgments': .*{problem}"):
        read_scores(file, benchmarks.load("judgebench", file, partial=True))


def test_official_output_files_give_the_accuracy_of_their_own_decisions(shared_data):
    files = sorted(shared_data("judgebench").parent.rglob("*judge_name=reward_model*.jsonl*"))
    if not files:
        pytest.skip("no output files of JudgeBench's reward models in RMLIB_SHARED_DATA")
    for file in files:
        items = benchmarks.load("judgebench", file, parts=["gpt" if MODEL in file.name else "claude"], partial=True)
        report = benchmarks.summarise(items, read_scores(file, items), partial=True)
        right = [line["judgments"][0]["decision"] == line["label"] for line in read_rows(file)]
        assert report.sections["estimate"]["Score"] == pytest.approx(np.mean(right))
