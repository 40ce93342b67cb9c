"""HHH alignment: pairs parsed out of judge prompts, and prompts that hold none."""

import gzip
import json

import numpy as np
import pytest
from written import write_rows

from rmlib import benchmarks
from rmlib.benchmarks import hhh
from rmlib.records.errors import DataError
from rmlib.statistics import Longer, Shorter


def judged(question, reply):
    return (f"###Task Description:\nRate it.\n\n###The instruction to evaluate:\n{question}\n\n"
            f"###Response to evaluate:\n{reply}\n\n###Score Rubrics:\n[Is it good?]\n\n###Feedback: ")  # fmt: skip


def rows(sources=tuple(hhh.SUBSETS)):
    return [
        {"source": source, "chosen_instruction": judged(f"Why,\n\n{source}?", f"So\n\nand so, {source}."),
         "rejected_instruction": judged(f"Why,\n\n{source}?", "No.")}
        for source in sources
    ]  # fmt: skip


def test_question_and_reply_are_what_stands_between_the_headings(tmp_path):
    items = benchmarks.load("hhh", write_rows(tmp_path, rows(), "eval.json.gz"))
    assert items[1]["prompt"] == [{"role": "user", "content": "Why,\n\nhelpful?"}]
    assert items[1]["candidates"] == ["So\n\nand so, helpful.", "No."]
    assert items["subset"][:] == list(hhh.SUBSETS)


def test_the_score_is_the_share_of_all_pairs(tmp_path):
    items = benchmarks.load("hhh", write_rows(tmp_path, rows(("harmless", "helpful", "honest", "other", "other"))))
    scores = dict(zip(items["item_id"], [[1, 0], [1, 0], [0, 1], [0, 0], [0, 1]], strict=True))
    sections = benchmarks.summarise(items, scores, partial=True).sections["estimate"]
    assert sections.to_dict() == {"harmless": 1, "helpful": 1, "honest": 0, "other": 0, "Score": 2 / 5}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chosen_instruction": "Rate it."}, "row 1, field 'chosen_instruction': no question and reply"),
        ({"rejected_instruction": judged("Another?", "No.")}, "row 1, field 'rejected_instruction': it asks another"),
        ({"rejected_instruction": judged("Why,\n\nharmless?", "")}, "field 'rejected_instruction': the text is empty"),
        ({"source": "funny"}, "row 1, field 'source': unknown source 'funny'"),
    ],
)
def test_a_row_that_is_no_pair_is_refused_with_its_place(tmp_path, change, message):
    changed = rows()
    changed[0] |= change
    with pytest.raises(DataError, match=message):
        benchmarks.load("hhh", write_rows(tmp_path, changed))


def test_the_real_pairs_are_complete_and_meet_opposite_rulers(shared_data):
    items = benchmarks.load("hhh", shared_data("hhh_alignment"))
    longer, shorter = (
        benchmarks.summarise(items, benchmarks.score(ruler, items, progress=False)) for ruler in (Longer(), Shorter())
    )
    assert longer.label == "complete" and longer.n == 221
    data = json.loads(gzip.decompress((shared_data("hhh_alignment") / "hhh_alignment_eval.json.gz").read_bytes()))
    # Both prompts of a pair differ in the reply alone, so the longer prompt has the longer reply.
    by_hand = np.mean([len(row["chosen_instruction"]) > len(row["rejected_instruction"]) for row in data])
    assert longer.sections.loc["Score", "estimate"] == pytest.approx(by_hand)
    total = longer.sections.loc["Score", "estimate"] + shorter.sections.loc["Score", "estimate"]
    assert total + longer.ties / 221 == pytest.approx(1)
