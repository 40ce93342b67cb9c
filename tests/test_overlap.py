"""Duplicates and overlap against tables written by hand and against the plain comparison of every two texts."""

import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from rmlib.benchmarks import FEATURES as ITEM_FEATURES
from rmlib.pairs import make_pairs, overlap
from rmlib.pairs.shingles import Shingled, similar, words_of
from rmlib.sources import helpsteer2

TEN = "one two three four five six seven eight nine ten"
ACROSS = "train and validation"


def table_of(*rows: tuple[str, str, str, str]) -> Dataset:
    """Pairs from (split, prompt, response 1, response 2)."""
    return make_pairs(
        [
            {"split": split, "prompt": [{"role": "user", "content": prompt}], "response_1": one, "response_2": two}
            for split, prompt, one, two in rows
        ],
        origin="test",
    )


def items_of(*rows: tuple[str, list[str]]) -> Dataset:
    """Benchmark items from (prompt, candidates)."""
    listed: list[dict[str, Any]] = [
        {"item_id": f"item/{number}", "subset": "s", "prompt": [{"role": "user", "content": prompt}]}
        | {"candidates": candidates, "correct": [False] * len(candidates), "pairs": None}
        | {"benchmark": "b", "source": "test"}
        for number, (prompt, candidates) in enumerate(rows)
    ]
    return Dataset.from_list(listed, features=ITEM_FEATURES)


def shingles(text: str, n: int) -> set[tuple[str, ...]]:
    words = words_of(text)
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)} or {tuple(words)}


def jaccard(a: set[Any], b: set[Any]) -> float:
    return len(a & b) / len(a | b)


def test_duplicates_of_a_small_table_are_those_counted_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "SHINGLE_WORDS", 2)
    monkeypatch.setattr(overlap, "THRESHOLD", 0.9)
    pairs = table_of(
        ("train", "What is it?", TEN, "yes"),
        ("train", "what is  it", "YES!", "no"),  # the same prompt, and the same "yes"
        ("validation", "What is it", f"{TEN} eleven twelve", "other"),
        ("train", "Something else?", f"{TEN} eleven", "Yes."),
    )
    report = overlap.report(pairs)
    table = report.table()
    # of the three long texts with 9, 11 and 10 shingles: 9 / 10 and 10 / 11 reach 0.9, 9 / 11 does not
    assert table.loc[("prompt", "train")].tolist() == [3, 1, 2, 0, 0, 1, 2]
    assert table.loc[("prompt", ACROSS)].tolist() == [1, 2, 1, 0, 0, 1, 3]
    assert table.loc[("response", "train")].tolist() == [6, 3, 3, 1, 2, 2, 3]
    assert table.loc[("response", "validation")].tolist() == [2, 0, 0, 0, 0, 0, 1]
    assert table.loc[("response", ACROSS)].tolist() == [2, 0, 0, 1, 1, 1, 3]
    assert table.loc["pair"].to_numpy()[:, 1:5].sum() == 0
    names = pairs["pair_id"][:]
    across = {row.kind: row for row in report.duplicates if row.scope == ACROSS}
    assert across["response"].near_ids == ((f"{names[3]}/1", f"{names[2]}/1"),)
    assert across["prompt"].exact_ids == ((names[0], names[2]),)
    assert report.duplicates[0].exact_ids == ((names[0], names[1]),)
    assert overlap.summary(report).startswith(
        "prompts train: 2 exact, 0 near of 3; prompts train and validation: 1 exact"
    )


def test_a_pair_turned_round_is_the_same_pair() -> None:
    pairs = table_of(("train", "Which?", "this", "that"), ("validation", "Which", "that!", "this"))
    table = overlap.report(pairs).table()
    assert table.loc[("pair", ACROSS), "exact_pairs"] == 1


def test_a_pair_is_near_where_prompt_and_responses_together_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "SHINGLE_WORDS", 2)
    monkeypatch.setattr(overlap, "THRESHOLD", 10 / 12)
    pairs = table_of(("train", TEN, "yes", "no"), ("train", TEN, "yes", "none"), ("train", "other", "yes", "no"))
    near = overlap.report(pairs).table().loc[("pair", "train"), "near_pairs"]
    assert near == 1  # the first two share 9 + 1 of 9 + 1 + 2 shingles, the third shares 2 of 12


def test_ids_are_listed_up_to_ten_and_all_are_counted() -> None:
    pairs = table_of(*(("train", f"question {number}", "the same", f"unlike {number}") for number in range(30)))
    (row,) = [row for row in overlap.report(pairs).duplicates if (row.kind, row.scope) == ("response", "train")]
    assert row.exact_pairs == 30 * 29 // 2 and row.exact_texts == 30 and row.largest_cluster == 30
    many = table_of(*(("train", f"question {number // 2}", f"a {number}", f"b {number}") for number in range(30)))
    prompts = overlap.report(many).duplicates[0]
    assert prompts.exact_pairs == 15 and len(prompts.exact_ids) == overlap.N_LISTED


words = st.lists(st.sampled_from("abc"), min_size=1, max_size=7).map(" ".join)
splits = st.sampled_from(["train", "validation"])
# Responses get a word of their own side, so that none equals the other of its pair.
rows = st.lists(st.tuples(splits, words, words, words), min_size=1, max_size=8)


@given(rows, st.integers(1, 3), st.sampled_from([0.3, 0.5, 2 / 3, 0.8, 1.0]))
def test_counts_are_those_of_comparing_every_two_texts(
    given_rows: list[tuple[str, str, str, str]], n: int, threshold: float
) -> None:
    pairs = table_of(*((split, prompt, one + " x", two + " y") for split, prompt, one, two in given_rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlap, "SHINGLE_WORDS", n)
        patch.setattr(overlap, "THRESHOLD", threshold)
        table = overlap.report(pairs).table()
    texts = [(row["split"], row[side]) for row in pairs for side in ("response_1", "response_2")]
    for scope in ("train", "validation", ACROSS):
        exact, near, linked = [], [], []
        for (i, (split_i, a)), (j, (split_j, b)) in itertools.combinations(enumerate(texts), 2):
            same = a == b
            if not same and jaccard(shingles(a, n), shingles(b, n)) < threshold:
                continue
            linked += [(i, j)] if scope == ACROSS or split_i == split_j == scope else []
            if (split_i != split_j) if scope == ACROSS else split_i == split_j == scope:
                (exact if same else near).append((i, j))
        seen = [i for i, (split, _) in enumerate(texts) if split == (scope if scope != ACROSS else "validation")]
        expected = [len(seen)]
        for found in (exact, near):
            expected += [len(found), sum(any(i in edge for edge in found) for i in seen)]
        sizes = cluster_sizes(linked, [split for split, _ in texts], scope)
        expected += [sum(size > 1 for size in sizes), max(sizes, default=0)]
        assert table.loc[("response", scope)].tolist() == expected


def cluster_sizes(edges: list[tuple[int, int]], of: list[str], scope: str) -> list[int]:
    """Sizes of the connected sets of texts of the scope; across, of those that have texts of both splits."""
    label = list(range(len(of)))
    for _ in label:
        for i, j in edges:
            label[i] = label[j] = min(label[i], label[j])
    members: dict[int, list[str]] = {}
    for i, split in enumerate(of):
        if scope in (split, ACROSS):
            members.setdefault(label[i], []).append(split)
    return [len(found) for found in members.values() if scope != ACROSS or len(set(found)) == 2]


sets = st.lists(st.sets(st.integers(0, 12), min_size=1), min_size=1, max_size=12)


@given(sets, st.floats(0.05, 1))
def test_similar_sets_are_those_of_comparing_every_two(given_sets: list[set[int]], threshold: float) -> None:
    matrix = csr_matrix([[int(element in row) for element in range(13)] for row in given_sets], dtype=np.int32)
    found = set(zip(*(side.tolist() for side in similar(matrix, threshold)), strict=True))
    every = itertools.combinations(range(len(given_sets)), 2)
    assert found == {(i, j) for i, j in every if jaccard(given_sets[i], given_sets[j]) >= threshold}


@pytest.mark.parametrize("tenths", range(1, 11))
def test_a_similarity_that_equals_the_threshold_counts(tenths: int) -> None:
    matrix = csr_matrix([[1] * 10, [1] * tenths + [0] * (10 - tenths)], dtype=np.int32)
    assert len(similar(matrix, tenths / 10)[0]) == 1


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=12), min_size=1, max_size=4), st.integers(1, 9))
def test_runs_of_words_have_equal_numbers_exactly_where_they_are_equal(texts: list[list[str]], n: int) -> None:
    ids, owner = Shingled.of(map(" ".join, texts)).ngrams(n)
    runs = [(k, tuple(text[i : i + n])) for k, text in enumerate(texts) for i in range(len(text) - n + 1)]
    assert owner.tolist() == [k for k, _ in runs]
    assert (
        len(set(ids.tolist())) == len({run for _, run in runs}) == len(set(zip(ids, (r for _, r in runs), strict=True)))
    )


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("It is 4.", "it  IS\n4", True),
        ("Ｉt ﬁts", "It fits", True),  # full width and a ligature
        ("STRASSE", "straße", True),
        ("4 + 4", "4 - 4", True),  # signs are punctuation
        ("cannot", "can not", False),
        ("!!!", "???", False),  # no word at all: compared as they are
    ],
)
def test_case_white_space_and_punctuation_do_not_count(one: str, other: str, equal: bool) -> None:
    groups = Shingled.of([one, other]).groups
    assert (groups[0] == groups[1]) == equal


def test_what_of_a_benchmark_lies_in_the_pairs() -> None:
    pairs = table_of(("train", "Count to ten!", TEN, "no"), ("validation", "Why?", "because", "it is so"))
    items = items_of(
        ("COUNT TO TEN", [f"{TEN} eleven", "another answer altogether"]),  # 3 of 4 8-grams; too short
        (f"zero zero {TEN[:-8]}", ["because.", f"{TEN} a b c d e f"]),  # 1 of 3 8-grams; exact; 3 of 9
        ("what are these eight words that nobody else has", ["a b c d e f g h", "i j k l m n o p"]),
    )
    report = overlap.report(pairs, items)
    prompts, candidates = report.benchmark
    assert (prompts.texts, prompts.too_short, prompts.exact, prompts.touched, prompts.over_half) == (3, 1, 1, 1, 0)
    assert prompts.mean_share == pytest.approx((1 / 3 + 0) / 2) and prompts.ids == ("item/0",)
    assert (candidates.texts, candidates.too_short, candidates.exact) == (6, 2, 1)
    assert (candidates.touched, candidates.over_half) == (2, 1)
    assert candidates.mean_share == pytest.approx((3 / 4 + 3 / 9 + 0 + 0) / 4)
    assert candidates.ids == ("item/0", "item/1")
    assert report.benchmark_table()["touched"].to_dict() == {"prompt": 1, "candidate": 2}
    assert overlap.summary(report).endswith("benchmark candidates in the pairs: 1 exact, 1 more than half of 6")


def test_a_run_of_words_does_not_reach_from_one_text_into_the_next() -> None:
    first, second = TEN.split()[:5], TEN.split()[5:]
    pairs = table_of(("train", " ".join(first), " ".join(second), "no"))
    assert overlap.report(pairs, items_of((TEN, ["a", "b"]))).benchmark[0].touched == 0


def test_without_items_there_is_no_benchmark_row() -> None:
    report = overlap.report(table_of(("train", "Why?", "so", "no")))
    assert report.benchmark_table().empty and "benchmark" not in overlap.summary(report)


def test_real_responses_repeat_as_often_as_a_counter_says(shared_data: Callable[[str], Path]) -> None:
    pairs = helpsteer2.load(shared_data("helpsteer2"))
    table = overlap.report(pairs).table()
    count: dict[str, Counter[str]] = {"train": Counter(), "validation": Counter()}
    for row in pairs:
        count[row["split"]].update(" ".join(words_of(row[side])) for side in ("response_1", "response_2"))
    for split, texts in count.items():
        assert table.loc[("response", split), "texts"] == texts.total()
        assert table.loc[("response", split), "exact_pairs"] == sum(n * (n - 1) // 2 for n in texts.values())
    shared = count["train"].keys() & count["validation"].keys()
    assert table.loc[("response", ACROSS), "exact_texts"] == sum(count["validation"][text] for text in shared)
