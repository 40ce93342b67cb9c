"""Sums over the items of each subset, as they are and redrawn: what every score and every interval is made of.

Everything that is reported is made of weighted means over items within subsets, so one set of resamples serves all of
it: its first row holds the data as they are, the others redraw the items of each subset with replacement.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

Drawn = Float[np.ndarray, "draw"]  # the first is the estimate
_DRAWN_AT_ONCE = 2**22  # items: 32 MB of counts, however large the subset


class Sums(dict[str, dict[str, tuple[Drawn, Drawn]]]):
    """For each subset and column of the credits: the weighted sum and the sum of weights, as they are and redrawn."""

    @classmethod
    def draw(cls, table: pd.DataFrame, columns: Sequence[str], *, seed: int, draws: int) -> "Sums":
        """Redraw the items of each subset (items of one `group` together); missing values are left out of both sums.

        What is redrawn depends on the seed, the subset and its items alone, so it is the same for every model.
        """
        sums = cls()
        for name, rows in table.groupby("subset", sort=False):
            values = rows[list(columns)].to_numpy(dtype=float)
            weights = rows["weight"].to_numpy(dtype=float) if "weight" in rows else np.ones(len(rows))
            mass = np.where(np.isnan(values), 0, weights[:, None])
            both = np.hstack([mass * np.nan_to_num(values), mass])
            blocks = _resampled(rows, [seed, zlib.crc32(str(name).encode())], draws)
            totals, masses = np.hsplit(np.vstack([counts @ both for counts in blocks]), 2)
            sums[str(name)] = {column: (totals[:, k], masses[:, k]) for k, column in enumerate(columns)}
        return sums

    def mean(self, names: Iterable[str], column: str = "credit") -> Drawn:
        """The mean of a column over all items of these subsets; NaN in draws that hold none."""
        totals, masses = zip(*(self[name][column] for name in names), strict=True)
        with np.errstate(invalid="ignore"):
            return np.asarray(sum(totals) / sum(masses))


def _resampled(rows: pd.DataFrame, seeds: Sequence[int], draws: int) -> Iterator[Float[np.ndarray, "draw item"]]:
    """How often each item is drawn, block by block of draws; in the very first draw once each."""
    codes = np.unique(rows["group"], return_inverse=True)[1] if "group" in rows else np.arange(len(rows))
    n, rng = int(codes.max()) + 1, np.random.default_rng(seeds)
    yield np.ones((1, len(rows)))
    for start in range(0, draws, block := max(1, _DRAWN_AT_ONCE // n)):
        size = min(block, draws - start)
        drawn = rng.integers(n, size=(size, n)) + n * np.arange(size)[:, None]
        yield np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)[:, codes].astype(float)
