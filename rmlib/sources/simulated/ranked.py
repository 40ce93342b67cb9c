"""Prompts with several responses, each two of them compared: what a loss over whole rankings needs.

Every comparison has its own annotators, as if it were the only one, so that their errors make some prompts cyclic and
their doubts others incomplete; `rmlib.pairs.ranking_view` keeps the prompts with one strict order, and counts the rest.
"""

import itertools
import math
import random
from collections.abc import Iterator
from typing import Any

from datasets import Dataset

from rmlib.pairs import make_pairs
from rmlib.records.hashing import prompt_key
from rmlib.sources.simulated.annotators import Parameters
from rmlib.sources.simulated.generation import VALIDATION_SHARE, Texts, annotated
from rmlib.sources.simulated.responses import draw_policy, respond
from rmlib.sources.simulated.tasks import Task, draw_task
from rmlib.sources.simulated.truth import examine

N_PROMPTS, N_RESPONSES, SEED = 2_000, 4, 0


def load_ranked(*, n_prompts: int = N_PROMPTS, seed: int = SEED) -> Dataset:
    """Pairs of simulated prompts with four responses each, made on the spot: six pairs a prompt, side by side."""
    return make_pairs(generate_ranked(n_prompts, seed), origin="simulated rankings")


def generate_ranked(
    n_prompts: int,
    seed: int,
    *,
    n_responses: int = N_RESPONSES,
    validation_share: float = VALIDATION_SHARE,
    parameters: Parameters | None = None,
) -> Iterator[dict[str, Any]]:
    """Rows for `make_pairs` as `generate` gives them: all pairs of the responses to each prompt; no prompt twice."""
    n_pairs = n_prompts * math.comb(n_responses, 2)
    texts = _draw_compared(seed, n_responses)
    return annotated(texts, n_pairs, seed, validation_share=validation_share, parameters=parameters)


def _draw_compared(seed: int, n_responses: int) -> Iterator[Texts]:
    """All pairs of different responses to one prompt after another, without end; which comes first is drawn."""
    rng = random.Random(f"ranked {seed}")
    seen: set[str] = set()
    while True:
        task = draw_task(rng)
        while prompt_key(task.prompt) in seen:  # two sets of responses to one prompt would not all be compared
            task = draw_task(rng)
        seen.add(prompt_key(task.prompt))
        responses = _different_responses(rng, task, n_responses)
        for couple in itertools.combinations(responses, 2):
            first, second = rng.sample(couple, 2)
            yield Texts(task, (first, second), (examine(task, first), examine(task, second)))


def _different_responses(rng: random.Random, task: Task, n: int) -> list[str]:
    responses: dict[str, None] = {}
    while len(responses) < n:
        responses[respond(rng, task, draw_policy(rng))] = None
    return list(responses)
