"""Texts as sets of word n-grams (shingles), and the exact search for sets that are nearly equal."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

_WORD = re.compile(r"\w+")
_MAX_TERMS = 2**22  # products of one block of candidates: about 100 MB at a time, however many texts there are


@dataclass(frozen=True)
class Shingled:
    """Texts cut into words; numbers stand for words, and equal numbers for equal words.

    words: `[word]`, all words of all texts in order; owner: `[word]`, the text each belongs to; groups: `[text]`, equal
    where two texts have the same words in the same order. Case and the form of a character (NFKC) are ignored, and
    so is everything but letters, digits and underscores; a text without any of these is one word.
    """

    words: np.ndarray
    owner: np.ndarray
    groups: np.ndarray

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """Cut the texts into words. Raises ValueError where there is no text."""
        number: defaultdict[str, int] = defaultdict()
        group: defaultdict[str, int] = defaultdict()
        number.default_factory, group.default_factory = number.__len__, group.__len__
        parts, groups = [], []
        for text in texts:
            found = words_of(text)
            groups.append(group[" ".join(found)])
            parts.append(np.fromiter(map(number.__getitem__, found), np.int32, len(found)))
        if not parts:
            raise ValueError("no texts to compare")
        owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        return cls(np.concatenate(parts), owner, np.array(groups))

    def ngrams(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Every run of n words inside a text: its number, equal for equal runs, and the text it belongs to.

        No hash: numbers of short runs are paired and counted anew (prefix doubling of Karp, Miller & Rosenberg, 1972).
        """
        ids, width = self.words.astype(np.int64), 1
        if len(ids) < n:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        while width < n:
            step = min(width, n - width)  # the last step overlaps: two runs of `width` words fix a run of n
            ids, width = _paired(ids[: len(ids) - step], ids[step:]), width + step
        starts, ends = self.owner[: len(ids)], self.owner[n - 1 :]
        inside = starts == ends
        return ids[inside], starts[inside]

    def sets(self, n: int) -> csr_matrix:
        """`[text, shingle]`: 1 where the text holds the n-gram; a text of fewer than n words has itself as shingle."""
        ids, owner = self.ngrams(n)
        n_texts, n_grams = len(self.groups), int(ids.max(initial=-1)) + 1
        short = np.flatnonzero(np.bincount(owner, minlength=n_texts) == 0)
        columns = np.concatenate([ids, n_grams + self.groups[short]])
        rows = np.concatenate([owner, short])
        shape = (n_texts, n_grams + int(self.groups.max()) + 1)
        matrix = csr_matrix((np.ones(len(rows), np.int32), (rows, columns)), shape=shape)
        matrix.data[:] = 1
        return matrix


def words_of(text: str) -> list[str]:
    """The words that comparisons see: case-folded runs of letters, digits and underscores, else the whole text."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold()) or [text.strip()]


def similar(sets: csr_matrix, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of rows i < j whose sets have a Jaccard similarity of at least the threshold.

    `sets` is `[row, element]` of zeros and ones, no row empty. Exact: two such sets of which the smaller has s elements
    share at least ceil(threshold * s), so they meet in the first s - ceil(threshold * s) + 1 elements of any common
    order; with the rarest first few others do (prefix filtering: Chaudhuri et al., 2006; Bayardo et al., 2007).
    """
    sizes, frequency = np.diff(sets.indptr), np.bincount(sets.indices, minlength=sets.shape[1])
    prefix = _prefixes(sets, sizes, frequency, threshold)
    terms = np.cumsum(prefix @ np.asarray(prefix.sum(axis=0)).ravel())
    found: list[tuple[np.ndarray, np.ndarray]] = []
    start, transposed = 0, prefix.T.tocsr()
    while start < len(sizes):
        done = terms[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(terms, done + _MAX_TERMS, side="right")))
        candidates = (prefix[start:stop] @ transposed).tocoo()
        i, j = candidates.row + start, candidates.col
        small, large = np.minimum(sizes[i], sizes[j]), np.maximum(sizes[i], sizes[j])
        possible = (i < j) & (small >= threshold * large - 1e-9)
        found.append(_verified(sets, sizes, i[possible], j[possible], threshold))
        start = stop
    first, second = (np.concatenate(side) for side in zip(*found, strict=True))
    order = np.lexsort((second, first))
    return first[order], second[order]


def _prefixes(sets: csr_matrix, sizes: np.ndarray, frequency: np.ndarray, threshold: float) -> csr_matrix:
    """Of each row the rarest elements, as many as `similar` needs, without those that no other row has."""
    rank = np.empty(sets.shape[1], np.int64)
    rank[np.argsort(frequency, kind="stable")] = np.arange(sets.shape[1])
    rows = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort((rank[sets.indices], rows))
    columns = sets.indices[order]
    place = np.arange(len(columns)) - np.repeat(sets.indptr[:-1], sizes)
    # A little less than the product: rounding up a 4.000000001 would make a prefix too short, and miss a pair.
    length = sizes - np.ceil(threshold * sizes - 1e-9).astype(int) + 1
    keep = (place < np.repeat(length, sizes)) & (frequency[columns] > 1)
    return csr_matrix((np.ones(keep.sum(), np.int32), (rows[keep], columns[keep])), shape=sets.shape)


def _verified(
    sets: csr_matrix, sizes: np.ndarray, i: np.ndarray, j: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """The candidates whose similarity does reach the threshold."""
    similarity = np.empty(len(i))
    block = max(1, _MAX_TERMS // max(1, int(sizes.max(initial=1))))
    for start in range(0, len(i), block):
        a, b = i[start : start + block], j[start : start + block]
        shared = np.asarray(sets[a].multiply(sets[b]).sum(axis=1)).ravel()
        similarity[start : start + block] = shared / (sizes[a] + sizes[b] - shared)
    return i[similarity >= threshold], j[similarity >= threshold]


def _paired(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """One number for each pair of numbers, equal for equal pairs, from 0 without gaps."""
    return pd.factorize(first * (int(second.max()) + 1) + second)[0]
