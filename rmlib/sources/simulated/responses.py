"""Policies that answer tasks, each with its own rates of controlled defects."""

import random
from dataclasses import dataclass

from rmlib.sources.simulated import phrases
from rmlib.sources.simulated.tasks import FAMILIES, Task, draw_task


@dataclass(frozen=True)
class Policy:
    """How often a simulated author goes wrong, as rates in 0..1 per response (per item for `swap`)."""

    name: str
    share: int = 0  # of all responses, in percent
    miss: float = 0.0  # leaves out a wanted item, or adds one that is not
    swap: float = 0.0  # puts another in its place
    stray: float = 0.0  # answers another task of the same family
    comply: float = 0.0  # does what should be refused
    balk: float = 0.0  # refuses what is harmless but sounds alarming; other tasks more rarely
    ignore: float = 0.0  # does not keep to the style asked for
    pad: float = 0.0  # adds a sentence without substance
    shuffle: float = 0.0  # loses the order of the words


POLICIES = (
    Policy("careful", 34, miss=0.04, swap=0.02, stray=0.02, comply=0.06, balk=0.01, ignore=0.08, pad=0.1, shuffle=0.03),
    Policy("hasty", 22, miss=0.15, swap=0.06, stray=0.1, comply=0.35, balk=0.15, ignore=0.8, pad=0.1, shuffle=0.06),
    Policy("wandering", 14, miss=0.1, swap=0.1, stray=0.6, comply=0.3, balk=0.03, ignore=0.4, pad=0.3, shuffle=0.1),
    Policy("obliging", 15, miss=0.05, swap=0.05, stray=0.05, comply=0.95, balk=0, ignore=0.3, pad=0.5, shuffle=0.03),
    Policy("timid", 15, miss=0.08, swap=0.05, stray=0.05, comply=0.02, balk=0.7, ignore=0.3, pad=0.1, shuffle=0.05),
)  # fmt: skip
# Requests that look like what should be refused are refused wrongly more often than others.
ALARM = dict.fromkeys(FAMILIES, 0.15) | {"advice": 1.0, "praise": 1.0}
SAFETY = ("advice", "praise", "insult")
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
    sentences = [] if refuses or rng.random() < 0.7 else [phrases.fill(rng, phrases.OPENERS)]
    sentences.append(_refusal(rng, task) if refuses else _answer(rng, task, policy, formal))
    n_details = {"detailed": rng.choice((1, 2)), "brief": 0}.get(style, int(rng.random() < 0.35))
    if formal and refuses:
        n_details = max(1, n_details)
    further = (phrases.REASONS if refuses else phrases.DETAILS)[formal]
    sentences += [phrases.fill(rng, (pattern,)) for pattern in rng.sample(further, min(n_details, len(further)))]
    if rng.random() < policy.pad:
        sentences.append(phrases.fill(rng, phrases.PADDING))
    if rng.random() < policy.shuffle:
        sentences = [_shuffled(rng, sentence) for sentence in sentences]
    return " ".join(sentences)


def _refusal(rng: random.Random, task: Task) -> str:
    """A refusal; most name what they refuse, so that naming it does not give an obedient answer away."""
    if task.family in SAFETY and rng.random() < 0.8:
        return phrases.fill(rng, phrases.NAMED_REFUSALS, items=task.wanted[0])
    return phrases.fill(rng, phrases.REFUSALS)


def _answer(rng: random.Random, task: Task, policy: Policy, formal: bool) -> str:
    """The sentence that answers, with the defects of the policy in what it names."""
    if rng.random() < policy.stray:
        task = elsewhere(rng, task)
    items = [_other(rng, task) if rng.random() < policy.swap else item for item in task.wanted]
    if rng.random() < policy.miss:
        items = items[1:] if len(items) > 1 and rng.random() < 0.5 else [*items, _other(rng, task)]
    frames = phrases.ANSWERS[task.family][formal]
    return phrases.fill(rng, frames, **(task.slots | {"items": phrases.listed(list(dict.fromkeys(items)))}))


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
