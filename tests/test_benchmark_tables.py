"""Tables of models on a benchmark, from records whose scores can be read off."""

from pathlib import Path

import numpy as np
import pytest
import written
from scipy.stats import ttest_rel

from rmlib import records
from rmlib.figures import benchmark_tables
from rmlib.records import RecordError

N = written.ITEMS_PER_SUBSET * len(written.SUBSETS)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written.write_comparison(tmp_path / "simulated-embedded.jsonl")


def test_the_runs_are_those_of_the_items_scored_last_with_rulers_at_the_end(file: Path) -> None:
    assert benchmark_tables.benchmark_table(file)["model"].tolist() == ["bt_scaled"] * 2 + ["longer"] * 2
    written.write_benchmark(file, "longer", 0.45, items="official", seed=None)
    written.write_benchmark(file, "bt", 0.6, items="official")
    written.write_benchmark(file, "bt", 0.8, items="official", preset="finetuned")
    table = benchmark_tables.benchmark_table(file).query("section == 'Score'").set_index("model")
    assert table["estimate"].to_dict() == {"bt": 0.6, "bt_finetuned": 0.8, "longer": 0.45}
    assert table.loc["bt", ["low", "high"]].tolist() == pytest.approx([0.5, 0.7])


def test_models_scored_for_an_earlier_comparison_are_refused_by_name_of_what_to_run(file: Path) -> None:
    asked = {"model": "bt", "items": "official", "source": written.SOURCE, "preset": "embedded"}
    records.append(file, kind="rewardbench", asked=asked | {"comparison": "earlier"}, outcome={"n": 1}, seed=0)
    records.append(file, kind="comparison", asked={"beside": False}, outcome={"comparison": "newer"})
    with pytest.raises(RecordError, match=r"rewardbench are of an earlier comparison; run notebook 04"):
        benchmark_tables.benchmark_table(file)


def test_the_leaderboard_ranks_by_the_official_score(file: Path) -> None:
    table = benchmark_tables.leaderboard_table(file)
    assert table["estimate"].to_dict() == pytest.approx({"bt_scaled": 0.7, "longer": 0.4})
    assert table["rank"].to_dict() == {"bt_scaled": 1, "longer": 2} and set(table["n"]) == {N}
    assert table.loc["bt_scaled", "title"] == "Scaled BT"


def test_a_model_with_the_same_answers_shares_the_rank_and_seeds_are_averaged(file: Path) -> None:
    written.write_benchmark(file, "bt", 0.7)
    written.write_benchmark(file, "bt", 0.7, seed=1)
    written.write_benchmark(file, "bt_margin", 0.6)
    written.write_benchmark(file, "bt_margin", 0.8, seed=1)
    table = benchmark_tables.leaderboard_table(file)
    assert table.loc[["bt", "bt_scaled"], "rank"].tolist() == [1, 1]
    # Better than "longer" are the two that do not differ by seed; two seeds .2 apart show nothing for the third.
    assert table.loc["longer", "rank"] == 3
    assert table["estimate"]["bt_margin"] == pytest.approx(0.7) and table["seeds"]["bt_margin"] == 2
    assert table["high"]["bt_margin"] > table["high"]["bt"] + 0.05  # seeds that differ widen the interval


def test_every_two_models_are_compared_on_the_same_answers(file: Path) -> None:
    row = benchmark_tables.pairwise_table(file).loc["bt_scaled"]
    right = [np.array(credits) for credits in credits_of(file)]
    assert row["against"] == "longer" and row["estimate"] == pytest.approx(0.3) and row["clear"]
    assert row["p"] == pytest.approx(ttest_rel(*right).pvalue, rel=0.5) and row["low"] > 0


def credits_of(file: Path) -> list[list[int]]:
    return [credits["columns"]["credit"] for credits in benchmark_tables.benchmark_runs(file)["outcome.credits"]]


def test_the_bias_table_sets_a_score_beside_what_length_explains(file: Path) -> None:
    table = benchmark_tables.bias_table(file)
    assert table.index.tolist() == ["bt_scaled", "longer", "chance"]
    assert table.loc["chance", "score"] == 0.5 and table.loc["bt_scaled", "comparisons"] == pytest.approx(0.7)
    # Longer responses are chosen in the first ten of twenty items: of its eight right answers all are there, so at
    # equal length nothing but a coin is left.
    assert table.loc["longer", "at equal length"] < 0.5 < table.loc["bt_scaled", "at equal length"]
    assert table["tied"].tolist()[:2] == [pytest.approx(46 / N)] * 2
    assert table.loc["bt_scaled", "ece"] == 0.1 and np.isnan(table.loc["longer", "ece"])


def test_accuracy_by_length_is_that_of_the_comparisons_in_the_bin(file: Path) -> None:
    table = benchmark_tables.length_bias_table(file).loc["bt_scaled"]
    assert table["n"].sum() == N and table["mean"].is_monotonic_increasing
    assert (table["estimate"] * table["n"]).sum() == pytest.approx(0.7 * N)
    assert table["estimate"].iloc[-1] == 1 and table["estimate"].iloc[0] < 1


def test_every_subset_has_its_score_and_wilson_s_interval(file: Path) -> None:
    table = benchmark_tables.subsets_table(file).loc["bt_scaled"]
    assert table["subset"].tolist() == list(written.SUBSETS) and set(table["estimate"]) == {0.7}
    assert ((table["low"] < 0.7) & (table["high"] > 0.7)).all() and set(table["n"]) == {written.ITEMS_PER_SUBSET}


def test_records_of_an_earlier_version_say_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    section = {"n": 1, "estimate": 0.5, "low": 0, "high": 1}
    outcome = {"label": "x", "n": 2, "ties": 0, "sections": {"Score": section}}
    asked = {"model": "bt", "items": "i", "source": written.SOURCE, "preset": "p"}
    records.append(file, kind="rewardbench", asked=asked, outcome=outcome, seed=0)
    with pytest.raises(RecordError, match="rewardbench without credits; score the models again with notebook 04"):
        benchmark_tables.leaderboard_table(file)
    with pytest.raises(RecordError, match="what the items of rewardbench are like; score the models again"):
        benchmark_tables.bias_table(file)


def test_answers_to_other_comparisons_than_those_of_the_items_are_refused(file: Path) -> None:
    items = records.read(file, kind="benchmark_items").iloc[0]
    short = {column: values[:-1] for column, values in items["outcome.comparisons"].items()}
    asked = {"benchmark": "rewardbench", "items": "simulated", "n": N}
    records.append(file, kind="benchmark_items", asked=asked, outcome={"chance": {}, "comparisons": short})
    with pytest.raises(RecordError, match=f"bt_scaled was scored on {N} comparisons of {N - 1}"):
        benchmark_tables.length_bias_table(file)
