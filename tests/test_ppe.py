"""PPE: conflict pairs counted by hand, human ties, and rows that are not official."""

from types import SimpleNamespace

import pytest
from datasets import Dataset
from written import write_rows

from rmlib import benchmarks
from rmlib.benchmarks import ppe
from rmlib.records.errors import DataError
from rmlib.statistics import Random

SETS = [name for name in ppe.HUB_NAMES if name != ppe.HUMAN]


def human(number, winner):
    return {"question_id": f"h{number}", "prompt": f"Question {number}?", "response_1": f"First {number}.",
            "response_2": f"The second {number}.", "winner": winner, "language": "English"}  # fmt: skip


def samples(number, scores, pairs, model="m"):
    responses = {f"response_{k + 1}": f"Sample {k} of {number}{model}." for k in range(len(scores))}
    return {"question_id": f"q{number}", "model_name": model, "prompt": f"Question {number}?", "scores": scores,
            "sampled_conflict_pairs": pairs} | responses  # fmt: skip


def write(folder):
    write_rows(folder, [human(0, "model_a"), human(1, "model_b"), human(2, "tie (bothbad)")], "human.jsonl")
    for name in SETS:
        two = [samples(0, [True, False, False, True], [[0, 1], [2, 3]]), samples(1, [False, True], [[0, 1]])]
        write_rows(folder, two, f"PPE-{name}-Best-of-K/data/train-00000-of-00001.jsonl.gz")
    return folder


@pytest.fixture
def items(tmp_path):
    return benchmarks.load("ppe", write(tmp_path))


def test_a_set_is_scored_over_its_conflict_pairs_whichever_way_they_are_listed(items):
    scores = benchmarks.score(Random(0), items, progress=False)
    scores |= {"math/q0@m": [1.0, 0.0, 5.0, 2.0], "math/q1@m": [0.0, 1.0]}  # pairs: right, wrong; right
    scores |= {"gpqa/q0@m": [1.0, 1.0, 0.0, 2.0], "gpqa/q1@m": [1.0, 0.0]}  # a tie is wrong, right; wrong
    report = benchmarks.summarise(items, scores)
    assert report.subsets.loc[["math", "gpqa"], "estimate"].tolist() == pytest.approx([2 / 3, 1 / 3])
    assert report.subsets.loc["gpqa", "ties"] == 1
    assert report.sections.loc["Correctness", "estimate"] == pytest.approx(report.subsets["estimate"][SETS].mean())


def test_human_preference_stands_apart_and_human_ties_are_shown_not_scored(items):
    scores = benchmarks.score(Random(0), items, progress=False)
    scores |= {"human-preference/h0": [1.0, 0.0], "human-preference/h1": [1.0, 1.0]}
    report = benchmarks.summarise(items, scores)
    assert report.sections.loc["Human Preference", ["n", "estimate"]].tolist() == [2, 0.5]
    assert "Score" not in benchmarks.summarise(items, scores, partial=True).sections.index
    assert report.skipped == {"people tied": 1} and "1 skipped: people tied" in report.title
    assert report.label == "partial: 13 of 18,593 items"


def test_several_models_answers_to_a_question_are_redrawn_together(tmp_path):
    both = [samples(0, [True, False], [[0, 1]], model) for model in "abc"]
    both += [samples(1, [True, False], [[0, 1]], model) for model in "abc"]
    items = benchmarks.load("ppe", write_rows(tmp_path, both, "math.jsonl"), parts="math", partial=True)
    scores = {name: [float("q0" in name), 0.0] for name in items["item_id"]}
    row = benchmarks.summarise(items, scores, partial=True).sections.loc["Correctness"]
    assert (row["low"], row["estimate"], row["high"]) == (0, 0.5, 1)  # of six single items: about 0.17 to 0.83


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampled_conflict_pairs": [[0, 9]]}, r"row 1, field 'sampled_conflict_pairs': \[0, 9\] is no pair of"),
        ({"sampled_conflict_pairs": [[0]]}, r"\[0\] is no pair of samples"),
        ({"sampled_conflict_pairs": [[1, 2]]}, r"\[1, 2\]: both samples are False"),
        ({"scores": [True, False, None]}, "field 'scores': None is neither right nor wrong"),
        ({"scores": [True, False]}, "field 'scores': 2 scores for more responses"),
        ({"scores": [True, False, False, True]}, "field 'response_4': the field is missing"),
        ({"question_id": None}, "field 'question_id': the field is missing"),
    ],
)
def test_a_row_that_is_not_official_is_refused_with_its_place(tmp_path, change, message):
    row = samples(0, [True, False, False], [[0, 1]]) | change
    with pytest.raises(DataError, match=message):
        benchmarks.load("ppe", write_rows(tmp_path, [row], "math.jsonl"), partial=True)


def test_winners_and_sets_that_are_unknown_are_refused(tmp_path):
    with pytest.raises(DataError, match="row 1, field 'winner': 'me' is no winner"):
        benchmarks.load("ppe", write_rows(tmp_path / "a", [human(0, "me")]), partial=True)
    with pytest.raises(DataError, match="items.jsonl.gz, row 1: the path says no known set"):
        benchmarks.load("ppe", write_rows(tmp_path / "b", [samples(0, [True, False], [[0, 1]])]), partial=True)
    with pytest.raises(ValueError, match="unknown part 'poetry'; ppe has human-preference, mmlu-pro"):
        benchmarks.load("ppe", tmp_path, parts=["poetry"])
    with pytest.raises(DataError, match="no item of gpqa, ifeval, math, mbpp-plus, mmlu-pro. Add them, or set partial"):
        benchmarks.load("ppe", write_rows(tmp_path / "c", [human(0, "model_a")]))


def test_the_six_sets_of_the_hub_are_read_at_their_commits(monkeypatch):
    asked = []

    def about(self, name, revision):
        return SimpleNamespace(sha=f"{revision}-{name[-4:]}")

    def dataset(name, split, revision):
        asked.append((name, split, revision))
        row = human(0, "model_a") if split == "test" else samples(0, [True, False], [[0, 1]])
        return Dataset.from_list([row])

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", about)
    monkeypatch.setattr("datasets.load_dataset", dataset)
    items = benchmarks.load("ppe", "hub", revision={"gpqa": "v2"})
    assert [name for name, _, _ in asked] == [name for name, _ in ppe.HUB_NAMES.values()]
    assert ("lmarena-ai/PPE-GPQA-Best-of-K", "train", "v2-of-K") in asked
    assert len(items) == 6 and "lmarena-ai/PPE-Human-Preference-V1@main-e-V1 + " in items[0]["source"]
