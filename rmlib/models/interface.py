"""What is said between this room and others, without torch: conversations, scorers, and the error of a misfit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

Message = Mapping[str, str]  # {"role": …, "content": …}
Prompt = Sequence[Message]  # the conversation up to the last turn of the user


class ModelError(ValueError):
    """A saved model that does not fit what was asked of it, or an export that cannot express the model."""


@runtime_checkable
class Scorer(Protocol):
    """Anything that rewards responses: a reward model, an ensemble, a classifier, a ruler, the simulated truth."""

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Float[np.ndarray, "response"]:
        """One reward for each response, in the order given; `prompts` has the prompt of each."""
        ...
