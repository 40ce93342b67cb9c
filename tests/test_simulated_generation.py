"""Rows and files of the simulated source: the same bytes each time, in any number, in constant memory."""

import gzip
import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from rmlib.pairs import make_pairs, pair_id
from rmlib.records import paths
from rmlib.records.hashing import prompt_key
from rmlib.sources import simulated
from rmlib.sources.simulated import annotators, generation
from rmlib.sources.simulated.truth import examine
from rmlib.statistics import wilson_interval

FOLDER = paths.data_dir() / "embedded"


@pytest.fixture(scope="module")
def pairs() -> Dataset:
    return simulated.load()


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return list(simulated.generate(1_500, seed=7))


# --- the same each time -----------------------------------------------------------------------------------------------


def test_a_seed_always_gives_the_same_rows_and_another_seed_others() -> None:
    first, again, other = (list(simulated.generate(50, seed=seed)) for seed in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize("n_pairs", [20, generation.BLOCK, generation.BLOCK + 1])
def test_the_first_rows_do_not_depend_on_how_many_are_asked_for(n_pairs: int) -> None:
    assert list(itertools.islice(simulated.generate(10**9, seed=0), n_pairs)) == list(
        simulated.generate(n_pairs, seed=0)
    )


def test_as_many_rows_come_as_are_asked_for() -> None:
    for n_pairs in (0, 1, generation.BLOCK, generation.BLOCK + 3):
        assert sum(1 for _ in simulated.generate(n_pairs, seed=1)) == n_pairs


def test_the_hash_seed_of_the_process_changes_nothing() -> None:
    code = (
        "import hashlib, json; from rmlib.sources.simulated import generate, benchmark_items;"
        "rows = [*generate(40, seed=1), *benchmark_items(2)];"
        "print(hashlib.sha256(json.dumps(rows).encode()).hexdigest())"
    )
    rows = [*simulated.generate(40, seed=1), *simulated.benchmark_items(2)]
    environment = os.environ | {"PYTHONHASHSEED": "12345"}
    out = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert out.stdout.strip() == hashlib.sha256(json.dumps(rows).encode()).hexdigest()


# --- rows -------------------------------------------------------------------------------------------------------------


def test_every_row_has_the_truth_of_its_texts(rows: list[dict[str, Any]]) -> None:
    for row, texts in zip(rows[:300], generation.draw_texts(7), strict=False):
        assert (row["prompt"], row["response_1"], row["response_2"]) == (texts.task.prompt, *texts.responses)
        findings = [examine(texts.task, response) for response in texts.responses]
        assert [row["truth_1"], row["truth_2"]] == [finding.truth for finding in findings]


def test_the_true_preference_is_the_difference_in_utility(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        gap = sum(w * (row["truth_2"][name] - row["truth_1"][name]) for name, w in annotators.UTILITY.items())
        assert row["truth_preference"] == pytest.approx(gap, abs=1e-4)


def test_rows_make_a_table_whose_annotations_are_complete(rows: list[dict[str, Any]]) -> None:
    table = make_pairs(rows, origin="generated")
    assert len(table) == len({pair_id(row["prompt"], row["response_1"], row["response_2"]) for row in rows})
    for annotations in table["annotations"]:
        assert len({annotation["annotator"] for annotation in annotations}) == len(annotations) in (3, 4, 5)
        assert all(value is not None for annotation in annotations for value in annotation.values())
        assert all(annotation["preference"] in (-100, -3, -2, -1, 1, 2, 3) for annotation in annotations)


def test_further_annotators_come_only_where_the_first_three_disagree(rows: list[dict[str, Any]]) -> None:
    numbers = Counter[int]()
    for row in rows:
        first = row["annotations"][:3]
        spans = [np.ptp([a[side]["helpfulness"] for a in first]) for side in ("ratings_1", "ratings_2")]
        assert len(row["annotations"]) == 3 or max(spans) > 2
        numbers[len(row["annotations"])] += 1
    assert numbers[3] > numbers[4] + numbers[5] and min(numbers[4], numbers[5]) > 20


def test_invalid_votes_occur_and_are_rare(rows: list[dict[str, Any]]) -> None:
    votes = [annotation["preference"] for row in rows for annotation in row["annotations"]]
    assert 0 < votes.count(-100) < 0.02 * len(votes)


# --- the splits -------------------------------------------------------------------------------------------------------


def test_the_splits_are_large_enough_and_share_no_prompt(pairs: Dataset) -> None:
    prompts = [prompt_key(prompt) for prompt in pairs["prompt"]]
    by_split = {
        split: {p for p, s in zip(prompts, pairs["split"], strict=True) if s == split}
        for split in ("train", "validation")
    }
    assert not by_split["train"] & by_split["validation"]
    counts = Counter(pairs["split"])
    assert counts["train"] >= 2_000 and counts["validation"] >= 1_000
    decided = sum(bool(p) for p, s in zip(pairs["preference"], pairs["split"], strict=True) if s == "validation")
    assert decided >= 600


def test_no_pair_occurs_twice(pairs: Dataset) -> None:
    with gzip.open(FOLDER / "pairs.jsonl.gz") as file:
        assert len(set(pairs["pair_id"])) == len(pairs) == sum(1 for _ in file)


def test_about_29_percent_of_the_prompts_have_several_turns(pairs: Dataset) -> None:
    share = wilson_interval(sum(len(prompt) > 1 for prompt in pairs["prompt"]), len(pairs))
    assert share.low > 0.26 and share.high < 0.31
    assert {tuple(m["role"] for m in prompt) for prompt in pairs["prompt"]} == {
        ("user",),
        ("user", "assistant", "user"),
    }


def test_texts_vary(rows: list[dict[str, Any]]) -> None:
    responses = {row[side] for row in rows for side in ("response_1", "response_2")}
    assert len({prompt_key(row["prompt"]) for row in rows}) > 0.95 * len(rows)
    assert len(responses) > 0.8 * 2 * len(rows)
