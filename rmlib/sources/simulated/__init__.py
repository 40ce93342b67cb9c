"""Simulated pairs with a known truth: tasks in plain English whose answers can be checked by reading the prompt.

A seed comes in, rows for `make_pairs` with annotations and truth go out. One module a step: `phrases` and `tasks`
(prompts), `responses` (policies with controlled defects), `truth` (computed from the text), `annotators` (bias and
noise, under the published protocol, and the labels that follow), `reasons` (justifications), `generation` (rows of
pairs, and of pairs of ranked prompts), `benchmark` (a simulated RewardBench), `embedded` (the pairs in data/embedded),
`gold` (the truth as a scorer), `published` (statistics beside their published values).
"""

from rmlib.sources.simulated.benchmark import benchmark_items
from rmlib.sources.simulated.embedded import load
from rmlib.sources.simulated.generation import generate, generate_ranked, load_ranked
from rmlib.sources.simulated.truth import truth

__all__ = ["benchmark_items", "generate", "generate_ranked", "load", "load_ranked", "truth"]
