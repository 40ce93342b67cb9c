"""Texts that occur twice: duplicates inside and across splits, and benchmark texts that occur in training pairs.

To be read before training. Two texts are exact duplicates where they have the same words in the same order, whatever
their case, white space and punctuation; near-duplicates where the sets of their word n-grams (shingles) have a Jaccard
similarity at or above a threshold. The result is exact, no sketch: `rmlib.pairs.shingles` says how.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
import pandas as pd
from datasets import Dataset
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components

from rmlib.pairs.messages import Message
from rmlib.pairs.schema import SPLITS
from rmlib.pairs.shingles import Shingled, similar
from rmlib.pairs.views import only_pairs

N_LISTED = 10  # ids per row of a report; all are counted
SHINGLE_WORDS, THRESHOLD = 5, 0.8  # NearDup of Lee et al. (2022, arXiv 2107.06499): 5-grams, similarity 0.8
# Brown et al. (2020, arXiv 2005.14165, appendix C) look for shared n-grams of 8 to 13 words, without case or
# punctuation; Lambert et al. (2024, arXiv 2411.15124) for 8-grams that make up more than half of a benchmark text.
BENCHMARK_WORDS = 8


@dataclass(frozen=True)
class Duplicates:
    """One kind of text (prompt, response, pair) in one scope: "train", "validation", or "train and validation".

    exact_pairs and near_pairs count pairs of texts, near ones apart from exact ones; exact_texts and near_texts count
    texts that have at least one such partner, across splits the validation texts alone. A cluster is a set of texts
    that partners connect, across splits one with texts of both. The ids name the first N_LISTED pairs of texts.
    """

    kind: str
    scope: str
    texts: int
    exact_pairs: int
    exact_texts: int
    near_pairs: int
    near_texts: int
    clusters: int
    largest_cluster: int
    exact_ids: tuple[tuple[str, str], ...]
    near_ids: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Found:
    """Benchmark texts of one kind (prompt, candidate) in the prompts and responses of the pairs.

    exact: texts that are a whole prompt or response of the pairs. touched: texts that share at least one n-gram.
    over_half: texts more than half of whose n-grams are shared. mean_share: mean share of the n-grams of a text. Texts
    of fewer words than an n-gram are too_short: they can be found as exact alone, and are left out of the mean. `ids`
    names the first N_LISTED items with an exact text or one over half.
    """

    kind: str
    texts: int
    too_short: int
    exact: int
    touched: int
    over_half: int
    mean_share: float
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Overlap:
    """What `report` found, with the settings it was found with."""

    duplicates: tuple[Duplicates, ...]
    benchmark: tuple[Found, ...]
    shingle_words: int
    threshold: float
    benchmark_words: int

    def table(self) -> pd.DataFrame:
        """One row per kind and scope: the counts of `Duplicates`."""
        return _counts(self.duplicates, Duplicates).set_index(["kind", "scope"])

    def benchmark_table(self) -> pd.DataFrame:
        """One row per kind of benchmark text: the counts of `Found`; no row where no items were given."""
        return _counts(self.benchmark, Found).set_index("kind")


def report(pairs: Dataset, items: Dataset | None = None) -> Overlap:
    """Duplicates among the pairs, and what of a benchmark's items (rmlib.benchmarks) lies in them.

    The text of a prompt is its messages; that of a pair is its prompt and its two responses in either order. Texts of
    fewer words than a shingle have one shingle, the whole text. Rows of a single response are left out.
    """
    columns = ["pair_id", "split", "prompt", "response_1", "response_2"]
    rows = only_pairs(pairs).select_columns(columns).to_list()
    of_pairs = [text for row in rows for text in (flat(row["prompt"]), row["response_1"], row["response_2"])]
    listed = [] if items is None else _item_texts(items)
    texts = Shingled.of(of_pairs + [text for _, _, text in listed])
    benchmark = _benchmark(texts, len(of_pairs), listed) if listed else ()
    units = _units(texts.groups[: len(of_pairs)], texts.sets(SHINGLE_WORDS)[: len(of_pairs)])
    names = [row["pair_id"] for row in rows]
    labels = {"response": [f"{name}/{side}" for name in names for side in (1, 2)]}
    validation = np.array([row["split"] == SPLITS[1] for row in rows])
    found: list[Duplicates] = []
    for kind, (groups, sets) in units.items():
        split = np.repeat(validation, len(groups) // len(rows)).astype(int)
        found += _duplicates(kind, groups, sets, split, labels.get(kind, names))
    return Overlap(tuple(found), benchmark, SHINGLE_WORDS, THRESHOLD, BENCHMARK_WORDS)


def summary(overlap: Overlap) -> str:
    """One line for a log: duplicates across splits, inside train, and what of the benchmark lies in the pairs."""
    parts = [
        f"{row.kind}s {row.scope}: {row.exact_texts} exact, {row.near_texts} near of {row.texts}"
        for row in overlap.duplicates
        if row.scope != SPLITS[1] and row.texts
    ]
    parts += [
        f"benchmark {row.kind}s in the pairs: {row.exact} exact, {row.over_half} more than half of {row.texts}"
        for row in overlap.benchmark
    ]
    return "; ".join(parts)


def flat(prompt: Sequence[Message]) -> str:
    """A prompt as one text: its messages, one a line, without roles."""
    return "\n".join(message["content"] for message in prompt)


def _units(groups: np.ndarray, sets: csr_matrix) -> dict[str, tuple[np.ndarray, csr_matrix]]:
    """Per kind the groups of equal texts and the sets of shingles; the texts are prompt, response 1, response 2, ..."""
    is_prompt = np.arange(len(groups)) % 3 == 0
    responses = np.sort(groups.reshape(-1, 3)[:, 1:], axis=1)  # a pair turned round is the same pair
    _, whole = np.unique(np.column_stack([groups[is_prompt], responses]), axis=0, return_inverse=True)
    return {
        "prompt": (groups[is_prompt], sets[is_prompt]),
        "response": (groups[~is_prompt], sets[~is_prompt]),
        "pair": (whole.ravel(), (sets[0::3] + sets[1::3] + sets[2::3]).sign()),
    }


def _duplicates(
    kind: str, groups: np.ndarray, sets: csr_matrix, split: np.ndarray, labels: list[str]
) -> list[Duplicates]:
    """One kind of text in each split and across; groups, sets, split (0 train, 1 validation), labels are `[text]`."""
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    edges = similar(sets[first], THRESHOLD)
    count = np.zeros((len(first), 2), int)
    np.add.at(count, (group, split), 1)
    start = (np.cumsum(count) - count.ravel()).reshape(count.shape)
    in_order = [labels[index] for index in np.lexsort((split, group))]
    scopes = {SPLITS[0]: (0, 0), SPLITS[1]: (1, 1), " and ".join(SPLITS): (0, 1)}
    return [_in_scope((kind, name), sides, edges, count, start, in_order) for name, sides in scopes.items()]


def _in_scope(
    name: tuple[str, str],
    sides: tuple[int, int],
    edges: tuple[np.ndarray, np.ndarray],
    count: np.ndarray,
    start: np.ndarray,
    labels: list[str],
) -> Duplicates:
    """Count for one scope; `count` is `[group, split]`, and the labels of its texts begin at `start` in `labels`."""
    (i, j), (a, b), across = edges, sides, sides[0] != sides[1]
    n_a, n_b = count[:, a], count[:, b]
    exact = n_a * n_b if across else n_a * (n_a - 1) // 2
    near = n_a[i] * n_b[j] + n_b[i] * n_a[j] * across
    has_near = np.zeros(len(count), bool)
    has_near[i[n_a[j] > 0]] = has_near[j[n_a[i] > 0]] = True
    linked_i, linked_j = i[near > 0], j[near > 0]
    sizes = _cluster_sizes(edges, count) if across else _cluster_sizes((linked_i, linked_j), count[:, [a]])
    turned = [(g, h) if n_a[g] and n_b[h] else (h, g) for g, h in zip(linked_i, linked_j, strict=True)]
    return Duplicates(
        *name,
        texts=int(n_b.sum()),
        exact_pairs=int(exact.sum()),
        exact_texts=int(n_b[exact > 0].sum()),
        near_pairs=int(near.sum()),
        near_texts=int(n_b[has_near].sum()),
        clusters=int((sizes > 1).sum()),
        largest_cluster=int(sizes.max(initial=0)),
        exact_ids=tuple(
            (labels[start[g, a]], labels[start[g, b] + (not across)]) for g in np.flatnonzero(exact)[:N_LISTED]
        ),
        near_ids=tuple((labels[start[g, a]], labels[start[h, b]]) for g, h in turned[:N_LISTED]),
    )


def _cluster_sizes(edges: tuple[np.ndarray, np.ndarray], count: np.ndarray) -> np.ndarray:
    """Texts in each connected set of groups; 0 where a column of `count` has none in it."""
    graph = coo_matrix((np.ones(len(edges[0]), bool), edges), shape=(len(count), len(count)))
    cluster = connected_components(graph, directed=False)[1]
    sizes = np.array([np.bincount(cluster, weights=column) for column in count.T])
    return np.where((sizes > 0).all(axis=0), sizes.sum(axis=0), 0).astype(int)


def _item_texts(items: Dataset) -> list[tuple[str, str, str]]:
    """Kind, item and text of every prompt and candidate."""
    found = []
    for row in items.select_columns(["item_id", "prompt", "candidates"]).to_list():
        found.append(("prompt", row["item_id"], flat(row["prompt"])))
        found += [("candidate", row["item_id"], text) for text in row["candidates"]]
    return found


def _benchmark(texts: Shingled, n_own: int, listed: list[tuple[str, str, str]]) -> tuple[Found, ...]:
    """What of the listed texts of a benchmark, which follow the first `n_own` texts, lies in those."""
    ids, owner = texts.ngrams(BENCHMARK_WORDS)
    seen = np.zeros(int(ids.max(initial=-1)) + 1, bool)
    seen[ids[owner < n_own]] = True
    total, shared = (np.bincount(of, minlength=len(texts.groups))[n_own:] for of in (owner, owner[seen[ids]]))
    exact = np.isin(texts.groups[n_own:], texts.groups[:n_own])
    kinds, items = np.array([kind for kind, _, _ in listed]), np.array([item for _, item, _ in listed])
    long, over_half = total > 0, 2 * shared > total
    found = []
    for kind in ("prompt", "candidate"):
        of_kind = kinds == kind
        shares = shared[of_kind & long] / total[of_kind & long]
        found.append(
            Found(
                kind,
                texts=int(of_kind.sum()),
                too_short=int((of_kind & ~long).sum()),
                exact=int(exact[of_kind].sum()),
                touched=int((shared[of_kind] > 0).sum()),
                over_half=int(over_half[of_kind].sum()),
                mean_share=float(shares.mean()) if len(shares) else float("nan"),
                ids=tuple(dict.fromkeys(items[of_kind & (exact | over_half)].tolist()))[:N_LISTED],
            )
        )
    return tuple(found)


def _counts(rows: Sequence[Duplicates | Found], of: type) -> pd.DataFrame:
    columns = [field.name for field in fields(of) if not field.name.endswith("ids")]
    return pd.DataFrame([asdict(row) for row in rows], columns=columns)
