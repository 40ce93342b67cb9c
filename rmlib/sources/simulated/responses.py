"""Policies that answer tasks, each with its own rates of controlled defects."""

import random
from dataclasses import dataclass

from rmlib.sources.simulated import phrases
from rmlib.sources.simulated.tasks import FAMILIES, LISTABLE, Task, draw_task


@dataclass(frozen=True)
class Policy:
    """How often a simulated author goes wrong, as rates in 0..1 per response (per item for `swap`).

    `miss` and `swap` are the rates in tasks of middling difficulty; hard tasks have them more often, easy ones less.
    """

    name: str
    share: int = 0  # of all responses, in percent
    miss: float = 0.0  # leaves out a wanted item, adds one that is not, or loses the order that was asked for
    swap: float = 0.0  # puts another in its place
    stray: float = 0.0  # answers another task of the same family
    comply: float = 0.0  # does what should be refused
    balk: float = 0.0  # refuses what is harmless but sounds alarming; other tasks more rarely
    ignore: float = 0.0  # does not keep to the style asked for
    pad: float = 0.0  # adds a sentence without substance
    ramble: float = 0.0  # goes on and on, and repeats itself
    shuffle: float = 0.0  # loses the order of the words
    botch: float = 0.0  # leaves stray marks in badly formatted sentences


POLICIES = (
    Policy("careful", 32, miss=0.04, swap=0.02, stray=0.02, comply=0.06, balk=0.01, ignore=0.08, pad=0.1, shuffle=0.03),
    Policy("hasty", 20, miss=0.15, swap=0.06, stray=0.1, comply=0.35, balk=0.15, ignore=0.8, pad=0.1, shuffle=0.06,
           botch=0.08),
    Policy("wandering", 12, miss=0.1, swap=0.1, stray=0.6, comply=0.3, balk=0.03, ignore=0.4, pad=0.2, shuffle=0.1),
    Policy("obliging", 14, miss=0.05, swap=0.05, stray=0.05, comply=0.95, balk=0, ignore=0.3, pad=0.35, shuffle=0.03),
    Policy("timid", 14, miss=0.08, swap=0.05, stray=0.05, comply=0.02, balk=0.7, ignore=0.3, pad=0.1, shuffle=0.05),
    Policy("rambling", 8, miss=0.08, swap=0.04, stray=0.05, comply=0.3, balk=0.1, ignore=0.3, pad=0.3, ramble=0.4,
           botch=0.1),
)  # fmt: skip
# Requests that look like what should be refused are refused wrongly more often than others.
ALARM = dict.fromkeys(FAMILIES, 0.15) | {"advice": 1.0, "praise": 1.0}
SAFETY = ("advice", "praise", "insult")
FACTOR_OF_DIFFICULTY = {1: 0.6, 2: 1.0, 3: 1.5}
_SHARES = [policy.share for policy in POLICIES]


def draw_policy(rng: random.Random) -> Policy:
    """A policy, with the probability of its share."""
    return rng.choices(POLICIES, _SHARES)[0]


def respond(rng: random.Random, task: Task, policy: Policy, style: str | None = None) -> str:
    """The policy's response to the task, in a style of its own where one is given."""
    if style is None:
        style = task.style if rng.random() >= policy.ignore else rng.choice(("brief", "detailed", "formal"))
    formal = style == "formal" or (style == "free" and rng.random() < 0.2)
    refuses = rng.random() >= policy.comply if task.refuse else rng.random() < policy.balk * ALARM[task.family]
    opened = style in ("list", "label") or refuses or rng.random() < 0.7
    sentences = [] if opened else [phrases.fill(rng, phrases.OPENERS)]
    sentences.append(_refusal(rng, task) if refuses else _answer(rng, task, policy, formal, style == "list"))
    n_details = {"detailed": rng.choice((1, 2)), "brief": 0}.get(style, int(rng.random() < 0.35))
    if formal and refuses:
        n_details = max(1, n_details)
    sentences += _further(rng, refuses, formal, n_details)
    if rng.random() < policy.ramble:
        sentences += [*_further(rng, refuses, formal=not formal, n=2), phrases.fill(rng, phrases.PADDING), sentences[0]]
    elif rng.random() < policy.pad:
        sentences.append(phrases.fill(rng, phrases.PADDING))
    if rng.random() < policy.shuffle:
        sentences = [_shuffled(rng, sentence) for sentence in sentences]
    elif rng.random() < policy.botch:
        sentences = [f"** {sentence[:-1].lower()} .." for sentence in sentences]
    text = " ".join(sentences)
    return f"{phrases.LABEL} {text}" if style == "label" else text


def _further(rng: random.Random, refuses: bool, formal: bool, n: int) -> list[str]:
    """Up to n different sentences with substance."""
    patterns = (phrases.REASONS if refuses else phrases.DETAILS)[formal]
    return [phrases.fill(rng, (pattern,)) for pattern in rng.sample(patterns, min(n, len(patterns)))]


def _refusal(rng: random.Random, task: Task) -> str:
    """A refusal; most name what they refuse, so that naming it does not give an obedient answer away."""
    if task.family in SAFETY and rng.random() < 0.8:
        return phrases.fill(rng, phrases.NAMED_REFUSALS, items=task.wanted[0])
    return phrases.fill(rng, phrases.REFUSALS)


def _answer(rng: random.Random, task: Task, policy: Policy, formal: bool, bullets: bool) -> str:
    """The sentence that answers, with the defects of the policy in what it names."""
    factor = FACTOR_OF_DIFFICULTY[task.difficulty]
    if rng.random() < policy.stray:
        task = elsewhere(rng, task)
    items = [_other(rng, task) if rng.random() < policy.swap * factor else item for item in task.wanted]
    if rng.random() < policy.miss * factor:
        items = _missed(rng, task, items)
    items = list(dict.fromkeys(items))
    if bullets and task.family in LISTABLE:
        lead = phrases.fill(rng, phrases.LEADS[formal])
        return lead + "".join(phrases.BULLET + item for item in items) + "."
    return phrases.fill(rng, phrases.ANSWERS[task.family][formal], **(task.slots | {"items": phrases.listed(items)}))


def _missed(rng: random.Random, task: Task, items: list[str]) -> list[str]:
    if task.ordered:
        return items[::-1]
    return items[1:] if len(items) > 1 and rng.random() < 0.65 else [*items, _other(rng, task)]


def elsewhere(rng: random.Random, task: Task) -> Task:
    """Another task of the family, whose right answer is none to this one."""
    other = draw_task(rng, task.family)
    while not set(other.wanted).isdisjoint(task.wanted) or other.slots.get("kind", 0) == task.slots.get("kind"):
        other = draw_task(rng, task.family)
    return other


def _other(rng: random.Random, task: Task) -> str:
    return rng.choice(task.near if task.near and rng.random() < 0.7 else task.far)


def _shuffled(rng: random.Random, sentence: str) -> str:
    """The same words in another order; the capital and the full stop stay in place."""
    order = sentence[:-1].split()
    rng.shuffle(order)
    text = " ".join(order).lower()
    return text[:1].upper() + text[1:] + sentence[-1]
