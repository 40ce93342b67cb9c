"""Sums over the items of each subset, as they are and redrawn: what every score and every interval is made of.

Everything that is reported is made of weighted means over items within subsets, so one set of resamples serves all of
it: its first row holds the data as they are, the others redraw the items of each subset with replacement.
"""

import zlib
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from rmlib.statistics import redrawn_sums

Drawn = Float[np.ndarray, "draw"]  # the first is the estimate


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
            own = [seed, zlib.crc32(str(name).encode())]
            groups = rows.get("group")
            totals, masses = np.hsplit(redrawn_sums(both, seed=own, draws=draws, groups=groups), 2)
            sums[str(name)] = {column: (totals[:, k], masses[:, k]) for k, column in enumerate(columns)}
        return sums

    def mean(self, names: Iterable[str], column: str = "credit") -> Drawn:
        """The mean of a column over all items of these subsets; NaN in draws that hold none."""
        totals, masses = zip(*(self[name][column] for name in names), strict=True)
        with np.errstate(invalid="ignore"):
            return np.asarray(sum(totals) / sum(masses))
