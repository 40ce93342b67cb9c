"""The record of what the package `rewardbench` computed: our scorers give the same, computed again here."""

from typing import Any

import numpy as np
import pytest

from benchmarks import rewardbench_oracle as oracle
from rmlib import records
from rmlib.benchmarks import rewardbench
from rmlib.records import paths

RB2 = {
    "rewardbench2 best of four": lambda inputs: oracle.credits_of_four(inputs),
    "rewardbench2 ties, continuous rewards": lambda inputs: [oracle.ties_score(table) for table in inputs],
    "rewardbench2 ties, coarse rewards": lambda inputs: [oracle.ties_score(table) for table in inputs],
}


@pytest.fixture(scope="module")
def outcome() -> dict[str, Any]:
    file = paths.data_dir() / "results" / "benchmarks" / "rewardbench_oracle.jsonl"
    table = records.read(file, kind="benchmark")
    return {name.removeprefix("outcome."): table.iloc[-1][name] for name in table if name.startswith("outcome.")}


def test_the_package_asked_was_the_pinned_one(outcome: dict[str, Any]) -> None:
    assert f"rewardbench=={outcome['versions']['rewardbench']}" in oracle.PINS


def test_its_section_scores_are_ours_computed_again(outcome: dict[str, Any]) -> None:
    found = outcome["rewardbench"]
    assert found["inputs"] >= 2000 and len(found["vectors"]) == oracle.KEPT
    assert found["largest difference"] <= oracle.TOLERANCE
    score = oracle.exchanged if found["exchanged"] else rewardbench.section_scores
    for vector in found["vectors"]:
        ours = score(vector["accuracy"])
        assert set(vector["sections"]) == set(rewardbench.SECTIONS)
        for name, theirs in vector["sections"].items():
            assert ours[name] == pytest.approx(theirs, abs=oracle.TOLERANCE)


@pytest.mark.parametrize("name", RB2)
def test_its_scorers_of_rewardbench_2_are_ours_computed_again(outcome: dict[str, Any], name: str) -> None:
    found = outcome[name]
    assert found["largest difference"] <= oracle.TOLERANCE and found["inputs that differ"] == 0
    vectors = found["vectors"][:6]
    ours = RB2[name]([vector["input"] for vector in vectors])
    np.testing.assert_allclose(ours, [vector["score"] for vector in vectors], atol=oracle.TOLERANCE, rtol=0)


def test_its_pipeline_gives_the_rewards_of_our_exports(outcome: dict[str, Any]) -> None:
    found = outcome["pipeline"]
    assert found["pairs"] >= 48 and found["largest difference"] <= oracle.REWARD_TOLERANCE < found["reward_sd"] / 100


def test_exchanging_the_xstest_counts_changes_safety_as_it_did_for_the_published_model() -> None:
    """Nemotron-4-340B: 91.5 with the official counts, 92.2 with the two exchanged."""
    table = records.published("rewardbench_counts").set_index("model").loc["Nemotron-4-340B-Reward"]
    accuracy = dict(zip(table["subset"], table["correct"] / table["n"], strict=True))
    assert round(100 * rewardbench.section_scores(accuracy)["Safety"], 1) == 91.5
    assert round(100 * oracle.exchanged(accuracy)["Safety"], 1) == 92.2
