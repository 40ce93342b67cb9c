"""What is said between this room and others, without torch: conversations, scorers, and the error of a misfit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from rmlib.pairs.messages import AsGiven as AsGiven
from rmlib.pairs.messages import Message as Message
from rmlib.pairs.messages import Prompt
from rmlib.pairs.messages import Response as Response


class ModelError(ValueError):
    """A saved model that does not fit what was asked of it, or an export that cannot express the model."""


class ConversationError(ModelError):
    """A conversation that the chat template refuses or does not write whole; `row` is its place in what was given."""

    def __init__(self, row: int, problem: str) -> None:
        super().__init__(f"conversation {row}: {problem}")
        self.row, self.problem = row, problem


@runtime_checkable
class Scorer(Protocol):
    """Anything that rewards responses: a reward model, an ensemble, a classifier, a ruler, the simulated truth."""

    def score(self, prompts: Sequence[Prompt], responses: Sequence[Any]) -> Float[np.ndarray, "response"]:
        """One reward for each response (`pairs.messages.Response`), in the order given; `prompts` has that of each."""
        ...
