"""Benchmarks of reward models: items and rewards come in, a report by the official rule goes out.

>>> items = benchmarks.load("rewardbench")
>>> report = benchmarks.summarise(items, benchmarks.score(model, items))

Each benchmark is a file that says where its rows come from, how a row becomes an item, and what the official rule is.
"""

from rmlib.benchmarks.benchmark import Scores
from rmlib.benchmarks.catalogue import BENCHMARKS, credits, load, name_of, summarise
from rmlib.benchmarks.items import FEATURES
from rmlib.benchmarks.report import Report
from rmlib.benchmarks.scoring import score
from rmlib.models import Scorer

__all__ = [
    "BENCHMARKS", "FEATURES", "Report", "Scorer", "Scores", "credits", "load", "name_of", "score", "summarise",
]  # fmt: skip
