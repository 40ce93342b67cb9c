"""Judges: what is sent, how answers are read, and what every fault of an endpoint becomes."""

import json
import threading
import time
from pathlib import Path

import chat_double
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmlib.benchmarks.endpoint import Endpoint, EndpointError
from rmlib.benchmarks.judges import (
    ChatJudge,
    Instructions,
    Majority,
    ScorerJudge,
    Verdict,
    parse_choice,
    parse_rating,
)
from rmlib.benchmarks.judging import Question, ask
from rmlib.records import paths
from rmlib.statistics import Longer

PROMPT = [{"role": "user", "content": "Name a fruit."}]


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RMLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "runs"


def endpoint(double: chat_double.ChatDouble, **options: object) -> Endpoint:
    return Endpoint(double.url, "judge-1", **({"timeout": 2.0, "retries": 0, "pause": 0.0} | options))


# --- reading answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "n", "expected"),
    [
        ("Both name one, but A is ripe.\n[[A]]", 2, Verdict(0)),
        ("[[B]]", 2, Verdict(1)),
        ("[[D]]", 4, Verdict(3)),
        ("[[C]]", 4, Verdict(2)),
        ("[[C]]", 2, Verdict(None, "tie")),
        ("My final verdict is [[A>>B]]", 2, Verdict(0)),
        ("[[B > A]]", 2, Verdict(1)),
        ("[[A<B]]", 2, Verdict(1)),
        ("[[A=B]]", 2, Verdict(None, "tie")),
        ("[[A]] or [[B]]? [[A]]", 2, Verdict(None, "unparsable")),
        ("[[A]] ... so [[A]]", 2, Verdict(0)),
        ("A is better", 2, Verdict(None, "unparsable")),
        ("[[E]]", 4, Verdict(None, "unparsable")),
        ("[[D]]", 2, Verdict(None, "unparsable")),
        ("[[AB]]", 4, Verdict(None, "unparsable")),
        ("[[a]]", 2, Verdict(None, "unparsable")),
        ("", 2, Verdict(None, "unparsable")),
    ],
)
def test_a_choice_is_the_one_verdict_in_double_brackets(text: str, n: int, expected: Verdict) -> None:
    assert parse_choice(text, n) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Rating: [[7]]", Verdict(7)),
        ("[[ 7.5 ]]", Verdict(7.5)),
        ("[[10]]", Verdict(10)),
        ("[[11]]", Verdict(None, "unparsable")),
        ("[[0]]", Verdict(None, "unparsable")),
        ("[[3]] or [[4]]", Verdict(None, "unparsable")),
        ("7", Verdict(None, "unparsable")),
    ],
)
def test_a_rating_is_the_one_number_from_1_to_10_in_double_brackets(text: str, expected: Verdict) -> None:
    assert parse_rating(text) == expected


@given(st.text("[]ABCD<>=10.5 x", max_size=12), st.sampled_from([2, 4]))
def test_whatever_a_judge_writes_is_a_verdict_or_a_named_problem(text: str, n: int) -> None:
    for verdict in (parse_choice(text, n), parse_rating(text), parse_choice(f"[[{text}]]", n)):
        assert (verdict.value is None) != (verdict.problem is None)


# --- what is sent -----------------------------------------------------------------------------------------------------


def test_a_question_carries_all_texts_once_braces_included_and_asks_at_temperature_zero() -> None:
    with chat_double.serving(lambda _: "[[B]]") as double:
        judge = ChatJudge(endpoint(double))
        assert judge.compare(PROMPT, ["an {answer_b}", "a {question}"]) == Verdict(1)
    [request] = double.requests
    assert request["path"] == "/v1/chat/completions"
    assert request["model"] == "judge-1" and request["temperature"] == 0
    question = double.questions[0]
    assert question.index("Name a fruit.") < question.index("an {answer_b}") < question.index("a {question}")


def test_instructions_of_ones_own_replace_ours_field_by_field(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text(json.dumps({"system": "", "rating": "Rate {answer} to {question}!"}))
    with chat_double.serving(lambda _: "[[4]]") as double:
        judge = ChatJudge(endpoint(double), Instructions.load(tmp_path / "own.json"))
        turns = [*PROMPT, {"role": "assistant", "content": "Fig"}, {"role": "user", "content": "And?"}]
        assert judge.rate(turns, "plum") == Verdict(4)
    assert double.requests[0]["messages"] == [
        {
            "role": "user",
            "content": "Rate plum to [user]\nName a fruit.\n\n[assistant]\nFig\n\n[user]\nAnd?!",
        }
    ]
    (tmp_path / "own.json").write_text('{"score": "?"}')
    with pytest.raises(ValueError, match=r"own\.json is not an object of texts with fields of choice, pair"):
        Instructions.load(tmp_path / "own.json")


def test_the_key_is_read_from_the_named_variable_and_written_nowhere(
    monkeypatch: pytest.MonkeyPatch, runs: Path
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "s3cret")
    with chat_double.serving(lambda _: "[[A]]") as double:
        with_key = endpoint(double, key_variable="JUDGE_KEY")
        ask(ChatJudge(with_key), [Question(PROMPT, ("a", "b"))], progress=False)
        ChatJudge(endpoint(double)).compare(PROMPT, ["a", "b"])
    assert double.headers[0]["Authorization"] == "Bearer s3cret"
    assert "Authorization" not in double.headers[1]
    assert "s3cret" not in repr(with_key) + "".join(file.read_text() for file in runs.rglob("*.jsonl"))
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(ValueError, match="the environment has no JUDGE_KEY"):
        endpoint(double, key_variable="JUDGE_KEY")


def test_what_is_no_url_is_refused() -> None:
    with pytest.raises(ValueError, match="begins with http"):
        Endpoint("file:///etc/hosts", "m")


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("#late", "timeout"),
        (400, "refused"),
        (401, "refused"),
        (503, "refused"),
        (307, "refused"),
        ("#closed", "refused"),
        ("#nonsense", "nonsense"),
        ("#shape", "nonsense"),
        ("#empty", "empty"),
        ("#null", "empty"),
    ],
)
def test_every_fault_of_an_endpoint_has_its_name_and_becomes_a_problem(fault: str | int, kind: str) -> None:
    with chat_double.serving(lambda _: fault) as double:
        patient = endpoint(double, timeout=0.3 if fault == "#late" else chat_double.LONGEST_WAIT)
        with pytest.raises(EndpointError) as caught:
            patient.answer(PROMPT)
        assert caught.value.kind == kind
        assert ChatJudge(patient).compare(PROMPT, ["a", "b"]) == Verdict(None, kind)
        assert ChatJudge(patient).rate(PROMPT, "a") == Verdict(None, kind)
        double.released.set()
    assert len(double.requests) == 3  # a redirect is not followed


def test_nobody_listening_is_refused() -> None:
    with chat_double.serving(lambda _: "") as double:
        pass
    with pytest.raises(EndpointError, match="refused"):
        endpoint(double).answer(PROMPT)


def test_what_may_pass_is_asked_again_a_bounded_number_of_times_and_what_will_not_is_not() -> None:
    replies = iter([503, 429, "[[A]]"])
    with chat_double.serving(lambda _: next(replies)) as double:
        assert endpoint(double, retries=2).answer(PROMPT) == "[[A]]"
    with (
        chat_double.serving(lambda _: 503) as double,
        pytest.raises(EndpointError, match=r"status 503 \(3 times\)"),
    ):
        endpoint(double, retries=2).answer(PROMPT)
    assert len(double.requests) == 3
    for fault in (400, "#nonsense", "#empty"):
        with chat_double.serving(lambda _, fault=fault: fault) as double, pytest.raises(EndpointError):
            endpoint(double, retries=2).answer(PROMPT)
        assert len(double.requests) == 1


# --- many questions ---------------------------------------------------------------------------------------------------


def numbered(n: int) -> list[Question]:
    return [Question([{"role": "user", "content": f"question {number}"}], ("x", "y")) for number in range(n)]


def test_several_questions_are_under_way_at_a_time_and_answers_keep_their_order() -> None:
    meeting = threading.Barrier(1)

    def reply(question: str) -> str:
        meeting.wait(chat_double.LONGEST_WAIT)
        return "[[A]]" if any(f"question {n}\n" in question for n in (0, 3, 5)) else "[[B]]"

    with chat_double.serving(reply) as double:
        judge = ChatJudge(endpoint(double))
        alone = ask(judge, numbered(8), keep=False, progress=False)
        assert double.most_at_once == 1
        meeting = threading.Barrier(2)  # from here on no question is answered before another one is there
        together = ask(judge, numbered(8), workers=4, keep=False, progress=False)
    assert double.most_at_once > 1
    assert together == alone
    assert [verdict.value for verdict in alone] == [0, 1, 1, 0, 1, 0, 1, 1]


def test_finished_verdicts_are_kept_and_faults_are_asked_again() -> None:
    answers = {"question 0": "[[A]]", "question 1": 503, "question 2": "neither", "question 3": "[[C]]"}

    def reply(question: str) -> str | int:
        return next(answer for name, answer in answers.items() if name in question)

    with chat_double.serving(reply) as double:
        first = ask(ChatJudge(endpoint(double)), numbered(4), workers=2, progress=False)
        assert [verdict.problem for verdict in first] == [None, "refused", "unparsable", "tie"]
        answers["question 1"] = "[[B]]"
        second = ask(ChatJudge(endpoint(double)), numbered(4), progress=False)
        assert len(double.requests) == 5 and "question 1" in double.questions[-1]
        assert second == [first[0], Verdict(1), *first[2:]]
        other = ChatJudge(endpoint(double), Instructions(system="Be strict."))
        ask(other, numbered(4), progress=False)
    assert len(double.requests) == 9  # told something else, a judge is another one
    assert len(list((paths.runs_dir() / "scores").iterdir())) == 2


def test_an_interrupted_judging_goes_on_where_it_was(runs: Path) -> None:
    class Interrupted:
        """A judge whose third question is interrupted, once the first two verdicts are on the disk."""

        name, n_asked, stops = "j", 0, True

        def compare(self, prompt: list, responses: list) -> Verdict:
            self.n_asked += 1
            if self.stops and self.n_asked == 3:
                deadline = time.monotonic() + 10
                while self.n_kept() < 2 and time.monotonic() < deadline:
                    time.sleep(0.01)
                raise KeyboardInterrupt
            if self.stops and self.n_asked > 3:
                time.sleep(0.2)  # long enough for the rest to be called off
            return Verdict(0)

        def rate(self, prompt: list, response: str) -> Verdict:
            raise AssertionError("pairs are compared")

        def n_kept(self) -> int:
            return sum(len(file.read_text().splitlines()) - 1 for file in runs.rglob("*.jsonl"))

        def identity(self) -> dict[str, str]:
            return {"judge": "j"}

    judge = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        ask(judge, numbered(10), progress=False)
    assert judge.n_kept() == 2 and judge.n_asked < 10
    judge.stops, judge.n_asked = False, 0
    assert ask(judge, numbered(10), progress=False) == [Verdict(0)] * 10
    assert judge.n_asked == 8


def test_equal_questions_are_asked_once() -> None:
    with chat_double.serving(lambda _: "[[A]]") as double:
        assert ask(ChatJudge(endpoint(double)), numbered(1) * 5, progress=False) == [Verdict(0)] * 5
    assert len(double.requests) == 1


# --- judges that need no endpoint -------------------------------------------------------------------------------------


class Fixed:
    """A judge that always answers the same."""

    name = "fixed"

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict

    def compare(self, prompt: list, responses: list) -> Verdict:
        return self.verdict

    def rate(self, prompt: list, response: str) -> Verdict:
        return self.verdict

    def identity(self) -> dict[str, str]:
        return {"judge": str(self.verdict)}


A, B, TIE, LATE = Verdict(0), Verdict(1), Verdict(None, "tie"), Verdict(None, "timeout")


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ([A, A, B], A),
        ([A, TIE, A], A),
        ([A, B, TIE], TIE),
        ([A, LATE, LATE], LATE),
        ([A, LATE, A], A),
        ([A, B, LATE], LATE),  # the missing vote decides, so it is asked for again
        ([TIE, TIE, A], TIE),
        ([LATE, LATE, LATE], LATE),
        ([B], B),
    ],
)
def test_a_majority_is_more_than_half_of_an_odd_number_of_judges(votes: list[Verdict], expected: Verdict) -> None:
    assert Majority(tuple(map(Fixed, votes))).compare(PROMPT, ["a", "b"]) == expected


def test_an_even_number_of_judges_is_refused() -> None:
    with pytest.raises(ValueError, match="odd number of judges, not 2"):
        Majority((Fixed(A), Fixed(B)))


def test_a_scorer_judges_by_the_sign_of_the_difference() -> None:
    judge = ScorerJudge(Longer(), "longer")
    assert judge.compare(PROMPT, ["a", "bb"]) == B
    assert judge.compare(PROMPT, ["bb", "a"]) == A
    assert judge.compare(PROMPT, ["aa", "bb"]) == TIE
    assert judge.compare(PROMPT, ["a", "bb", "ccc", "ccc"]) == TIE
    assert judge.rate(PROMPT, "abc") == Verdict(3.0) and judge.identity() is None
    assert ask(judge, [Question(PROMPT, ("a", "bb"))], progress=False) == [B]
