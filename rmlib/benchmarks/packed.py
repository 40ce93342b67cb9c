"""Credits of items as records hold them: short texts, one sign an item, from which models can be compared again."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

SIGNS = "0123456789abcdefghijklmnopqrstuvwxyz"
DIGITS = 4  # of credits that are no multiples of 1/35 or more


def pack(credits: pd.DataFrame) -> dict[str, Any]:
    """Columns subset and credit (0..1) as plain values: `parts`, and for each subset its items' credits, in order.

    Where all credits are multiples of 1/parts, parts at most 35, a subset is a text of one sign an item, the multiple
    in base 36: "0110" for right and wrong, with parts 1. Other credits are lists of numbers of four digits, parts 0.
    Raises ValueError for a credit outside 0..1.
    """
    values = credits["credit"].to_numpy(dtype=float)
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("credits must lie in 0..1; give those of the benchmark's own rule")
    fits = (n for n in range(1, len(SIGNS)) if np.allclose(values * n, (values * n).round(), rtol=0, atol=1e-9))
    parts = next(fits, 0)
    subsets = {}
    for name, part in credits.groupby("subset", sort=False)["credit"]:
        if parts:
            subsets[str(name)] = "".join(SIGNS[int(value)] for value in (part * parts).round())
        else:
            subsets[str(name)] = part.round(DIGITS).tolist()
    return {"parts": parts, "subsets": subsets}


def unpack(packed: Mapping[str, Any]) -> pd.DataFrame:
    """What was packed: columns subset and credit, the items of each subset together, in the order of the subsets."""
    parts, rows = packed["parts"], []
    for name, values in packed["subsets"].items():
        numbers = [SIGNS.index(sign) / parts for sign in values] if parts else values
        rows.append(pd.DataFrame({"subset": name, "credit": np.asarray(numbers, dtype=float)}))
    return pd.concat(rows, ignore_index=True)
