"""Credits of items as records hold them: short texts, one sign an item, from which models can be compared again."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

SIGNS = "0123456789abcdefghijklmnopqrstuvwxyz"
MISSING = "-"
DIGITS = 4  # of values that are no multiples of 1/35 or more


def pack(credits: pd.DataFrame, columns: Sequence[str] = ("credit",)) -> dict[str, Any]:
    """A benchmark's credits as plain values: `subsets` (name and number of items), `columns`, and `group` if there.

    Items come subset by subset, in their order. Where all values of a column are multiples of 1/parts within 0..1,
    parts at most 35, the column is a text of one sign an item, the multiple in base 36 ("0110" for right and wrong,
    with parts 1; "-" for an item without a value). Other columns are lists of numbers of four digits (None: no value),
    with parts 0.
    """
    table = _by_subset(credits)
    kept = [*columns, *(["weight"] if "weight" in table else [])]
    packed: dict[str, Any] = {
        "subsets": {str(name): int(n) for name, n in table["subset"].value_counts(sort=False).items()},
        "columns": {column: _packed(table[column].to_numpy(dtype=float)) for column in kept},
    }
    if "group" in table and table["group"].duplicated().any():
        packed["group"] = pd.factorize(table["group"])[0].tolist()
    return packed


def unpack(packed: Mapping[str, Any]) -> pd.DataFrame:
    """What was packed, as a table: subset, the columns, and group (a number) where there was one."""
    names, counts = zip(*packed["subsets"].items(), strict=True)
    columns = {name: _unpacked(column) for name, column in packed["columns"].items()}
    groups = {"group": packed["group"]} if "group" in packed else {}
    return pd.DataFrame({"subset": np.repeat(names, counts), **columns, **groups})


def _by_subset(credits: pd.DataFrame) -> pd.DataFrame:
    order = np.argsort(pd.factorize(credits["subset"])[0], kind="stable")
    return credits.iloc[order]


def _packed(values: np.ndarray) -> dict[str, Any]:
    known = values[~np.isnan(values)]
    if len(known) and known.min() >= 0 and known.max() <= 1:
        for parts in range(1, len(SIGNS)):
            if np.allclose(known * parts, (known * parts).round(), rtol=0, atol=1e-9):
                signs = (MISSING if np.isnan(value) else SIGNS[round(value * parts)] for value in values)
                return {"parts": parts, "values": "".join(signs)}
    return {"parts": 0, "values": [None if np.isnan(value) else round(float(value), DIGITS) for value in values]}


def _unpacked(column: Mapping[str, Any]) -> np.ndarray:
    parts, values = column["parts"], column["values"]
    if parts:
        return np.array([np.nan if sign == MISSING else SIGNS.index(sign) / parts for sign in values])
    return np.array([np.nan if value is None else value for value in values], dtype=float)
