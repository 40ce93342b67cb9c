"""How good each annotator is, what is probably true (Dawid and Skene, 1979), and whether preferences run in circles."""

import logging
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from datasets import Dataset
from jaxtyping import Bool, Float
from scipy import stats
from scipy.special import logsumexp, xlogy

from rmlib.annotations.labels import annotation_frame
from rmlib.pairs.messages import Response
from rmlib.pairs.schema import NEITHER_VALID
from rmlib.pairs.table import responses_of_row, rows_of
from rmlib.pairs.views import RESPONSES
from rmlib.records.hashing import prompt_key
from rmlib.statistics import Interval, wilson_interval

logger = logging.getLogger(__name__)


SMOOTHING = 0.5  # pseudo-annotations in each cell of a confusion matrix; without, three votes make one sure of anything
MAX_ITERATIONS, TOLERANCE = 1000, 1e-8  # of EM: it stops where the log-likelihood gains less than this per annotation


class DawidSkene(NamedTuple):
    """What is probably true, and how often each annotator says it."""

    posterior: pd.DataFrame  # probability of each label (columns, ascending) for each item (index)
    # Index annotator: estimate (expected share of right annotations, 0..1), low, high, n. An annotation is evidence of
    # the truth it is held against, which flatters who shares items with few; the interval takes the model as given.
    quality: pd.DataFrame


@dataclass(frozen=True)
class Cycles:
    """How consistent the preferences are among responses to one prompt that meet in several pairs.

    The intervals are Wilson's and take triads and chains as independent; those that share a pair are not, so that the
    intervals are somewhat narrow.
    """

    cyclic: Interval | None  # share of the decided triads that run in a circle; None where there is no triad
    transitive: Interval | None  # share of the chains a > b > c with a and c compared where a > c, too

    def table(self) -> pd.DataFrame:
        """Shares with intervals: rows cyclic triads (beside it the quarter that coin flips give), transitive chains."""
        rows = {"cyclic triads": (self.cyclic, 0.25), "transitive chains": (self.transitive, np.nan)}
        nothing = Interval(np.nan, np.nan, np.nan, 0)
        named = {name: vars(found or nothing) | {"by chance": chance} for name, (found, chance) in rows.items()}
        return pd.DataFrame.from_dict(named, orient="index").rename_axis("share")


def pair_votes(pairs: Dataset) -> pd.DataFrame:
    """The preferences of annotators with an id as `dawid_skene` takes them: item (pair id), annotator, label.

    Left out, and logged with their numbers: annotations without an id, and -100 (neither response is valid).
    Raises ValueError where nothing is left.
    """
    frame = annotation_frame(pairs, ratings=False).dropna(subset=["preference"])
    frame["item"] = np.asarray(pairs["pair_id"][:])[frame["row"]]
    valid, named = frame["preference"] != NEITHER_VALID, frame["annotator"].notna()
    if not all(valid & named):
        logger.info("annotators: left out %d without an id and %d not valid", (~named).sum(), (~valid).sum())
    if not any(valid & named):
        raise ValueError("no annotation has both a preference and an annotator's id: quality cannot be estimated")
    votes = frame[valid & named].rename(columns={"preference": "label"})
    return votes[["item", "annotator", "label"]].astype({"label": int}).reset_index(drop=True)


def dawid_skene(votes: pd.DataFrame) -> DawidSkene:
    """Labels and confusion matrices by EM, started from the shares of votes (Dawid & Skene, 1979).

    `votes` are those of `pair_votes`, in any order. Unlike in the paper the matrices have a symmetric Dirichlet prior
    of 1 + SMOOTHING. Raises ValueError for fewer than two different labels.
    """
    item, items = pd.factorize(votes["item"])
    annotator, annotators = pd.factorize(votes["annotator"])
    labels, given = np.unique(votes["label"].to_numpy(float), return_inverse=True)
    if len(labels) < 2:
        raise ValueError(f"every label is {labels[0]:g}: nothing tells annotators apart")
    posterior = _sums(np.eye(len(labels))[given], item, len(items))
    posterior /= posterior.sum(axis=1, keepdims=True)
    likelihood = -np.inf
    for _ in range(MAX_ITERATIONS):
        prevalence, confusion = _maximised(posterior, item, annotator * len(labels) + given, len(annotators))
        posterior, evidence = _expected(prevalence, confusion, item, annotator, given)
        before, likelihood = likelihood, evidence + float(xlogy(SMOOTHING, confusion).sum())  # the prior's log, too
        if likelihood - before <= TOLERANCE * len(votes):
            break
    else:
        logger.warning("Dawid-Skene: not converged after %d iterations", MAX_ITERATIONS)
    right = np.bincount(annotator, weights=posterior[item, given])
    quality = _shares(right, np.bincount(annotator), pd.Index(annotators, name="annotator"))
    return DawidSkene(pd.DataFrame(posterior, index=items, columns=labels), quality)


def annotator_table(pairs: Dataset) -> pd.DataFrame:
    """One row an annotator id, most annotations first: how much they did, how often others and the model agree.

    Columns: annotations; agreement, agreement_low, agreement_high (mean share of the other annotators of a pair who
    gave the same preference) over n_shared annotations that have company; quality, quality_low, quality_high
    (`DawidSkene.quality`). 95 %. Raises ValueError as `pair_votes` and `dawid_skene`.
    """
    votes = pair_votes(pairs)
    fitted = dawid_skene(votes).quality
    others = votes.groupby("item")["label"].transform("size") - 1
    same = votes.groupby(["item", "label"])["label"].transform("size") - 1
    shared = votes.assign(same=same / others)[others > 0].groupby("annotator")["same"].agg(["sum", "size"])
    shared = shared.reindex(fitted.index, fill_value=0)
    agreed = _shares(shared["sum"].to_numpy(), shared["size"].to_numpy(), fitted.index)
    bounds = ["estimate", "low", "high"]
    table = pd.DataFrame({"annotations": fitted["n"]})
    table[["agreement", "agreement_low", "agreement_high", "n_shared"]] = agreed[[*bounds, "n"]]
    table[["quality", "quality_low", "quality_high"]] = fitted[bounds]
    return table.sort_values("annotations", ascending=False, kind="stable")


def true_share_right(pairs: Dataset) -> pd.Series:
    """By annotator id, the share of preferences that favour the truly better response; simulated pairs alone have it.

    Raises ValueError as `pair_votes`, and where a pair has no true preference.
    """
    truth = pd.Series(pairs["truth_preference"][:], index=pairs["pair_id"][:], dtype=float)
    if truth.isna().any():
        raise ValueError("a pair has no true preference: only simulated pairs tell how good annotators really are")
    votes = pair_votes(pairs)
    right = np.sign(votes["label"]) == np.sign(votes["item"].map(truth))
    return right.groupby(votes["annotator"]).mean()


def cycles(pairs: Dataset) -> Cycles:
    """Count circles among the preferences where responses recur in several pairs of one prompt.

    A triad is three responses to one prompt, each two compared and decided. Two responses compared in both orders
    count by the sum of the two signs, so that a contradiction is a tie; pairs without a preference are left out.
    """
    totals = np.zeros(4, dtype=int)
    for group in _by_prompt(pairs):
        beats, compared = _tournament(group)
        wins, tied = beats.astype(float), compared & ~beats & ~beats.T  # float: BLAS multiplies these matrices
        chains = wins @ wins
        either = wins + wins.T
        triads = round(np.sum(either @ either * either) / 6)
        held, closed = round(np.sum(chains * wins)), round(np.sum(chains * wins.T))
        totals += [triads, closed // 3, held, round(np.sum(chains * tied))]
    triads, cyclic, held, chains_tied = totals.tolist()
    n_chains = held + chains_tied + 3 * cyclic
    return Cycles(
        wilson_interval(cyclic, triads) if triads else None,
        wilson_interval(held, n_chains) if n_chains else None,
    )


def _sums(values: Float[np.ndarray, "vote label"], group: np.ndarray, size: int) -> Float[np.ndarray, "group label"]:
    """The rows of each group, added up."""
    return np.stack([np.bincount(group, weights=column, minlength=size) for column in values.T], axis=1)


def _maximised(
    posterior: np.ndarray, item: np.ndarray, cell: np.ndarray, annotators: int
) -> tuple[Float[np.ndarray, "label"], Float[np.ndarray, "annotator true given"]]:
    """Prevalence and confusion matrices that fit the posterior best; `cell` numbers (annotator, given label)."""
    labels = posterior.shape[1]
    counts = _sums(posterior[item], cell, annotators * labels).reshape(annotators, labels, labels)
    counts = counts.transpose(0, 2, 1) + SMOOTHING
    return posterior.mean(axis=0), counts / counts.sum(axis=2, keepdims=True)


def _expected(
    prevalence: np.ndarray, confusion: np.ndarray, item: np.ndarray, annotator: np.ndarray, given: np.ndarray
) -> tuple[Float[np.ndarray, "item label"], float]:
    """Posterior of the true labels, and the log-likelihood of the votes."""
    with np.errstate(divide="ignore"):  # log 0 is -inf: impossible
        joint = _sums(np.log(confusion)[annotator, :, given], item, item.max() + 1) + np.log(prevalence)
    evidence = logsumexp(joint, axis=1, keepdims=True)
    return np.exp(joint - evidence), float(evidence.sum())


def _shares(successes: np.ndarray, n: np.ndarray, index: pd.Index) -> pd.DataFrame:
    """Shares with Wilson's interval (95 %), of expected numbers of successes, which are fractions. NaN where n is 0."""
    known, z = np.where(n > 0, n, np.nan), stats.norm.ppf(0.975)
    centre = (successes + z**2 / 2) / (known + z**2)
    half = z / (known + z**2) * np.sqrt(successes * (known - successes) / known + z**2 / 4)
    bounds = {"estimate": successes / known, "low": centre - half, "high": centre + half}
    return pd.DataFrame(bounds | {"n": n}, index=index)


def _by_prompt(pairs: Dataset) -> list[list[dict[str, Any]]]:
    """The pairs with a preference of each prompt that has three or more of them, the fewest that make a triad."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for pair in rows_of(pairs, "prompt", *RESPONSES, "preference"):
        if pair["preference"] is not None:
            pair["response_1"], pair["response_2"] = responses_of_row(pair)
            groups.setdefault(prompt_key(pair["prompt"]), []).append(pair)
    return [group for group in groups.values() if len(group) > 2]


def _tournament(
    group: list[dict[str, Any]],
) -> tuple[Bool[np.ndarray, "response response"], Bool[np.ndarray, "response response"]]:
    """Who beats whom, and who met whom."""
    number: dict[Response, int] = {}
    for pair in group:
        for side in ("response_1", "response_2"):
            number.setdefault(pair[side], len(number))
    score = np.zeros((len(number), len(number)), dtype=int)
    compared = np.zeros_like(score, dtype=bool)
    for pair in group:
        first, second = number[pair["response_1"]], number[pair["response_2"]]
        score[second, first] = np.sign(pair["preference"])
        compared[first, second] = compared[second, first] = True
    return score > score.T, compared
