"""Where pairs come from: a name, or a folder of files, comes in; a table of pairs, whole or in splits, goes out."""

from rmlib.sources import folder, helpsteer2, simulated, ukpconvarg1
from rmlib.sources.loading import SourceInfo, describe, load, load_described
from rmlib.sources.splits import Splits, load_folds, load_splits, only_matched, shuffled_labels

__all__ = [
    "SourceInfo", "Splits", "describe", "folder", "helpsteer2", "load", "load_described", "load_folds", "load_splits",
    "only_matched", "shuffled_labels", "simulated", "ukpconvarg1",
]  # fmt: skip
