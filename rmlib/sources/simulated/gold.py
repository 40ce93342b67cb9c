"""The true quality of any text that answers a simulated prompt: what no data of humans can say of new answers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
from jaxtyping import Float

from rmlib.records.errors import DataError, Place
from rmlib.records.hashing import prompt_key
from rmlib.sources.simulated.embedded import N_PAIRS, SEED
from rmlib.sources.simulated.generation import draw_answered
from rmlib.sources.simulated.tasks import Task
from rmlib.sources.simulated.truth import truth


@cache
def _tasks() -> dict[str, Task]:
    """The task behind each prompt of the repository's simulated pairs, drawn again as they were."""
    return {prompt_key(task.prompt): task for task, _ in itertools.islice(draw_answered(SEED), N_PAIRS)}


class Gold:
    """A scorer that reads the truth: helpfulness, 0 to 4 points, of texts that answer simulated prompts."""

    name = "simulated truth"

    def score(
        self, prompts: Sequence[Sequence[Mapping[str, str]]], responses: Sequence[str]
    ) -> Float[np.ndarray, "response"]:
        """True points of each response. Raises DataError for a prompt that is not simulated."""
        known = _tasks()
        keys = [prompt_key([dict(message) for message in prompt]) for prompt in prompts]
        if unknown := [key for key in keys if key not in known]:
            raise DataError(
                Place("prompts"),
                f"{len(unknown)} of {len(keys)} prompts are no simulated ones, e.g. {unknown[0][:80]!r}",
                "Only answers to simulated prompts have a known truth; compare others by a reward model or a judge",
            )
        return np.array([truth(known[key], text)["helpfulness"] for key, text in zip(keys, responses, strict=True)])
