"""Models on one benchmark by its official score: who is better, and whom noise does not tell apart."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from rmlib.benchmarks.benchmark import Benchmark
from rmlib.benchmarks.report import Subset
from rmlib.benchmarks.sums import Sums
from rmlib.statistics import Comparison, compare_models, holm

OVERALL = "Score"


def compare(
    benchmark: Benchmark, credits: Mapping[str, Sequence[pd.DataFrame]], *,
    section: str = OVERALL, seed: int = 0, **drawing: Any,
) -> Comparison:  # fmt: skip
    """`statistics.compare_models` by the official score of a section, by default the overall one.

    Args:
        credits: for each model one table a seed, as the benchmark's `credits` gives them, of the same items.
        section: whose score to compare; items of other sections do not count.
        drawing: whole, partial and draws of `drawn_scores`.
    Raises:
        ValueError: tables of other items; a section that these items do not give.
    """
    subsets = next(iter(credits.values()))[0]["subset"].to_numpy()
    for model, tables in credits.items():
        if any(not np.array_equal(table["subset"], subsets) for table in tables):
            raise ValueError(f"{model!r} was scored on other items than the first model: compare like with like")
    drawn = drawn_scores(benchmark, credits, section=section, seed=seed, **drawing)
    counted = _counted(benchmark, credits, section)
    values = {model: np.stack([table["credit"][counted] for table in tables]) for model, tables in credits.items()}
    arrays = {model: rows if len(rows) > 1 else rows[0] for model, rows in values.items()}
    first = next(iter(credits.values()))[0]
    groups = first["group"][counted].to_numpy() if "group" in first else None
    return compare_models(arrays, drawn, groups=groups, seed=seed)


def drawn_scores(
    benchmark: Benchmark, credits: Mapping[str, Sequence[pd.DataFrame]], *,
    section: str = OVERALL, whole: bool = True, partial: bool = False, seed: int = 0, draws: int = 2000,
) -> dict[str, Float[np.ndarray, "draw seed"]]:  # fmt: skip
    """The score of each run of each model: row 0 as it is, the others with the items redrawn, alike for all.

    `whole` and `partial` are those of `Benchmark.scores`: whether the items are all there, and whether a score over
    what is there will do. Raises ValueError where the items do not give the section.
    """
    runs = [(model, number, table) for model, tables in credits.items() for number, table in enumerate(tables)]
    shared = [name for name in ("subset", "weight", "group") if name in runs[0][2]]
    columns = {f"{name} {i}": run[2][name] for i, run in enumerate(runs) for name in benchmark.columns}
    wide = pd.DataFrame({name: runs[0][2][name] for name in shared} | columns)
    sums = Sums.draw(wide, list(columns), seed=seed, draws=draws)  # one redrawing serves all runs
    found: dict[str, list[np.ndarray]] = {model: [] for model in credits}
    for i, (model, _, _) in enumerate(runs):
        mine = Sums({name: {c: part[f"{c} {i}"] for c in benchmark.columns} for name, part in sums.items()})
        scores = benchmark.scores(mine, whole=whole, partial=partial)
        if section not in scores:
            raise ValueError(f"{benchmark.name}: no {section!r} from these items, only {list(scores)}; or set partial")
        found[model].append(scores[section])
    return {model: np.stack(columns, axis=1) for model, columns in found.items()}


def compare_by_subset(
    benchmark: Benchmark, credits: Mapping[str, Sequence[pd.DataFrame]], *, seed: int = 0, draws: int = 2000
) -> pd.DataFrame:
    """The differences of `compare` within each subset, their p corrected over the number of subsets.

    Columns as in `Comparison.differences`, with subset, n (items), `p (Holm)` over the subsets for each two models, and
    `p (Šidák)` = 1 - (1 - p)^subsets, which is what the best of so many subsets would show by chance. Whoever looks at
    all subsets and reports the best explores: such a finding asks for new items. Raises ValueError as `compare`.
    """
    names = list(dict.fromkeys(next(iter(credits.values()))[0]["subset"]))
    found = []
    for name in names:
        alone = replace(benchmark, subsets={name: Subset(name, None)}, overall=(), micro=True, extra={}, formulas={})
        own = {model: [table[table["subset"] == name] for table in runs] for model, runs in credits.items()}
        compared = compare(alone, own, seed=seed, draws=draws)
        found.append(compared.differences.assign(subset=name, n=compared.leaderboard["n"].min()))
    table = pd.concat(found, ignore_index=True).drop(columns="clear")
    table["p (Holm)"] = table.groupby(["model", "against"])["p"].transform(lambda p: holm(p))
    return table.assign(**{"p (Šidák)": 1 - (1 - table["p"]) ** len(names)})


def _counted(
    benchmark: Benchmark, credits: Mapping[str, Sequence[pd.DataFrame]], section: str
) -> Bool[np.ndarray, "item"]:
    """Items of the section that every run has a credit for."""
    tables = [table for runs in credits.values() for table in runs]
    members = benchmark.sections.get(section, list(benchmark.subsets))
    if section not in benchmark.sections and benchmark.overall:
        members = [name for name, subset in benchmark.subsets.items() if subset.section in benchmark.overall]
    scored = np.logical_and.reduce([table["credit"].notna() for table in tables])
    return np.asarray(scored & tables[0]["subset"].isin(members))
