"""Simulated prompts with several responses: every two compared once, and no better or worse than other pairs."""

import itertools
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from datasets import Dataset

from rmlib import sources
from rmlib.annotations import overall_preference
from rmlib.pairs import make_pairs, only_ranked, ranking_view, unranked
from rmlib.records.hashing import prompt_key
from rmlib.sources import simulated

N_PROMPTS = 300


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return list(simulated.generate_ranked(N_PROMPTS, seed=5))


@pytest.fixture(scope="module")
def pairs(rows: list[dict[str, Any]]) -> Dataset:
    return make_pairs(rows, origin="ranked")


def by_prompt(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    groups = defaultdict(list)
    for row in rows:
        groups[prompt_key(row["prompt"])].append(row)
    return groups


def test_each_prompt_has_four_responses_each_two_compared_once_in_one_split(rows: list[dict[str, Any]]) -> None:
    groups = by_prompt(rows)
    assert len(groups) == N_PROMPTS
    for group in groups.values():
        couples = {frozenset((row["response_1"], row["response_2"])) for row in group}
        responses = set().union(*couples)
        assert len(group) == 6 and len(responses) == 4
        assert couples == {frozenset(couple) for couple in itertools.combinations(responses, 2)}
        assert len({row["split"] for row in group}) == 1


def test_labels_are_those_of_the_annotators_votes_and_the_truth_adds_up(rows: list[dict[str, Any]]) -> None:
    for row in rows[:200]:
        assert row["preference"] == overall_preference([entry["preference"] for entry in row["annotations"]])
    for group in list(by_prompt(rows).values())[:50]:
        worth: dict[str, float] = {}  # true utility of each response, from its difference to the first one
        origin = group[0]["response_1"]
        for row in group:
            if origin in (row["response_1"], row["response_2"]):
                sign = 1 if row["response_1"] == origin else -1
                worth[row["response_2"] if sign == 1 else row["response_1"]] = sign * row["truth_preference"]
        for row in group:
            difference = worth.get(row["response_2"], 0.0) - worth.get(row["response_1"], 0.0)
            assert row["truth_preference"] == pytest.approx(difference, abs=1e-3)


def test_a_seed_always_gives_the_same_rows_and_the_first_do_not_depend_on_how_many(rows: list[dict[str, Any]]) -> None:
    assert list(simulated.generate_ranked(10, seed=5)) == rows[:60]
    assert list(simulated.generate_ranked(10, seed=6)) != rows[:60]


def test_strict_orders_are_kept_the_others_counted_and_orders_mostly_follow_the_truth(pairs: Dataset) -> None:
    view, refused = ranking_view(pairs), unranked(pairs)
    assert len(view) + sum(refused.values()) == N_PROMPTS and len(view) >= 10
    assert set(refused) <= {"tied or without a preference", "cyclic"}  # nothing is missing or compared twice
    truth = {
        (prompt_key(row["prompt"]), row["response_1"], row["response_2"]): row["truth_preference"] for row in pairs
    }
    signs = []
    for row in view:
        for better, worse in itertools.combinations(row["responses"], 2):
            key = prompt_key(row["prompt"])
            signs.append(np.sign(truth.get((key, worse, better), -truth.get((key, better, worse), 0.0))))
    assert np.mean(np.array(signs) > 0) > 0.8


def test_ranked_pairs_are_a_source_of_their_own() -> None:
    table, info = sources.load_described("simulated-ranked", n_prompts=12)
    assert len(table) == 72 and info.name == "simulated-ranked" and "four responses" in info.title


def test_the_pairs_of_ranked_prompts_are_all_six_of_each_ranking(pairs: Dataset) -> None:
    kept, view = only_ranked(pairs), ranking_view(pairs)
    assert len(kept) == 6 * len(view) > 0
    assert {prompt_key(prompt) for prompt in kept["prompt"]} == {prompt_key(prompt) for prompt in view["prompt"]}
