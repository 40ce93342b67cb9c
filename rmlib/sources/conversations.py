"""Prompts and responses as people give them: texts, last messages, whole conversations, transcripts."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rmlib.pairs import pair_id
from rmlib.pairs.messages import Answer, Response, check_messages, check_response, extras_of, text_of
from rmlib.records.errors import DataError, Place, shown

Row = dict[str, Any]
# Columns that hold texts or messages, in whatever layout.
TEXTS = frozenset((
    "prompt", "chosen", "rejected", "response_1", "response_2", "response_a", "response_b", "conversation_a",
    "conversation_b", "messages", "rejected_messages", "rejected_response", "instruction", "context", "response1",
    "response2", "response",
))  # fmt: skip
# Turns as in HH-RLHF (Bai et al., arXiv 2204.05862), and as in the files of HelpSteer.
_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant): ?|\n?<extra_id_1>(User|Assistant)\n")
_IS_TRANSCRIPT = re.compile(r"\A\s*Human:.*\n\nAssistant:|.*<extra_id_1>(User|Assistant)\n", re.DOTALL)
WRITTEN_MESSAGES = re.compile(r"""\s*\[\s*\{\s*['"](role|content|from|value)['"]\s*:""")


def in_messages(row: Row, place: Place, transcripts: bool | None) -> Row:
    """The row with its transcripts ("Human: ... Assistant: ...") as messages where `transcripts` says so.

    Raises DataError for a text that looks like a transcript where that is not said (None), and for messages written
    into a text.
    """
    made = dict(row)
    for column in TEXTS & row.keys():
        value = row[column]
        if not isinstance(value, str):
            continue
        if WRITTEN_MESSAGES.match(value):
            problem = f"{shown(value)} is a text that holds messages"
            raise DataError(
                place.at(column), problem, "Write them as a list (in csv: as JSON, not as Python prints them)"
            )
        if _IS_TRANSCRIPT.match(value):
            if transcripts is None:
                problem = "a transcript of turns (Human: ... Assistant: ...)"
                remedy = "Set transcripts=True to read it as messages, or transcripts=False where it is one text"
                raise DataError(place.at(column), problem, remedy)
            if transcripts:
                made[column] = _turns(value, open_end=column in ("prompt", "context"))
    return made


def has_transcript(row: Row) -> bool:
    """Whether a text of the row looks like a transcript."""
    return any(isinstance(row[column], str) and _IS_TRANSCRIPT.match(row[column]) for column in TEXTS & row.keys())


def _turns(text: str, *, open_end: bool) -> list[dict[str, str]]:
    """The messages of a transcript; the texts are as written but for the one blank after a colon."""
    marks = list(_TURN.finditer(text))
    turns = [{"role": "user", "content": text[: marks[0].start()]}] if marks[0].start() else []
    for mark, end in zip(marks, [*(mark.start() for mark in marks[1:]), len(text)], strict=True):
        role = "assistant" if "Assistant" in mark.groups() else "user"
        turns.append({"role": role, "content": text[mark.end() : end]})
    return turns[:-1] if open_end and not turns[-1]["content"] and turns[-1]["role"] == "assistant" else turns


def two_responses(row: Row, place: Place, first: str, second: str, prompt: str = "prompt") -> Row:
    """Prompt and both responses of a row, each given as a text, as its last messages, or as a whole conversation."""
    one, other = (one_response(row, place, column, prompt) for column in (first, second))
    if one["prompt"] != other["prompt"]:
        turns = [len(each["prompt"]) + 1 for each in (one, other)]
        problem = f"does not begin like {first}"
        if turns[0] != turns[1]:
            problem += f": it has {turns[1]} messages, not {turns[0]}"
        raise DataError(place.at(second), problem, "Let the two differ in the last message only")
    return one | {"response_2": other["response_1"]}


def one_response(row: Row, place: Place, column: str, prompt: str = "prompt") -> Row:
    """Prompt and response of a row, of the column of prompts and of a text, messages or a whole conversation."""
    given = row.get(prompt)
    asked = [{"role": "user", "content": given}] if isinstance(given, str) else given
    checked = check_messages(asked, place.at(prompt)) if given else []
    context, response = ending(row[column], place.at(column))
    joined = _joined(checked, context, place.at(prompt), is_text=isinstance(given, str))
    if not joined:
        problem = f"there is no prompt, and {column} is no conversation"
        remedy = f"Add it, give whole conversations, or name its column, as in columns={{'question': '{prompt}'}}"
        raise DataError(place.at(prompt), problem, remedy)
    return {"prompt": joined, "response_1": response}


def ending(value: Any, place: Place) -> tuple[list[dict[str, str]], Response]:
    """The messages before the last, and the last, which is the assistant's."""
    if isinstance(value, str | Answer):
        return [], check_response(value, place)
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, Sequence) or not value or not isinstance(value[-1], Mapping):
        raise DataError(place, f"{shown(value)} is neither a text nor messages", "Give the response")
    if "role" not in value[-1]:
        raise DataError(place, f"{shown(value[-1])} is not a message", "Give each message a role and a content")
    if value[-1].get("role") != "assistant":
        raise DataError(place, "the last message is not the assistant's", "End with the response")
    return check_messages(value[:-1], place) if value[:-1] else [], check_response(value[-1], place)


def _joined(
    prompt: list[dict[str, str]], context: list[dict[str, str]], place: Place, *, is_text: bool
) -> list[dict[str, str]]:
    """The conversation that a response answers, of the column of prompts and of what stands before the response."""
    if not prompt or not context:
        return prompt or context
    if context[: len(prompt)] == prompt:
        return context
    if context[0]["role"] == "assistant":
        return prompt + context
    asked = [message["content"] for message in context if message["role"] == "user"]
    if is_text and asked and prompt[0]["content"] in (asked[0], asked[-1]):
        return context
    raise DataError(place, "is not what the conversation begins with", "Leave the column out, or correct it")


def better_first(pair: Row, strength: int = 1) -> Row:
    """A pair whose first response is the better one, with the two in an order that depends on their texts alone."""
    chosen, rejected = pair["response_1"], pair["response_2"]
    first, second = sorted((chosen, rejected), key=lambda response: (text_of(response), extras_of(response) or ""))
    if int(pair_id(pair["prompt"], first, second), 16) % 2:
        first, second = second, first
    label = strength if chosen == second else -strength
    return pair | {"response_1": first, "response_2": second, "label": label, "label_kind": "chosen"}
