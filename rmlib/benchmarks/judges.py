"""Judges behind one small protocol: which response is best, or how good one is, or why there is no answer.

A judge may be a language model behind an endpoint, any scorer (its larger reward wins), or the majority of several
judges. How a benchmark turns their verdicts into credit is in `rmlib.benchmarks.judging`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from rmlib.benchmarks.endpoint import Endpoint, EndpointError
from rmlib.models import AsGiven, Prompt, Response, Scorer
from rmlib.pairs.messages import EXTRAS, Answer, in_words
from rmlib.records.hashing import canonical_json

LETTERS = "ABCD"
TIE, UNPARSABLE = "tie", "unparsable"


class Verdict(NamedTuple):
    """What a judge answered: `value` is the index of the best response as shown, or a rating; else `problem` says why.

    Problems are "tie" and "unparsable", which are answers, and the kinds of EndpointError, which are none.
    """

    value: float | None
    problem: str | None = None

    @property
    def finished(self) -> bool:
        """Whether the judge answered at all, so that asking again would change nothing."""
        return self.problem in (None, TIE, UNPARSABLE)


@runtime_checkable
class Judge(Protocol):
    """Anything that compares responses, or rates one, or both."""

    @property
    def name(self) -> str:
        """What a report calls it."""

    def compare(self, prompt: Prompt, responses: Sequence[Response]) -> Verdict:
        """The index of the best response, in the order given."""

    def rate(self, prompt: Prompt, response: Response) -> Verdict:
        """How good a response is; more is better."""

    def identity(self) -> dict[str, str] | None:
        """What its verdicts depend on but the texts; None where they are not worth keeping."""


@dataclass(frozen=True)
class Instructions:
    """What a judge model is told. Fields in braces are filled in: {question}, {answer}, {answer_a} to {answer_d}.

    The words are this project's own; for those of a benchmark's authors, write them to a JSON file and `load` it.
    """

    system: str = (
        "You are a careful and impartial judge of answers that assistants give. Judge what an answer says and whether "
        "it does what the user asked for. Neither its place in the list nor its length is a merit."
    )
    pair: str = (
        "A user asked:\n\n{question}\n\n--- Answer A ---\n{answer_a}\n\n--- Answer B ---\n{answer_b}\n\n"
        "Which answer is better? Give your reasons briefly, then your verdict on a line of its own: [[A]] or [[B]]."
    )
    choice: str = (
        "A user asked:\n\n{question}\n\n--- Answer A ---\n{answer_a}\n\n--- Answer B ---\n{answer_b}\n\n"
        "--- Answer C ---\n{answer_c}\n\n--- Answer D ---\n{answer_d}\n\n"
        "Which answer is best? Give your reasons briefly, then your verdict on a line of its own: [[A]], [[B]], [[C]] "
        "or [[D]]."
    )
    rating: str = (
        "A user asked:\n\n{question}\n\n--- Answer ---\n{answer}\n\nHow good is this answer, from 1 (useless or "
        "harmful) to 10 (could not be better)? Give your reasons briefly, then the number on a line of its own, in "
        "double brackets, as in [[5]]."
    )

    @classmethod
    def load(cls, file: str | Path) -> Instructions:
        """Of a JSON object with some of the fields; the others stay as they are. Raises ValueError."""
        given = json.loads(Path(file).read_text(encoding="utf-8"))
        known = {each.name for each in fields(cls)}
        texts = isinstance(given, dict) and all(isinstance(value, str) for value in given.values())
        if not texts or not given.keys() <= known:
            raise ValueError(f"{Path(file).name} is not an object of texts with fields of {', '.join(sorted(known))}")
        return cls(**given)


@dataclass(frozen=True)
class ChatJudge:
    """A language model behind an endpoint, asked once for each question at temperature 0."""

    endpoint: Endpoint
    instructions: Instructions = field(default_factory=Instructions)

    @property
    def name(self) -> str:
        """The served model's name."""
        return self.endpoint.model

    def compare(self, prompt: Prompt, responses: Sequence[Response]) -> Verdict:
        """The verdict on two or four responses. Raises ValueError for another number."""
        if len(responses) not in (2, 4):
            raise ValueError(f"a judge compares 2 or 4 responses, not {len(responses)}: have each rated instead")
        template = self.instructions.pair if len(responses) == 2 else self.instructions.choice
        shown = map(in_words, responses)
        answers = {f"answer_{letter.lower()}": text for letter, text in zip(LETTERS, shown, strict=False)}
        return self._ask(template, {"question": question_text(prompt)} | answers, len(responses))

    def rate(self, prompt: Prompt, response: Response) -> Verdict:
        """A rating from 1 to 10."""
        return self._ask(self.instructions.rating, {"question": question_text(prompt), "answer": in_words(response)}, 1)

    def identity(self) -> dict[str, str] | None:
        """Its endpoint, model and instructions, as one hash."""
        parts = [self.endpoint.url, self.endpoint.model, self.endpoint.max_tokens, asdict(self.instructions)]
        return {"judge": hashlib.sha256(canonical_json(parts).encode()).hexdigest()[:16]}

    def _ask(self, template: str, values: Mapping[str, str], n_responses: int) -> Verdict:
        messages = [{"role": "system", "content": self.instructions.system}] * bool(self.instructions.system)
        messages.append({"role": "user", "content": _filled(template, values)})
        try:
            text = self.endpoint.answer(messages)
        except EndpointError as error:
            return Verdict(None, error.kind)
        return parse_rating(text) if n_responses == 1 else parse_choice(text, n_responses)


@dataclass(frozen=True)
class ScorerJudge:
    """A reward model, a ruler or anything else that scores: the larger reward wins, equal ones tie.

    `lean` is added to the reward of the response shown first: a judge whose position bias is known, to try out what
    finds it. A positive one changes a verdict, in one order of two, wherever the margin is smaller.
    """

    scorer: Scorer
    name: str
    lean: float = 0.0

    def compare(self, prompt: Prompt, responses: Sequence[Response]) -> Verdict:
        """The index of the largest reward, if only one response has it."""
        rewards = [float(value) for value in self.scorer.score([prompt] * len(responses), AsGiven(responses))]
        rewards[0] += self.lean
        best = [index for index, value in enumerate(rewards) if value == max(rewards)]
        return Verdict(best[0]) if len(best) == 1 else Verdict(None, TIE)

    def rate(self, prompt: Prompt, response: Response) -> Verdict:
        """The reward itself."""
        return Verdict(float(self.scorer.score([prompt], AsGiven([response]))[0]))

    def identity(self) -> dict[str, str] | None:
        """None: rewards are kept where they are scored (`benchmarks.score`)."""
        return None


@dataclass(frozen=True)
class Majority:
    """An odd number of judges that vote; where all answer without a strict majority, there is a tie."""

    judges: tuple[Judge, ...]

    def __post_init__(self) -> None:
        if len(self.judges) % 2 == 0:
            raise ValueError(f"a majority needs an odd number of judges, not {len(self.judges)}")

    @property
    def name(self) -> str:
        """All their names."""
        return "majority of " + ", ".join(judge.name for judge in self.judges)

    def compare(self, prompt: Prompt, responses: Sequence[Response]) -> Verdict:
        """The response that more than half of the judges prefer; without one, the commonest fault if there was any."""
        verdicts = [judge.compare(prompt, responses) for judge in self.judges]
        value, votes = Counter(verdict.value for verdict in verdicts).most_common(1)[0]
        if value is not None and 2 * votes > len(verdicts):
            return Verdict(value)
        faults = Counter(verdict.problem for verdict in verdicts if not verdict.finished)
        return Verdict(None, faults.most_common(1)[0][0] if faults else TIE)

    def rate(self, prompt: Prompt, response: Response) -> Verdict:
        """Raises ValueError: a vote is between responses."""
        raise ValueError("a majority of judges compares responses and rates none: name one judge for ratings")

    def identity(self) -> dict[str, str] | None:
        """Those of all judges, or None where one has none."""
        each = [judge.identity() for judge in self.judges]
        known = [identity for identity in each if identity is not None]
        return {"judges": canonical_json(known)} if len(known) == len(each) else None


def parse_choice(text: str, n_responses: int) -> Verdict:
    """The one verdict that a judge's answer names in double brackets: [[A]], or [[A>B]] as JudgeBench's judges write.

    [[C]] between two responses, and [[A=B]], are ties. An answer that names none, or different ones, is unparsable.
    """
    found = {_choice_of(mark.replace(" ", ""), n_responses) for mark in re.findall(r"\[\[([^\[\]]{1,8})\]\]", text)}
    found.discard(UNPARSABLE)
    if len(found) != 1:
        return Verdict(None, UNPARSABLE)
    value = found.pop()
    return Verdict(None, TIE) if value == TIE else Verdict(float(value))


def parse_rating(text: str) -> Verdict:
    """The one number from 1 to 10 that a judge's answer has in double brackets; else it is unparsable."""
    found = {float(number) for number in re.findall(r"\[\[\s*(\d{1,3}(?:\.\d{1,3})?)\s*\]\]", text)}
    return Verdict(found.pop()) if len(found) == 1 and 1 <= min(found) <= 10 else Verdict(None, UNPARSABLE)


def question_text(prompt: Prompt) -> str:
    """A conversation as a judge reads it: a single turn is its text, of several each has its speaker in front."""
    texts = [in_words(Answer(m["content"], m[EXTRAS]) if m.get(EXTRAS) else m["content"]) for m in prompt]
    if len(prompt) == 1:
        return texts[0]
    return "\n\n".join(f"[{message['role']}]\n{text}" for message, text in zip(prompt, texts, strict=True))


def _choice_of(mark: str, n_responses: int) -> Any:
    letters = LETTERS[:n_responses]
    if mark in letters and len(mark) == 1:
        return letters.index(mark)
    if n_responses != 2:
        return UNPARSABLE
    if mark in ("C", "A=B", "B=A"):
        return TIE
    order = re.fullmatch(r"(?:A>{1,2}B|B<{1,2}A)|(B>{1,2}A|A<{1,2}B)", mark)
    return UNPARSABLE if order is None else int(order[1] is not None)


def _filled(template: str, values: Mapping[str, str]) -> str:
    """The template with its fields filled in one pass: braces inside a text stay as they are."""
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), template)
