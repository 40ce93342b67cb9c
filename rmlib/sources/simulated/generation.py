"""Rows of simulated pairs, one after another: texts first, then what annotators say about a block of them.

Ranked prompts have several responses, each two of them compared: what a loss over whole rankings needs. Every
comparison has its own annotators, as if it were the only one, so that their errors make some prompts cyclic and their
doubts others incomplete; `rmlib.pairs.ranking_view` keeps the prompts with one strict order, and counts the rest.
"""

import hashlib
import itertools
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from jaxtyping import Float

from rmlib.pairs import make_pairs
from rmlib.pairs.schema import ATTRIBUTES
from rmlib.records.hashing import prompt_key
from rmlib.sources.simulated import annotators, reasons
from rmlib.sources.simulated.annotators import N_MOST, Annotated, Noise, Pool
from rmlib.sources.simulated.responses import draw_policy, respond
from rmlib.sources.simulated.tasks import Task, draw_task
from rmlib.sources.simulated.truth import Finding, examine

VALIDATION_SHARE = 0.18
BLOCK = 256  # pairs annotated at a time; another number gives other annotations
N_PROMPTS, N_RESPONSES, RANKED_SEED = 2_000, 4, 0


@dataclass(frozen=True)
class Texts:
    """A task with two different responses, and what is true of each: attributes, and defects that may be named."""

    task: Task
    responses: tuple[str, str]
    findings: tuple[Finding, Finding]


def generate(n_pairs: int, seed: int) -> Iterator[dict[str, Any]]:
    """Rows for `make_pairs`; needs constant memory, and the first rows do not depend on how many are asked for.

    A hash of the prompt decides the split, so that no prompt is in both.
    """
    return _annotated(draw_texts(seed), n_pairs, seed)


def load_ranked(*, n_prompts: int = N_PROMPTS, seed: int = RANKED_SEED) -> Dataset:
    """Pairs of simulated prompts with four responses each, made on the spot: six pairs a prompt, side by side."""
    return make_pairs(generate_ranked(n_prompts, seed), origin="simulated rankings")


def generate_ranked(n_prompts: int, seed: int) -> Iterator[dict[str, Any]]:
    """Rows for `make_pairs` as `generate` gives them: all pairs of the responses to each prompt; no prompt twice."""
    return _annotated(_draw_compared(seed), n_prompts * math.comb(N_RESPONSES, 2), seed)


def _annotated(texts: Iterator[Texts], n_pairs: int, seed: int) -> Iterator[dict[str, Any]]:
    """Rows of the first `n_pairs` texts with what annotators say of them."""
    words = random.Random(f"reasons {seed}")
    pool = Pool.draw(np.random.default_rng([seed, 0]))
    for number, start in enumerate(range(0, n_pairs, BLOCK), start=1):
        block = list(itertools.islice(texts, min(BLOCK, n_pairs - start)))
        noise = Noise.draw(np.random.default_rng([seed, number]), BLOCK).first(len(block))
        truths = as_array(block)
        given = annotators.annotate(truths, noise, pool, annotators.fitted())
        yield from _rows(words, block, truths, given)


def draw_texts(seed: int) -> Iterator[Texts]:
    """Tasks with responses and what is true of these, without end."""
    return (_examined(task, responses) for task, responses in draw_answered(seed))


def draw_answered(seed: int) -> Iterator[tuple[Task, tuple[str, str]]]:
    """Tasks with two different responses, without end."""
    rng = random.Random(seed)
    while True:
        task = draw_task(rng)
        response_1, response_2 = _different_responses(rng, task, 2)
        yield task, (response_1, response_2)


def _examined(task: Task, responses: tuple[str, str]) -> Texts:
    return Texts(task, responses, (examine(task, responses[0]), examine(task, responses[1])))


def _draw_compared(seed: int) -> Iterator[Texts]:
    """All pairs of different responses to one prompt after another, without end; which comes first is drawn."""
    rng = random.Random(f"ranked {seed}")
    seen: set[str] = set()
    while True:
        task = draw_task(rng)
        while prompt_key(task.prompt) in seen:  # two sets of responses to one prompt would not all be compared
            task = draw_task(rng)
        seen.add(prompt_key(task.prompt))
        for couple in itertools.combinations(_different_responses(rng, task, N_RESPONSES), 2):
            first, second = rng.sample(couple, 2)
            yield _examined(task, (first, second))


def _different_responses(rng: random.Random, task: Task, n: int) -> list[str]:
    responses: dict[str, None] = {}
    while len(responses) < n:
        responses[respond(rng, task, draw_policy(rng))] = None
    return list(responses)


def as_array(block: list[Texts]) -> Float[np.ndarray, "pair side attribute"]:
    """The true attributes, in the order of the schema."""
    return np.array([[[side.truth[name] for name in ATTRIBUTES] for side in texts.findings] for texts in block])


def split_of(prompt: list[dict[str, str]]) -> str:
    """The split that a prompt always falls into."""
    digest = hashlib.sha256(prompt_key(prompt).encode()).digest()
    return "validation" if int.from_bytes(digest[:8]) < VALIDATION_SHARE * 2**64 else "train"


def _rows(words: random.Random, block: list[Texts], truths: np.ndarray, given: Annotated) -> Iterator[dict[str, Any]]:
    preferences, ratings = annotators.overall_preferences(given), annotators.overall_ratings(given)
    true_preferences = annotators.true_preference(truths).tolist()
    annotations = _annotations(words, block, given)
    for index, texts in enumerate(block):
        prompt = texts.task.prompt
        rated = not np.isnan(ratings[index]).any()
        first, second = (dict(zip(ATTRIBUTES, side, strict=True)) for side in ratings[index].tolist())
        yield {
            "split": split_of(prompt),
            "prompt": prompt,
            "response_1": texts.responses[0],
            "response_2": texts.responses[1],
            "ratings_1": first if rated else None,
            "ratings_2": second if rated else None,
            "preference": None if np.isnan(preferences[index]) else int(preferences[index]),
            "annotations": next(annotations),
            "truth_1": texts.findings[0].truth,
            "truth_2": texts.findings[1].truth,
            "truth_preference": true_preferences[index],
        }


def _annotations(words: random.Random, block: list[Texts], given: Annotated) -> Iterator[list[dict[str, Any]]]:
    """The annotations of each pair, in the order in which annotators were called."""
    called = given.called.tolist()
    team, votes, ratings = given.team.tolist(), given.votes.tolist(), given.ratings.astype(float).tolist()
    gaps = (given.seeming[:, :, 1] - given.seeming[:, :, 0]).tolist()
    misread = given.misread.tolist()
    for index, texts in enumerate(block):
        entries = []
        for k in itertools.compress(range(N_MOST), called[index]):
            # Who misread a response did not see what is wrong with it.
            noticed = [
                frozenset() if missed else finding.defects
                for missed, finding in zip(misread[index][k], texts.findings, strict=True)
            ]
            said = reasons.justify(words, votes[index][k], gaps[index][k], noticed)
            entry = {"annotator": f"a{team[index][k]:02d}", "preference": votes[index][k]}
            entry |= zip(("statement", "elaboration", "justification"), said, strict=True)
            for side in (0, 1):
                entry[f"ratings_{side + 1}"] = dict(zip(ATTRIBUTES, ratings[index][k][side], strict=True))
            entries.append(entry)
        yield entries
