"""How far annotators agree, whether they lean to one side, and how preferences go with ratings: all with intervals.

Intervals of agreement come from redrawing whole items, since the annotations of one item are not independent.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

import krippendorff
import numpy as np
import pandas as pd
from datasets import Dataset
from jaxtyping import Float

from rmlib.annotations.labels import (
    SIDES,
    annotation_frame,
    kappa_of_coincidences,
    label_counts,
    preference_items,
    preference_steps,
    rating_steps,
)
from rmlib.pairs import descriptions
from rmlib.pairs.consensus import Value, kept_positions, three_most_similar
from rmlib.pairs.schema import ATTRIBUTES, NEITHER_VALID
from rmlib.pairs.views import preferences
from rmlib.statistics import (
    Interval,
    bootstrap_interval,
    correlation_interval,
    percentile_interval,
    redrawn_sums,
    wilson_interval,
)

Items = Sequence[Sequence[Value]]
FEWEST_FOR_R = 4  # Fisher's z has a standard error of 1 / sqrt(n - 3)


def agreement(items: Iterable[Sequence[Value]], *, seed: int, draws: int = 1000) -> pd.DataFrame:
    """Agreement between annotators, with percentile bootstrap intervals (95 %) over items.

    Args:
        items: the labels of each item, from any number of annotators. None and -100 are no labels, and items with
            fewer than two labels are left out.
        seed, draws: of the bootstrap.
    Returns:
        Columns estimate, low, high, n (items with two labels or more). Rows: kappa with quadratic and with linear
        weights (`annotations.weighted_kappa`, distances in rank), Krippendorff's alpha at the interval level
        (distances in value) and at the ordinal level (Krippendorff, 2004, chapter 11; library krippendorff), and the
        share of equal pairs of annotations. Labels keep their ranks in a draw that lacks some of them. Kappa and alpha
        are NaN where only one label occurs, and their interval is where this happens in a draw.
    Raises:
        ValueError: no item has two labels.
    """
    labels, counts = label_counts(items)
    counts = counts[np.lexsort(counts.T)]  # what is redrawn does not depend on the order of the items
    met = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(len(labels))
    # In kappa and the raw share an item counts by its pairs of annotations, in alpha by its annotations.
    shared = met / (counts.sum(axis=1) - 1)[:, None, None]
    terms = np.stack([met, shared], axis=1).reshape(len(counts), -1)
    sums = redrawn_sums(terms, seed=seed, draws=draws).reshape(-1, 2, len(labels), len(labels))
    by_pairs, by_annotations = sums[:, 0], sums[:, 1]
    rows = {}
    for kind in ("quadratic", "linear"):
        kappas = kappa_of_coincidences(by_pairs, kind)
        rows[f"kappa, {kind} weights"] = percentile_interval(kappas[0], kappas[1:], len(counts))
    for level in ("interval", "ordinal"):
        alphas = _alphas(by_annotations[1:], labels, level)
        rows[f"alpha, {level}"] = percentile_interval(_alpha(counts, labels, level), alphas, len(counts))
    equal = np.trace(by_pairs, axis1=1, axis2=2) / by_pairs.sum(axis=(1, 2))
    rows["raw agreement"] = percentile_interval(equal[0], equal[1:], len(counts))
    return _table(rows, "measure")


def agreement_by_stage(pairs: Dataset, *, seed: int, draws: int = 1000) -> pd.DataFrame:
    """`agreement` along the pipelines of `annotations`, for the preferences and for the ratings where there are any.

    Index: label ("preference" or an attribute), stage, measure. Stages: "raw"; "three most similar" (of every item);
    "processed" (the three, of the pairs that the pipeline labels); for preferences also "processed, without 0".
    An item is a pair for preferences and a response for ratings. A stage without an item of two labels has no rows.
    Raises ValueError where there is none at all.
    """
    stages = {**_preference_stages(pairs), **_rating_stages(pairs)}
    several = {name: items for name, items in stages.items() if any(len(labels) > 1 for labels in items)}
    if not several:
        raise ValueError("no pair has two annotations: there is no agreement to measure")
    tables = {name: agreement(items, seed=seed, draws=draws) for name, items in several.items()}
    return pd.concat(tables, names=["label", "stage"])


def selection_alone(pairs: Dataset, *, seed: int, draws: int = 1000) -> pd.DataFrame:
    """How much of the agreement the choice of the three most similar preferences makes by itself.

    Quadratic kappa (estimate, low, high, n) of the preferences as annotators gave them, and of the same preferences
    dealt out to the pairs at random, each pair getting as many as it had. Index: votes, stage. What the second gains
    by the choice owes nothing to annotators who agree. Raises ValueError where no pair has two preferences.
    """
    given = _valid_preferences(pairs)
    dealt = np.random.default_rng(seed).permutation([vote for votes in given for vote in votes])
    ends = np.cumsum([len(votes) for votes in given])[:-1]
    votes = {"as given": given, "dealt at random": [part.tolist() for part in np.split(dealt, ends)]}
    stages = {
        (name, stage): items
        for name, raw in votes.items()
        for stage, items in (("raw", raw), ("three most similar", [three_most_similar(labels) for labels in raw]))
    }
    kappas = {key: agreement(items, seed=seed, draws=draws).iloc[0] for key, items in stages.items()}
    return pd.DataFrame(kappas).T.rename_axis(["votes", "stage"]).astype({"n": int})


def position_bias(pairs: Dataset, *, seed: int) -> pd.DataFrame:
    """Whether response 2 is preferred because it stands second: rows of estimate, low, high, n (95 %).

    The mean preference (n: pairs with a preference, ties included), and the shares in favour of response 2 of decided
    pairs (Wilson's interval) and of decided single annotations (n: annotations; the bootstrap redraws whole pairs).
    What cannot be computed is NaN, with n 0. Without bias the first is 0 and the shares are 1/2, if the order of the
    responses was left to chance.
    """
    values = preferences(pairs)
    values = values[~np.isnan(values)]
    second, decided = int((values > 0).sum()), int((values != 0).sum())
    nothing = Interval(np.nan, np.nan, np.nan, 0)
    single = _annotations_for_second(preference_items(pairs), seed)
    rows = {
        "mean preference": bootstrap_interval(values, seed=seed) if len(values) else nothing,
        "share of decided pairs for response 2": wilson_interval(second, decided) if decided else nothing,
        "share of decided annotations for response 2": single or nothing,
    }
    return _table(rows, "quantity")


def preference_correlations(pairs: Dataset) -> pd.DataFrame:
    """Pearson's r of the preference and the difference of each rating (response 2 minus 1), with Fisher's interval.

    Index: attribute; columns r, low, high, n (pairs with a preference, ties included, and both ratings). NaN where
    there are fewer than four pairs, or one of the two never varies.
    """
    table = descriptions.frame(pairs)
    rows = {}
    for name in ATTRIBUTES:
        both = table[["preference", f"{name}_difference"]].dropna().astype(float)
        if len(both) < FEWEST_FOR_R or both.nunique().min() < 2:
            rows[name] = Interval(np.nan, np.nan, np.nan, len(both))
        else:
            rows[name] = correlation_interval(*both.to_numpy().T)
    return _table(rows, "attribute").rename(columns={"estimate": "r"})


def _valid_preferences(pairs: Dataset) -> list[list[int]]:
    return [[vote for vote in votes if vote != NEITHER_VALID] for votes in preference_items(pairs)]


def _preference_stages(pairs: Dataset) -> dict[tuple[str, str], Items]:
    raw = _valid_preferences(pairs)
    three = [three_most_similar(votes) for votes in raw]
    labels = list(preference_steps(pairs).labels.values())
    stages: dict[str, Items] = {
        "raw": raw,
        "three most similar": three,
        "processed": [kept for kept, label in zip(three, labels, strict=True) if label is not None],
        "processed, without 0": [kept for kept, label in zip(three, labels, strict=True) if label],
    }
    return {("preference", stage): items for stage, items in stages.items()}


def _rating_stages(pairs: Dataset) -> dict[tuple[str, str], Items]:
    labelled = [label is not None for label in rating_steps(pairs).labels.values()]
    stages: dict[tuple[str, str], list[list[float]]] = {
        (name, stage): [] for name in ATTRIBUTES for stage in ("raw", "three most similar", "processed")
    }
    for row, ratings in _rated_responses(pairs):
        kept = ratings[list(kept_positions(ratings[:, ATTRIBUTES.index("helpfulness")].tolist()))]
        for column, name in enumerate(ATTRIBUTES):
            stages[name, "raw"].append(_numbers(ratings[:, column]))
            stages[name, "three most similar"].append(_numbers(kept[:, column]))
            if labelled[row]:
                stages[name, "processed"].append(stages[name, "three most similar"][-1])
    return dict(stages)


def _rated_responses(pairs: Dataset) -> Iterator[tuple[int, Float[np.ndarray, "annotation attribute"]]]:
    """Row of the pair and ratings of each response whose helpfulness somebody rated."""
    frame = annotation_frame(pairs)
    for side in SIDES:
        columns = [f"{name}_{side[-1]}" for name in ATTRIBUTES]
        rated = frame.dropna(subset=[f"helpfulness_{side[-1]}"])
        rows, starts = np.unique(rated["row"], return_index=True)
        yield from zip(rows.tolist(), np.split(rated[columns].to_numpy(), starts[1:]), strict=len(rows) > 0)


def _numbers(values: Float[np.ndarray, "annotation"]) -> list[float]:
    return values[~np.isnan(values)].tolist()


def _annotations_for_second(items: Iterable[Sequence[int]], seed: int, draws: int = 2000) -> Interval | None:
    """Share of decided annotations above 0, with the bootstrap over pairs; None where there are none."""
    decided = [[vote > 0 for vote in votes if vote not in (0, NEITHER_VALID)] for votes in items]
    counts = np.array([[sum(votes), len(votes)] for votes in decided if votes], dtype=float)
    if not len(counts):
        return None
    second, total = redrawn_sums(counts, seed=seed, draws=draws).T
    return percentile_interval(second[0] / total[0], second[1:] / total[1:], int(total[0]))


def _alpha(counts: np.ndarray, labels: np.ndarray, level: Literal["interval", "ordinal"]) -> float:
    if len(labels) < 2:
        return np.nan
    return krippendorff.alpha(value_counts=counts, value_domain=labels, level_of_measurement=level)


def _alphas(coincidences: np.ndarray, labels: np.ndarray, level: str) -> Float[np.ndarray, "draw"]:
    """Krippendorff's alpha of coincidence matrices `[draw, label, label]`, for the bootstrap.

    The library takes one set of items at a time; a thousand sets would take it minutes.
    """
    n = coincidences.sum(axis=2)
    # The ordinal distance of two labels is that of their mean ranks.
    place = np.cumsum(n, axis=1) - n / 2 if level == "ordinal" else np.broadcast_to(labels, n.shape)
    distance = (place[:, :, None] - place[:, None, :]) ** 2
    expected = np.einsum("di,dij,dj->d", n, distance, n) / (n.sum(axis=1) - 1)
    with np.errstate(invalid="ignore"):
        return 1 - (coincidences * distance).sum(axis=(1, 2)) / expected


def _table(rows: Mapping[str, Interval], index: str) -> pd.DataFrame:
    return pd.DataFrame.from_dict({name: vars(row) for name, row in rows.items()}, orient="index").rename_axis(index)
