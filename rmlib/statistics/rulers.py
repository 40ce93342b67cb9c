"""The rulers that every score is held against: length, formatting, chance, words without their order."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from datasets import Dataset
from jaxtyping import Float
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

Prompts = Sequence[Sequence[Mapping[str, str]]]
_MARKERS = re.compile(
    r"^ {0,3}#{1,6} |^[ \t]*(?:[-*+]|\d+[.)]) |^[ \t]*```"  # heading, item of a list, fence of code
    r"|^ {0,3}> |^[ \t]*\|.*\|[ \t]*$"  # quote, line of a table
    r"|\*\*[^*\n]+\*\*|__[^_\n]+__|`[^`\n]+`|\[[^\]\n]+\]\([^)\n]+\)",  # bold, code within a line, link
    re.MULTILINE,
)


@dataclass(frozen=True)
class Longer:
    """The ruler that rewards length: reward = characters of the response."""

    def score(self, prompts: Prompts, responses: Sequence[Any]) -> Float[np.ndarray, "batch"]:
        """Rewards of the responses; the prompts are not read."""
        return np.array([len(text) for text in _texts(responses)], dtype=float)


@dataclass(frozen=True)
class Shorter:
    """The ruler that rewards brevity: reward = minus the characters of the response."""

    def score(self, prompts: Prompts, responses: Sequence[Any]) -> Float[np.ndarray, "batch"]:
        """Rewards of the responses; the prompts are not read."""
        return -Longer().score(prompts, responses)


@dataclass(frozen=True)
class Markdown:
    """The ruler that rewards formatting: reward = number of markdown markers in the response.

    A marker is a heading, an item of a list, a fence of code, a line of a quote or of a table, a bold phrase, code
    within a line, or a link. Plain texts tie. Source of the idea: the style control of the Chatbot Arena, which counts
    headings, items of lists and bold phrases.
    """

    def score(self, prompts: Prompts, responses: Sequence[Any]) -> Float[np.ndarray, "batch"]:
        """Rewards of the responses; the prompts are not read."""
        return np.array([len(_MARKERS.findall(text)) for text in _texts(responses)], dtype=float)


@dataclass(frozen=True)
class Constant:
    """The ruler that cannot decide: every reward is 0. Its score is what a benchmark gives for ties."""

    def score(self, prompts: Prompts, responses: Sequence[Any]) -> Float[np.ndarray, "batch"]:
        """Zeros."""
        return np.zeros(len(responses))


@dataclass(frozen=True)
class Random:
    """The ruler that knows nothing: a reward in 0..1 drawn for each text.

    The draw is a hash of seed, prompt and response, so it does not depend on order or on how a benchmark is cut into
    batches. Equal texts tie, as they do for any model.
    """

    seed: int

    def score(self, prompts: Prompts, responses: Sequence[Any]) -> Float[np.ndarray, "batch"]:
        """One uniform number in 0..1 for each prompt with its response."""
        draws = [self._draw(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
        return np.array(draws, dtype=float)

    def _draw(self, prompt: Sequence[Mapping[str, str]], response: Any) -> float:
        turns = [(message["role"], message["content"]) for message in prompt]
        digest = hashlib.blake2b(repr((self.seed, turns, response)).encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") / 2**64


@dataclass(frozen=True)
class BagOfWords:
    """The ruler that knows words but not their order: Bradley-Terry, linear in log(1 + count) of each word.

    Only the response is read: what a linear ruler adds for the words of the prompt is equal for both responses of a
    pair, so it cancels in the margin and cannot be learnt.
    """

    vectorizer: CountVectorizer
    weights: Float[np.ndarray, "word"]
    inverse_penalty: float  # C of the L2 penalty, chosen by cross-validation on the training pairs

    @classmethod
    def fit(cls, preferences: Dataset, *, folds: int = 5) -> Self:
        """Fit on the rows of `pairs.preference_view`. Raises ValueError where there are fewer than 2 pairs a fold."""
        if len(preferences) < 2 * folds:
            raise ValueError(f"{len(preferences)} pairs are too few for {folds} folds; give at least {2 * folds}")
        chosen = [messages[-1]["content"] for messages in preferences["chosen"][:]]
        rejected = [messages[-1]["content"] for messages in preferences["rejected"][:]]
        vectorizer = CountVectorizer().fit(chosen + rejected)
        difference = _log_counts(vectorizer, chosen) - _log_counts(vectorizer, rejected)
        # Without an intercept, turning a pair round leaves its loss unchanged; half of them turned give two classes.
        side = np.where(np.arange(len(chosen)) % 2, 1, -1)
        model = LogisticRegression(fit_intercept=False, max_iter=1000)
        search = GridSearchCV(model, {"C": [1e-3, 1e-2, 1e-1, 1.0]}, scoring="neg_log_loss", cv=folds)
        search.fit(difference.multiply(side[:, None]).tocsr(), side)
        return cls(vectorizer, search.best_estimator_.coef_[0], search.best_params_["C"])

    def score(self, prompts: Prompts, responses: Sequence[Any]) -> Float[np.ndarray, "batch"]:
        """Rewards of the responses, in logits; the prompts are not read."""
        return _log_counts(self.vectorizer, _texts(responses)) @ self.weights


def _texts(responses: Iterable[Any]) -> list[str]:
    """The texts of responses, of messages that carry more (`pairs.messages.Answer`) the content."""
    return [response if isinstance(response, str) else response.content for response in responses]


def _log_counts(vectorizer: CountVectorizer, texts: Sequence[str]) -> csr_matrix:
    return vectorizer.transform(texts).astype(float).log1p()


# By name, all that need no fitting.
RULERS: dict[str, Longer | Shorter | Markdown | Constant | Random] = {
    "longer": Longer(),
    "shorter": Shorter(),
    "markdown": Markdown(),
    "constant": Constant(),
    "chance": Random(0),
}
