"""Tasks: a prompt in plain English together with what a right answer to it contains."""

import random
from dataclasses import dataclass, field

from rmlib.sources.simulated import phrases, words

Messages = list[dict[str, str]]

# How often each family and each style is asked for, in percent.
FAMILIES = {"collect": 26, "mention": 10, "recall": 6, "sum": 4, "program": 16, "advice": 30, "praise": 4, "insult": 4}
STYLES = {"free": 30, "brief": 25, "detailed": 25, "formal": 20}
MULTI_TURN_SHARE = 0.29  # published: about 29 % of HelpSteer2's prompts


@dataclass(frozen=True)
class Task:
    """A prompt, the content words that a right answer has, and likely wrong ones (near: from the same prompt)."""

    family: str
    style: str
    prompt: Messages
    wanted: tuple[str, ...]
    near: tuple[str, ...]
    far: tuple[str, ...]
    refuse: bool
    slots: dict[str, str] = field(default_factory=dict)


def draw_task(
    rng: random.Random, family: str | None = None, style: str | None = None, *, multi_turn: float = MULTI_TURN_SHARE
) -> Task:
    """A random task, of a given family or style if any; `multi_turn` is the probability of two user turns."""
    family = family or rng.choices(list(FAMILIES), list(FAMILIES.values()))[0]
    style = style or rng.choices(list(STYLES), list(STYLES.values()))[0]
    wanted, near, far, slots = _DRAW[family](rng)
    refuse = family == "insult" or (family == "advice" and wanted[0] in words.HARMFUL)
    prompt = _conversation(rng, family, style, slots, rng.random() < multi_turn)
    return Task(family, style, prompt, wanted, near, far, refuse, slots)


Content = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], dict[str, str]]


def _collect(rng: random.Random) -> Content:
    kind, other = rng.sample(list(words.NOUNS), 2)
    wanted = rng.sample(words.NOUNS[kind], rng.choice((1, 2, 2, 3)))
    near = rng.sample(words.NOUNS[other], rng.choice((1, 2, 2, 3)))
    given = rng.sample(wanted + near, len(wanted) + len(near))
    far = [noun for noun in words.KIND_OF if noun not in given]
    in_order = tuple(noun for noun in given if noun in wanted)
    return in_order, tuple(near), tuple(far), {"kind": kind, "given": phrases.listed(given)}


def _mention(rng: random.Random) -> Content:
    wanted = rng.sample(list(words.KIND_OF), rng.choice((1, 2, 3)))
    far = [noun for noun in words.KIND_OF if noun not in wanted]
    return tuple(wanted), (), tuple(far), {"given": phrases.listed(wanted)}


def _recall(rng: random.Random) -> Content:
    n = rng.choice((2, 3))
    people, nouns = rng.sample(words.PEOPLE, n), rng.sample(list(words.KIND_OF), n)
    facts = phrases.listed([f"{person} has the {noun}" for person, noun in zip(people, nouns, strict=True)])
    asked = rng.randrange(n)
    near = tuple(noun for noun in nouns if noun != nouns[asked])
    far = tuple(noun for noun in words.KIND_OF if noun not in nouns)
    return (nouns[asked],), near, far, {"facts": facts, "person": people[asked]}


def _sum(rng: random.Random) -> Content:
    first, second = rng.randint(2, 6), rng.randint(2, 6)
    total = first + second
    near = tuple(words.NUMBERS[n] for n in (total - 2, total - 1, total + 1, total + 2) if n < len(words.NUMBERS))
    far = tuple(number for number in words.NUMBERS if number not in near and number != words.NUMBERS[total])
    kind, other = rng.sample(list(words.NOUNS), 2)
    numbers = {"first": words.NUMBERS[first], "second": words.NUMBERS[second]}
    return (words.NUMBERS[total],), near, far, numbers | {"kind": kind, "other": other}


def _program(rng: random.Random) -> Content:
    operation = rng.choices(("filter", "first", "last", "count"), (70, 10, 10, 10))[0]
    wanted, near, far, slots = _collect(rng)
    slots |= {"operation": operation, "language": rng.choice(list(words.LANGUAGES.values()))}
    items = slots["given"].replace(" and ", ", ").split(", ")
    if operation == "count":
        numbers = tuple(words.NUMBERS[n] for n in (2, 3, 4, 5, 6) if n != len(items))
        return (words.NUMBERS[len(items)],), numbers, tuple(words.KIND_OF), slots
    if operation != "filter":
        wanted = (items[0] if operation == "first" else items[-1],)
        near = tuple(noun for noun in items if noun not in wanted)
    return wanted, near, far, slots


def _advice(rng: random.Random) -> Content:
    deed = rng.choice(list(words.DEEDS))
    thing = rng.choice(words.DEEDS[deed][rng.random() < 0.45])
    same = words.HARMFUL if thing in words.HARMFUL else words.HARMLESS
    return (thing,), (), tuple(other for other in same if other != thing), {"deed": deed, "thing": thing}


def _group(rng: random.Random) -> Content:
    group = rng.choice(words.GROUPS)
    return (group,), (), tuple(other for other in words.GROUPS if other != group), {"group": group}


_DRAW = {
    "collect": _collect, "mention": _mention, "recall": _recall, "sum": _sum, "program": _program, "advice": _advice,
    "praise": _group, "insult": _group,
}  # fmt: skip


def _conversation(rng: random.Random, family: str, style: str, slots: dict[str, str], two_turns: bool) -> Messages:
    """The request and the wish for a style as one user turn, or cut into two turns with a short reply between."""
    filled = dict(slots)
    if family == "program":
        filled["operation"] = phrases.fill(rng, (phrases.OPERATIONS[slots["operation"]],), **slots)
    request = phrases.fill(rng, phrases.REQUESTS[family], **filled)
    wish = phrases.fill(rng, phrases.STYLES[style])
    before, _, after = request.rpartition(" || ")
    turns = [" ".join(filter(None, (before, after, wish)))]
    if two_turns:
        turns = _two_turns(rng, before, after, wish)
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]


def _two_turns(rng: random.Random, before: str, after: str, wish: str) -> list[str]:
    """First turn: what is given, the wish for a style, or a greeting."""
    request = f"{before} {after}".strip()
    if before and rng.random() < 0.5:
        return [before, phrases.fill(rng, phrases.AGREED), f"{after} {wish}".strip()]
    if wish:
        return [wish, phrases.fill(rng, phrases.AGREED), request]
    return [*(phrases.fill(rng, (pattern,)) for pattern in phrases.GREETING), request]
