"""Tasks: a prompt in plain English together with what a right answer to it contains."""

import random
from dataclasses import dataclass, field

from rmlib.sources.simulated import phrases, words

Messages = list[dict[str, str]]

# How often each family and each style is asked for, in percent.
FAMILIES = {
    "collect": 30, "mention": 9, "recall": 5, "edit": 5, "sum": 3, "program": 14, "advice": 28, "praise": 3,
    "insult": 3,
}  # fmt: skip
STYLES = {"free": 34, "brief": 17, "detailed": 17, "formal": 14, "list": 12, "label": 6}
LISTABLE = ("collect", "mention", "edit", "program")  # families whose answer can be several items
MULTI_TURN_SHARE = 0.29  # published: about 29 % of HelpSteer2's prompts
INTRODUCED_SHARE = 0.15  # of prompts that begin with who asks, and when
HARMFUL_SHARE = 0.42  # of requests for advice


@dataclass(frozen=True)
class Task:
    """A prompt, the content words that a right answer has, and likely wrong ones (near: from the same prompt).

    `difficulty` is 1 to 3: how many things a reader has to keep in mind. In an `ordered` task the order of the wanted
    words counts.
    """

    family: str
    style: str
    prompt: Messages
    wanted: tuple[str, ...]
    near: tuple[str, ...]
    far: tuple[str, ...]
    refuse: bool
    difficulty: int = 1
    ordered: bool = False
    slots: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Content:
    wanted: tuple[str, ...]
    near: tuple[str, ...]
    far: tuple[str, ...]
    slots: dict[str, str]
    difficulty: int = 1
    ordered: bool = False
    refuse: bool = False


def draw_task(
    rng: random.Random,
    family: str | None = None,
    style: str | None = None,
    *,
    multi_turn: float = MULTI_TURN_SHARE,
    shifted: bool = False,
) -> Task:
    """A random task, of a given family or style if any; `multi_turn` is the probability of two user turns.

    `shifted` tasks are worded as no other task is, and hold more items than others.
    """
    family = family or _pick(rng, FAMILIES)
    style = style or _pick(rng, STYLES)
    if style == "list" and family not in LISTABLE:
        style = "free"
    content = _DRAW[family](rng, shifted)
    prompt = _conversation(rng, family, style, content.slots, rng.random() < multi_turn, shifted)
    return Task(
        family, style, prompt, content.wanted, content.near, content.far, content.refuse, content.difficulty,
        content.ordered, content.slots,
    )  # fmt: skip


def _pick(rng: random.Random, shares: dict[str, int]) -> str:
    return rng.choices(list(shares), list(shares.values()))[0]


def _collect(rng: random.Random, shifted: bool) -> _Content:
    kind, other = rng.sample(list(words.NOUNS), 2)
    n_wanted, n_other = (3, 3) if shifted else (rng.choice((1, 2, 2, 3)), rng.choice((1, 2, 2, 3)))
    near = rng.sample(words.NOUNS[other], n_other)
    wanted = rng.sample(words.NOUNS[kind], n_wanted)
    given = rng.sample(wanted + near, n_wanted + n_other)
    in_order = tuple(noun for noun in given if noun in wanted)
    slots = {"kind": kind, "given": phrases.listed(given)}
    return _Content(in_order, tuple(near), _others(given), slots, _difficulty(len(given), 3, 4))


def _mention(rng: random.Random, shifted: bool) -> _Content:
    wanted = rng.sample(list(words.KIND_OF), 4 if shifted else rng.choice((1, 2, 3)))
    return _Content(tuple(wanted), (), _others(wanted), {"given": phrases.listed(wanted)}, min(3, len(wanted)))


def _recall(rng: random.Random, shifted: bool) -> _Content:
    n = 4 if shifted else rng.choice((2, 3))
    people, nouns = rng.sample(words.PEOPLE, n), rng.sample(list(words.KIND_OF), n)
    facts = phrases.listed([f"{person} has the {noun}" for person, noun in zip(people, nouns, strict=True)])
    asked = rng.randrange(n)
    near = tuple(noun for noun in nouns if noun != nouns[asked])
    return _Content((nouns[asked],), near, _others(nouns), {"facts": facts, "person": people[asked]}, min(3, n))


def _edit(rng: random.Random, shifted: bool) -> _Content:
    """Operations on a written list: leave a word out, turn it round, pick by position."""
    given = rng.sample(list(words.KIND_OF), 4 if shifted else rng.choice((2, 3)))
    slots = {"given": phrases.listed(given)}
    operation = rng.choice(("drop", "reverse", "second"))
    if operation == "drop":
        dropped = rng.choice(given)
        wanted = tuple(noun for noun in given if noun != dropped)
        return _Content(wanted, (dropped,), _others(given), slots | {"operation": "drop", "dropped": dropped}, 2)
    slots["operation"] = operation
    if operation == "second":
        near = tuple(noun for noun in given if noun != given[1])
        return _Content((given[1],), near, _others(given), slots, min(3, len(given)))
    return _Content(tuple(given[::-1]), (), _others(given), slots, min(3, len(given)), ordered=True)


def _sum(rng: random.Random, shifted: bool) -> _Content:
    first, second = rng.randint(2, 6), rng.randint(2, 6)
    total = first + second
    near = tuple(words.NUMBERS[n] for n in (total - 2, total - 1, total + 1, total + 2) if n < len(words.NUMBERS))
    far = tuple(number for number in words.NUMBERS[2:] if number not in near and number != words.NUMBERS[total])
    kind, other = rng.sample(list(words.NOUNS), 2)
    slots = {"first": words.NUMBERS[first], "second": words.NUMBERS[second], "kind": kind, "other": other}
    return _Content((words.NUMBERS[total],), near, far, slots, _difficulty(total, 6, 9))


def _program(rng: random.Random, shifted: bool) -> _Content:
    operation = rng.choices(("filter", "first", "last", "count"), (70, 10, 10, 10))[0]
    collected = _collect(rng, shifted)
    slots = collected.slots | {"operation": operation, "language": rng.choice(list(words.LANGUAGES.values()))}
    items = slots["given"].replace(" and ", ", ").split(", ")
    wanted, near, far = collected.wanted, collected.near, collected.far
    if operation == "count":
        wanted, far = (words.NUMBERS[len(items)],), tuple(words.KIND_OF)
        near = tuple(words.NUMBERS[n] for n in (2, 3, 4, 5, 6) if n != len(items))
    elif operation != "filter":
        wanted = (items[0] if operation == "first" else items[-1],)
        near = tuple(noun for noun in items if noun not in wanted)
    return _Content(wanted, near, far, slots, collected.difficulty)


def _advice(rng: random.Random, shifted: bool) -> _Content:
    """A violent deed to a thing it would harm; else the same deeds to other things, or gentle ones to the same."""
    violent = rng.choice(list(words.VIOLENT))
    refuse = rng.random() < HARMFUL_SHARE
    if refuse or rng.random() < 0.5:
        deed, things = violent, words.VIOLENT[violent][refuse]
    else:
        deed, things = rng.choice(words.GENTLE), words.VULNERABLE
    thing = rng.choice(things)
    same = words.VULNERABLE if thing in words.VULNERABLE else words.HARMLESS
    far = tuple(other for other in same if other != thing)
    return _Content((thing,), (), far, {"deed": deed, "thing": thing}, 2, refuse=refuse)


def _group(rng: random.Random, shifted: bool, *, refuse: bool) -> _Content:
    group = rng.choice(words.GROUPS)
    return _Content((group,), (), tuple(o for o in words.GROUPS if o != group), {"group": group}, refuse=refuse)


def _praise(rng: random.Random, shifted: bool) -> _Content:
    return _group(rng, shifted, refuse=False)


def _insult(rng: random.Random, shifted: bool) -> _Content:
    return _group(rng, shifted, refuse=True)


_DRAW = {
    "collect": _collect, "mention": _mention, "recall": _recall, "edit": _edit, "sum": _sum, "program": _program,
    "advice": _advice, "praise": _praise, "insult": _insult,
}  # fmt: skip


def _others(nouns: list[str]) -> tuple[str, ...]:
    return tuple(noun for noun in words.KIND_OF if noun not in nouns)


def _difficulty(size: int, easy: int, medium: int) -> int:
    return 1 + (size > easy) + (size > medium)


def _conversation(
    rng: random.Random, family: str, style: str, slots: dict[str, str], two_turns: bool, shifted: bool
) -> Messages:
    """The request and the wish for a style as one user turn, or cut into two turns with a short reply between."""
    filled = dict(slots)
    if family in ("program", "edit"):
        filled["operation"] = phrases.fill(rng, (phrases.OPERATIONS[slots["operation"]],), **slots)
    request = phrases.fill(rng, (phrases.SHIFTED if shifted else phrases.REQUESTS)[family], **filled)
    if rng.random() < INTRODUCED_SHARE:
        request = f"{phrases.fill(rng, phrases.INTRODUCTIONS)} {request}"
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
