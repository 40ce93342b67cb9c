"""Models on one benchmark by its official score: who is better, and whom noise does not tell apart."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from rmlib.statistics import Comparison, compare_models

OVERALL = "Score"
SectionScores = Callable[[Mapping[str, float]], Mapping[str, float]]


def compare(
    credits: Mapping[str, Sequence[pd.DataFrame]],
    section_scores: SectionScores,
    *,
    section: str = OVERALL,
    seed: int = 0,
    draws: int = 2000,
    level: float = 0.95,
) -> Comparison:
    """`statistics.compare_models` of the score of a section, by default the overall one.

    Args:
        credits: for each model one table a seed, of the same items in the same order: columns subset and credit (0..1).
        section_scores: the benchmark's official rule, from the mean credit of each subset to section scores.
        section: whose score to compare; items of other sections do not count.
    Raises:
        ValueError: tables of other items; a section that these subsets do not give.
    """
    subsets = next(iter(credits.values()))[0]["subset"].to_numpy()
    for model, tables in credits.items():
        if any(not np.array_equal(table["subset"], subsets) for table in tables):
            raise ValueError(f"{model!r} was scored on other items than the first model: compare like with like")
    arrays = {
        model: np.stack([table["credit"] for table in tables]) if len(tables) > 1 else tables[0]["credit"].to_numpy()
        for model, tables in credits.items()
    }
    weights = subset_weights(section_scores, pd.unique(subsets), section)
    return compare_models(arrays, strata=subsets, weights=weights, seed=seed, draws=draws, level=level)


def subset_weights(section_scores: SectionScores, subsets: Iterable[str], section: str = OVERALL) -> dict[str, float]:
    """What each subset's mean credit counts for in a section's score, found by asking the official rule.

    Every section is a weighted mean of subsets, so its weight for a subset is the score of a model that is right there
    and nowhere else. Raises ValueError where the rule gives no such section for these subsets.
    """
    names = list(subsets)
    nothing = dict.fromkeys(names, 0.0)
    scores = {name: section_scores(nothing | {name: 1.0}) for name in names}
    known = list(next(iter(scores.values())))
    if section not in known:
        raise ValueError(f"no {section!r} from the subsets {', '.join(names)}: only {', '.join(known) or 'none'}")
    return {name: float(found[section]) for name, found in scores.items()}
