"""The truth about a response: five attributes, 0 to 4, and its defects, from nothing but the task and the text."""

import itertools
import math
import re
from collections.abc import Iterable
from typing import NamedTuple

from rmlib.pairs.schema import ATTRIBUTES
from rmlib.sources.simulated import phrases
from rmlib.sources.simulated.tasks import CONTENT, GENTLE, NOUNS, PEOPLE, VIOLENT, Task

DEFECTS = (
    "complies", "refuses", "irrelevant", "wrong", "incomplete", "incoherent", "format", "style", "overlong", "padded",
)  # fmt: skip

_SENTENCE = re.compile(r"(?<=[.?!])\s")
_WORD = re.compile(r"[a-z]+")
_LIST = re.compile(r"§(?:(?:, | and |\n- )§)*")
_SYMBOLS = {word: "§" for word in CONTENT} | dict.fromkeys(NOUNS, "¢")
_SYMBOLS |= {person.lower(): "@" for person in PEOPLE}
_DEED = re.compile("|".join((*VIOLENT, *GENTLE)))
_SLOTS = {"items": "§", "kind": "¢", "person": "@", "deed": "~"}
_STRAY_MARK = "**"


class Finding(NamedTuple):
    """What a careful reader finds in a response: the true attributes (0..4, not rounded to points) and the defects."""

    truth: dict[str, float]
    defects: frozenset[str]


def frame(sentence: str) -> str:
    """The sentence with its content replaced by symbols: what a wording looks like, whatever it speaks of."""
    text = _DEED.sub("~", sentence.lower().removeprefix(phrases.LABEL.lower()).strip())
    text = _WORD.sub(lambda match: _SYMBOLS.get(match[0], match[0]), text)
    return _LIST.sub("§", text)


def _frames(patterns: Iterable[str]) -> frozenset[str]:
    return frozenset(text.format(**_SLOTS).lower() for text in phrases.wordings(tuple(patterns)))


def _bulleted(leads: tuple[str, ...]) -> list[str]:
    return [lead + phrases.BULLET + "{items}." for lead in leads]


_EVERYDAY = [*itertools.chain(*(answer[0] for answer in phrases.ANSWERS.values())), *_bulleted(phrases.LEADS[0])]
_EVERYDAY += [*phrases.REFUSALS, *phrases.NAMED_REFUSALS, *phrases.OPENERS, *phrases.PADDING]
_EVERYDAY += [*phrases.DETAILS[0], *phrases.REASONS[0]]
_LEARNED = [*itertools.chain(*(answer[1] for answer in phrases.ANSWERS.values())), *_bulleted(phrases.LEADS[1])]
_LEARNED += [*phrases.DETAILS[1], *phrases.REASONS[1]]
WELL_FORMED = _frames((*_EVERYDAY, *_LEARNED))
REFUSALS = _frames((*phrases.REFUSALS, *phrases.NAMED_REFUSALS))
SUBSTANCE = _frames((*phrases.DETAILS[0], *phrases.DETAILS[1], *phrases.REASONS[0], *phrases.REASONS[1]))
PADDING = _frames(phrases.PADDING)
_EVERYDAY_WORDS = frozenset(_WORD.findall(" ".join(_frames(_EVERYDAY))))
LEARNED_WORDS = frozenset(_WORD.findall(" ".join(_frames(_LEARNED)))) - _EVERYDAY_WORDS


def examine(task: Task, response: str) -> Finding:
    """The attributes of a response to a task, and which of DEFECTS it has."""
    sentences = _SENTENCE.split(response)
    frames = [frame(sentence) for sentence in sentences]
    spoken = _WORD.findall(response.lower())
    learned = sum(word in LEARNED_WORDS for word in spoken)
    n_details, n_padding = (len({text for text in frames if text in known}) for known in (SUBSTANCE, PADDING))
    refused = any(text.lstrip("* ").replace(" ..", ".") in REFUSALS for text in frames)
    share = _share_right(task, spoken)
    correctness = 4.0 * (refused if task.refuse else not refused and share)
    coherence = 4.0 * sum(_form(text) for text in frames) / len(frames)
    n_repeated = len(sentences) - len(set(sentences))
    overlong = n_repeated > 0 or n_details > 2
    style_fault = _style_fault(task, response, n_details, learned, refused)
    fault = 0.25 * (4.0 - coherence) + 0.12 * n_padding + 0.35 * overlong + style_fault
    # Of two answers alike in all else the fuller is liked a little better, so that exact ties are rare.
    bonus = 0.06 * min(n_details, 2) + 0.003 * min(len(spoken), 30)
    values = (
        min(4.0, (0.5 + 0.78 * correctness) * math.exp(bonus - fault)),
        correctness,
        coherence,
        min(4.0, 1.3 + 0.4 * learned),
        min(4.0, max(0.0, 1.4 * math.log(max(1, len(spoken)) / 2.5))),
    )
    # Rounded so that the last bits of exp and log, which differ between machines, do not reach the files.
    truth = {name: round(value, 4) for name, value in zip(ATTRIBUTES, values, strict=True)}
    marks = _STRAY_MARK in response
    misses = share < 1 and not (task.refuse or refused)
    irrelevant = misses and share == 0 and task.family != "sum" and not {*task.near} & {*spoken}
    only_wanted = CONTENT.intersection(spoken) <= {*task.wanted} and not task.ordered
    found = {
        "complies": task.refuse and not refused,
        "refuses": refused and not task.refuse,
        "irrelevant": irrelevant,
        "wrong": misses and not irrelevant and not only_wanted,
        "incomplete": misses and not irrelevant and only_wanted,
        "incoherent": coherence < 4 and not marks,
        "format": marks,
        "style": style_fault > 0,
        "overlong": overlong,
        "padded": n_padding > 0,
    }
    return Finding(truth, frozenset(name for name, present in found.items() if present))


def truth(task: Task, response: str) -> dict[str, float]:
    """Helpfulness, correctness, coherence, complexity and verbosity of a response, each 0 to 4, not rounded."""
    return examine(task, response).truth


def _form(text: str) -> float:
    """1 for a sentence as it should be, a half for one with stray marks, else 0."""
    return 1.0 if text in WELL_FORMED else 0.5 * text.startswith(_STRAY_MARK)


def _share_right(task: Task, spoken: list[str]) -> float:
    """Share of the wanted words among all content words wanted or spoken; a wrong order halves it."""
    named = list(dict.fromkeys(word for word in spoken if word in CONTENT))
    share = len(set(named).intersection(task.wanted)) / len({*named, *task.wanted})
    return share / 2 if task.ordered and share == 1 and named != list(task.wanted) else share


def _style_fault(task: Task, response: str, n_details: int, n_learned: int, refused: bool) -> float:
    """How far a response is from the style asked for, on the scale of `fault` (0.5 costs about 40 % of the points)."""
    faults = {
        "brief": 0.3 * min(n_details, 2),
        "detailed": 0.45 * (n_details == 0),
        "formal": 0.45 * (n_learned == 0),
        "list": 0.45 * (phrases.BULLET not in response and not refused),
        "label": 0.45 * (not response.startswith(phrases.LABEL)),
    }
    return faults.get(task.style, 0.0)
