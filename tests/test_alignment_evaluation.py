"""Best of n, win rates, result files of others, curves of gold against proxy: by hand and by simulation."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rmlib import records
from rmlib.alignment import best_of_n, results_files, win_rates
from rmlib.alignment.policies import Samples
from rmlib.alignment.rewards import AlignmentError
from rmlib.benchmarks.judges import Verdict
from rmlib.figures import alignment_tables, summaries
from rmlib.records.errors import DataError
from rmlib.sources import simulated
from rmlib.sources.simulated.gold import Gold

PROMPTS = [[{"role": "user", "content": text}] for text in ("one", "two")]


def samples_of(texts: Sequence[str], ended: Sequence[bool]) -> Samples:
    n = len(texts) // 2
    return Samples(PROMPTS, n, [np.array([4])] * 2, [np.array([3, 2])] * len(texts), list(texts), np.array(ended))


# --- gold ---


def test_the_truth_of_the_pairs_is_found_again_from_prompt_and_text_alone() -> None:
    pairs = simulated.load().select(range(300))
    for side in (1, 2):
        expected = [truth["helpfulness"] for truth in pairs[f"truth_{side}"][:]]
        np.testing.assert_allclose(Gold().score(pairs["prompt"][:], pairs[f"response_{side}"][:]), expected)


def test_an_empty_answer_and_one_without_a_word_have_a_truth_of_almost_nothing() -> None:
    prompt = simulated.load()[0]["prompt"]
    assert (Gold().score([prompt] * 3, ["", " ", "** -"]) < 0.5).all()
    assert Gold("verbosity").score([prompt], [""])[0] == 0.0


def test_a_prompt_without_a_known_truth_is_refused() -> None:
    with pytest.raises(DataError, match=r"1 of 1 prompts are no simulated ones"):
        Gold().score([PROMPTS[0]], ["an answer"])


# --- best of n ---


def test_the_best_of_n_is_chosen_among_the_ended_samples() -> None:
    samples = samples_of(["a", "b", "c", "d", "e", "f"], [True, True, False, False, False, False])
    reward = np.array([[1.0, 2.0, 9.0], [1.0, 3.0, 2.0]])
    assert best_of_n.best_of_n(samples, reward) == ["b", "e"]


def test_the_curve_of_best_of_n_by_hand() -> None:
    samples = samples_of(["a", "b", "c", "d"] * 2, [True] * 8)
    proxy, gold = np.array([[0.0, 1.0, 2.0, 3.0]] * 2), np.array([[0.0, 1.0, 5.0, 2.0], [4.0, 4.0, 4.0, 0.0]])
    rows = best_of_n.curve(samples, proxy, {"gold": gold})
    assert [row["n"] for row in rows] == [1, 2, 4]
    # Best of two: rank 2, 3 and 4 win 1, 2 and 3 of the 6 pairs.
    np.testing.assert_allclose(rows[1]["gold"], [(1 + 2 * 5 + 3 * 2) / 6, (4 + 2 * 4) / 6], atol=1e-4)
    assert rows[2]["gold"] == [2.0, 0.0] and rows[2]["divergence"] == pytest.approx(np.log(4) - 0.75)


def test_equal_texts_of_a_prompt_are_scored_once_and_a_reward_that_is_no_number_is_refused() -> None:
    samples = samples_of(["a", "a", "b", "a"], [True] * 4)
    seen: list[str] = []

    class Length:
        def score(self, prompts: Sequence[Any], responses: Sequence[str]) -> np.ndarray:
            seen.extend(responses)
            return np.array([float(ord(text)) for text in responses])

    np.testing.assert_array_equal(best_of_n.distinct_scores(Length(), samples), [[97, 97], [98, 97]])
    assert seen == ["a", "b", "a"]
    with pytest.raises(AlignmentError, match="2 ended samples have a reward"):
        best_of_n.curve(samples, np.array([[1.0, np.nan], [np.inf, 0.0]]), {})


# --- win rates ---


def test_a_win_rate_counts_ties_half_and_shows_the_lengths() -> None:
    found = win_rates.win_rate([1, 1, 0, 0.5], [30, 20, 10, 40], [10, 10, 10, 10])
    assert found.rate.estimate == 0.625 and found.ties == 0.25
    assert (found.length, found.length_before) == (25.0, 10.0)
    assert found.row()["win rate"] == 0.625 and found.row()["n"] == 4


def test_at_equal_length_the_longer_one_has_no_merit_and_a_better_one_keeps_its_own() -> None:
    rng = np.random.default_rng(0)
    difference = rng.normal(40, 60, size=1500)
    before = np.full(1500, 500.0)
    covariate = np.tanh(difference / np.sqrt(np.mean(difference**2)))
    for merit in (0.0, 1.0):  # the law that AlpacaEval 2 takes to be true
        wins = (rng.random(1500) < 1 / (1 + np.exp(-(merit + 2 * covariate)))).astype(float)
        found = win_rates.win_rate(wins, before + difference, before)
        assert found.equal_length is not None
        assert found.equal_length.estimate == pytest.approx(1 / (1 + np.exp(-merit)), abs=0.06)
        assert found.rate.estimate > found.equal_length.estimate + 0.03


def test_answers_of_equal_length_leave_nothing_to_control_for() -> None:
    assert win_rates.win_rate([1, 0], [5, 5], [5, 5]).equal_length is None
    with pytest.raises(ValueError, match="credits must be"):
        win_rates.win_rate([0.3], [1], [1])
    with pytest.raises(ValueError, match="lengths of shape"):
        win_rates.win_rate([1.0, 0.0], [1], [1])


def test_answers_to_one_prompt_are_redrawn_together() -> None:
    credit, length = np.repeat([1.0, 0.0] * 20, 25), np.arange(1000) % 7
    alone = win_rates.win_rate(credit, length, np.zeros(1000)).rate
    together = win_rates.win_rate(credit, length, np.zeros(1000), groups=np.repeat(np.arange(40), 25)).rate
    assert together.high - together.low > 3 * (alone.high - alone.low)


def test_credits_by_scores() -> None:
    np.testing.assert_array_equal(win_rates.credits([2, 1, 1], [1, 2, 1]), [1, 0, 0.5])
    with pytest.raises(ValueError, match="finite"):
        win_rates.credits([np.nan], [1])


class Judge:
    """Knows its favourites, or always takes the first, or never says."""

    name = "double"

    def compare(self, prompt: Any, responses: Sequence[str]) -> Verdict:
        if "silent" in responses[0] + responses[1]:
            return Verdict(None, "unparsable")
        if "same" in responses[0] + responses[1]:
            return Verdict(0)
        return Verdict(int("good" in responses[1]))

    def rate(self, prompt: Any, response: str) -> Verdict:
        raise NotImplementedError

    def identity(self) -> None:
        return None


def test_a_judge_sees_both_orders_and_one_that_takes_the_first_gives_half() -> None:
    new, before = ["good", "bad", "same", "silent"], ["bad", "good", "other", "bad"]
    found = win_rates.judge_credits(Judge(), [PROMPTS[0]] * 4, new, before, progress=False)
    np.testing.assert_array_equal(found.credits, [1, 0, 0.5, 0.5])
    assert found.problems == {"unparsable": 1}


# --- result files ---


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
    with pytest.raises(DataError, match=r"gpt.jsonl, row 1: lacks score, turn"):
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
    with pytest.raises(DataError, match="there is no such file"):
        results_files.read_mt_bench(tmp_path / "none.jsonl")


# --- curves ---


def gains(*of_points: float, n: int = 200, noise: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.array(of_points)[None, :, None] + noise * rng.normal(size=(3, len(of_points), n))


def test_the_peak_is_chosen_on_one_half_of_the_prompts_and_read_on_the_other() -> None:
    gain = np.zeros((1, 3, 4))
    gain[0, 1, [0, 2]], gain[0, 2, [1, 3]] = 5.0, 3.0  # the even prompts peak at 1, the odd ones at 2
    at_peak, lost = alignment_tables.crossed(gain)
    # Even prompts are read where odd ones peak (the end, 0), odd ones where even ones peak (0).
    np.testing.assert_array_equal(at_peak, np.zeros((1, 4)))
    np.testing.assert_array_equal(lost, [[0.0, -3.0, 0.0, -3.0]])


def test_noise_alone_shows_neither_gain_nor_loss() -> None:
    at_peak, lost = alignment_tables.crossed(gains(0, 0, 0, 0, 0, noise=1.0))
    assert summaries.interval_of(at_peak).low < 0 < summaries.interval_of(at_peak).high
    assert summaries.interval_of(lost).low < 0 < summaries.interval_of(lost).high


def write_runs(file: Path, gold: np.ndarray, divergence: Sequence[float]) -> None:
    records.append(file, kind="alignment_comparison", asked={}, outcome={"comparison": "new"})
    for seed, points in enumerate(gold):
        rows = [
            {"step": 10 * point, "divergence": kl, "gold": values.round(4).tolist(), "proxy": 1.0 + kl, "proxy_sd": 2.0}
            | {"length": 50.0, "n samples": 4, "n not ended": 1, "n empty": 0}
            for point, (values, kl) in enumerate(zip(points, divergence, strict=True))
        ]
        asked = {"method": "reinforce", "arm": "bt", "comparison": "new", "source": {"title": "made up"}}
        records.append(file, kind="alignment", asked=asked, outcome={"rows": rows}, seed=seed)
    old = {"method": "reinforce", "arm": "bt", "comparison": "old", "source": {"title": "made up"}}
    records.append(file, kind="alignment", asked=old, outcome={"rows": []}, seed=0)


def test_records_of_a_reward_that_is_followed_too_far_say_where_it_ended(tmp_path: Path) -> None:
    file = tmp_path / "made_alignment.jsonl"
    write_runs(file, gains(1.0, 1.4, 1.6, 1.2, noise=0.2), [0.0, 1.0, 4.0, 9.0])
    row = alignment_tables.over_optimisation(file).iloc[0]
    assert row["peak divergence"] == row["peak low"] == row["peak high"] == 4.0
    assert row["gain"] == pytest.approx(0.6, abs=0.05) and row["loss"] == pytest.approx(0.4, abs=0.05)
    assert row["over-optimised"]
    table = alignment_tables.curve_table(file)
    assert table["proxy"].tolist() == [0.0, 0.5, 2.0, 4.5] and (table["not_ended"] == 0.25).all()


def test_runs_that_no_truth_measured_are_refused(tmp_path: Path) -> None:
    with pytest.raises(records.RecordError, match="only simulated prompts have one"):
        alignment_tables.gold_gain(pd.DataFrame({"rows": [[{"proxy": 1.0}]]}))


@pytest.mark.parametrize("best", [True, False])
def test_the_published_form_is_found_again_where_it_is_true(best: bool) -> None:
    divergence = np.array([0.0, 0.1, 0.5, 1.0, 3.0, 8.0])
    gain = alignment_tables.scaling_curve(divergence, 1.3, 0.4, best_of_n=best)
    assert alignment_tables.scaling_law(divergence, gain, best_of_n=best) == pytest.approx((1.3, 0.4), rel=1e-4)
    assert alignment_tables.scaling_curve(np.array([4.0]), 1.0, 0.25, best_of_n=True)[0] == pytest.approx(2 * (1 - 0.5))
    with pytest.raises(ValueError, match="too few"):
        alignment_tables.scaling_law(divergence[:3], gain[:3], best_of_n=best)
