"""What a message carries besides its text is kept word for word, and nothing else changes."""

import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings, strategies

from rmlib import sources
from rmlib.benchmarks.judges import ChatJudge, Instructions
from rmlib.pairs import make_pairs, pair_id, preference_view, ranking_view, rating_view
from rmlib.pairs.messages import Answer, as_message, check_messages, check_response, with_own_keys
from rmlib.pairs.views import texts_of
from rmlib.records.errors import DataError, Place
from rmlib.records.hashing import prompt_key

PLACE = Place("here.jsonl", 3, "prompt")
ASKED = [{"role": "user", "content": "How warm is it in Oslo?"}]


def call(city: str) -> list[dict[str, Any]]:
    return [
        {"id": "c1", "type": "function", "function": {"name": "warmth", "arguments": {"city": city, "digits": 1 / 3}}}
    ]


# A conversation with a call, its result and a named user, whose keys are in no alphabetical order.
TALK = [
    {"role": "system", "content": "Use tools."},
    *ASKED,
    {"role": "assistant", "tool_calls": call("Oslo"), "content": "", "reasoning_content": "I should look."},
    {"role": "tool", "content": "-3.5", "tool_call_id": "c1", "name": "warmth"},
    {"role": "user", "content": "And in Rome?", "name": "Åse"},
]


def row(**given: Any) -> dict[str, Any]:
    return {"split": "train", "prompt": ASKED, "response_1": "Cold.", "response_2": "Warm.", "preference": 1} | given


def table(*rows: dict[str, Any]) -> Any:
    return make_pairs(rows, origin="test")


def test_every_key_of_every_message_comes_back_as_its_author_wrote_it() -> None:
    answer = {"role": "assistant", "content": "Let me look.", "tool_calls": call("Rome")}
    made = table(row(prompt=TALK, response_1=answer), row())
    view = preference_view(made)
    assert [with_own_keys(message) for message in made[0]["prompt"]] == TALK
    assert json.dumps(with_own_keys(made[0]["prompt"][2])["tool_calls"]) == json.dumps(call("Oslo"))
    assert view[0]["prompt"][3:] == TALK[3:]
    assert view[0]["chosen"] == [{"role": "assistant", "content": "Warm."}]
    assert view[0]["rejected"][0].keys() == answer.keys()
    assert view[1]["prompt"] == ASKED
    assert made[0]["response_1"] == "Let me look."
    assert json.loads(made[0]["extras_1"]) == {"tool_calls": call("Rome")}
    assert made[0]["extras_2"] is None
    prompts, responses = texts_of(made)
    assert responses == [Answer("Let me look.", made[0]["extras_1"]), "Warm.", "Cold.", "Warm."]
    assert rating_view(made)["extras"][:] == [made[0]["extras_1"], None, None, None]


def test_a_table_without_such_keys_has_none_and_keeps_its_names() -> None:
    nulls = {"tool_calls": None, "name": None}
    plain, filled = (
        table(row()),
        table(row(prompt=[ASKED[0] | nulls], response_1={"role": "assistant", "content": "Cold."} | nulls)),
    )
    assert plain.features == filled.features
    assert plain.to_list() == filled.to_list()
    assert plain[0]["prompt"] == ASKED
    assert preference_view(plain)[0]["prompt"] == ASKED
    # Computed before messages could carry more.
    assert plain[0]["pair_id"] == "861cb8b95ef595de"
    assert prompt_key(ASKED) == '[["user","How warm is it in Oslo?"]]'


VALUES = strategies.recursive(
    strategies.booleans() | strategies.integers() | strategies.floats(allow_nan=False, allow_infinity=False)
    | strategies.text(),
    lambda inner: strategies.lists(inner, max_size=3) | strategies.dictionaries(strategies.text(), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
OWN = strategies.dictionaries(strategies.text().filter(lambda key: key not in ("role", "content")), VALUES, max_size=4)


@given(own=OWN, text=strategies.text())
@settings(max_examples=60)
def test_whatever_json_a_message_carries_comes_back_in_its_order_or_is_refused(own: dict[str, Any], text: str) -> None:
    message = {"role": "tool", "content": text} | own
    kept = check_messages([message], PLACE)
    assert json.dumps(with_own_keys(kept[0])) == json.dumps(message)
    assert check_messages(kept, PLACE) == kept
    response = check_response({"role": "assistant", "content": f"x{text}"} | own, PLACE)
    assert as_message(response) == {"role": "assistant", "content": f"x{text}"} | own
    assert check_response(response, PLACE) == response


def test_nulls_beside_a_call_count_as_absent_and_those_in_its_arguments_are_the_author_s() -> None:
    made = {"function": {"name": "f", "arguments": {"a": 1, "b": None, "c": {"d": None}}}}
    filled = {"id": None, "function": made["function"] | {"strict": None}}
    asked = [{"role": "assistant", "content": None, "tool_calls": [filled]}]
    found = check_messages([*asked, {"role": "tool", "content": "1"}], PLACE)
    assert with_own_keys(found[0])["tool_calls"] == [made]
    assert check_messages(found, PLACE) == found


def test_parquet_leaves_out_and_counts_nulls_in_arguments_which_json_keeps(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def rows(*arguments: dict[str, Any]) -> list[dict[str, Any]]:
        calls = [{"role": "assistant", "tool_calls": [{"name": "f", "arguments": given}]} for given in arguments]
        return [{"prompt": f"Question {n}?", "chosen": [call], "rejected": "No."} for n, call in enumerate(calls)]

    def kept(name: str) -> list[dict[str, Any]]:
        view = preference_view(sources.load(tmp_path / name, split="train"))
        return [row["chosen"][0]["tool_calls"][0]["arguments"] for row in view]

    given = rows({"a": 1}, {"b": {"c": 2}})
    parquet.write_table(pa.Table.from_pylist(given), tmp_path / "calls.parquet")
    assert kept("calls.parquet") == [{"a": 1}, {"b": {"c": 2}}]
    assert "calls.parquet, column chosen: left out 2 nulls in arguments of calls" in caplog.text
    with_null = rows({"a": None}, {"b": {"c": 2}})
    (tmp_path / "calls.jsonl").write_text("".join(json.dumps(row) + "\n" for row in with_null))
    assert kept("calls.jsonl") == [{"a": None}, {"b": {"c": 2}}]


def test_a_pair_is_named_by_all_that_its_messages_carry() -> None:
    named = [
        pair_id(ASKED, "Cold.", "Warm."),
        pair_id(ASKED, Answer("Cold.", '{"name":"a"}'), "Warm."),
        pair_id(ASKED, "Cold.", Answer("Warm.", '{"name":"a"}')),
        pair_id(check_messages([ASKED[0] | {"name": "a"}], PLACE), "Cold.", "Warm."),
    ]
    assert len(set(named)) == 4


def test_pairs_that_differ_in_other_keys_alone_are_kept_and_counted_by_key(caplog: pytest.LogCaptureFixture) -> None:
    first, second = (
        {"role": "assistant", "content": "4", "reasoning_content": said} for said in ("2 and 2", "a guess")
    )
    with caplog.at_level(logging.WARNING, logger="rmlib"):
        made = table(row(response_1=first, response_2=second), row(response_1=first, response_2=dict(first)))
    assert len(made) == 1
    assert "1 pairs have the same text twice and differ in reasoning_content alone" in caplog.text
    assert "left out 1 pairs that have the same text as both responses" in caplog.text


def test_the_view_for_trl_is_read_again_from_parquet_with_all_its_keys(tmp_path: Path) -> None:
    made = table(row(prompt=TALK, response_2={"role": "assistant", "content": "", "tool_calls": call("Rome")}))
    (tmp_path / "pairs").mkdir()
    preference_view(made).to_parquet(tmp_path / "pairs" / "train.parquet")
    (again,) = preference_view(sources.load(tmp_path / "pairs")).to_list()
    # Its JSON rounds numbers, which gives the pair another name.
    assert again | {"pair_id": made[0]["pair_id"]} == preference_view(made)[0]


def test_a_judge_is_shown_what_else_a_message_carries() -> None:
    judge = ChatJudge(Echo(), Instructions(pair="{question}|{answer_a}|{answer_b}"))
    (asked,) = check_messages([ASKED[0] | {"name": "Åse"}], PLACE)
    with pytest.raises(RuntimeError) as caught:
        judge.compare([asked], [Answer("", '{"tool_calls":[1]}'), "Warm."])
    assert str(caught.value) == 'How warm is it in Oslo?\n\n{"name":"Åse"}|{"tool_calls":[1]}|Warm.'


class Echo:
    """An endpoint that says what it was asked."""

    def answer(self, messages: list[dict[str, str]]) -> str:
        raise RuntimeError(messages[-1]["content"])


def test_a_ranking_tells_responses_of_one_text_apart() -> None:
    one, two, three = ({"role": "assistant", "content": "4", "name": name} for name in "abc")
    rows = [(one, two, -1), (two, three, -1), (one, three, -2)]
    ranked = ranking_view(table(*(row(response_1=a, response_2=b, preference=sign) for a, b, sign in rows)))
    assert ranked["responses"][:] == [["4", "4", "4"]]
    assert [json.loads(own)["name"] for own in ranked["extras"][0]] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "wrong, said",
    [
        ([{"role": "User", "content": "Hi"}], "'User' is not a role"),
        ([{"role": "user", "content": None}], "None is not a text"),
        ([{"role": "user", "content": " "}], "the text is empty"),
        ([{"role": "user", "content": [{"type": "image", "url": "x"}]}], "list of parts: ['image']"),
        (
            [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
            "list of parts",
        ),
        ([{"role": "user", "content": "Hi", "score": float("nan")}], "cannot be kept"),
        ([{"role": "user", "content": "Hi", "made": {1, 2}}], "cannot be kept"),
        ([*ASKED, {"role": "assistant", "content": "Cold."}], "the last message is not the user's"),
        ([{"content": "Hi"}], "is not a message"),
    ],
)
def test_what_is_no_conversation_is_refused_by_name(wrong: Any, said: str) -> None:
    with pytest.raises(DataError, match="here.jsonl, row 3, field 'prompt'") as caught:
        check_messages(wrong, PLACE)
    assert said in str(caught.value)


@pytest.mark.parametrize("wrong", ["", " \n", None, float("nan"), 4, {"role": "user", "content": "x"}])
def test_a_response_that_says_nothing_is_refused(wrong: Any) -> None:
    with pytest.raises(DataError, match="row 3"):
        check_response(wrong, PLACE)


@pytest.mark.parametrize(
    "more", [{}, {"content": None}, {"content": "", "name": "bot"}, {"content": "", "tool_calls": []}]
)
def test_a_message_that_says_nothing_and_calls_nothing_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="row 3"):
        check_response({"role": "assistant"} | more, PLACE)


def test_a_response_may_call_a_tool_and_say_nothing_else() -> None:
    found = check_response({"role": "assistant", "content": None, "tool_calls": call("Oslo")}, PLACE)
    assert found == Answer("", json.dumps({"tool_calls": call("Oslo")}, separators=(",", ":")))


def test_a_content_that_is_one_part_of_text_is_that_text() -> None:
    given = [{"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": None}]}]
    assert check_messages(given, PLACE) == [{"role": "user", "content": "Hi"}]
