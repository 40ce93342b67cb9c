"""From several annotations to one label: the pipelines of the two papers, step by step, and weighted kappa.

Preferences: HelpSteer2-Preference (arXiv 2410.01257, section 2). Ratings: HelpSteer2 (arXiv 2406.08673).
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from jaxtyping import Float

from rmlib.pairs.consensus import (
    N_KEPT,
    TOLERATED_SPAN,
    Value,
    kept_positions,
    mean,
    overall_preference,
    valid_values,
)
from rmlib.pairs.schema import ATTRIBUTES, NEITHER_VALID

SIDES = ("ratings_1", "ratings_2")
VOTE_PRIOR = 0.5  # votes added to each response: Jeffreys' prior, under which three of three votes are 0.875, not 1

Ratings = dict[str, float | None]
Label = TypeVar("Label")

SPAN_STEP = f"span at most {TOLERATED_SPAN}"
PREFERENCE_STEPS = (
    "annotations with a preference", f"{NEITHER_VALID} discarded", "three most similar", SPAN_STEP, "zeros left out",
)  # fmt: skip
RATING_STEPS = ("annotations with ratings", "three most alike in helpfulness", SPAN_STEP)


@dataclass(frozen=True)
class Steps(Generic[Label]):
    """What a pipeline did with each pair (keys: pair ids): its label, and how far it came."""

    steps: Sequence[str]  # in order
    labels: Mapping[str, Label | None]  # None where the pipeline gives none; a 0 that is left out still shows here
    survived: Mapping[str, Sequence[int]]  # annotations left after each step that the pair survived

    def table(self) -> pd.DataFrame:
        """One row a step: pairs in, dropped and left, and the annotations behind the pairs that are left."""
        rows, before = {}, len(self.survived)
        for number, step in enumerate(self.steps):
            counts = [survived[number] for survived in self.survived.values() if len(survived) > number]
            dropped = before - len(counts)
            rows[step] = {"pairs in": before, "dropped": dropped, "left": len(counts), "annotations left": sum(counts)}
            before = len(counts)
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("step")


def overall_ratings(annotations: Sequence[Mapping[str, Any]], side: str) -> Ratings | None:
    """Ratings (0-4) of one response: the three annotations most alike in helpfulness, their mean, rounded.

    Args:
        annotations: with the fields of the schema; those that do not rate the helpfulness of this side are ignored.
        side: "ratings_1" or "ratings_2".

    None where nobody rated it, or where the retained helpfulness ratings span more than 2. Where only two are at hand,
    as for a small share of the released disagreements, halves occur: they round to even. An attribute that none of
    the retained annotations rates is None.
    """
    kept = _retained(annotations, side)
    helpfulness = [ratings["helpfulness"] for ratings in kept]
    if not kept or max(helpfulness) - min(helpfulness) > TOLERATED_SPAN:
        return None
    given = {name: [r[name] for r in kept if r.get(name) is not None] for name in ATTRIBUTES}
    return {name: float(round(mean(values))) if values else None for name, values in given.items()}


def preference_steps(pairs: Dataset) -> Steps[int]:
    """The paper's pipeline on the preferences of `annotations`; labels are what `overall_preference` gives."""
    votes = dict(zip(pairs["pair_id"][:], preference_items(pairs), strict=True))
    labels = {pair: overall_preference(values) for pair, values in votes.items()}
    survived = {pair: _preference_counts(values, labels[pair]) for pair, values in votes.items()}
    return Steps(PREFERENCE_STEPS, labels, survived)


@lru_cache(maxsize=4)  # seconds, and asked for again with the same table
def rating_steps(pairs: Dataset) -> Steps[tuple[Ratings, Ratings]]:
    """The parent's pipeline on the ratings of `annotations`; a label holds the ratings of response 1 and response 2.

    A pair is dropped where either response is; then its label is None. Annotations are counted once a response.
    """
    labels: dict[str, tuple[Ratings, Ratings] | None] = {}
    survived = {}
    for pair in pairs.select_columns(["pair_id", "annotations"]).to_list():
        annotations = pair["annotations"] or []
        first, second = (overall_ratings(annotations, side) for side in SIDES)
        labels[pair["pair_id"]] = None if first is None or second is None else (first, second)
        rated = [len(_rated(annotations, side)) for side in SIDES]
        kept = sum(len(_retained(annotations, side)) for side in SIDES)
        outcomes = [(sum(rated), all(rated)), (kept, True), (kept, labels[pair["pair_id"]] is not None)]
        survived[pair["pair_id"]] = _until_dropped(outcomes)
    return Steps(RATING_STEPS, labels, survived)


def weighted_kappa(items: Iterable[Sequence[Value]], weights: Literal["quadratic", "linear"] = "quadratic") -> float:
    """Cohen's weighted kappa over all pairs of annotations of an item, each pair in both orders.

    Args:
        items: the labels of each item, from any number of annotators. None and -100 are no labels; an item with fewer
            than two labels is ignored, one with many counts once for each of its pairs.
        weights: the cost of a disagreement is its distance in rank, or the square of it. The rank is that of the label
            among the labels that occur, as in scikit-learn, with which published kappas were computed: for votes of
            -3..3 without 0 the step from -1 to 1 is one, not two.
    Returns:
        Kappa; NaN where only one label occurs, for which it is not defined.
    Raises:
        ValueError: unknown weights, or no item with two labels.
    """
    if weights not in ("quadratic", "linear"):
        raise ValueError(f"unknown weights {weights!r}; use 'quadratic' or 'linear'")
    _, counts = label_counts(items)
    return float(kappa_of_coincidences(counts.T @ counts - np.diag(counts.sum(axis=0)), weights))


def label_counts(items: Iterable[Sequence[Value]]) -> tuple[np.ndarray, np.ndarray]:
    """How often each item got each label: labels `[label]`, ascending, and counts `[item, label]`.

    Items with fewer than two labels are left out. Raises ValueError where none remains.
    """
    several = [labels for labels in map(valid_values, items) if len(labels) > 1]
    if not several:
        raise ValueError("no item has two labels: agreement needs at least two annotations of one item")
    labels, codes = np.unique(np.array(list(itertools.chain.from_iterable(several)), dtype=float), return_inverse=True)
    rows = np.repeat(np.arange(len(several)), [len(values) for values in several])
    flat = np.bincount(rows * len(labels) + codes, minlength=len(several) * len(labels))
    return labels, flat.reshape(len(several), len(labels))


def kappa_of_coincidences(coincidences: np.ndarray, weights: str) -> np.ndarray:
    """Weighted kappa of symmetric matrices `[..., label, label]` of how often two labels met on one item."""
    rank = np.arange(coincidences.shape[-1], dtype=float)
    cost = np.abs(rank[:, None] - rank) ** (2 if weights == "quadratic" else 1)
    margin = coincidences.sum(axis=-1)
    expected = np.einsum("...i,ij,...j->...", margin, cost, margin) / margin.sum(axis=-1)
    with np.errstate(invalid="ignore"):
        return 1 - (coincidences * cost).sum(axis=(-2, -1)) / expected


def annotation_frame(pairs: Dataset, *, ratings: bool = True) -> pd.DataFrame:
    """One row per annotation: row of its pair in the table, annotator, preference (Int64), and the ratings.

    Columns of ratings are named as helpfulness_1 and helpfulness_2; they are left out with `ratings=False`.
    """
    column = pairs.select_columns(["annotations"]).with_format("arrow")[:].column("annotations").combine_chunks()
    flat = pc.list_flatten(column)
    frame = pd.DataFrame({"row": pc.list_parent_indices(column).to_numpy(zero_copy_only=False)})
    frame["annotator"] = pc.struct_field(flat, "annotator").to_pandas()
    frame["preference"] = pd.array(pc.struct_field(flat, "preference").to_pylist(), dtype="Int64")
    for side, name in itertools.product(SIDES if ratings else (), ATTRIBUTES):
        values = pc.struct_field(flat, [side, name]).cast(pa.float64())
        frame[f"{name}_{side[-1]}"] = values.to_numpy(zero_copy_only=False)
    return frame


def preference_items(pairs: Dataset) -> list[list[int]]:
    """The preferences that each pair was given, -100 included, in the order of the table and of the annotations."""
    given = annotation_frame(pairs, ratings=False).dropna(subset=["preference"])
    ends = np.cumsum(np.bincount(given["row"], minlength=len(pairs)))
    values = given["preference"].astype(int).tolist()
    return [values[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def vote_share(pairs: Dataset) -> Float[np.ndarray, "pair"]:
    """Share of a pair's valid votes that favour response 2, as a soft label: `(votes + 1/2) / (all votes + 1)`.

    All votes count, not only the three that made the preference; one of 0 counts half for each response. NaN where a
    pair has no valid vote.
    """
    votes = [np.sign(valid_values(values)) for values in preference_items(pairs)]
    shares = [((signs + 1).sum() / 2 + VOTE_PRIOR) / (len(signs) + 2 * VOTE_PRIOR) for signs in votes]
    return np.where([len(signs) > 0 for signs in votes], shares, np.nan)


def _rated(annotations: Sequence[Mapping[str, Any]], side: str) -> list[Mapping[str, Any]]:
    """The ratings of one side, from the annotations that rate its helpfulness."""
    if side not in SIDES:
        raise ValueError(f"unknown side {side!r}; use one of {', '.join(SIDES)}")
    given = [annotation.get(side) or {} for annotation in annotations]
    return [ratings for ratings in given if ratings.get("helpfulness") is not None]


def _retained(annotations: Sequence[Mapping[str, Any]], side: str) -> list[Mapping[str, Any]]:
    rated = _rated(annotations, side)
    return [rated[position] for position in kept_positions([ratings["helpfulness"] for ratings in rated])]


def _preference_counts(values: Sequence[int], label: int | None) -> list[int]:
    valid = len(valid_values(values))
    outcomes = [(len(values), bool(values)), (valid, valid >= N_KEPT), (N_KEPT, True), (N_KEPT, label is not None)]
    return _until_dropped([*outcomes, (N_KEPT, label != 0)])


def _until_dropped(outcomes: Iterable[tuple[int, bool]]) -> list[int]:
    """The counts of the steps before the first one that is not passed."""
    return [count for count, _ in itertools.takewhile(lambda outcome: outcome[1], outcomes)]
