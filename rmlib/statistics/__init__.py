"""Intervals, paired tests, ranks, power, calibration, strata, learning curves, and the rulers of a score.

An array of results is `[item]`, or `[seed, item]` where several training seeds met the same items. With several seeds
an interval (95 %, where no level is given) covers both: another draw of seeds and another draw of items. `groups`,
`[item]`, are labels of items that belong together (pairs of one prompt) and are redrawn, and tested, together; `seed`
is of the redrawing, not of a training run. ValueError is raised for no items, fewer than two seeds in a 2-D array, a
value that is not finite, groups of other items and a single group.
"""

from rmlib.statistics.calibration import (
    Temperature,
    brier,
    calibration_table,
    expected_calibration_error,
    fit_temperature,
    squared_errors,
)
from rmlib.statistics.crossed import CrossedDifference, crossed_difference, paired_difference
from rmlib.statistics.intervals import (
    Interval,
    Resamples,
    accuracy,
    bootstrap_interval,
    correlation_interval,
    percentile_interval,
    redrawn_sums,
    wilson_interval,
)
from rmlib.statistics.many_models import Comparison, compare_models
from rmlib.statistics.paired import (
    Agreement,
    agreement,
    discordant_odds_ratio,
    holm,
    mcnemar,
)
from rmlib.statistics.power_law import PowerLaw, fit_power_law
from rmlib.statistics.rulers import RULERS, BagOfWords, Constant, Longer, Markdown, Random, Shorter
from rmlib.statistics.strata import accuracy_by_stratum, length_controlled_accuracy

__all__ = [
    "Agreement", "BagOfWords", "Comparison", "Constant", "CrossedDifference", "Interval", "Longer", "Markdown",
    "PowerLaw", "RULERS", "Random", "Resamples", "Shorter", "Temperature", "accuracy", "accuracy_by_stratum",
    "agreement", "bootstrap_interval", "brier", "calibration_table", "compare_models", "correlation_interval",
    "crossed_difference", "discordant_odds_ratio", "expected_calibration_error", "fit_power_law", "fit_temperature",
    "holm", "length_controlled_accuracy", "mcnemar", "paired_difference", "percentile_interval", "redrawn_sums",
    "squared_errors", "wilson_interval",
]  # fmt: skip
