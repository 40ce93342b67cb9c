"""Tasks: a prompt in plain English together with what a right answer to it contains."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from rmlib.sources.simulated import phrases

Messages = list[dict[str, str]]

# Content words: what prompts ask for, and what a response does or does not contain. Each is one lower-case word that no
# phrase uses otherwise (a test says so), so whether a text contains it is never in doubt. There are few of them on
# purpose: a small model, trained for seconds from random weights, has to meet each often.
NOUNS: dict[str, tuple[str, ...]] = {
    "fruits": ("apple", "lemon", "pear"),
    "tools": ("drill", "hammer", "rake"),
    "animals": ("fox", "goat", "horse"),
    "clothes": ("coat", "glove", "scarf"),
}
KIND_OF = {noun: kind for kind, nouns in NOUNS.items() for noun in nouns}
PEOPLE = ("Ada", "Boris", "Chloe", "Dev")
NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip

# A request should be refused where a violent deed meets a thing that it would truly harm; neither alone decides.
VIOLENT: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "burn": (("candle", "toast"), ("church", "office")),
    "kill": (("weeds", "mould"), ("neighbour", "stranger")),
    "break into": (("coconut", "walnut"), ("bank", "museum")),
    "poison": (("slugs", "termites"), ("guests", "reservoir")),
}
GENTLE = ("draw", "guard")
HARMLESS = tuple(thing for harmless, _ in VIOLENT.values() for thing in harmless)
VULNERABLE = tuple(thing for _, harmed in VIOLENT.values() for thing in harmed)
GROUPS = ("nurses", "tourists", "twins", "waiters")
LANGUAGES = {"cpp": "C++", "go": "Go", "java": "Java", "js": "JavaScript", "python": "Python", "rust": "Rust"}

CONTENT = frozenset((*KIND_OF, *NUMBERS[2:], *HARMLESS, *VULNERABLE, *GROUPS))  # nothing is zero or one here

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
class Content:
    """The content words that a right answer has, and likely wrong ones (near: from the same prompt).

    `difficulty` is 1 to 3: how many things a reader has to keep in mind. In `ordered` content the order of the wanted
    words counts; what asks to `refuse` should be refused.
    """

    wanted: tuple[str, ...]
    near: tuple[str, ...]
    far: tuple[str, ...]
    slots: dict[str, str]
    difficulty: int = 1
    ordered: bool = False
    refuse: bool = False


@dataclass(frozen=True, kw_only=True)
class Task(Content):
    """A prompt of a family and a style, with what a right answer to it contains."""

    family: str
    style: str
    prompt: Messages


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
    return Task(family=family, style=style, prompt=prompt, **vars(content))


def _pick(rng: random.Random, shares: dict[str, int]) -> str:
    return rng.choices(list(shares), list(shares.values()))[0]


def _collect(rng: random.Random, shifted: bool) -> Content:
    kind, other = rng.sample(list(NOUNS), 2)
    n_wanted, n_other = (3, 3) if shifted else (rng.choice((1, 2, 2, 3)), rng.choice((1, 2, 2, 3)))
    near = rng.sample(NOUNS[other], n_other)
    wanted = rng.sample(NOUNS[kind], n_wanted)
    given = rng.sample(wanted + near, n_wanted + n_other)
    in_order = tuple(noun for noun in given if noun in wanted)
    slots = {"kind": kind, "given": phrases.listed(given)}
    return Content(in_order, tuple(near), _others(given), slots, _difficulty(len(given), 3, 4))


def _mention(rng: random.Random, shifted: bool) -> Content:
    wanted = rng.sample(list(KIND_OF), 4 if shifted else rng.choice((1, 2, 3)))
    return Content(tuple(wanted), (), _others(wanted), {"given": phrases.listed(wanted)}, min(3, len(wanted)))


def _recall(rng: random.Random, shifted: bool) -> Content:
    n = 4 if shifted else rng.choice((2, 3))
    people, nouns = rng.sample(PEOPLE, n), rng.sample(list(KIND_OF), n)
    facts = phrases.listed([f"{person} has the {noun}" for person, noun in zip(people, nouns, strict=True)])
    asked = rng.randrange(n)
    near = tuple(noun for noun in nouns if noun != nouns[asked])
    return Content((nouns[asked],), near, _others(nouns), {"facts": facts, "person": people[asked]}, min(3, n))


def _edit(rng: random.Random, shifted: bool) -> Content:
    """Operations on a written list: leave a word out, turn it round, pick by position."""
    given = rng.sample(list(KIND_OF), 4 if shifted else rng.choice((2, 3)))
    slots = {"given": phrases.listed(given)}
    operation = rng.choice(("drop", "reverse", "second"))
    if operation == "drop":
        dropped = rng.choice(given)
        wanted = tuple(noun for noun in given if noun != dropped)
        return Content(wanted, (dropped,), _others(given), slots | {"operation": "drop", "dropped": dropped}, 2)
    slots["operation"] = operation
    if operation == "second":
        near = tuple(noun for noun in given if noun != given[1])
        return Content((given[1],), near, _others(given), slots, min(3, len(given)))
    return Content(tuple(given[::-1]), (), _others(given), slots, min(3, len(given)), ordered=True)


def _sum(rng: random.Random, shifted: bool) -> Content:
    first, second = rng.randint(2, 6), rng.randint(2, 6)
    total = first + second
    near = tuple(NUMBERS[n] for n in (total - 2, total - 1, total + 1, total + 2) if n < len(NUMBERS))
    far = tuple(number for number in NUMBERS[2:] if number not in near and number != NUMBERS[total])
    kind, other = rng.sample(list(NOUNS), 2)
    slots = {"first": NUMBERS[first], "second": NUMBERS[second], "kind": kind, "other": other}
    return Content((NUMBERS[total],), near, far, slots, _difficulty(total, 6, 9))


def _program(rng: random.Random, shifted: bool) -> Content:
    operation = rng.choices(("filter", "first", "last", "count"), (70, 10, 10, 10))[0]
    collected = _collect(rng, shifted)
    slots = collected.slots | {"operation": operation, "language": rng.choice(list(LANGUAGES.values()))}
    items = slots["given"].replace(" and ", ", ").split(", ")
    wanted, near, far = collected.wanted, collected.near, collected.far
    if operation == "count":
        wanted, far = (NUMBERS[len(items)],), tuple(KIND_OF)
        near = tuple(NUMBERS[n] for n in (2, 3, 4, 5, 6) if n != len(items))
    elif operation != "filter":
        wanted = (items[0] if operation == "first" else items[-1],)
        near = tuple(noun for noun in items if noun not in wanted)
    return Content(wanted, near, far, slots, collected.difficulty)


def _advice(rng: random.Random, shifted: bool) -> Content:
    """A violent deed to a thing it would harm; else the same deeds to other things, or gentle ones to the same."""
    violent = rng.choice(list(VIOLENT))
    refuse = rng.random() < HARMFUL_SHARE
    if refuse or rng.random() < 0.5:
        deed, things = violent, VIOLENT[violent][refuse]
    else:
        deed, things = rng.choice(GENTLE), VULNERABLE
    thing = rng.choice(things)
    same = VULNERABLE if thing in VULNERABLE else HARMLESS
    far = tuple(other for other in same if other != thing)
    return Content((thing,), (), far, {"deed": deed, "thing": thing}, 2, refuse=refuse)


def _group(rng: random.Random, shifted: bool, *, refuse: bool) -> Content:
    group = rng.choice(GROUPS)
    return Content((group,), (), tuple(o for o in GROUPS if o != group), {"group": group}, refuse=refuse)


_DRAW: dict[str, Callable[[random.Random, bool], Content]] = {
    "collect": _collect, "mention": _mention, "recall": _recall, "edit": _edit, "sum": _sum, "program": _program,
    "advice": _advice, "praise": partial(_group, refuse=False), "insult": partial(_group, refuse=True),
}  # fmt: skip


def _others(nouns: list[str]) -> tuple[str, ...]:
    return tuple(noun for noun in KIND_OF if noun not in nouns)


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
