"""Intervals, paired tests, ranks, power, calibration, strata, learning curves, and the rulers of a score.

An array of results is `[item]`, or `[seed, item]` where several training seeds met the same items. With several seeds
an interval covers both: another draw of seeds and another draw of items. Items that belong together (pairs of one
prompt) are named by `groups` and redrawn together.
"""

from rmlib.statistics.calibration import (
    Temperature,
    brier,
    calibration_table,
    expected_calibration_error,
    fit_temperature,
    squared_errors,
)
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
    PairedDifference,
    agreement,
    detectable_difference,
    discordance,
    discordant_odds_ratio,
    holm,
    mcnemar,
    mcnemar_power,
    paired_difference,
    smallest_difference,
)
from rmlib.statistics.power_law import PowerLaw, fit_power_law
from rmlib.statistics.rulers import RULERS, BagOfWords, Constant, Longer, Markdown, Random, Shorter
from rmlib.statistics.strata import accuracy_by_stratum, length_controlled_accuracy

__all__ = [
    "Agreement", "BagOfWords", "Comparison", "Constant", "Interval", "Longer", "Markdown", "PairedDifference",
    "PowerLaw", "RULERS", "Random", "Resamples", "Shorter", "Temperature", "accuracy", "accuracy_by_stratum",
    "agreement", "bootstrap_interval", "brier", "calibration_table", "compare_models", "correlation_interval",
    "detectable_difference", "discordance", "discordant_odds_ratio", "expected_calibration_error", "fit_power_law",
    "fit_temperature", "holm", "length_controlled_accuracy", "mcnemar", "mcnemar_power", "paired_difference",
    "percentile_interval", "redrawn_sums", "smallest_difference", "squared_errors", "wilson_interval",
]  # fmt: skip
