"""What a benchmark pays for beside quality: comparisons by hand, rulers with known answers, chance by definition."""

from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset

from rmlib import benchmarks, statistics
from rmlib.benchmarks import bias, rewardbench, rewardbench2, rmbench
from rmlib.benchmarks.bias import chance


def items_of(benchmark: str, *rows: dict) -> Dataset:
    """Items with these ids, subsets and candidates; the first candidate is right unless `correct` says otherwise."""
    full = []
    for number, row in enumerate(rows):
        first = [k == 0 for k in range(len(row["candidates"]))]
        shared = {
            "item_id": f"{row['subset']}/{number}",
            "prompt": [{"role": "user", "content": "?"}],
            "correct": first,
        }
        full.append(shared | {"pairs": None, "benchmark": benchmark, "source": "simulated"} | row)
    return Dataset.from_list(full, features=benchmarks.FEATURES)


TWO = items_of(
    "rewardbench",
    {"subset": "alpacaeval-easy", "candidates": ["four", "**seven**"]},
    {"subset": "mt-bench-easy", "candidates": ["- a\n- b", "c"]},
)


# --- comparisons ------------------------------------------------------------------------------------------------------


def test_a_pair_is_one_comparison_with_its_differences_right_minus_wrong() -> None:
    table = bias.comparisons(TWO)
    assert table["chars_difference"].tolist() == [4 - 9, 7 - 1] and table["markers_difference"].tolist() == [-1, 2]
    scores = {"alpacaeval-easy/0": [1.0, 3.0], "mt-bench-easy/1": [0.5, 0.5]}
    assert bias.margins(TWO, table, scores).tolist() == [-2.0, 0.0]


def test_best_of_four_gives_three_comparisons_and_several_right_answers_each_their_own() -> None:
    items = items_of(
        "rewardbench2",
        {"subset": "Focus", "candidates": ["a", "bb", "ccc", "dddd"]},
        {"subset": "Ties", "candidates": ["a", "bb", "ccc"], "correct": [True, False, True], "item_id": "Ties/tied:1"},
    )
    table = bias.comparisons(items)
    assert table[["item", "right", "wrong"]].to_numpy().tolist() == [
        [0, 0, 1],
        [0, 0, 2],
        [0, 0, 3],
        [1, 0, 1],
        [1, 2, 1],
    ]
    assert table["chars_difference"].tolist() == [-1, -2, -3, -1, 1]


def test_a_record_keeps_one_sign_a_comparison_and_counts_ties() -> None:
    outcome = bias.outcome(TWO, {"alpacaeval-easy/0": [2.0, 1.0], "mt-bench-easy/1": [0.5, 0.5]})
    assert outcome["right"] == "10" and outcome["tied"] == 1
    assert outcome["brier"] == pytest.approx(statistics.brier([1.0, 0.0])) and outcome["calibration"][0]["n"] == 1


# --- length -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def simulated() -> SimpleNamespace:
    items = benchmarks.load("rewardbench")
    table = bias.comparisons(items)
    scores = {name: benchmarks.score(ruler, items, progress=False) for name, ruler in statistics.RULERS.items()}
    right = {name: (bias.margins(items, table, found) > 0).astype(int) for name, found in scores.items()}
    return SimpleNamespace(items=items, table=table, scores=scores, right=right)


def test_comparisons_of_pairs_are_the_margins_of_the_benchmark(simulated: SimpleNamespace) -> None:
    expected = [len(chosen) - len(rejected) for chosen, rejected in simulated.items["candidates"]]
    assert bias.margins(simulated.items, simulated.table, simulated.scores["longer"]).tolist() == expected
    assert simulated.table["chars_difference"].tolist() == expected  # what `longer` rewards


def test_longer_is_right_where_the_difference_is_positive_and_shorter_where_it_is_not(
    simulated: SimpleNamespace,
) -> None:
    for name, (first, last) in {"longer": (0, 1), "shorter": (1, 0)}.items():
        bins = bias.accuracy_by_length(simulated.right[name], simulated.table, seed=0)
        assert (bins["estimate"].iloc[0], bins["estimate"].iloc[-1]) == (first, last)
        assert bins["n"].sum() == 920 and len(bins) == bias.LENGTH_BINS
        assert (bins["shortest"].iloc[1:].to_numpy() > bins["longest"].iloc[:-1].to_numpy()).all()


def test_at_equal_length_a_length_ruler_is_worth_a_coin_and_a_model_blind_to_length_keeps_its_accuracy(
    simulated: SimpleNamespace,
) -> None:
    for name in ("longer", "shorter"):
        assert bias.equal_length(simulated.right[name], simulated.table, seed=0, draws=50).estimate <= 0.5
    blind = (np.random.default_rng(0).random(920) < 0.8).astype(int)
    interval = bias.equal_length(blind, simulated.table, seed=0, draws=200)
    assert interval.low < 0.8 < interval.high and interval.estimate == pytest.approx(blind.mean(), abs=0.02)


def test_items_with_several_comparisons_are_redrawn_whole() -> None:
    items = items_of(
        "rewardbench2", *[{"subset": "Focus", "candidates": ["a", "b" * k, "c", "d"]} for k in range(2, 22)]
    )
    table = bias.comparisons(items)
    right = np.repeat(np.arange(20) % 2, 3)  # an item's three comparisons go together
    bins = bias.accuracy_by_length(right, table, seed=0, bins=1)
    alone = statistics.bootstrap_interval(right, seed=0)
    assert bins["high"][0] - bins["low"][0] > 1.4 * (alone.high - alone.low)  # the square root of 3, nearly


def test_equal_lengths_leave_nothing_to_control_for() -> None:
    items = items_of("rewardbench", *[{"subset": "hep-go", "candidates": ["a", "b"]}] * 12)
    table = bias.comparisons(items)
    assert bias.equal_length([1] * 12, table, seed=0) is None
    assert bias.accuracy_by_length([1] * 12, table, seed=0)["n"].tolist() == [12]


# --- chance -----------------------------------------------------------------------------------------------------------


def test_chance_is_a_half_of_pairs_and_a_quarter_of_best_of_four() -> None:
    assert set(chance(rewardbench.BENCHMARK, TWO).values()) == {0.5}
    items = items_of("rewardbench2", {"subset": "Focus", "candidates": ["a", "b", "c", "d"]})
    assert chance(rewardbench2.BENCHMARK, items)["Focus"] == pytest.approx(0.25)


def test_chance_is_a_half_in_every_cell_of_rm_bench() -> None:
    items = items_of("rmbench", {"subset": "chat", "candidates": list("abcdef"), "correct": [True] * 3 + [False] * 3})
    found = chance(rmbench.BENCHMARK, items)
    assert {name: round(found[name], 9) for name in ("chat", "easy", "normal", "hard")} == dict.fromkeys(
        ("chat", "easy", "normal", "hard"), 0.5
    )


def test_chance_of_tied_answers_is_that_of_many_random_scorings() -> None:
    rows = []
    for number in range(40):
        shared = {"subset": "Ties", "candidates": list("abcd")}
        rows.append(shared | {"item_id": f"Ties/ref:{number}"})
        rows.append(shared | {"item_id": f"Ties/tied:{number}", "correct": [True, True, False, False]})
    found = chance(rewardbench2.BENCHMARK, items_of("rewardbench2", *rows))["Ties"]
    # Accurate: 1/4 for one right of four, 1/6 for two of four; both preference terms need the latter.
    assert 0.3 * (1 / 4 + 1 / 6) - 0.02 < found < 0.3 * (1 / 4 + 1 / 6) + 0.2 / 6 * 2 + 0.02
