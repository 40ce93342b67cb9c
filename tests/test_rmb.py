"""RMB: 98 small files in the layout of its repository, counted by hand, and files that are missing or malformed."""

import numpy as np
import pytest
from written import write_rows

from rmlib import benchmarks
from rmlib.benchmarks import rmb
from rmlib.records.errors import DataError
from rmlib.statistics import Longer, Random

LARGE = ("Harmlessness/S11", "Helpfulness/Brainstorming/Idea Development", "Helpfulness/Generation/Creative Writing")


def shared(path, number):
    turns = [("user", f"Hello {number}."), ("assistant", "Hi."), ("user", f"And {path}?")]
    messages = [{"role": role, "content": content, "language": "English"} for role, content in turns]
    return {"conversation_input": messages, "category_path": path}


def answer(text):
    return {"llm_name": "some-model", "answer": text}


def rows_of(path, number):
    best = answer(f"A good answer {number}.")
    if path.startswith("BoN_set"):
        losers = [answer(f"Loser {k}.") for k in range(2 + number % 2)]
        return [shared(path, number) | {"bon_uid": str(number), "bon_best": best, "loser_list": losers}]
    return [shared(path, number) | {"pair_uid": str(number), "chosen": best, "reject": answer("No.") | {"score": 1.0}}]


def write(folder, leave_out=()):
    for number, path in enumerate(rmb.SUBSETS):
        if path not in leave_out:
            write_rows(folder / "RMB_dataset", rows_of(path, number), f"{path}.json")
    return folder / "RMB_dataset"


def test_there_are_49_files_of_each_kind_in_four_sections():
    sections = rmb.BENCHMARK.sections
    assert {name: len(members) for name, members in sections.items()} == {
        "Helpfulness BoN": 37, "Helpfulness pairwise": 37, "Harmlessness BoN": 12, "Harmlessness pairwise": 12,
    }  # fmt: skip


def test_best_of_n_must_beat_every_loser_and_the_score_is_the_mean_of_four(tmp_path):
    items = benchmarks.load("rmb", write(tmp_path))
    scores = {}
    for number, (name, candidates) in enumerate(zip(items["item_id"], items["candidates"], strict=True)):
        scores[name] = [1.0, *[0.0] * (len(candidates) - 1)]
        if number % 3 == 1:
            scores[name][-1] = 2.0  # one loser is above the best
        if number % 3 == 2:
            scores[name][-1] = 1.0  # a tie is wrong
    report = benchmarks.summarise(items, scores, partial=True)
    right = {section: [] for section in rmb.BENCHMARK.sections}
    for number, subset in enumerate(items["subset"]):
        right[rmb.SUBSETS[subset].section].append(number % 3 == 0)
    by_hand = {section: np.mean(values) for section, values in right.items()}
    assert report.sections["estimate"].to_dict() == pytest.approx(by_hand | {"Score": np.mean(list(by_hand.values()))})
    assert report.ties == sum(number % 3 == 2 for number in range(len(items)))


def test_turns_come_without_their_language_and_the_best_answer_first(tmp_path):
    items = benchmarks.load("rmb", write(tmp_path))
    first = items[0]
    assert first["prompt"][1] == {"role": "assistant", "content": "Hi."} and len(first["prompt"]) == 3
    assert first["candidates"][0].startswith("A good answer")
    assert first["correct"] == [True] + [False] * (len(first["candidates"]) - 1)


def test_missing_files_are_named(tmp_path):
    missing = [f"Pairwise_set/{name}" for name in LARGE]
    folder = write(tmp_path, leave_out=missing)
    with pytest.raises(DataError, match="no item of Pairwise_set/Harmlessness/S11, .*Generation/Creative Writing. Add"):
        benchmarks.load("rmb", folder)
    items = benchmarks.load("rmb", folder, partial=True)
    report = benchmarks.summarise(items, benchmarks.score(Random(0), items, progress=False))
    assert report.label.startswith("partial: 95 of 98 subsets (without Pairwise_set/Helpfulness/Brainstorming/Idea")
    assert list(report.sections.index) == ["Helpfulness BoN", "Harmlessness BoN"]  # pairs lack files, the Score both


def test_a_set_with_the_known_counts_says_what_is_not_known(tmp_path):
    items = benchmarks.load("rmb", write(tmp_path))
    report = benchmarks.summarise(items, benchmarks.score(Longer(), items, progress=False))
    assert report.label == (
        "partial: 98 of 3,786 items, official number of items not known for Helpfulness pairwise, Harmlessness pairwise"
    )
    assert sum(rmb.TOTALS.values()) == 3786


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("BoN_set", {"loser_list": []}, r"S1.json, row 1, field 'loser_list': \[\] is not a list of at least one"),
        ("BoN_set", {"loser_list": ["text"]}, "field 'loser_list': 'text' has no answer"),
        ("BoN_set", {"bon_best": {"llm_name": "m"}}, "field 'bon_best': .* has no answer"),
        ("BoN_set", {"bon_uid": None}, "field 'bon_uid': the field is missing"),
        ("Pairwise_set", {"reject": {"answer": ""}}, "field 'reject': the text is empty"),
        ("Pairwise_set", {"category_path": "Pairwise_set/S99"}, "unknown scenario 'Pairwise_set/S99'"),
        ("Pairwise_set", {"conversation_input": [{"role": "user"}]}, "field 'prompt': None is not a text"),
        ("Pairwise_set", {"conversation_input": ["Hi"]}, "field 'prompt': 'Hi' is not a message"),
    ],
)
def test_a_row_that_is_not_official_is_refused_with_its_place(tmp_path, kind, change, message):
    path = f"{kind}/Harmlessness/S1"
    write_rows(tmp_path, [rows_of(path, 0)[0] | change], f"{path}.json")
    with pytest.raises(DataError, match=message):
        benchmarks.load("rmb", tmp_path, partial=True)


def test_there_is_no_set_on_the_hub():
    with pytest.raises(ValueError, match="RMB is not on the hub: clone https://github.com/Zhou-Zoey"):
        benchmarks.load("rmb", "hub")
