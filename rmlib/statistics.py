"""Intervals, paired tests, calibration, and the rulers that every score is held against.

An array of results is `[item]`, or `[seed, item]` where several training seeds met the same items. With several seeds
an interval covers both: another draw of seeds and another draw of items.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import pandas as pd
from datasets import Dataset
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import stats
from scipy.sparse import csr_matrix
from scipy.special import expit
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

Prompts = Sequence[Sequence[Mapping[str, str]]]
_MAX_VALUES_PER_BLOCK = 2**23  # 64 MB of doubles at a time, however many items there are


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval; `n` is the number of items behind it."""

    estimate: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.estimate:.3f} [{self.low:.3f}, {self.high:.3f}], n={self.n}"


@dataclass(frozen=True)
class PairedDifference:
    """How much more often a is right than b on the same items, and the p-value of no difference (`mcnemar`)."""

    difference: Interval
    p_value: float

    def __str__(self) -> str:
        low, high = self.difference.low, self.difference.high
        return f"{self.difference.estimate:+.3f} [{low:+.3f}, {high:+.3f}], n={self.difference.n}, p={self.p_value:.3g}"


def accuracy(margin: ArrayLike) -> float:
    """Share of pairs, 0..1, whose margin is above 0: a tie is wrong. Raises ValueError for no pair or a NaN."""
    return float(np.mean(_finite(margin, "margin") > 0))


def wilson_interval(successes: int, n: int, *, level: float = 0.95) -> Interval:
    """Share of successes with Wilson's score interval, which keeps its width where all or none succeed (Wilson, 1927).

    Raises ValueError where n is 0 or successes lie outside 0..n.
    """
    bounds = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    return Interval(successes / n, float(bounds.low), float(bounds.high), n)


def bootstrap_interval(
    values: ArrayLike,
    *,
    seed: int,
    statistic: Literal["mean", "median"] = "mean",
    draws: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap interval of a mean or median (Efron & Tibshirani, 1993, chapter 13).

    Args:
        values: `[item]`, or `[seed, item]`: then seeds and items are both redrawn, each draw meeting all drawn seeds
            with the same drawn items. Few seeds make it a little narrow: k seeds show (k - 1) / k of their variance.
        seed: of the resampling, not of a training run.
    Raises:
        ValueError: no values, fewer than two seeds in a 2-D array, a value that is not finite, an unknown statistic.
    """
    if statistic not in ("mean", "median"):
        raise ValueError(f"unknown statistic {statistic!r}; use 'mean' or 'median'")
    table = _seed_by_item(values, "values")
    drawn = _redrawn(table, statistic, np.random.default_rng(seed), draws)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(getattr(np, statistic)(table)), float(low), float(high), table.shape[1])


def paired_difference(
    correct_a: ArrayLike, correct_b: ArrayLike, *, seed: int, draws: int = 2000, level: float = 0.95
) -> PairedDifference:
    """Accuracy of a minus accuracy of b on the same items (and seeds), with a paired bootstrap interval and `mcnemar`.

    Args:
        correct_a, correct_b: 0 or 1 (or bool), `[item]` or `[seed, item]`, row i of both from the same seed.
    Raises:
        ValueError: different shapes, no items, fewer than two seeds in a 2-D array, a value other than 0 and 1.

    The interval redraws items and seeds. The p-value redraws neither: it asks whether *these* trained models differ.
    """
    a, b = _correct(correct_a, correct_b)
    difference = np.squeeze(a - b, axis=0) if len(a) == 1 else a - b
    return PairedDifference(
        bootstrap_interval(difference, seed=seed, draws=draws, level=level), mcnemar(correct_a, correct_b)
    )


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike) -> float:
    """Exact two-sided p-value of "a and b are right equally often on these items" (McNemar, 1947).

    For `[item]` this is the binomial test on the items that only one of them gets right. For `[seed, item]` an item
    counts by how many more seeds get it right under a than under b, and the exact distribution under random signs of
    these counts is used; one seed gives McNemar's test. Raises ValueError as `paired_difference`.
    """
    a, b = _correct(correct_a, correct_b)
    net = (a - b).sum(axis=0).astype(int)
    distribution = np.ones(1)  # of the sum of +-|net|, on the integers from -total to total
    for size, count in zip(*np.unique(np.abs(net[net != 0]), return_counts=True), strict=True):
        step = np.zeros(2 * size * count + 1)
        step[:: 2 * size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        distribution = np.convolve(distribution, step)
    total = np.abs(net).sum()
    at_least_as_far = np.abs(np.arange(-total, total + 1)) >= abs(net.sum())
    return float(min(1.0, distribution[at_least_as_far].sum()))


def holm(p_values: ArrayLike) -> Float[np.ndarray, "test"]:
    """P-values adjusted for their number by the step-down method (Holm, 1979), in the order given.

    Raises ValueError for none, or one outside 0..1.
    """
    p = _finite(p_values, "p_values")
    if p.min() < 0 or p.max() > 1:
        raise ValueError(f"p_values must lie in 0..1, got {p.min()}..{p.max()}")
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted


def correlation_interval(x: ArrayLike, y: ArrayLike, *, level: float = 0.95) -> Interval:
    """Pearson's r with the interval of Fisher's z transformation. Raises ValueError as scipy.stats.pearsonr."""
    result = stats.pearsonr(_finite(x, "x"), _finite(y, "y"))
    bounds = result.confidence_interval(level)
    return Interval(float(result.statistic), float(bounds.low), float(bounds.high), np.size(x))


def calibration_table(margin: ArrayLike, *, bins: int = 10) -> pd.DataFrame:
    """How often a model is right when it is so sure: one row per filled bin, columns confidence, accuracy, n.

    Margins are in logits. A pair has no natural side, so confidence is the probability sigmoid(|margin|), 0.5..1, of
    the response that the model favours; a tie is half right. Bins are of equal width. Raises ValueError for no pair or
    a NaN.
    """
    margins = _finite(margin, "margin")
    confidence = expit(np.abs(margins))
    which = np.minimum((confidence - 0.5) * 2 * bins, bins - 1).astype(int)
    pairs = pd.DataFrame({"bin": which, "confidence": confidence, "accuracy": (np.sign(margins) + 1) / 2, "n": 1})
    return pairs.groupby("bin").agg({"confidence": "mean", "accuracy": "mean", "n": "sum"}).reset_index(drop=True)


def expected_calibration_error(margin: ArrayLike, *, bins: int = 10) -> float:
    """Mean distance of accuracy and confidence over the bins of `calibration_table`, 0..1 (Guo et al., 2017)."""
    table = calibration_table(margin, bins=bins)
    return float(np.average((table["accuracy"] - table["confidence"]).abs(), weights=table["n"]))


def brier(margin: ArrayLike) -> float:
    """Mean squared error, 0..1, of sigmoid(margin) as the probability that the chosen response wins (Brier, 1950)."""
    return float(np.mean(expit(-_finite(margin, "margin")) ** 2))


@dataclass(frozen=True)
class Longer:
    """The ruler that rewards length: reward = characters of the response."""

    def score(self, prompts: Prompts, responses: Sequence[str]) -> Float[np.ndarray, "batch"]:
        """Rewards of the responses; the prompts are not read."""
        return np.array([len(response) for response in responses], dtype=float)


@dataclass(frozen=True)
class Shorter:
    """The ruler that rewards brevity: reward = minus the characters of the response."""

    def score(self, prompts: Prompts, responses: Sequence[str]) -> Float[np.ndarray, "batch"]:
        """Rewards of the responses; the prompts are not read."""
        return -Longer().score(prompts, responses)


@dataclass(frozen=True)
class Random:
    """The ruler that knows nothing: a reward in 0..1 drawn for each text.

    The draw is a hash of seed, prompt and response, so it does not depend on order or on how a benchmark is cut into
    batches. Equal texts tie, as they do for any model.
    """

    seed: int

    def score(self, prompts: Prompts, responses: Sequence[str]) -> Float[np.ndarray, "batch"]:
        """One uniform number in 0..1 for each prompt with its response."""
        draws = [self._draw(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
        return np.array(draws, dtype=float)

    def _draw(self, prompt: Sequence[Mapping[str, str]], response: str) -> float:
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
        chosen = [messages[-1]["content"] for messages in preferences["chosen"]]
        rejected = [messages[-1]["content"] for messages in preferences["rejected"]]
        vectorizer = CountVectorizer().fit(chosen + rejected)
        difference = _log_counts(vectorizer, chosen) - _log_counts(vectorizer, rejected)
        # Without an intercept, turning a pair round leaves its loss unchanged; half of them turned give two classes.
        side = np.where(np.arange(len(chosen)) % 2, 1, -1)
        model = LogisticRegression(fit_intercept=False, max_iter=1000)
        search = GridSearchCV(model, {"C": [1e-3, 1e-2, 1e-1, 1.0]}, scoring="neg_log_loss", cv=folds)
        search.fit(difference.multiply(side[:, None]).tocsr(), side)
        return cls(vectorizer, search.best_estimator_.coef_[0], search.best_params_["C"])

    def score(self, prompts: Prompts, responses: Sequence[str]) -> Float[np.ndarray, "batch"]:
        """Rewards of the responses, in logits; the prompts are not read."""
        return _log_counts(self.vectorizer, responses) @ self.weights


def _log_counts(vectorizer: CountVectorizer, texts: Sequence[str]) -> csr_matrix:
    return vectorizer.transform(texts).astype(float).log1p()


def _finite(values: ArrayLike, name: str) -> Float[np.ndarray, "..."]:
    array = np.asarray(values, dtype=float)
    if array.size == 0:
        raise ValueError(f"{name} is empty: there is nothing to summarise")
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        raise ValueError(f"{name} holds {len(bad)} values that are not finite, the first at {bad[0].tolist()}")
    return array


def _seed_by_item(values: ArrayLike, name: str) -> Float[np.ndarray, "seed item"]:
    array = _finite(values, name)
    if array.ndim == 1:
        return array[None]
    if array.ndim != 2:
        raise ValueError(f"{name} must be [item] or [seed, item], got shape {list(array.shape)}")
    if len(array) < 2:
        raise ValueError(f"{name} has one seed: give at least two, or {name}[0] for an interval over items alone")
    return array


def _correct(correct_a: ArrayLike, correct_b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    a, b = _seed_by_item(correct_a, "correct_a"), _seed_by_item(correct_b, "correct_b")
    if a.shape != b.shape:
        raise ValueError(f"correct_a has shape {list(a.shape)}, correct_b {list(b.shape)}: give the same items of both")
    for name, array in {"correct_a": a, "correct_b": b}.items():
        if not np.isin(array, (0, 1)).all():
            raise ValueError(f"{name} must hold 0 and 1 alone; for margins pass margin > 0")
    return a, b


def _redrawn(
    table: Float[np.ndarray, "seed item"], statistic: str, rng: np.random.Generator, draws: int
) -> Float[np.ndarray, "draw"]:
    """The statistic of `draws` resamples: seeds with replacement, and items with replacement, shared by the seeds."""
    n_seeds, n_items = table.shape
    block = max(1, _MAX_VALUES_PER_BLOCK // table.size)
    results = []
    for start in range(0, draws, block):
        count = min(block, draws - start)
        seeds = rng.integers(n_seeds, size=(count, n_seeds, 1))
        items = rng.integers(n_items, size=(count, 1, n_items))
        results.append(getattr(np, statistic)(table[seeds, items], axis=(1, 2)))
    return np.concatenate(results)
