"""The truth about a response: five attributes, 0 to 4, computed from nothing but the task and the text."""

import itertools
import math
import re
from collections.abc import Iterable

from rmlib.schema import ATTRIBUTES
from rmlib.sources.simulated import phrases, words
from rmlib.sources.simulated.tasks import Task

_SENTENCE = re.compile(r"(?<=[.?!]) ")
_WORD = re.compile(r"[a-z]+")
_LIST = re.compile(r"§(?:(?:, | and )§)*")
_SYMBOLS = {word: "§" for word in words.CONTENT} | dict.fromkeys(words.NOUNS, "¢")
_SYMBOLS |= {person.lower(): "@" for person in words.PEOPLE}
_DEED = re.compile("|".join(words.DEEDS))
_SLOTS = {"items": "§", "kind": "¢", "person": "@", "deed": "~"}


def frame(sentence: str) -> str:
    """The sentence with its content replaced by symbols: what a wording looks like, whatever it speaks of."""
    text = _DEED.sub("~", sentence.lower())
    text = _WORD.sub(lambda match: _SYMBOLS.get(match[0], match[0]), text)
    return _LIST.sub("§", text)


def _frames(patterns: Iterable[str]) -> frozenset[str]:
    return frozenset(text.format(**_SLOTS).lower() for text in phrases.wordings(tuple(patterns)))


_EVERYDAY = [*itertools.chain(*(answer[0] for answer in phrases.ANSWERS.values()))]
_EVERYDAY += [*phrases.REFUSALS, *phrases.NAMED_REFUSALS, *phrases.OPENERS, *phrases.PADDING]
_EVERYDAY += [*phrases.DETAILS[0], *phrases.REASONS[0]]
_LEARNED = [*itertools.chain(*(answer[1] for answer in phrases.ANSWERS.values()))]
_LEARNED += [*phrases.DETAILS[1], *phrases.REASONS[1]]
WELL_FORMED = _frames((*_EVERYDAY, *_LEARNED))
REFUSALS = _frames((*phrases.REFUSALS, *phrases.NAMED_REFUSALS))
SUBSTANCE = _frames((*phrases.DETAILS[0], *phrases.DETAILS[1], *phrases.REASONS[0], *phrases.REASONS[1]))
PADDING = _frames(phrases.PADDING)
_EVERYDAY_WORDS = frozenset(_WORD.findall(" ".join(_frames(_EVERYDAY))))
LEARNED_WORDS = frozenset(_WORD.findall(" ".join(_frames(_LEARNED)))) - _EVERYDAY_WORDS


def truth(task: Task, response: str) -> dict[str, float]:
    """Helpfulness, correctness, coherence, complexity and verbosity of a response, each 0 to 4, not rounded."""
    sentences = _SENTENCE.split(response)
    frames = [frame(sentence) for sentence in sentences]
    spoken = _WORD.findall(response.lower())
    refused = not REFUSALS.isdisjoint(frames)
    correctness = 4.0 * (refused if task.refuse else not refused and _coverage(task.wanted, spoken))
    coherence = 4.0 * sum(text in WELL_FORMED for text in frames) / len(frames)
    learned = sum(word in LEARNED_WORDS for word in spoken)
    complexity = min(4.0, 1.3 + 0.4 * learned)
    verbosity = min(4.0, max(0.0, 1.4 * math.log(len(spoken) / 2.5)))
    n_details = sum(text in SUBSTANCE for text in frames)
    n_padding = sum(text in PADDING for text in frames)
    # Of two answers alike in all else the shorter is liked a little better, so that exact ties are rare.
    fault = 0.25 * (4.0 - coherence) + 0.3 * n_padding + 0.003 * len(spoken)
    fault += _style_fault(task.style, n_details, learned)
    helpfulness = (0.6 + 0.85 * correctness) * math.exp(-fault)
    values = (helpfulness, correctness, coherence, complexity, verbosity)
    # Rounded so that the last bits of exp and log, which differ between machines, do not reach the files.
    return {name: round(value, 4) for name, value in zip(ATTRIBUTES, values, strict=True)}


def _coverage(wanted: tuple[str, ...], spoken: list[str]) -> float:
    """Share of the wanted words among all content words wanted or spoken (1: exactly what was asked for)."""
    named = words.CONTENT.intersection(spoken)
    return len(named.intersection(wanted)) / len(named.union(wanted))


def _style_fault(style: str, n_details: int, n_learned: int) -> float:
    """How far a response is from the style asked for, on the scale of `fault` (0.5 costs about 40 % of the points)."""
    match style:
        case "brief":
            return 0.35 * min(n_details, 2)
        case "detailed":
            return 0.0 if n_details else 0.55
        case "formal":
            return 0.0 if n_learned else 0.55
    return 0.0
