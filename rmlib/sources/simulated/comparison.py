"""Simulated statistics beside the published ones."""

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from datasets import Dataset
from sklearn.metrics import cohen_kappa_score

from rmlib.descriptions import ratings_table
from rmlib.pairs import ATTRIBUTES, prompt_key
from rmlib.records import published
from rmlib.sources.simulated.annotators import three_most_similar
from rmlib.statistics import accuracy

SIDES = ("ratings_1", "ratings_2")


def compare(pairs: Dataset) -> pd.DataFrame:
    """Statistics of simulated pairs beside the published ones; rows: statistic, columns: published, simulated.

    Published values come from data/published (NaN where none is known), kappas are quadratically weighted.
    """
    rows = {**_preferences(pairs), **_agreement(pairs), **_ratings(pairs), **_texts(pairs)}
    return pd.DataFrame(rows, index=["published", "simulated"]).T


def _preferences(pairs: Dataset) -> dict[str, tuple[float, float]]:
    table = published("preferences").set_index("quantity")["value"]
    released = table["training pairs in the released file"] + table["validation pairs in the released file"]
    ties = table["training ties in the released file"] + table["validation ties in the released file"]
    kept = pairs.filter(lambda value: value is not None, input_columns="preference")
    values = np.array(kept["preference"][:])
    gaps = _helpfulness(kept, "ratings_2") - _helpfulness(kept, "ratings_1")
    truth_gaps = _helpfulness(kept, "truth_2") - _helpfulness(kept, "truth_1")
    sizes = [len(annotations) for annotations in pairs["annotations"][:]]
    rated = table["rated prompts in the released files"]
    return {
        "share of ties among kept preferences": (ties / released, float((values == 0).mean())),
        "share of pairs without a preference": (1 - released / rated, 1 - len(kept) / len(pairs)),
        "r of preference and helpfulness difference": (
            table["Pearson r of preference and helpfulness difference"], float(np.corrcoef(values, gaps)[0, 1]),
        ),
        "annotators per pair": (table["annotators per task"], float(np.mean(sizes))),
        "mean preference": (np.nan, float(values.mean())),
        "accuracy of the oracle on decided pairs": (np.nan, accuracy((truth_gaps * np.sign(values))[values != 0])),
    }  # fmt: skip


def _agreement(pairs: Dataset) -> dict[str, tuple[float, float]]:
    """Kappa between annotators, before and after three annotations were chosen."""
    table = published("agreement").set_index(["label", "stage"])["kappa"]
    every = pairs["annotations"][:]
    votes = [[annotation["preference"] for annotation in annotations] for annotations in every]
    kept = [three(v) for v, value in zip(votes, pairs["preference"][:], strict=True) if value is not None]
    rows = {
        "kappa of preferences, raw": (table["preference", "raw"], kappa(votes)),
        "kappa of preferences, processed": (table["preference", "processed"], kappa(kept)),
    }
    for name in ATTRIBUTES:
        chosen = [
            [annotations[i][side][name] for i in three_most_similar([a[side]["helpfulness"] for a in annotations])]
            for annotations in every
            for side in SIDES
        ]
        rows[f"kappa of {name}, processed"] = (table[name, "post-processed"], kappa(chosen))
    return rows


def _ratings(pairs: Dataset) -> dict[str, tuple[float, float]]:
    table, own = published("helpsteer2_descriptive").set_index("variable"), ratings_table(pairs)
    labels = ["mean", "sd", "r with helpfulness"]
    theirs = table.loc[list(ATTRIBUTES), ["mean", "standard_deviation", "pearson_with_helpfulness"]].to_numpy(float)
    ours = own.loc[list(ATTRIBUTES), labels].to_numpy(float)
    names = [f"{name}: {label}" for name in ATTRIBUTES for label in labels]
    return dict(zip(names, zip(theirs.ravel(), ours.ravel(), strict=True), strict=True))


def _texts(pairs: Dataset) -> dict[str, tuple[float, float]]:
    table = published("preferences").set_index("quantity")["value"]
    prompts = pairs["prompt"][:]
    distinct = {prompt_key(prompt) for prompt in prompts}
    responses = {*pairs["response_1"][:], *pairs["response_2"][:]}
    several = np.mean([len(prompt) > 1 for prompt in prompts])
    return {
        "share of prompts with several turns": (table["share of prompts with several turns"], float(several)),
        "share of distinct prompts": (np.nan, len(distinct) / len(pairs)),
        "share of distinct responses": (np.nan, len(responses) / (2 * len(pairs))),
    }


def kappa(items: Iterable[Sequence[float]]) -> float:
    """Quadratically weighted kappa over all pairs of annotations of an item, each pair in both orders."""
    couples = [couple for labels in items for couple in itertools.permutations(labels, 2)]
    first, second = zip(*couples, strict=True)
    return float(cohen_kappa_score(first, second, weights="quadratic"))


def three(votes: Sequence[int]) -> list[int]:
    """The three most similar votes."""
    return [votes[i] for i in three_most_similar(votes)]


def _helpfulness(pairs: Dataset, column: str) -> np.ndarray:
    return np.array([row["helpfulness"] for row in pairs[column][:]])
