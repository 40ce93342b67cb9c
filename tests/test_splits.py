"""The pairs of a comparison: selection carved from training, matched pairs, shuffled labels."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny

from rmlib.pairs import make_pairs
from rmlib.sources import load_splits, shuffled_labels


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pairs in HelpSteer2's layout, where more good words mean a higher rating."""
    monkeypatch.setenv("RMLIB_RUNS", str(tmp_path / "runs"))
    return tiny.write_source(tmp_path / "own")


def test_selection_is_carved_from_training_and_shares_no_prompt_with_it(source: Path) -> None:
    splits = load_splits(source, selection_fraction=0.25)
    contents = [{prompt[0]["content"] for prompt in part["prompt"]} for part in (splits.train, splits.selection)]
    assert len(contents[0]) == 30 and len(contents[1]) == 10 and not contents[0] & contents[1]
    assert len(splits.test) == 16


def test_a_split_without_a_decided_pair_is_an_error(source: Path) -> None:
    rows = [json.loads(line) for line in (source / "validation.jsonl").read_text().splitlines()]
    ties = "".join(json.dumps(row | {"helpfulness": 2}) + "\n" for row in rows)
    (source / "validation.jsonl").write_text(ties)
    with pytest.raises(ValueError, match=r"no decided pair in \['test'\]"):
        load_splits(source, selection_fraction=0.25)


def test_matched_arms_learn_from_the_same_pairs_and_unmatched_regression_from_ties_too(source: Path) -> None:
    rows = [json.loads(line) for line in (source / "train.jsonl").read_text().splitlines()]
    for row in rows[:20]:  # ten ties
        row["helpfulness"] = 2
    (source / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    matched, all_pairs = (load_splits(source, selection_fraction=0.25, matched=value) for value in (True, False))
    assert 0 not in matched.train["preference"] and 0 in all_pairs.train["preference"]
    assert len(all_pairs.train) == 30 and len(matched.train) == sum(p != 0 for p in all_pairs.train["preference"])
    assert matched.test["pair_id"][:] == all_pairs.test["pair_id"][:]


def test_single_responses_are_for_unmatched_regression_alone_and_never_tested_on(source: Path) -> None:
    alone = source.parent / "alone"
    alone.mkdir()
    for split in ("train", "validation"):  # of every second prompt one response, of the others both
        rows = [json.loads(line) for line in (source / f"{split}.jsonl").read_text().splitlines()]
        kept = [row for number, row in enumerate(rows) if number % 4 != 1]
        (alone / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    matched, everything = (load_splits(alone, selection_fraction=0.25, matched=value) for value in (True, False))
    assert [len(matched.train), len(everything.train), len(everything.test)] == [
        sum(text is not None for text in everything.train["response_2"]), 30, 8
    ]  # fmt: skip
    assert None not in matched.train["response_2"] and None not in everything.test["response_2"]
    counted = everything.counts()["single responses"]
    assert counted["train"] + counted["selection"] == 20 and counted["test"] == 0
    for file in alone.iterdir():
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(line for number, line in enumerate(lines) if number % 3 == 2))
    with pytest.raises(ValueError, match=r"no decided pair in .*'test'.*single responses alone train regression"):
        load_splits(alone, selection_fraction=0.25)


def test_shuffled_labels_keep_strengths_and_ties_and_turn_about_half_round() -> None:
    prompt = [{"role": "user", "content": "q"}]
    rows = [
        {"split": "train", "prompt": prompt, "response_1": f"a{i}", "response_2": f"b{i}", "preference": i % 4}
        for i in range(400)
    ]
    pairs = make_pairs(rows, origin="test")
    shuffled = np.array(shuffled_labels(pairs, seed=0)["preference"])
    assert (np.abs(shuffled) == np.array(pairs["preference"])).all()
    assert 0.4 < np.mean(shuffled[shuffled != 0] < 0) < 0.6
