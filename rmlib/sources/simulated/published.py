"""Simulated statistics beside the published ones, every misfit included.

Each statistic is a function of sums over pairs, so that one pass gives its value and a weighted one a bootstrap draw.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
from datasets import Dataset
from jaxtyping import Bool, Float

from rmlib.annotations import annotation_frame
from rmlib.pairs.schema import ATTRIBUTES, NEITHER_VALID
from rmlib.pairs.views import preferences, ratings_of
from rmlib.records import published
from rmlib.records.hashing import prompt_key
from rmlib.sources.simulated import annotators
from rmlib.sources.simulated.annotators import HELPFULNESS, N_MOST, Given
from rmlib.statistics import redrawn_sums

# How near is near enough (same unit as the statistic), by what is measured; FIRST are met before the rest.
FIRST = {
    "kappa of preferences, processed": 0.03,
    "r of preference and helpfulness difference": 0.02,
    "share of ties among kept preferences": 0.03,
    **{f"{name}: {what}": 0.1 for name in ATTRIBUTES for what in ("mean", "sd")},
    "correctness: r with helpfulness": 0.03,
}
THEN = {
    "kappa of preferences, raw": 0.05,
    "share of pairs without a preference": 0.05,
    "share of pairs without ratings": 0.05,
    "annotators per pair": 0.2,
    **{f"{name}: r with helpfulness": 0.1 for name in ("coherence", "complexity", "verbosity")},
    **{f"kappa of {name}, {stage}": 0.1 for name in ATTRIBUTES for stage in ("initial", "improved", "post-processed")},
}
STRENGTHS = (1, 2, 3)

Sums = Float[np.ndarray, "... sum"]


@dataclass(frozen=True)
class Measure:
    """A statistic of many pairs: what each adds to the sums, and the value of the sums."""

    name: str
    terms: Float[np.ndarray, "pair sum"]
    value: Callable[[Sums], np.ndarray]

    @property
    def estimate(self) -> float:
        """The statistic of the pairs as they are."""
        return float(self.value(self.terms.sum(axis=0)))


def beside_published(pairs: Dataset, seed: int = 0, draws: int = 1000) -> pd.DataFrame:
    """One row a statistic: published, simulated, difference, low, high, tolerance, within tolerance.

    Args:
        pairs: simulated ones, with annotations and truth.
        seed: of the bootstrap over pairs, whose 95 % percentile interval `low` and `high` are.
        draws: of the bootstrap.
    Returns:
        Published values come from data/published (NaN where none is known; then nothing can be within tolerance, and
        that column is None). Kappas are weighted quadratically. Shares of distinct texts have no interval: a redraw
        repeats rows. The oracle is the sign of the true preference, right where it is that of the preference.
    Raises:
        ValueError: a pair has more than five annotations, or no truth.
    """
    ratings = ratings_of(pairs, ATTRIBUTES).astype(float)
    found = [*measures(_given(pairs), preferences(pairs), ratings), *_of_truth(pairs)]
    estimates = {measure.name: measure.estimate for measure in found} | _distinct(pairs)
    table = against_targets("simulated", estimates).join(_intervals(found, seed=seed, draws=draws))
    columns = ["published", "simulated", "difference", "low", "high", "tolerance", "within tolerance"]
    return table[columns].rename_axis("statistic")


def against_targets(name: str, found: Mapping[str, float]) -> pd.DataFrame:
    """Statistics, in the column `name`, beside their published values: published, difference, tolerance, within it."""
    table = pd.DataFrame({"published": targets(), name: pd.Series(found)}).reindex(list(found))
    table["difference"] = table[name] - table["published"]
    table["tolerance"] = pd.Series(FIRST | THEN)
    within = (table["difference"].abs() <= table["tolerance"]).astype(object)
    table["within tolerance"] = within.where(table["published"].notna() & table["tolerance"].notna(), None)
    return table


def _intervals(found: Sequence[Measure], *, seed: int, draws: int) -> pd.DataFrame:
    """95 % percentile bootstrap intervals over pairs, the same redrawn pairs for every measure; columns low, high."""
    terms = np.hstack([measure.terms for measure in found])
    ends = np.cumsum([measure.terms.shape[1] for measure in found])
    parts = np.split(redrawn_sums(terms, seed=seed, draws=draws)[1:], ends[:-1], axis=1)
    with np.errstate(invalid="ignore"):
        values = [measure.value(part) for measure, part in zip(found, parts, strict=True)]
    bounds = np.nanquantile(np.array(values), [0.025, 0.975], axis=1).T
    return pd.DataFrame(bounds, index=[measure.name for measure in found], columns=["low", "high"])


def _given(pairs: Dataset) -> Given:
    """The annotations of a table of pairs as arrays. Raises ValueError for more than five of a pair."""
    frame = annotation_frame(pairs)
    rows, place = frame["row"].to_numpy(), frame.groupby("row").cumcount().to_numpy()
    if place.max(initial=0) >= N_MOST:
        raise ValueError(f"a pair has {place.max() + 1} annotations, simulated ones have at most {N_MOST}")
    called = np.zeros((len(pairs), N_MOST), dtype=bool)
    called[rows, place] = True
    votes = np.full(called.shape, NEITHER_VALID)
    votes[rows, place] = frame["preference"].fillna(NEITHER_VALID)
    ratings = np.zeros((*called.shape, 2, len(ATTRIBUTES)), dtype=int)
    columns = [[f"{name}_{side}" for name in ATTRIBUTES] for side in (1, 2)]
    for side in (0, 1):
        ratings[rows, place, side] = frame[columns[side]]
    return Given(called, votes, ratings)


def measures(
    given: Given, preference: Float[np.ndarray, "pair"], ratings: Float[np.ndarray, "pair side attribute"]
) -> Iterator[Measure]:
    """Every statistic that has a published value, but for those of texts; a label that a pair lacks is NaN."""
    kept, rated = np.isfinite(preference), np.isfinite(ratings[:, 0, HELPFULNESS])
    yield share("share of ties among kept preferences", kept, preference == 0)
    yield share("share of pairs without a preference", rated, ~kept)  # as published, of those with ratings
    yield share("share of pairs without ratings", np.ones(len(kept), dtype=bool), ~rated)
    gap = ratings[:, 1, HELPFULNESS] - ratings[:, 0, HELPFULNESS]
    yield correlation("r of preference and helpfulness difference", preference, gap)
    yield mean("annotators per pair", given.called.sum(axis=1))
    for index, name in enumerate(ATTRIBUTES):
        yield mean(f"{name}: mean", ratings[..., index])
        yield standard_deviation(f"{name}: sd", ratings[..., index])
        if index != HELPFULNESS:
            yield correlation(f"{name}: r with helpfulness", ratings[..., index], ratings[..., HELPFULNESS])
    yield from _of_agreement(given)


@cache
def targets() -> pd.Series:
    """The published values by the names of `measures`, from data/published; those without a number are left out."""
    table = published("preferences").set_index("quantity")["value"]
    released = table["training pairs in the released file"] + table["validation pairs in the released file"]
    ties = table["training ties in the released file"] + table["validation ties in the released file"]
    values = {
        "share of ties among kept preferences": ties / released,
        "share of pairs without a preference": 1 - released / table["rated prompts in the released files"],
        "share of pairs without ratings": table.get("share of tasks removed by the filter of ratings", np.nan),
        "r of preference and helpfulness difference": table["Pearson r of preference and helpfulness difference"],
        "annotators per pair": table["annotators per task"],
        "share of prompts with several turns": table["share of prompts with several turns"],
    }
    for row in published("agreement").to_dict(orient="records"):
        label = "preferences" if row["label"] == "preference" else row["label"]
        values[f"kappa of {label}, {row['stage']}"] = row["kappa"]
    columns = {"mean": "mean", "standard_deviation": "sd", "pearson_with_helpfulness": "r with helpfulness"}
    for row in published("helpsteer2_descriptive").to_dict(orient="records"):
        if row["variable"] in ATTRIBUTES:
            values |= {f"{row['variable']}: {name}": row[column] for column, name in columns.items()}
    del values["helpfulness: r with helpfulness"]  # 1 by definition
    return pd.Series(values, dtype=float).dropna()


def share(name: str, among: np.ndarray, chosen: np.ndarray) -> Measure:
    """Of the pairs among, the share chosen."""
    return Measure(name, np.stack([among, among & chosen], axis=-1).astype(float), lambda s: s[..., 1] / s[..., 0])


def correlation(name: str, x: np.ndarray, y: np.ndarray) -> Measure:
    """Pearson's r of x and y, each `[pair]` or `[pair, side]`; NaN in either leaves an entry out."""
    x, y = x.reshape(len(x), -1), y.reshape(len(y), -1)
    there = np.isfinite(x) & np.isfinite(y)
    x, y = np.where(there, x, 0.0), np.where(there, y, 0.0)
    terms = np.stack([there, x, y, x * x, y * y, x * y], axis=-1).sum(axis=1)

    def value(sums: Sums) -> np.ndarray:
        n, sx, sy, sxx, syy, sxy = np.moveaxis(sums, -1, 0)
        return (n * sxy - sx * sy) / np.sqrt((n * sxx - sx * sx) * (n * syy - sy * sy))

    return Measure(name, terms, value)


def mean(name: str, x: np.ndarray) -> Measure:
    """Mean over `[pair]` or `[pair, side]`, NaN left out."""
    return Measure(name, _powers(x), lambda s: s[..., 1] / s[..., 0])


def standard_deviation(name: str, x: np.ndarray) -> Measure:
    """Standard deviation (n - 1) over `[pair]` or `[pair, side]`, NaN left out."""
    return Measure(
        name, _powers(x), lambda s: np.sqrt((s[..., 2] - s[..., 1] ** 2 / s[..., 0]) / np.maximum(s[..., 0] - 1, 1))
    )


def kappa(name: str, values: np.ndarray, valid: Bool[np.ndarray, "pair annotator ..."]) -> Measure:
    """Quadratically weighted kappa over all pairs of annotations, as `rmlib.annotations.weighted_kappa` defines it.

    Cost is the squared distance in rank, so that sums of ranks and of their squares are enough: with n labels of an
    item, the costs of its pairs add up to 2 (n q - s^2), and each label counts n - 1 times in the margins.
    """
    rank = np.searchsorted(np.unique(values[valid]), values) * valid.astype(float)
    n, s, q = (x.sum(axis=1) for x in (valid.astype(float), rank, rank * rank))
    terms = np.stack([n * (n - 1), (n - 1) * s, (n - 1) * q, n * q - s * s], axis=-1)
    terms = terms.reshape(len(values), -1, 4).sum(axis=1)

    def value(sums: Sums) -> np.ndarray:
        total, first, second, cost = np.moveaxis(sums, -1, 0)
        return 1 - cost / total / (second / total - (first / total) ** 2)

    return Measure(name, terms, value)


def _of_agreement(given: Given) -> Iterator[Measure]:
    """Of preferences: all votes, then the three most similar of pairs that keep a preference.

    Of ratings, in the three stages of the parent's Table 1: all, the three most alike in helpfulness, the same of
    pairs that keep their ratings.
    """
    yield kappa("kappa of preferences, raw", given.votes, given.called & (given.votes != NEITHER_VALID))
    three, kept = annotators.kept_votes(given)
    yield kappa("kappa of preferences, processed", three, np.repeat(kept[:, None], 3, axis=1))
    chosen, rated = annotators.kept_ratings(given)
    for index, name in enumerate(ATTRIBUTES):
        called = np.repeat(given.called[..., None], 2, axis=-1)
        yield kappa(f"kappa of {name}, initial", given.ratings[..., index], called)
        yield kappa(f"kappa of {name}, improved", chosen[..., index], np.ones(chosen.shape[:-1], dtype=bool))
        there = np.broadcast_to(rated[:, None, None], chosen.shape[:-1])
        yield kappa(f"kappa of {name}, post-processed", chosen[..., index], there)


def _of_truth(pairs: Dataset) -> Iterator[Measure]:
    """What only simulated pairs tell, and what their prompts do."""
    preference, truth = preferences(pairs), np.array(pairs["truth_preference"][:], dtype=float)
    if np.isnan(truth).any():
        raise ValueError(f"{np.isnan(truth).sum()} pairs have no truth_preference: compare simulated pairs alone")
    yield mean("mean preference", preference)
    decided, right = np.abs(preference) > 0, np.sign(preference) == np.sign(truth)
    yield share("accuracy of the oracle on decided pairs", decided, right)
    for strength in STRENGTHS:
        yield share(f"accuracy of the oracle, strength {strength}", np.abs(preference) == strength, right)
    several = np.array([len(prompt) > 1 for prompt in pairs["prompt"][:]])
    yield share("share of prompts with several turns", np.ones(len(several), dtype=bool), several)


def _distinct(pairs: Dataset) -> dict[str, float]:
    prompts = {prompt_key(prompt) for prompt in pairs["prompt"][:]}
    responses = {*pairs["response_1"][:], *pairs["response_2"][:]}
    return {
        "share of distinct prompts": len(prompts) / len(pairs),
        "share of distinct responses": len(responses) / (2 * len(pairs)),
    }


def _powers(x: np.ndarray) -> Float[np.ndarray, "pair 3"]:
    x = x.reshape(len(x), -1).astype(float)
    there = np.isfinite(x)
    x = np.where(there, x, 0.0)
    return np.stack([there, x, x * x], axis=-1).sum(axis=1)
