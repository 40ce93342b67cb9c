"""What annotators say about their choice: statement and elaboration, responses named, aspects mentioned, words.

Works on the annotations of the table of pairs; `rmlib.annotations.parsing` reads one text.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer

from rmlib.annotations import parsing
from rmlib.annotations.parsing import ASPECTS, named, sentences, stated_preference
from rmlib.pairs.schema import NEITHER_VALID, PREFERENCE_RANGE
from rmlib.statistics import redrawn_sums, wilson_interval

COLUMNS = (
    "pair_id", "annotator", "preference", "strength", "words", "sentences", "names_1", "names_2", "says",
)  # fmt: skip
PRIOR, MIN_PAIRS = 500.0, 5  # of `log_odds`


def frame(pairs: Dataset) -> pd.DataFrame:
    """One row per annotation that has a text, of the raw justification or else of statement and elaboration.

    Columns: pair_id, annotator, preference (-100: neither valid; null where not known), strength (|preference|), words,
    sentences, names_1, names_2, says (`stated_preference` of the statement, or null), and one bool column per aspect.
    """
    rows = []
    for identity, annotation, text in _texts(pairs):
        names, found = named(text), parsing.mentions(text)
        preference = annotation["preference"]
        statement = annotation["statement"] or parsing.split_statement(text)[0]
        row = {
            "pair_id": identity,
            "annotator": annotation["annotator"],
            "preference": preference,
            "strength": None if preference in (None, NEITHER_VALID) else abs(preference),
            "words": len(text.split()),
            "sentences": len(sentences(text)),
            "names_1": 1 in names,
            "names_2": 2 in names,
            "says": stated_preference(statement) if statement else None,
        }
        rows.append(row | {aspect: aspect in found for aspect in ASPECTS})
    table = pd.DataFrame(rows, columns=[*COLUMNS, *ASPECTS])
    return table.astype(dict.fromkeys(("preference", "strength", "says"), "Int64") | dict.fromkeys(ASPECTS, bool))


def contradictions(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of a `frame` whose statement says another preference than was given: pair_id, annotator, both."""
    known = table.dropna(subset=["preference", "says"])
    return known.loc[known["says"] != known["preference"], ["pair_id", "annotator", "preference", "says"]]


def aspect_table(table: pd.DataFrame, *, seed: int, draws: int = 1000) -> pd.DataFrame:
    """Per aspect of a `frame`, over the annotations that have a preference: how often mentioned, and how it goes along.

    Columns: n (annotations that mention it), share with Wilson's interval (share_low, share_high; it takes the
    annotations of a pair as independent, so it is a little narrow), share_0 .. share_3 by strength (NaN where no
    annotation has it), mean strength with and without the mention, and their difference with a 95 % interval of
    `draws` bootstrap draws of whole pairs. Raises ValueError where no annotation has both a text and a preference.
    """
    rated = _rated(table)
    names = [column for column in table if column not in COLUMNS]
    mentioned, strength = rated[names].to_numpy(dtype=float), rated["strength"].to_numpy(dtype=float)[:, None]
    shares = [wilson_interval(int(count), len(rated)) for count in mentioned.sum(axis=0)]
    columns = {
        "n": [int(count) for count in mentioned.sum(axis=0)],
        "share": [share.estimate for share in shares],
        "share_low": [share.low for share in shares],
        "share_high": [share.high for share in shares],
    }
    result = pd.DataFrame(columns, index=pd.Index(names, name="aspect"))
    by_strength = rated.groupby("strength")[names].mean().T
    for value in range(PREFERENCE_RANGE[1] + 1):
        result[f"share_{value}"] = by_strength.get(value, np.nan)
    sums = [mentioned, mentioned * strength, 1 - mentioned, (1 - mentioned) * strength]
    by_pair = pd.DataFrame(np.hstack(sums)).groupby(rated["pair_id"].to_numpy()).sum().to_numpy()
    result["strength_with"], result["strength_without"] = _means(by_pair.sum(axis=0))
    result["difference"] = result["strength_with"] - result["strength_without"]
    drawn = np.subtract(*_means(redrawn_sums(by_pair, seed=seed, draws=draws)[1:]))
    # pandas leaves out draws in which nobody, or everybody, mentions the aspect
    bounds = pd.DataFrame(drawn, columns=names).quantile([0.025, 0.975])
    result["difference_low"], result["difference_high"] = bounds.to_numpy()
    return result


def length_table(table: pd.DataFrame) -> pd.DataFrame:
    """Words and sentences of a justification by strength: mean, median, standard deviation and n."""
    rated = _rated(table)
    words = rated.groupby("strength")["words"].agg(["count", "mean", "median", "std"])
    words.columns = pd.Index(["n", "words_mean", "words_median", "words_sd"])
    return words.assign(sentences_mean=rated.groupby("strength")["sentences"].mean())


def about_winner_and_loser(pairs: Dataset) -> tuple[pd.Series, pd.Series]:
    """Sentences that name only the response preferred by their annotator, and those that name only the other one.

    Two series of texts, index pair_id. The names themselves are taken out, so that a word list does not begin with
    them. Annotations without a preference, or with 0, are left out.
    """
    found: dict[bool, tuple[list[str], list[str]]] = {True: ([], []), False: ([], [])}
    for identity, annotation, text in _texts(pairs):
        if annotation["preference"] in (None, NEITHER_VALID, 0):
            continue
        winner = 2 if annotation["preference"] > 0 else 1
        for sentence in sentences(text):
            if len(names := named(sentence)) == 1:
                identities, texts = found[winner in names]
                identities.append(identity)
                texts.append(parsing.without_names(sentence))
    return _series(*found[True]), _series(*found[False])


def log_odds(texts_a: pd.Series, texts_b: pd.Series) -> pd.DataFrame:
    """Which words texts a use more than texts b: word, count_a, count_b, pairs, log_odds, z, largest z first.

    The log-odds ratio with an informative Dirichlet prior of Monroe, Colaresi & Quinn (2008, "Fightin' Words",
    equations 15-22): each word gets a share of PRIOR pseudo-counts, equal to its share of the words of both sides
    together. z is the log-odds over its approximate standard deviation; it takes words as independent, which those of
    one pair are not.

    The texts have the index pair_id; a word is shown if it occurs in the texts of at least MIN_PAIRS different pairs.
    Raises ValueError for a side without words.
    """
    vectorizer = CountVectorizer(token_pattern=r"(?u)\b\w[\w'’]*")
    both = pd.concat([texts_a, texts_b])
    try:
        counts = csr_matrix(vectorizer.fit_transform(both))
    except ValueError as error:
        raise ValueError("no words to compare: give texts on both sides") from error
    sides = (counts[: len(texts_a)], counts[len(texts_a) :])
    a, b = (np.asarray(side.sum(axis=0), dtype=float).ravel() for side in sides)
    if not a.sum() or not b.sum():
        raise ValueError(f"{len(texts_a)} and {len(texts_b)} texts, one side without a word: give texts on both sides")
    pseudo = PRIOR * (a + b) / (a + b).sum()
    ratio = _log_odds(a + pseudo, a.sum() + PRIOR) - _log_odds(b + pseudo, b.sum() + PRIOR)
    words = vectorizer.get_feature_names_out()
    result = pd.DataFrame({"word": words, "count_a": a.astype(int), "count_b": b.astype(int)})
    text, word = counts.nonzero()  # a word counts a pair once, in however many of its texts it occurs
    result["pairs"] = pd.Series(pd.factorize(both.index)[0][text]).groupby(word).nunique().to_numpy()
    result["log_odds"], result["z"] = ratio, ratio / np.sqrt(1 / (a + pseudo) + 1 / (b + pseudo))
    shown = result[result["pairs"] >= MIN_PAIRS]
    return shown.sort_values("z", ascending=False, kind="stable").reset_index(drop=True)


def _texts(pairs: Dataset) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Pair id, annotation and text of every annotation that has a text."""
    for row in pairs.select_columns(["pair_id", "annotations"]).to_list():
        for annotation in row["annotations"] or ():
            parts = (annotation["statement"], annotation["elaboration"])
            text = annotation["justification"] or " ".join(filter(None, parts))
            if text.strip():
                yield row["pair_id"], annotation, text


def _rated(table: pd.DataFrame) -> pd.DataFrame:
    rated = table.dropna(subset=["strength"])
    if rated.empty:
        raise ValueError("no annotation has both a text and a preference: use a source with justifications")
    return rated.astype({"strength": int})


def _means(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean strength with and without a mention, `[..., aspect]` each; NaN where there is no such annotation."""
    n_with, sum_with, n_without, sum_without = np.split(sums, 4, axis=-1)
    with np.errstate(invalid="ignore"):
        return sum_with / n_with, sum_without / n_without


def _log_odds(count: np.ndarray, total: float) -> np.ndarray:
    return np.log(count / (total - count))


def _series(names: Iterable[str], texts: Iterable[str]) -> pd.Series:
    return pd.Series(list(texts), index=pd.Index(list(names), name="pair_id"), dtype=object)
