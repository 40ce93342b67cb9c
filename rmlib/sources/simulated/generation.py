"""Rows of simulated pairs, one after another."""

import hashlib
import random
from collections.abc import Iterator
from typing import Any

from rmlib.pairs import prompt_key
from rmlib.sources.simulated import annotators
from rmlib.sources.simulated.attributes import truth
from rmlib.sources.simulated.responses import draw_policy, respond
from rmlib.sources.simulated.tasks import draw_task

VALIDATION_SHARE = 0.18
MAX_DRAWS = 20


def generate(n_pairs: int, seed: int, *, validation_share: float = VALIDATION_SHARE) -> Iterator[dict[str, Any]]:
    """Rows for `make_pairs`; needs constant memory, and the first rows do not depend on how many are asked for.

    A hash of the prompt decides the split, so that no prompt is in both.
    """
    rng = random.Random(seed)
    pool = annotators.draw_pool(rng)
    for _ in range(n_pairs):
        yield _row(rng, pool, validation_share)


def _row(rng: random.Random, pool: list[annotators.Annotator], validation_share: float) -> dict[str, Any]:
    task = draw_task(rng)
    response_1 = response_2 = respond(rng, task, draw_policy(rng))
    while response_2 == response_1:
        response_2 = respond(rng, task, draw_policy(rng))
    truths = [truth(task, response) for response in (response_1, response_2)]
    annotations = annotators.annotate(rng, pool, truths)
    return {
        "split": split_of(task.prompt, validation_share),
        "prompt": task.prompt,
        "response_1": response_1,
        "response_2": response_2,
        "ratings_1": annotators.ratings(annotations, "ratings_1"),
        "ratings_2": annotators.ratings(annotations, "ratings_2"),
        "preference": annotators.preference(annotations),
        "annotations": annotations,
        "truth_1": truths[0],
        "truth_2": truths[1],
    }


def split_of(prompt: list[dict[str, str]], validation_share: float) -> str:
    """The split that a prompt always falls into."""
    digest = hashlib.sha256(prompt_key(prompt).encode()).digest()
    return "validation" if int.from_bytes(digest[:8]) < validation_share * 2**64 else "train"
