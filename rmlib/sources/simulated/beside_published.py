"""Simulated statistics beside the published ones, every misfit included."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from datasets import Dataset

from rmlib.annotations import annotation_frame
from rmlib.pairs.schema import ATTRIBUTES, NEITHER_VALID
from rmlib.records.hashing import prompt_key
from rmlib.sources.simulated.annotators import N_MOST, Given
from rmlib.sources.simulated.measures import FIRST, THEN, Labelled, Measure, mean, measures, share, targets

STRENGTHS = (1, 2, 3)
_DRAWS_AT_A_TIME = 50


def compare(pairs: Dataset, seed: int = 0, draws: int = 1000) -> pd.DataFrame:
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
    found = [*measures(labelled(pairs)), *_of_truth(pairs), *_of_texts(pairs)]
    table = pd.DataFrame({"simulated": {measure.name: measure.estimate for measure in found} | _distinct(pairs)})
    table.insert(0, "published", targets().reindex(table.index))
    table["difference"] = table["simulated"] - table["published"]
    table[["low", "high"]] = intervals(found, seed=seed, draws=draws).reindex(table.index)
    table["tolerance"] = pd.Series(FIRST | THEN).reindex(table.index)
    within = (table["difference"].abs() <= table["tolerance"]).astype(object)
    table["within tolerance"] = within.where(table["published"].notna() & table["tolerance"].notna(), None)
    return table.rename_axis("statistic")


def intervals(found: Sequence[Measure], *, seed: int, draws: int) -> pd.DataFrame:
    """95 % percentile bootstrap intervals over pairs, the same redrawn pairs for every measure; columns low, high."""
    terms = np.hstack([measure.terms for measure in found])
    ends = np.cumsum([measure.terms.shape[1] for measure in found])
    rng, n = np.random.default_rng(seed), len(terms)
    sums = []
    for start in range(0, draws, _DRAWS_AT_A_TIME):
        rows = rng.integers(n, size=(min(_DRAWS_AT_A_TIME, draws - start), n))
        sums.append(np.stack([np.bincount(row, minlength=n) for row in rows]).astype(float) @ terms)
    parts = np.split(np.concatenate(sums), ends[:-1], axis=1)
    with np.errstate(invalid="ignore"):
        values = [measure.value(part) for measure, part in zip(found, parts, strict=True)]
    bounds = np.nanquantile(np.array(values), [0.025, 0.975], axis=1).T
    return pd.DataFrame(bounds, index=[measure.name for measure in found], columns=["low", "high"])


def labelled(pairs: Dataset) -> Labelled:
    """Annotations and labels of a table of pairs as arrays. Raises ValueError for more than five annotations."""
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
    own = np.stack([_scores(pairs, f"ratings_{side}") for side in (1, 2)], axis=1)
    return Labelled(Given(called, votes, ratings), _numbers(pairs, "preference"), own)


def _of_truth(pairs: Dataset) -> Iterator[Measure]:
    preference, truth = _numbers(pairs, "preference"), _numbers(pairs, "truth_preference")
    if np.isnan(truth).any():
        raise ValueError(f"{np.isnan(truth).sum()} pairs have no truth_preference: compare simulated pairs alone")
    yield mean("mean preference", preference)
    decided, right = np.abs(preference) > 0, np.sign(preference) == np.sign(truth)
    yield share("accuracy of the oracle on decided pairs", decided, right)
    for strength in STRENGTHS:
        yield share(f"accuracy of the oracle, strength {strength}", np.abs(preference) == strength, right)


def _of_texts(pairs: Dataset) -> Iterator[Measure]:
    several = np.array([len(prompt) > 1 for prompt in pairs["prompt"][:]])
    yield share("share of prompts with several turns", np.ones(len(several), dtype=bool), several)


def _distinct(pairs: Dataset) -> dict[str, float]:
    prompts = {prompt_key(prompt) for prompt in pairs["prompt"][:]}
    responses = {*pairs["response_1"][:], *pairs["response_2"][:]}
    return {
        "share of distinct prompts": len(prompts) / len(pairs),
        "share of distinct responses": len(responses) / (2 * len(pairs)),
    }


def _numbers(pairs: Dataset, column: str) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in pairs[column][:]], dtype=float)


def _scores(pairs: Dataset, column: str) -> np.ndarray:
    """The five attributes of one response, NaN where it is not rated."""
    rows = pairs[column][:]
    return np.array([[np.nan if not row or row[n] is None else row[n] for n in ATTRIBUTES] for row in rows])
