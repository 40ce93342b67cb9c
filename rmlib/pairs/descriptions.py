"""What a table of pairs looks like in numbers: counts, distributions, correlations. No text leaves it."""

import math
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset

from rmlib.pairs.schema import ATTRIBUTES
from rmlib.pairs.views import left_out

PREFERENCES = tuple(range(-3, 4))
DIFFERENCES = tuple(range(-4, 5))


def frame(pairs: Dataset) -> pd.DataFrame:
    """One row per pair: split, preference, rating differences (response 2 minus 1), lengths in characters, turns."""
    table = pd.DataFrame({"split": pairs["split"][:], "preference": pd.array(pairs["preference"][:], dtype="Int64")})
    first, second = ([row or {} for row in pairs[side][:]] for side in ("ratings_1", "ratings_2"))
    for name in ATTRIBUTES:
        sides = [pd.Series([row.get(name) for row in side], dtype="float64") for side in (first, second)]
        table[f"{name}_1"], table[f"{name}_2"] = sides
        table[f"{name}_difference"] = sides[1] - sides[0]
    prompts = pairs["prompt"][:]
    table["turns"] = [sum(message["role"] == "user" for message in prompt) for prompt in prompts]
    table["prompt_chars"] = [sum(len(message["content"]) for message in prompt) for prompt in prompts]
    for side in ("1", "2"):
        table[f"chars_{side}"] = [math.nan if text is None else len(text) for text in pairs[f"response_{side}"][:]]
    return table


def preference_by_helpfulness(pairs: Dataset) -> pd.DataFrame:
    """The paper's Figure 1 as counts: rows preference -3..3, columns helpfulness of response 2 minus response 1.

    Pairs without a preference or without both ratings are left out; differences are rounded to whole points.
    """
    table = frame(pairs).dropna(subset=["preference", "helpfulness_difference"])
    counts = pd.crosstab(table["preference"], table["helpfulness_difference"].round().astype(int))
    counts = counts.reindex(index=PREFERENCES, columns=DIFFERENCES, fill_value=0)
    return counts.rename_axis(index="preference", columns="helpfulness difference")


def ratings_table(pairs: Dataset) -> pd.DataFrame:
    """Mean, standard deviation and correlation with helpfulness of each attribute and of lengths, over all responses.

    The rows of the parent's Table 2, so that the two can stand side by side. Index: attribute; unrated are left out.
    """
    table = frame(pairs)
    both = {name: pd.concat([table[f"{name}_1"], table[f"{name}_2"]]) for name in ATTRIBUTES}
    both["prompt chars"] = pd.concat([table["prompt_chars"]] * 2)
    both["response chars"] = pd.concat([table["chars_1"], table["chars_2"]])
    both["prompt turns"] = pd.concat([table["turns"]] * 2)
    values = pd.DataFrame({name: column.astype(float).to_numpy() for name, column in both.items()})
    return pd.DataFrame(
        {"mean": values.mean(), "sd": values.std(), "r with helpfulness": values.corrwith(values["helpfulness"])}
    )


def describe(pairs: Dataset) -> dict[str, Any]:
    """Everything above, and what one wants to know first, as the outcome of a record."""
    table = frame(pairs)
    decided = table[table["preference"].fillna(0) != 0]
    longer = np.sign(decided["chars_2"] - decided["chars_1"]) == np.sign(decided["preference"])
    rated = table.dropna(subset=["preference"])
    return {
        "n_pairs": table["split"].value_counts().to_dict(),
        "n_multi_turn": table.loc[table["turns"] > 1, "split"].value_counts().to_dict(),
        "preference_counts": {str(k): int((table["preference"] == k).sum()) for k in PREFERENCES},
        "left_out": left_out(pairs),
        "longer_preferred": float(longer.mean()) if len(decided) else None,
        "figure_1": preference_by_helpfulness(pairs).to_numpy().tolist(),
        "r_preference": {name: _correlation(rated["preference"], rated[f"{name}_difference"]) for name in ATTRIBUTES},
        "ratings": {
            name: {key: None if np.isnan(value) else float(value) for key, value in row.items()}
            for name, row in ratings_table(pairs).to_dict(orient="index").items()
        },
    }


def _correlation(x: pd.Series, y: pd.Series) -> float | None:
    value = x.astype(float).corr(y)
    return None if np.isnan(value) else float(value)
