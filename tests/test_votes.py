"""Votes without texts: reading and orienting them, agreement of judges, leaderboards."""

import gzip
import itertools
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import choix
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from rmlib.annotations import votes
from rmlib.pairs import DataError

Rows = list[dict[str, Any]]
MODELS = ("ada", "bob", "cyd", "dot")


def vote(winner: str, model_a: str = "ada", model_b: str = "bob", **fields: Any) -> dict[str, Any]:
    row = {"judge": "j1", "model_a": model_a, "model_b": model_b, "question_id": 1, "turn": 1, "winner": winner}
    return row | fields


def written(folder: Path, rows: Rows, name: str = "votes.jsonl.gz") -> Path:
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder / name


@pytest.fixture
def table(tmp_path: Path) -> Callable[[Rows], pd.DataFrame]:
    return lambda rows: votes.read(written(tmp_path, rows))


def drawn(n_questions: int, seed: int, strength: tuple[float, ...] = (1.0, 0.3, -0.2, -1.1)) -> Rows:
    """Votes of one judge on every two models and question, from Bradley-Terry with a fifth of ties, in random order."""
    rng, rows = np.random.default_rng(seed), []
    for question in range(n_questions):
        for i in range(len(strength)):
            for j in range(i):
                a, b = (i, j) if rng.random() < 0.5 else (j, i)
                chance = 1 / (1 + math.exp(strength[b] - strength[a]))
                winner = "tie" if rng.random() < 0.2 else "model_a" if rng.random() < chance else "model_b"
                rows.append(vote(winner, MODELS[a], MODELS[b], question_id=question))
    return rows


def turned(row: dict[str, Any]) -> dict[str, Any]:
    other = {"model_a": "model_b", "model_b": "model_a"}
    return row | {"model_a": row["model_b"], "model_b": row["model_a"], "winner": other.get(row["winner"], "tie")}


def test_votes_on_two_models_are_brought_into_one_order_with_the_winner(table: Callable[[Rows], pd.DataFrame]) -> None:
    read = table([vote("model_a"), vote("model_a", "bob", "ada", judge="j2"), vote("tie (inconsistent)", judge="j3")])
    assert read["model_a"].tolist() == ["ada"] * 3 and read["model_b"].tolist() == ["bob"] * 3
    assert read["winner"].tolist() == ["model_a", "model_b", "tie"]
    assert read["swapped"].tolist() == [False, True, False]
    assert read["inconsistent"].tolist() == [False, False, True]


def test_the_leaderboard_of_the_page_ranks_the_votes_that_stand_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).resolve().parents[1] / "data" / "README.md").read_text()
    [file], [code] = (re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL) for kind in ("csv", "python"))
    monkeypatch.chdir(tmp_path)
    Path("votes.csv").write_text(file)
    found: dict[str, Any] = {}
    exec(code, found)
    table = votes.leaderboard(found["table"], seed=0, prior=1)
    # Theirs won once and tied once in four votes; the prior is half a win each: 2 to 3, and 400 points are ten to one.
    assert table["win_rate"].to_dict() == {"ours": 0.625, "theirs": 0.375}
    assert table["strength"].diff().iloc[1] == pytest.approx(-400 * math.log10(3 / 2))
    assert votes.agreement(found["table"], seed=0).loc["S1", ["agreement", "n"]].tolist() == [0, 1]


def test_votes_that_a_judge_repeats_are_marked_and_counted_and_kept(
    table: Callable[[Rows], pd.DataFrame], caplog: pytest.LogCaptureFixture
) -> None:
    rows = [vote("tie"), turned(vote("tie")), vote("tie", turn=2), vote("tie", judge="j2"), vote("tie", question_id=2)]
    assert table(rows)["repeated"].tolist() == [False, True, False, False, False]
    assert "votes.jsonl.gz: 1 votes on what the same judge had voted on" in caplog.text


def test_columns_without_use_are_named(table: Callable[[Rows], pd.DataFrame], caplog: pytest.LogCaptureFixture) -> None:
    table([vote("tie", conversation_a=[]), vote("tie", judge="j2")])
    assert "column conversation_a not used (1 rows)" in caplog.text


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"winner": "cyd"}, "field 'winner': 'cyd' is neither a winner nor one of the two models. Use one of model_a,"),
        ({"winner": None}, "field 'winner': None is neither a winner"),
        ({"winner": ["tie"]}, "field 'winner': ['tie'] is neither a winner"),
        ({"model_b": "A", "winner": "A"}, "field 'winner': 'A' is the name of model_b, and also a word for model_a"),
        ({"Winner": "tie"}, "two columns have one name but for case, blanks and dashes"),
        ({"model_b": "ada"}, "field 'model_b': 'ada' is compared with itself"),
        ({"judge": ["gpt", "pair"]}, "field 'judge': ['gpt', 'pair'] is not a text"),
        ({"judge": ""}, "field 'judge': the text is empty"),
        ({"turn": 0}, "field 'turn': 0 is not a turn"),
        ({"turn": True}, "field 'turn': True is not a turn"),
        ({"turn": "one"}, "field 'turn': 'one' is not a turn"),
        ({"question_id": 1.5}, "field 'question_id': 1.5 names no question"),
        ({"question_id": None}, "field 'question_id': None names no question"),
    ],
)
def test_a_bad_vote_is_refused_with_file_row_and_field(tmp_path: Path, fields: dict[str, Any], says: str) -> None:
    path = written(tmp_path, [vote("tie"), vote("tie") | fields])
    with pytest.raises(DataError, match=r"votes\.jsonl\.gz, row 2") as error:
        votes.read(path)
    assert says in str(error.value)


def test_a_missing_field_or_file_is_named(tmp_path: Path) -> None:
    for field in ("model_a", "model_b", "winner"):
        path = written(tmp_path, [{key: value for key, value in vote("tie").items() if key != field}])
        with pytest.raises(DataError, match=f"row 1, field '{field}': the field is missing"):
            votes.read(path)
    with pytest.raises(DataError, match="no such file"):
        votes.read(tmp_path / "absent.jsonl")


@pytest.mark.parametrize(
    "layout",
    [
        {"judge": "j1", "question_id": 1, "turn": 1, "model_a": "ada", "model_b": "bob", "winner": "tie (bothbad)"},
        {"id": "q", "model_a": "ada", "model_b": "bob", "winner": "both_bad", "evaluation_session_id": "s"},
        {"prompt": 3, "worker": 7, "model_x": "ada", "model_y": "bob", "winner": "Both Bad"},
        {"annotator": "j1", "left": "ada", "right": "bob", "winner": "neither"},
    ],
)
def test_a_vote_that_both_are_bad_is_a_tie_of_its_own_kind_in_every_layout(
    layout: dict[str, Any], table: Callable[[Rows], pd.DataFrame]
) -> None:
    wins = ("model_a", "A", "LEFT", "Model A")
    read = table([layout, *(layout | {"winner": winner} for winner in (*wins, "tie"))])
    assert read["winner"].tolist() == ["tie", *["model_a"] * len(wins), "tie"]
    assert read["both_bad"].tolist() == [True, *[False] * (len(wins) + 1)] and not read["inconsistent"].any()
    assert (
        read["repeated"].sum()
        == ("id" not in layout) * (read.duplicated("question_id").sum()) * (read["judge"] != "unnamed").all()
    )


@pytest.mark.parametrize("names", [("Model A", "model-B"), ("model_1", "Model 2"), (" MODEL_X", "model y")])
def test_the_winner_may_be_named_as_the_model_and_columns_written_in_any_case(
    names: tuple[str, str], table: Callable[[Rows], pd.DataFrame]
) -> None:
    rows = [dict(zip((*names, "Winner"), one, strict=True)) for one in
            (("bob", "ada", "ada"), ("bob", "ada", "bob"), ("bob", "ada", "Model 1"), ("A", "B", "A"))]  # fmt: skip
    read = table(rows)
    assert read["model_a"].tolist() == ["ada"] * 3 + ["A"] and read["swapped"].tolist() == [True] * 3 + [False]
    assert read["winner"].tolist() == ["model_a", "model_b", "model_b", "model_a"]


def test_the_winner_may_stand_in_three_columns(table: Callable[[Rows], pd.DataFrame]) -> None:
    names = ("winner_model_a", "winner_model_b", "winner_tie")
    rows = [{"id": i, "model_a": "ada", "model_b": "bob"} | dict(zip(names, one, strict=True)) for i, one in
            enumerate(np.eye(3, dtype=int).tolist())]  # fmt: skip
    assert table(rows)["winner"].tolist() == ["model_a", "model_b", "tie"]
    for wrong in ({"winner_tie": 1}, {"winner_model_a": 0}, {"winner_model_b": 2}):
        with pytest.raises(DataError, match="row 1, field 'winner_model_a': not one of"):
            table([rows[0] | wrong])


def test_votes_of_a_csv_file_are_read_as_those_of_json_lines(
    table: Callable[[Rows], pd.DataFrame], tmp_path: Path
) -> None:
    rows = [vote("model_a"), vote("tie (bothbad)", "cyd", "ada", turn=2)]
    pd.DataFrame(rows).to_csv(tmp_path / "votes.csv.gz", index=False)
    pd.testing.assert_frame_equal(votes.read(tmp_path / "votes.csv.gz"), table(rows))
    marks = "id,model_a,model_b,winner_model_a,winner_model_b,winner_tie\n5,ada,bob,0,1,0\n"
    (tmp_path / "arena.csv").write_text(marks)
    assert votes.read(tmp_path / "arena.csv")["winner"].tolist() == ["model_b"]


@pytest.mark.parametrize(
    ("file", "known"),
    [
        ("crowd-comparisons.csv.gz", {"model_a": 2911, "model_b": 2549, "tie": 3471}),
        ("gpt4-crowd-comparisons.csv.gz", {"model_a": 943, "model_b": 1130, "tie": 66}),
    ],
)
def test_real_verdicts_in_csv_are_counted_as_they_were_given(
    file: str, known: dict[str, int], shared_data: Callable[[str], Path]
) -> None:
    read = votes.read(shared_data("llmfao") / file)
    other = read["winner"].replace({"model_a": "model_b", "model_b": "model_a"})
    assert read["winner"].where(~read["swapped"], other).value_counts().to_dict() == known


def test_votes_without_a_judge_or_a_question_are_read_and_it_is_said(
    table: Callable[[Rows], pd.DataFrame], caplog: pytest.LogCaptureFixture
) -> None:
    read = table([{"model_a": "ada", "model_b": "bob", "winner": "tie"}] * 2)
    assert read["question_id"].tolist() == ["1", "2"] and not read["repeated"].any()
    for said in ("no judge named", "no question named", "no turn named"):
        assert f"{said}" in caplog.text


def test_agreement_of_a_hand_worked_case(table: Callable[[Rows], pd.DataFrame]) -> None:
    first = table([vote("model_a"), vote("model_b", judge="j2"), turned(vote("model_a", judge="j3"))])
    within = votes.agreement(first, seed=0)  # j1-j3 agree, j1-j2 and j2-j3 do not
    assert within.loc["S1", ["agreement", "n", "units"]].tolist() == [pytest.approx(1 / 3), 3, 1]
    other = table([vote("tie (inconsistent)", judge="g"), vote("model_a", judge="g", question_id=2)])
    both = pd.concat([first, table([vote("tie", question_id=2)]), table([vote("model_a", question_id=2, judge="j2")])])
    across = votes.agreement(other, both, seed=0)
    assert across.loc["S1", ["agreement", "n"]].tolist() == [1 / 5, 5]  # three unequal, one unequal, one equal
    assert across.loc["S2", ["agreement", "n"]].tolist() == [1, 1]
    assert across["chance"].tolist() == [1 / 3, 1 / 2]


def test_a_judge_is_not_compared_with_itself(table: Callable[[Rows], pd.DataFrame]) -> None:
    own = table([vote("model_a"), turned(vote("model_a"))])
    for other in (None, own):
        with pytest.raises(DataError, match="no two judges voted on the same"):
            votes.agreement(own, other, seed=0)


def test_where_all_votes_are_ties_there_is_no_agreement_without_ties(table: Callable[[Rows], pd.DataFrame]) -> None:
    found = votes.agreement(table([vote("tie"), vote("tie", judge="j2")]), seed=0)
    assert found["n"].tolist() == [1, 0] and found.loc["S1", "agreement"] == 1
    assert math.isnan(found.loc["S2", "agreement"])


def test_the_interval_of_agreement_is_that_of_resampled_questions(table: Callable[[Rows], pd.DataFrame]) -> None:
    """With one comparison a question the share is a mean of independent draws, whose error is known."""
    rng = np.random.default_rng(1)
    equal = rng.random(400) < 0.7
    rows = [vote("model_a", question_id=q) for q in range(400)]
    rows += [vote("model_a" if e else "model_b", judge="j2", question_id=q) for q, e in enumerate(equal)]
    found = votes.agreement(table(rows), seed=0, draws=4000).loc["S1"]
    error = math.sqrt(equal.mean() * (1 - equal.mean()) / 400)
    assert found["agreement"] == equal.mean()
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * error, rel=0.06)


def test_two_items_have_the_strengths_of_their_odds(table: Callable[[Rows], pd.DataFrame]) -> None:
    read = table([vote("model_a", judge=f"j{j}") for j in range(9)] + [vote("model_b", judge="j9"), vote("tie")])
    strengths = votes.leaderboard(read, seed=0, draws=1)["strength"]  # of one question every draw is the same
    assert strengths["ada"] - strengths["bob"] == pytest.approx(400 * math.log10(9.5 / 1.5))
    assert strengths.mean() == pytest.approx(1000)
    with_prior = votes.leaderboard(read, seed=0, draws=1, prior=3)["strength"]
    assert with_prior["ada"] - with_prior["bob"] == pytest.approx(400 * math.log10(11 / 3))


def test_strengths_are_those_of_choix(table: Callable[[Rows], pd.DataFrame]) -> None:
    rows = [row for row in drawn(40, seed=3) if row["winner"] != "tie"]
    won = [(row["model_a"], row["model_b"])[:: 1 if row["winner"] == "model_a" else -1] for row in rows]
    data = [(MODELS.index(winner), MODELS.index(loser)) for winner, loser in won]
    expected = choix.ilsr_pairwise(len(MODELS), data, alpha=0)
    expected = 1000 + 400 / math.log(10) * (expected - expected.mean())
    board = votes.leaderboard(table(rows), seed=0, draws=1)
    assert board.loc[list(MODELS), "strength"].to_numpy() == pytest.approx(expected, abs=1e-4)


@given(seed=st.integers(0, 10**6), swaps=st.lists(st.booleans(), min_size=90, max_size=90))
@settings(max_examples=20)
def test_turning_votes_round_changes_nothing_but_the_mark(tmp_path_factory: Any, seed: int, swaps: list[bool]) -> None:
    folder = tmp_path_factory.mktemp("votes")
    rows = drawn(15, seed)
    one = votes.read(written(folder, rows))
    other = votes.read(written(folder, [turned(r) if swap else r for r, swap in zip(rows, swaps, strict=True)]))
    boards = [votes.leaderboard(read, seed=1, draws=30, prior=0.5) for read in (one, other)]
    pd.testing.assert_frame_equal(*boards)
    assert ((one["swapped"] != other["swapped"]) == swaps).all()


def test_at_the_maximum_every_item_wins_as_often_as_expected() -> None:
    """The score equations of Bradley-Terry, for many random tables at once, some of them far from balanced."""
    rng = np.random.default_rng(0)
    wins = rng.poisson(rng.choice([0.3, 5, 400], size=(50, 7, 7))).astype(float) * (1 - np.eye(7))
    wins = wins[votes.has_maximum(wins)]
    strength = votes.fit(wins)
    expected = (wins + wins.transpose(0, 2, 1)) / (1 + np.exp(strength[:, None, :] - strength[:, :, None]))
    assert len(wins) > 25
    np.testing.assert_allclose(expected.sum(axis=2), wins.sum(axis=2), rtol=1e-6, atol=1e-6)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=12))
def test_finite_strengths_exist_where_every_item_reaches_every_other_by_wins(beats: list[tuple[int, int]]) -> None:
    wins = np.zeros((5, 5))
    for winner, loser in beats:
        wins[winner, loser] = winner != loser
    reach = {item: {item} for item in range(5)}
    for _ in range(5):
        for winner, loser in zip(*np.nonzero(wins), strict=True):
            reach[winner] |= reach[loser]
    connected = all(len(found) == 5 for found in reach.values())
    assert votes.has_maximum(wins[None])[0] == connected == (not votes.components(wins).any())


def test_the_leaderboard_counts_wins_ranks_and_votes(table: Callable[[Rows], pd.DataFrame]) -> None:
    board = votes.leaderboard(table(drawn(60, seed=0)), seed=0, draws=500)
    assert board.index.tolist() == list(MODELS) and board["rank"].tolist() == [1, 2, 3, 4]
    assert (board["n"] == 180).all() and board["win_rate"].mean() == pytest.approx(0.5)
    assert (board["low"] < board["strength"]).all() and (board["strength"] < board["high"]).all()
    assert (board["rank_low"] <= board["rank"]).all() and (board["rank"] <= board["rank_high"]).all()


def test_ranks_are_sure_where_models_are_far_apart_and_open_where_they_are_equal(
    table: Callable[[Rows], pd.DataFrame],
) -> None:
    apart = votes.leaderboard(table(drawn(60, seed=0, strength=(3, 1, -1, -3))), seed=0, draws=200)
    assert apart["rank_low"].tolist() == apart["rank"].tolist() == apart["rank_high"].tolist() == [1, 2, 3, 4]
    equal = votes.leaderboard(table(drawn(60, seed=0, strength=(0, 0, 0, 0))), seed=0, draws=200)
    assert (equal["rank_high"] - equal["rank_low"] >= 2).all()


def test_the_interval_of_a_strength_is_that_of_the_log_odds(table: Callable[[Rows], pd.DataFrame]) -> None:
    rows = [vote("model_a" if q % 3 else "model_b", question_id=q) for q in range(600)]
    board = votes.leaderboard(table(rows), seed=0, draws=4000)
    logit_error = math.sqrt(1 / 400 + 1 / 200) / 2  # half the log odds is the strength of each of the two
    width = 2 * 1.96 * logit_error * 400 / math.log(10)
    assert board.loc["ada", "high"] - board.loc["ada", "low"] == pytest.approx(width, rel=0.06)


def test_questions_are_redrawn_whole(table: Callable[[Rows], pd.DataFrame]) -> None:
    """Ten equal votes on each question tell no more than one."""
    once = [vote("model_a" if q % 3 else "model_b", question_id=q) for q in range(60)]
    often = [row | {"judge": f"j{judge}"} for row in once for judge in range(10)]
    one, ten = (votes.leaderboard(table(rows), seed=0, draws=200) for rows in (once, often))
    columns = ["strength", "low", "high"]
    pd.testing.assert_frame_equal(one[columns], ten[columns])


def test_items_that_cannot_be_ranked_together_are_named(table: Callable[[Rows], pd.DataFrame]) -> None:
    apart = table([vote("tie"), vote("tie", "cyd", "dot"), vote("tie", "dot", "eve")])
    for prior in (0, 1):
        with pytest.raises(DataError, match=re.escape("['ada', 'bob']: never compared with the others")):
            votes.leaderboard(apart, seed=0, prior=prior)
    unbeaten = table([vote("model_a"), vote("model_a", "ada", "cyd"), vote("tie", "bob", "cyd")])
    with pytest.raises(DataError, match=re.escape("['ada']: without a win, or without a loss")):
        votes.leaderboard(unbeaten, seed=0)
    assert votes.leaderboard(unbeaten, seed=0, draws=1, prior=1).index[0] == "ada"
    with pytest.raises(DataError, match="there is no vote"):
        votes.leaderboard(unbeaten[:0], seed=0)


def test_draws_without_finite_strengths_are_counted_not_dropped(table: Callable[[Rows], pd.DataFrame]) -> None:
    """Of 2 questions one says a, one says b: half of the draws take the same question twice."""
    read = table([vote("model_a"), vote("model_b", question_id=2)])
    with pytest.raises(DataError) as error:
        votes.leaderboard(read, seed=0, draws=1000)
    found = re.search(r"(\d+) of 1000 draws have no finite strengths", str(error.value))
    assert found is not None and 440 < int(found[1]) < 560
    board = votes.leaderboard(read, seed=0, draws=1000, prior=1)
    assert board["high"].max() == pytest.approx(1000 + 200 * math.log10(2.5 / 0.5))


def test_a_prior_below_zero_is_refused(table: Callable[[Rows], pd.DataFrame]) -> None:
    with pytest.raises(ValueError, match="the prior is -1 votes"):
        votes.leaderboard(table([vote("tie")]), seed=0, prior=-1)


@pytest.fixture(scope="module")
def mt_bench(shared_data: Callable[[str], Path]) -> dict[str, pd.DataFrame]:
    folder = shared_data("mt_bench_votes")
    human = votes.read(folder / "human.jsonl.gz")
    experts = human[human["judge"].str.startswith("expert")]
    return {"human": human, "experts": experts, "gpt4": votes.read(folder / "gpt4_pair.jsonl.gz")}


@pytest.mark.parametrize("turn", [1, 2])
@pytest.mark.parametrize("judges", [("gpt4", "experts"), ("experts", None)])
def test_real_agreement_is_what_counting_every_two_votes_gives(
    mt_bench: dict[str, pd.DataFrame], turn: int, judges: tuple[str, str | None]
) -> None:
    """S1 and S2 of arXiv 2306.05685 by nested loops; "human" is the experts, authors apart."""
    tables = [None if name is None else mt_bench[name][mt_bench[name]["turn"] == turn] for name in judges]
    rows = [[] if table is None else table.to_dict(orient="records") for table in tables]
    couples = itertools.product(*rows) if tables[1] is not None else itertools.combinations(rows[0], 2)
    place = ("question_id", "model_a", "model_b")
    met = [
        (one["winner"], two["winner"])
        for one, two in couples
        if all(one[name] == two[name] for name in place) and one["judge"] != two["judge"]
    ]
    decided = [(one, two) for one, two in met if "tie" not in (one, two)]
    found = votes.agreement(*tables, seed=0, draws=200)
    for setup, chosen in {"S1": met, "S2": decided}.items():
        assert found.loc[setup, "n"] == len(chosen) > 400
        assert found.loc[setup, "agreement"] == pytest.approx(np.mean([one == two for one, two in chosen]))


def test_the_real_leaderboard_puts_gpt_4_first_and_llama_last(
    mt_bench: dict[str, pd.DataFrame],
) -> None:
    for judges in ("human", "gpt4"):
        board = votes.leaderboard(mt_bench[judges], seed=0)
        assert board.index[0] == "gpt-4" and board.index[-3:].tolist() == ["vicuna-13b-v1.2", "alpaca-13b", "llama-13b"]
        assert board.iloc[0]["low"] > board.iloc[1]["high"] if judges == "gpt4" else board.iloc[0]["rank_high"] == 1


# --- ties as outcomes of their own ------------------------------------------------------------------------------------


def likelihood(model: str, wins: np.ndarray, ties: np.ndarray, parameters: np.ndarray) -> float:
    """As Davidson (1970) and Rao and Kupper (1967) write it, of worths and a parameter of ties."""
    worth, of_ties, total = np.exp(parameters[:-1]), parameters[-1], 0.0
    for i, j in itertools.combinations(range(len(worth)), 2):
        a, b = worth[i], worth[j]
        if model == "davidson":
            nu = math.exp(of_ties)
            p = np.array([a, b, nu * math.sqrt(a * b)]) / (a + b + nu * math.sqrt(a * b))
        else:
            theta = 1 + math.exp(of_ties)
            p = np.array([a / (a + theta * b), b / (b + theta * a), 0])
            p[2] = (theta**2 - 1) * a * b / ((a + theta * b) * (b + theta * a))
        total += float(np.array([wins[i, j], wins[j, i], ties[i, j]]) @ np.log(p))
    return total


@pytest.mark.parametrize("model", ["davidson", "rao_kupper"])
def test_strengths_beside_ties_maximise_the_likelihood_of_the_paper(model: str) -> None:
    rng = np.random.default_rng(3)
    wins, ties = rng.integers(1, 9, (2, 4, 4)).astype(float)
    wins, ties = wins * (1 - np.eye(4)), (ties + ties.T) * (1 - np.eye(4))
    best = minimize(lambda x: -likelihood(model, wins, ties, x), np.zeros(5), method="BFGS", options={"gtol": 1e-8}).x[
        :4
    ]
    found = votes.fit_with_ties(np.stack([wins, 3 * wins]), np.stack([ties, 3 * ties]), model)
    assert found[0] == pytest.approx(best - best.mean(), abs=1e-5) and found[1] == pytest.approx(found[0], abs=1e-7)
    alone = votes.fit_with_ties(wins[None], 0 * ties[None], model)
    assert alone[0] == pytest.approx(votes.fit(wins[None])[0], abs=1e-6)  # without ties, Bradley and Terry's


@pytest.mark.parametrize("model", votes.TIES)
def test_every_model_of_ties_recovers_the_order_and_is_mirrored_by_turned_votes(
    model: str, table: Callable[[Rows], pd.DataFrame]
) -> None:
    rows = drawn(60, seed=1)
    board = votes.leaderboard(table(rows), seed=0, draws=20, ties=model)
    assert board.index.tolist() == list(MODELS) and (board["low"] <= board["strength"]).all()
    again = votes.leaderboard(table([turned(row) for row in rows]), seed=0, draws=20, ties=model)
    assert np.allclose(board["strength"], again["strength"], atol=1e-5)


def test_a_leaderboard_counts_both_bad_by_model_and_refuses_what_no_model_of_ties_can_fit(
    table: Callable[[Rows], pd.DataFrame],
) -> None:
    read = table([vote("model_a"), vote("tie (bothbad)", question_id=2)])
    board = votes.leaderboard(read, seed=0, draws=10, prior=1.0)
    assert board["win_rate"].to_dict() == {"ada": 0.75, "bob": 0.25} and board["both_bad"].tolist() == [1, 1]
    with pytest.raises(ValueError, match="ties='elo' is unknown"):
        votes.leaderboard(read, seed=0, ties="elo")
    with pytest.raises(DataError, match="every vote is a tie"):
        votes.leaderboard(table([vote("tie")]), seed=0, ties="davidson")
