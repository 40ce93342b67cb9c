"""Result files of other benchmarks, in the layouts of their own tools."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rmlib import records
from rmlib.alignment import results_files
from rmlib.records.errors import DataError


def write_lines(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return file


def test_mt_bench_is_the_mean_of_both_turns_and_counts_what_could_not_be_parsed(tmp_path: Path) -> None:
    scores = [("ours", 8, 1), ("ours", 6, 2), ("ours", -1, 1), ("base", 5, 1)]
    rows = [{"question_id": 81, "model": m, "score": s, "turn": t, "judgment": "…"} for m, s, t in scores]
    answers = [{"question_id": 81, "model_id": "ours", "choices": [{"index": 0, "turns": ["abcd", "ef"]}]}]
    found = results_files.read_mt_bench(
        write_lines(tmp_path / "gpt-4_single.jsonl", rows), write_lines(tmp_path / "ours.jsonl", answers)
    )
    assert found.loc["ours", ["mt_bench", "mt_bench_unparsed", "mean_length_chars"]].tolist() == [7.0, 1.0, 3.0]
    with pytest.raises(DataError, match=r"gpt.jsonl, row 1, field 'score': the field is missing"):
        results_files.read_mt_bench(write_lines(tmp_path / "gpt.jsonl", [{"model": "ours"}]))


def test_alpacaeval_s_leaderboard(tmp_path: Path) -> None:
    head = ",win_rate,standard_error,mode,avg_length,n_total,length_controlled_winrate,lc_standard_error\n"
    file = tmp_path / "leaderboard.csv"
    file.write_text(head + "ours,40.5,1.7,community,2100,805,38.25,0.9\n")
    row = results_files.read_alpacaeval(file).loc["ours"]
    assert (row["alpacaeval2_lc"], row["alpacaeval2"]) == (38.25, 40.5)
    assert (row["alpacaeval2_lc_se"], row["alpacaeval2_length"]) == (0.9, 2100)
    file.write_text(",win_rate\nours,3\n")
    with pytest.raises(DataError, match="lacks the columns length_controlled_winrate, avg_length"):
        results_files.read_alpacaeval(file)


def test_arena_hard_weighs_clear_verdicts_three_times_and_turns_the_first_game_round(tmp_path: Path) -> None:
    games = [["B>>A", "A>B"], ["A>B", "A=B"], [None, "B>A"]]  # the model is B in the first game, A in the second
    rows = [
        {"question_id": str(n), "model": "ours", "games": [{"score": score} for score in two]}
        for n, two in enumerate(games)
    ]
    found = results_files.read_arena_hard(write_lines(tmp_path / "ours.jsonl", rows)).loc["ours"]
    assert found["arena_hard"] == pytest.approx(100 * (3 + 1 + 0 + 0.5 + 0) / (3 + 1 + 1 + 1 + 1))
    assert found["arena_hard_unparsed"] == 1 and found["arena_hard_low"] <= found["arena_hard"]
    file = tmp_path / "arena_hard_leaderboard.csv"
    file.write_text("model,score,rating_q025,rating_q975,CI,avg_tokens,date\nours,52.6,50.1,55.0,x,800,2025-01-18\n")
    row = results_files.read_arena_hard(file).loc["ours"]
    assert row[["arena_hard", "arena_hard_low", "arena_hard_high"]].tolist() == [52.6, 50.1, 55.0]


def test_result_files_stand_below_the_published_rows_and_are_told_apart(tmp_path: Path) -> None:
    own = pd.DataFrame({"mt_bench": [5.0]}, index=pd.Index(["ours"], name="model"))
    table = results_files.beside_published(own)
    assert table.loc["ours", "origin"] == "result files" and table.loc["REINFORCE", "origin"] == "published (70B)"
    assert len(results_files.beside_published()) == len(records.published("alignment"))
    with pytest.raises(DataError, match="No such file"):
        results_files.read_mt_bench(tmp_path / "none.jsonl")
