"""The rules of `rmlib.annotations` as arrays over a block of pairs, for speed; a test holds the two together."""

import itertools

import numpy as np
from jaxtyping import Bool, Float, Int

from rmlib.pairs.schema import NEITHER_VALID
from rmlib.sources.simulated.annotators import HELPFULNESS, N_MOST, TOLERATED_SPAN, Given

_THREES = np.array(list(itertools.combinations(range(N_MOST), 3)))  # in the order of their positions


def three_most_similar(
    values: Int[np.ndarray, "pair annotator"], valid: Bool[np.ndarray, "pair annotator"]
) -> Int[np.ndarray, "pair 3"]:
    """Positions of the three valid values that are most alike; of no use where fewer than three are valid.

    Smallest range, then variance, then mean nearest to that of all valid, then first. In whole numbers: nothing rounds.
    """
    chosen = values[:, _THREES]
    total = chosen.sum(axis=2)
    n_valid, of_all = valid.sum(axis=1), np.where(valid, values, 0).sum(axis=1)
    span = np.ptp(chosen, axis=2)
    variance = 3 * (chosen**2).sum(axis=2) - total**2  # times 9
    distance = np.abs(total * n_valid[:, None] - 3 * of_all[:, None])  # times 3 n
    rank = (span * 1_000 + variance) * 1_000 + distance
    rank = np.where(valid[:, _THREES].all(axis=2), rank, np.iinfo(int).max)
    return _THREES[rank.argmin(axis=1)]


def kept_votes(given: Given) -> tuple[Int[np.ndarray, "pair 3"], Bool[np.ndarray, "pair"]]:
    """The three most similar votes, and whether they give a preference: three valid, at most 2 apart."""
    valid = given.called & (given.votes != NEITHER_VALID)
    votes = np.take_along_axis(given.votes, three_most_similar(given.votes, valid), axis=1)
    return votes, (valid.sum(axis=1) >= 3) & (np.ptp(votes, axis=1) <= TOLERATED_SPAN)


def kept_ratings(given: Given) -> tuple[Int[np.ndarray, "pair 3 side attribute"], Bool[np.ndarray, "pair"]]:
    """Ratings by the three annotators most alike in helpfulness, side by side; whether both spans are at most 2."""
    sides = []
    for side in (0, 1):
        kept = three_most_similar(given.ratings[:, :, side, HELPFULNESS], given.called)
        sides.append(np.take_along_axis(given.ratings[:, :, side], kept[..., None], axis=1))
    ratings = np.stack(sides, axis=2)
    return ratings, np.ptp(ratings[..., HELPFULNESS], axis=1).max(axis=1) <= TOLERATED_SPAN


def preferences(given: Given) -> Float[np.ndarray, "pair"]:
    """Mean of the three most similar votes, rounded; NaN where they give no preference."""
    votes, kept = kept_votes(given)
    return np.where(kept, _rounded_mean(votes), np.nan)


def ratings(given: Given) -> Float[np.ndarray, "pair side attribute"]:
    """Mean of the three ratings kept, rounded; NaN for both responses where helpfulness spans more than 2 for one."""
    values, kept = kept_ratings(given)
    return np.where(kept[:, None, None], _rounded_mean(values), np.nan)


def _rounded_mean(three: Int[np.ndarray, "pair 3 ..."]) -> Int[np.ndarray, "pair ..."]:
    """Thirds have no halves, so rounding is never a tie."""
    return (2 * three.sum(axis=1) + 3) // 6
