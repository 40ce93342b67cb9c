"""A reward as trainers of policies call it: TRL's GRPO and RLOO give prompts and completions, and take one float each.

A plain prompt is one turn of the user, a plain completion the answer; conversations are lists of messages, as TRL has
them. Whatever else a trainer gives (columns of its data set, tokens, its state) no reward depends on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from typing import Any

from rmlib.models.interface import ModelError, Prompt, Scorer
from rmlib.pairs.messages import AsGiven, Response, check_messages, check_response
from rmlib.records.errors import DataError, Place, shown

Conversation = str | Sequence[Mapping[str, Any]]


class RewardFunction:
    """What `reward_function` returns: called as a function, with a name, and picklable where its scorer is."""

    def __init__(self, model: Scorer, name: str) -> None:
        self.model, self.__name__ = model, name

    def __call__(
        self, prompts: Sequence[Conversation], completions: Sequence[Conversation], **_: Any
    ) -> list[float]:  # fmt: skip
        """The reward of each completion to the prompt of the same place; both as texts or as lists of messages.

        Raises DataError naming the place of a conversation that is none, ValueError where the numbers differ, and what
        the scorer raises, e.g. ModelError for a text that is too long.
        """
        for column, given in {"prompts": prompts, "completions": completions}.items():
            if isinstance(given, str | Mapping) or not isinstance(given, Sized):
                raise DataError(Place(column), f"{shown(given)} is no list", "Give one prompt for each completion")
        if len(prompts) != len(completions):
            raise ValueError(f"{len(prompts)} prompts for {len(completions)} completions; give one for each")
        if not prompts:
            return []
        pairs = [_turns(*two, number) for number, two in enumerate(zip(prompts, completions, strict=True), start=1)]
        rewards = self.model.score([prompt for prompt, _ in pairs], AsGiven(response for _, response in pairs))
        return [float(reward) for reward in rewards]


def reward_function(model: Scorer, name: str | None = None) -> RewardFunction:
    """The rewards of a scorer as `reward_funcs` of TRL's GRPOTrainer and RLOOTrainer: f(prompts, completions, **more).

    `name` is what the trainer logs them under, by default the attribute that the model rewards. Raises ModelError for a
    model of several outputs, which are not one reward (fold them with `combining.weigh_attributes`).
    """
    attributes = getattr(model, "attributes", ("reward",))
    if len(attributes) != 1:
        raise ModelError(f"{len(attributes)} outputs are not one reward; use combining.weigh_attributes first")
    return RewardFunction(model, name or attributes[0])


def _turns(prompt: Conversation, completion: Conversation, number: int) -> tuple[Prompt, Response]:
    """The conversation up to the last answer, and that answer, which goes on where the prompt has begun it."""
    begun = _messages(prompt, "user", Place("prompts", number))
    added = _messages(completion, "assistant", Place("completions", number))
    if not added or added[-1].get("role") != "assistant":
        place = Place("completions", number)
        raise DataError(place, "it does not end with a message of the assistant", "Give the answer as the last message")
    if begun and begun[-1].get("role") == "assistant" and len(added) == 1:
        start = begun.pop().get("content") or ""
        added = [{**added[0], "content": start + (added[0].get("content") or "")}]
    *before, answer = [*begun, *added]
    messages = check_messages(before, Place("prompts", number))
    if answer.keys() <= {"role", "content"} and not answer.get("content"):
        return messages, ""  # a policy may end at once, which has a reward as any other answer
    return messages, check_response(answer, Place("completions", number))


def _messages(given: Any, role: str, place: Place) -> list[Any]:
    """A text as a message of this role, messages as they are."""
    if isinstance(given, str):
        return [{"role": role, "content": given}]
    if not isinstance(given, Sequence) or not all(isinstance(message, Mapping) for message in given):
        raise DataError(place, f"{shown(given)} is neither a text nor a list of messages", "Give one of the two")
    return list(given)
