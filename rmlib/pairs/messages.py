"""Messages of a conversation: a role, a content, and whatever else they carry, kept word for word as JSON text."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from datasets import Features, List, Value

from rmlib.records.errors import DataError, Place, check_string, check_text, shown

# The roles that chat templates know: `developer` is that of gpt-oss, `ipython` Llama 3's name for a tool's result,
# `observation` GLM's, `environment` OLMo's; `function` is what OpenAI called `tool` at first.
RESULTS = ("tool", "function", "ipython", "observation", "environment")
ROLES = ("system", "developer", "user", "assistant", *RESULTS)
EXTRAS = "extras"
ARGUMENTS = "arguments"  # of a call in tool_calls or function_call
MESSAGE = {"role": Value("string"), "content": Value("string")}
MESSAGES = List(MESSAGE)
# Of tables in which some message carries more, so that all others stay as they are.
MESSAGES_WITH_EXTRAS = List(MESSAGE | {EXTRAS: Value("string")})

# {"role": …, "content": …}, and `extras` where it carries more: JSON text of an object with its other keys, in their
# order, since a template prints them in that order.
Message = Mapping[str, Any]
Prompt = Sequence[Message]  # the conversation up to the last turn of the user


class Answer(NamedTuple):
    """A response that carries more than its text: the text, and its other keys as JSON text."""

    content: str
    extras: str


Response = str | Answer


class AsGiven(list[Any]):
    """Responses that are scored as they are, empty ones too: what a policy said, or an official benchmark holds."""


def features_of(features: Features, rows: Sequence[Mapping[str, Any]]) -> Features:
    """The features of these rows: columns of messages have `extras` where a message carries more than its text."""
    columns = [name for name, feature in features.items() if feature == MESSAGES]
    more = [name for name in columns if any(EXTRAS in message for row in rows for message in row[name])]
    return Features(features | dict.fromkeys(more, MESSAGES_WITH_EXTRAS))


def check_messages(prompt: Any, place: Place) -> list[dict[str, str]]:
    """The prompt as messages of the table, if it is a list of messages that ends with one to be answered.

    A message has a role, a content and any other keys (tool_calls, tool_call_id, name, reasoning_content, ...), which
    are kept in `extras`; a null among them counts as absent, but not within the arguments of a call. What calls a tool
    needs no content.
    """
    if not isinstance(prompt, Sequence) or isinstance(prompt, str) or not prompt:
        raise DataError(place, f"{shown(prompt)} is not a list of messages", "Give [{role, content}, ...]")
    messages = [_check_message(message, place) for message in prompt]
    if messages[-1]["role"] not in ("user", *RESULTS):
        raise DataError(place, "the last message is not the user's", "End the prompt with the turn to be answered")
    if messages[-1]["role"] == "user":
        check_text(messages[-1]["content"], place)
    return messages


def check_response(given: Any, place: Place) -> Response:
    """The response: a text, or a message of the assistant with its other keys, which becomes an Answer if it has any.

    Raises DataError where it says nothing: no text, and no tool called.
    """
    if isinstance(given, str):
        return check_text(given, place)
    if isinstance(given, Answer):
        given = {"role": "assistant", "content": given.content, EXTRAS: given.extras}
    if not isinstance(given, Mapping):
        raise DataError(place, f"{shown(given)} is not a text, nor a message", "Give the assistant's answer")
    message = _check_message(given, place)
    if message["role"] != "assistant":
        raise DataError(place, "the message is not the assistant's", "Give the assistant's answer")
    extras = message.get(EXTRAS)
    if extras is None or not _calls_tool(json.loads(extras)):
        check_text(message["content"], place)
    return message["content"] if extras is None else Answer(message["content"], extras)


def conversations(
    prompts: Iterable[Prompt | str], responses: Iterable[Response | Message]
) -> tuple[list[Prompt], list[Response]]:
    """Prompts and responses as a model reads them: a prompt that is a text is one turn of the user.

    Raises DataError, with the row from 0, for what is no conversation, and for an answer that says nothing (None, NaN,
    an empty text) unless the responses are AsGiven; ValueError where their numbers differ.
    """
    for given in (prompts, responses):
        if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
            what = "a text" if isinstance(given, str) else shown(given)
            raise DataError(Place("score"), f"{what} in place of a list of texts", "Give one prompt for each response")
    prompts, empty_too, responses = list(prompts), isinstance(responses, AsGiven), list(responses)
    if len(prompts) != len(responses):
        raise ValueError(f"{len(prompts)} prompts for {len(responses)} responses; give one prompt for each response")
    asked: list[Prompt] = []
    for row, prompt in enumerate(prompts):
        if row and prompt is prompts[row - 1]:
            asked.append(asked[-1])
            continue
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        asked.append(check_messages(messages, Place("score", row, "prompts")))
    answers = list[Response]()
    for row, response in enumerate(responses):
        if empty_too and isinstance(response, str):
            answers.append(response)
        else:
            answers.append(check_response(response, Place("score", row, "responses")))
    return asked, answers


def text_of(response: Response) -> str:
    """The text of a response, which is empty where it does nothing but call a tool."""
    return response if isinstance(response, str) else response.content


def in_words(response: Response) -> str:
    """The response as who judges it is shown it: its text and, below, what else it carries as JSON."""
    return response if isinstance(response, str) else f"{response.content}\n\n{response.extras}".lstrip()


def extras_of(response: Response) -> str | None:
    """What else it carries, as JSON text; None where it is nothing but a text."""
    return None if isinstance(response, str) else response.extras


def merged(texts: Iterable[str], extras: Iterable[str | None]) -> list[Response]:
    """Responses from their texts and what else each carries, as tables hold them."""
    return [text if own is None else Answer(text, own) for text, own in zip(texts, extras, strict=True)]


def with_own_keys(message: Message) -> dict[str, Any]:
    """The message as its author wrote it: role, content and its own other keys."""
    own = json.loads(message.get(EXTRAS) or "{}")
    return {"role": message["role"], "content": message["content"]} | own


def as_message(response: Response) -> dict[str, Any]:
    """The response as the message of the assistant that its author wrote."""
    return with_own_keys({"role": "assistant", "content": text_of(response), EXTRAS: extras_of(response)})


def differ_by(first: Response, second: Response) -> list[str]:
    """The keys by which two responses of the same text differ; none where they are equal, or their texts differ."""
    if text_of(first) != text_of(second):
        return []
    one, two = as_message(first), as_message(second)
    return sorted(key for key in one.keys() | two.keys() if one.get(key) != two.get(key))


def _check_message(given: Any, place: Place) -> dict[str, str]:
    if not isinstance(given, Mapping) or "role" not in given:
        raise DataError(place, f"{shown(given)} is not a message", "Give each message a role and a content")
    if given["role"] not in ROLES:
        raise DataError(place, f"{shown(given['role'])} is not a role", f"Use one of {', '.join(ROLES)}")
    message = {"role": given["role"], "content": given.get("content")}
    own = _own_keys(given, place) if len(given) > 2 or "content" not in given else {}
    if message["content"] is None and (_calls_tool(own) or (own and given["role"] == "assistant")):
        message["content"] = ""
    if isinstance(message["content"], list):
        message["content"] = _only_text(message["content"], place)
    if message["content"] is None and "content" not in given:
        raise DataError(place, f"{shown(given)} is not a message", "Give each message a role and a content")
    check_string(message["content"], place)
    if own:
        message[EXTRAS] = json.dumps(own, ensure_ascii=False, separators=(",", ":"))
    return message


def _only_text(parts: list[Any], place: Place) -> str:
    """The text of a content that is given as a list of parts, where that is one text and nothing else."""
    kinds = [part.get("type") if isinstance(part, Mapping) else part for part in parts]
    if kinds != ["text"]:
        problem = f"the content is a list of parts: {shown(kinds)}"
        raise DataError(place, problem, "Give one text; several parts, pictures and the like cannot be read")
    return parts[0].get("text")


def _own_keys(given: Message, place: Place) -> dict[str, Any]:
    """All but role and content, without nulls, whether they stand in the message or already in its `extras`."""
    own = {key: value for key, value in given.items() if key not in ("role", "content")}
    kept = _object_in(own.get(EXTRAS))
    if kept is not None:
        own = {key: value for key, value in own.items() if key != EXTRAS} | kept
    own = _without_nulls(own)
    try:
        check_string(json.dumps(own, ensure_ascii=False, allow_nan=False), place)
    except (TypeError, ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        problem = f"{shown(own)} cannot be kept with the message ({error})"
        raise DataError(place, problem, "Give what JSON has: texts, numbers, true, false, lists and objects") from error
    return own


def _object_in(extras: Any) -> dict[str, Any] | None:
    """The keys in the `extras` of a message that was checked before; None where it is a key of the user's own."""
    if not isinstance(extras, str):
        return None
    try:
        found = json.loads(extras)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _without_nulls(value: Any) -> Any:
    """Without keys that are null, since Arrow gives every object of a column the keys of all of them.

    The arguments of a call are the author's own, and a null says something there.
    """
    if isinstance(value, Mapping):
        return {
            key: item if key == ARGUMENTS else _without_nulls(item) for key, item in value.items() if item is not None
        }
    return [_without_nulls(item) for item in value] if isinstance(value, list | tuple) else value


def _calls_tool(own: Mapping[str, Any]) -> bool:
    return bool(own.get("tool_calls") or own.get("function_call"))
