"""Simulated pairs with a known truth: tasks in plain English whose answers can be checked by reading the prompt.

One module a step: `words` and `phrases` (what texts are made of), `tasks` (prompts), `responses` (policies with
controlled defects), `attributes` (the truth, computed from the text), `annotators` (bias and noise, under the published
protocol), `labels` (the rules that make labels of annotations), `reasons` (justifications), `generation` (rows of
pairs), `ranked` (the same for prompts with several responses), `benchmark` (a simulated RewardBench), `backbone` (the
embedded model), `embedded` (the files in data/embedded); `measures` (statistics and their published values),
`calibration` (the fit that makes parameters.json), `comparison` (published and simulated statistics side by side).
"""

from rmlib.sources.simulated.benchmark import benchmark_items
from rmlib.sources.simulated.embedded import check, load, write
from rmlib.sources.simulated.generation import generate
from rmlib.sources.simulated.ranked import generate_ranked, load_ranked
from rmlib.sources.simulated.truth import truth

__all__ = ["benchmark_items", "check", "generate", "generate_ranked", "load", "load_ranked", "truth", "write"]
