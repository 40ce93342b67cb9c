"""From verdicts to credits: each benchmark's rule by hand, and that the place of an answer is chance."""

from collections.abc import Callable
from pathlib import Path

import chat_double
import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from written import benchmark_items

from rmlib import benchmarks
from rmlib.benchmarks import judging
from rmlib.benchmarks.endpoint import Endpoint
from rmlib.benchmarks.judges import ChatJudge, ScorerJudge, Verdict
from rmlib.benchmarks.judging import judge_items, position_consistency, problems
from rmlib.statistics import Longer

LATE = Verdict(None, "timeout")


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RMLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "runs"


class By:
    """A judge that decides by functions of the texts it is shown, and remembers what it was shown."""

    name = "by rule"

    def __init__(
        self, compare: Callable[[list[str]], Verdict] | None = None, rate: Callable[[str], Verdict] | None = None
    ) -> None:
        self._compare, self._rate, self.shown = compare, rate, []

    def compare(self, prompt: list, responses: tuple[str, ...]) -> Verdict:
        self.shown.append(responses)
        return self._compare(list(responses))

    def rate(self, prompt: list, response: str) -> Verdict:
        self.shown.append((response,))
        return self._rate(response)

    def identity(self) -> None:
        return None


def finds(word: str) -> Callable[[list[str]], Verdict]:
    return lambda responses: Verdict(next(index for index, text in enumerate(responses) if word in text))


def rewardbench_items(n: int = 40, n_messages: int = 1) -> Dataset:
    rows = [
        {"item_id": f"math-prm/{k}", "subset": "math-prm", "candidates": [f"good {k}", f"bad {k}"]} for k in range(n)
    ]
    return benchmark_items("rewardbench", rows, n_messages)


def credit(table: pd.DataFrame) -> list[float]:
    return table["credit"].tolist()


# --- RewardBench ------------------------------------------------------------------------------------------------------


def test_answers_are_swapped_by_chance_and_a_judge_that_knows_is_right_in_either_place() -> None:
    judge = By(finds("good"))
    assert credit(judge_items(judge, rewardbench_items(), progress=False)) == [1.0] * 40
    assert len(judge.shown) == 40  # judged once
    n_first = sum("good" in responses[0] for responses in judge.shown)
    assert 10 < n_first < 30  # outside with probability 0.0006 for a fair coin
    assert credit(judge_items(By(finds("bad")), rewardbench_items(), progress=False)) == [0.0] * 40


def test_the_place_of_an_answer_depends_on_seed_and_item_alone() -> None:
    items, first = rewardbench_items(), By(lambda _: Verdict(0))
    whole = credit(judge_items(first, items, progress=False))
    assert credit(judge_items(first, items.select(range(5, 12)), progress=False)) == whole[5:12]
    assert credit(judge_items(first, items, workers=4, progress=False)) == whole
    assert credit(judge_items(first, items, seed=1, progress=False)) != whole
    assert 10 < sum(whole) < 30  # what favours the first place gains nothing


@pytest.mark.parametrize("problem", ["tie", "unparsable", "timeout", "refused", "nonsense", "empty"])
def test_whatever_is_no_verdict_gets_one_half_and_is_counted_by_kind(problem: str) -> None:
    items = rewardbench_items(4)
    table = judge_items(By(lambda _: Verdict(None, problem)), items, progress=False)
    assert credit(table) == [0.5] * 4 and problems(table) == {problem: 4}
    assert table["reason"].isna().all() and table["tie"].tolist() == [problem == "tie"] * 4
    report = benchmarks.summarise(items, table)
    assert report.subsets.loc["math-prm", "estimate"] == 0.5
    assert report.ties == (4 if problem == "tie" else 0) and not report.skipped


@pytest.mark.parametrize(("n_messages", "judged"), [(1, True), (3, True), (5, False)])
def test_conversations_of_more_than_four_messages_get_one_half_unasked(n_messages: int, judged: bool) -> None:
    items = rewardbench_items(3, n_messages)  # and the answer is one message more
    for mode in ("compare", "rate"):
        judge = By(finds("good"), lambda text: Verdict(9.0 if "good" in text else 2.0))
        table = judge_items(judge, items, mode=mode, progress=False)
        assert credit(table) == [1.0 if judged else 0.5] * 3
        assert bool(judge.shown) == judged
        assert problems(table) == ({} if judged else {"more than 4 messages": 3})


def test_of_two_ratings_the_larger_wins_and_equal_ones_or_a_missing_one_give_one_half() -> None:
    ratings = {"good 0": 7.0, "bad 0": 3.0, "good 1": 5.0, "bad 1": 5.0, "good 2": 2.0, "bad 2": 9.0, "good 3": 9.0}
    judge = By(rate=lambda text: Verdict(ratings[text]) if text in ratings else LATE)
    table = judge_items(judge, rewardbench_items(4), mode="rate", progress=False)
    assert credit(table) == [1.0, 0.5, 0.0, 0.5]
    assert table["problem"].tolist() == [None, "tie", None, "timeout"]
    assert table["tie"].tolist() == [False, True, False, False]


# --- JudgeBench -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "swapped", "if_a", "if_b"),
    [  # winners as shown; what the pair gets where A is correct, and where B is
        (Verdict(0), Verdict(1), 1, 0),  # A twice
        (Verdict(1), Verdict(0), 0, 1),  # B twice
        (Verdict(0), Verdict(0), 0, 0),  # the first shown twice: +1 - 1
        (Verdict(1), Verdict(1), 0, 0),
        (Verdict(0), LATE, 1, 0),  # +1 and nothing: the sum is positive
        (LATE, Verdict(0), 0, 1),
        (Verdict(None, "tie"), Verdict(1), 1, 0),
        (LATE, LATE, 0, 0),
        (Verdict(None, "tie"), Verdict(None, "tie"), 0, 0),
    ],
)
def test_a_pair_is_right_where_the_votes_of_both_orders_sum_to_more_than_zero(
    given: Verdict, swapped: Verdict, if_a: int, if_b: int
) -> None:
    rows = [
        {"item_id": name, "subset": "gpt/math", "candidates": ["A", "B"], "correct": [name == "a", name == "b"]}
        for name in ("a", "b")
    ]
    judge = By(lambda responses: given if responses == ["A", "B"] else swapped)
    table = judge_items(judge, benchmark_items("judgebench", rows), progress=False)
    assert credit(table) == [if_a, if_b]
    expected = ", ".join(dict.fromkeys(verdict.problem for verdict in (given, swapped) if verdict.problem))
    assert table["problem"].tolist() == [expected or None] * 2


# --- RewardBench 2 ----------------------------------------------------------------------------------------------------


def best_of_four(n: int = 80) -> list[dict]:
    return [
        {"item_id": f"Math/{k}", "subset": "Math", "candidates": [f"good {k}", *(f"bad {k}{x}" for x in "xyz")]}
        for k in range(n)
    ]


TIES = [
    {"item_id": f"Ties/{kind}:1", "subset": "Ties", "candidates": texts, "correct": correct}
    for kind, texts, correct in [
        ("ref", ["right!!!", "no"], [True, False]),
        ("tied", ["right", "also right", "no", "nope"], [True, True, False, False]),
    ]
]


def test_the_best_of_four_stands_at_every_place_about_equally_often_and_is_found_in_all() -> None:
    judge = By(finds("good"))
    assert credit(judge_items(judge, benchmark_items("rewardbench2", best_of_four()), progress=False)) == [1.0] * 80
    places = np.bincount([next(k for k, text in enumerate(shown) if "good" in text) for shown in judge.shown])
    assert len(places) == 4 and places.min() >= 8  # 20 expected, standard deviation 3.9


def test_whatever_is_no_verdict_gets_one_quarter_and_a_wrong_one_nothing() -> None:
    items = benchmark_items("rewardbench2", best_of_four(2))
    verdicts = {"0": LATE, "1": None}
    judge = By(lambda responses: verdicts[responses[0].split()[1][0]] or finds("bad")(responses))
    table = judge_items(judge, items, progress=False)
    assert credit(table) == [0.25, 0.0] and problems(table) == {"timeout": 1} and not table["tie"].any()


def test_ties_are_always_rated_and_follow_the_formula_of_rewards() -> None:
    items = benchmark_items("rewardbench2", best_of_four(3) + TIES)
    judge = By(finds("good"), lambda text: Verdict(float(len(text))))
    table = judge_items(judge, items, progress=False)
    assert list(table["item_id"]) == list(items["item_id"])
    assert {len(shown) for shown in judge.shown} == {1, 4}
    as_rewards = benchmarks.score(Longer(), items.select(range(3, 5)))
    scalar = benchmarks.credits(items.select(range(3, 5)), as_rewards)
    shared = [column for column in scalar if column != "reason"]
    pd.testing.assert_frame_equal(table[shared].iloc[3:].reset_index(drop=True), scalar[shared], check_dtype=False)
    report = benchmarks.summarise(items, table, partial=True)
    # Lengths: ref 8 against 2; tied 5 and 10 against 2 and 4, so a gap of 1 below a spread of 5.
    by_hand = 0.3 + 0.3 + 0.01 * np.tanh(1 / 5 - 1)
    assert report.subsets["estimate"].to_dict() == pytest.approx({"Math": 1.0, "Ties": by_hand})


def test_an_item_of_ties_without_all_its_ratings_is_skipped_and_says_why() -> None:
    items = benchmark_items("rewardbench2", TIES)
    judge = By(rate=lambda text: LATE if text == "nope" else Verdict(float(len(text))))
    table = judge_items(judge, items, progress=False)
    assert table["credit"].isna().tolist() == [False, True]
    assert table["reason"][1] == "judge: timeout" and problems(table) == {"timeout": 1}


# --- any benchmark ----------------------------------------------------------------------------------------------------


def test_a_ruler_as_a_judge_gets_what_it_gets_as_a_scorer() -> None:
    rows = [
        {"item_id": f"math-prm/{k}", "subset": "math-prm", "candidates": ["x" * (k % 3 + 1), "x" * (k % 5 + 1)]}
        for k in range(30)
    ]
    items = benchmark_items("rewardbench", rows)
    judged = judge_items(ScorerJudge(Longer(), "longer"), items, progress=False)
    scored = benchmarks.credits(items, benchmarks.score(Longer(), items, progress=False))
    tied = scored["tie"].to_numpy()
    assert tied.any() and not tied.all()
    np.testing.assert_array_equal(judged["tie"], tied)
    np.testing.assert_array_equal(judged["credit"], np.where(tied, 0.5, scored["credit"]))


def test_where_there_is_no_rule_for_choices_responses_can_be_rated() -> None:
    rows = [
        {"item_id": f"chat/{k}", "subset": "chat", "candidates": list("abcdef"), "correct": [True] * 3 + [False] * 3}
        for k in range(2)
    ]
    items = benchmark_items("rmbench", rows)
    with pytest.raises(ValueError, match="rmbench has no rule for judges that compare"):
        judge_items(By(finds("a")), items, progress=False)
    rater = By(rate=lambda text: Verdict(10.0 if text in "abc" else 1.0))
    table = judge_items(rater, items, mode="rate", progress=False)
    assert credit(table) == [1.0, 1.0]
    with pytest.raises(ValueError, match="mode must be one of compare, rate"):
        judge_items(By(), items, mode="guess")


def test_position_consistency_tells_a_judge_that_knows_from_one_that_takes_the_first() -> None:
    items = rewardbench_items(20)
    knows = position_consistency(By(finds("good")), items, progress=False)
    assert (knows.consistent.estimate, knows.first.estimate, knows.n_undecided) == (1.0, 0.5, 0)
    first = position_consistency(By(lambda _: Verdict(0)), items, progress=False)
    assert (first.consistent.estimate, first.first.estimate) == (0.0, 1.0)
    assert (first.consistent.n, first.first.n) == (20, 40)
    some = By(lambda responses: LATE if "0" in responses[0] else finds("good")(responses))
    assert position_consistency(some, items, progress=False).n_undecided == 2  # items 0 and 10
    with pytest.raises(ValueError, match="none of 20 pairs was decided in both orders"):
        position_consistency(By(lambda _: LATE), items, progress=False)
    with pytest.raises(ValueError, match="not two candidates"):
        position_consistency(By(finds("good")), benchmark_items("rewardbench2", best_of_four(2)), progress=False)


def test_a_lean_to_the_first_place_changes_the_verdict_of_one_order_where_the_margin_is_smaller() -> None:
    shared = {"subset": "math-prm"}  # right responses are longer by 1 to 8 characters
    rows = [{"item_id": f"math-prm/{k}", "candidates": ["right" + "!" * k, "wrong"]} | shared for k in range(1, 9)]
    items = benchmark_items("rewardbench", rows)
    found = position_consistency(ScorerJudge(Longer(), "leaning", lean=3.5), items, progress=False)
    # Margins 1, 2 and 3 give way: there the response shown first wins twice, elsewhere once of two orders.
    assert found.consistent.estimate == 5 / 8 and found.first.estimate == (3 * 2 + 5) / 16


def test_a_judge_that_takes_questions_in_batches_gets_all_open_ones_at_once() -> None:
    prepared = []

    class Batches(By):
        def prepare(self, questions: list) -> None:
            prepared.append(len(questions))

    items = rewardbench_items(5)
    judge_items(Batches(finds("good")), items, progress=False)
    position_consistency(Batches(finds("good")), items, progress=False)
    assert prepared == [5, 10]


def test_an_endpoint_with_every_kind_of_fault_is_scored_by_the_rule_and_the_faults_are_shown() -> None:
    faults: dict[str, str | int] = {"good 1": "#nonsense", "good 2": 500, "good 3": "#empty", "good 4": "no idea"}

    def reply(question: str) -> str | int:
        fault = next((fault for name, fault in faults.items() if f"{name}\n" in question), None)
        a_is_good = question.index("good") < question.index("bad")
        return fault if fault is not None else f"reasons\n[[{'A' if a_is_good else 'B'}]]"

    items = rewardbench_items(8)
    with chat_double.serving(reply) as double:
        judge = ChatJudge(Endpoint(double.url, "judge-1", timeout=5.0, retries=0))
        table = judge_items(judge, items, workers=4, progress=False)
        assert len(double.requests) == 8
        again = judge_items(judge, items, progress=False)
        assert len(double.requests) == 11  # faults are asked again, an answer that cannot be parsed is an answer
    assert credit(table) == credit(again) == [1, 0.5, 0.5, 0.5, 0.5, 1, 1, 1]
    assert problems(table) == {"nonsense": 1, "refused": 1, "empty": 1, "unparsable": 1}
    assert judging.consistency_of(pd.DataFrame({"first": [0.0, 1.0], "second": [0.0, 0.0]})).consistent.estimate == 0.5
