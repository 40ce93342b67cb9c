"""Tables of models on a benchmark, made from its records: sections, leaderboard, bias, subsets."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Shaped

from rmlib import benchmarks, records
from rmlib.benchmarks import bias
from rmlib.benchmarks.compare import OVERALL, compare, compare_by_subset
from rmlib.benchmarks.recording import unpack
from rmlib.experiments.arms import ARMS, FINETUNED, POSITIONS, title
from rmlib.figures.summaries import BOOTSTRAP_SEED, by_seed, ladder, optional
from rmlib.records import RecordError
from rmlib.statistics import Comparison, wilson_interval

DEFAULT = "rewardbench"
AGAIN = "score the models again with notebook 04"


def benchmark_runs(file: Path, kind: str = DEFAULT) -> pd.DataFrame:
    """Records of the models last scored on the same items of a benchmark: one row per model and seed, column `model`.

    Arms come in the paper's order, then those fine-tuned beside frozen ones (names in `_finetuned`), then rulers.
    Raises RecordError where none was scored, or only models of an earlier comparison.
    """
    table = records.read(file, kind=kind).sort_values("time", kind="stable")
    last = table.iloc[-1]
    same = (table["asked.items"] == last["asked.items"]) & (table["asked.source"] == last["asked.source"])
    table = table[same & (table["outcome.n"] == last["outcome.n"])].copy()
    if "asked.comparison" in table:
        table = table[table["asked.comparison"].isin(ladder(file)["asked.comparison"].unique())].copy()
    if table.empty:
        raise RecordError(f"{file.name}: the models scored on {kind} are of an earlier comparison; run notebook 04")
    finetuned = (table["asked.preset"] == "finetuned") & table["asked.model"].isin(ARMS)
    table["model"] = table["asked.model"] + np.where(finetuned, FINETUNED, "")
    table["order"] = table["model"].map(POSITIONS).fillna(len(POSITIONS))
    return table.drop_duplicates(["model", "seed"], keep="last").sort_values(["order", "seed"], kind="stable")


def benchmark_table(file: Path, kind: str = DEFAULT) -> pd.DataFrame:
    """Section scores 0..1 of the `benchmark_runs`, with intervals: one row per model, seed and section."""
    rows = []
    for _, record in benchmark_runs(file, kind).iterrows():
        for section, values in record["outcome.sections"].items():
            shared = {"model": record["model"], "seed": record["seed"], "section": section}
            rows.append(shared | {key: values[key] for key in ("estimate", "low", "high", "n")})
    return pd.DataFrame(rows)


def headline_section(kind: str) -> str:
    """What models are ranked by: the overall score, or the first section of a benchmark that has none (PPE)."""
    rule = benchmarks.BENCHMARKS[kind]
    return OVERALL if rule.overall or rule.micro else next(iter(rule.sections))


def comparison(file: Path, kind: str = DEFAULT, section: str = "") -> Comparison:
    """The `benchmark_runs` compared by a section (default: `headline_section`), of a partial one what is there."""
    runs, rule = benchmark_runs(file, kind), benchmarks.BENCHMARKS[kind]
    partial = "partial" in runs["outcome.label"].iloc[-1]
    section = section or headline_section(kind)
    return compare(rule, _credits(runs), section=section, whole=not partial, partial=partial, seed=BOOTSTRAP_SEED)


def subset_differences(file: Path, model: str, against: str, kind: str = DEFAULT) -> pd.DataFrame:
    """Two models subset by subset (`compare_by_subset`), the smallest p first; index subset."""
    credits = _credits(benchmark_runs(file, kind))
    two = {name: credits[name] for name in (model, against)}
    table = compare_by_subset(benchmarks.BENCHMARKS[kind], two, seed=BOOTSTRAP_SEED)
    return table.sort_values("p", kind="stable").set_index("subset")


def _credits(runs: pd.DataFrame) -> dict[str, list[pd.DataFrame]]:
    return {model: [unpack(row) for row in rows] for model, rows in _by_model(runs, "outcome.credits").items()}


def leaderboard_table(file: Path, kind: str = DEFAULT) -> pd.DataFrame:
    """Models best first, with ranks that noise shares (`statistics.compare_models`), by the headline score."""
    table = comparison(file, kind).leaderboard
    table.insert(0, "title", [title(str(name)) for name in table.index])
    return table


def pairwise_table(file: Path, kind: str = DEFAULT) -> pd.DataFrame:
    """Every two models on a benchmark: difference of the headline score, p, p by Holm, whether it is clear."""
    return comparison(file, kind).differences.set_index("model")


def bias_table(file: Path, kind: str = DEFAULT) -> pd.DataFrame:
    """The `benchmark_runs` beside chance, and what length and confidence have to do with their scores.

    Means of the seeds; rulers are those that were recorded. Columns rank, score, low, high (the headline score, see
    `comparison`), comparisons (share of right against wrong candidates ordered rightly), at equal length (the same by
    `bias.equal_length`, with equal low, equal high), tied (share of comparisons), ece and brier of arms (a ruler's
    reward is no logit).
    """
    found, answers, table = _answers(file, kind)
    rows = []
    scored = comparison(file, kind).leaderboard.rename(columns={"estimate": "score"})
    for model, right in answers.items():
        row = {"model": model, **scored.loc[model, ["rank", "score", "low", "high"]].to_dict()}
        row["comparisons"] = float(right.mean())
        equal = bias.equal_length(by_seed(right), table, seed=BOOTSTRAP_SEED)
        if equal is not None:
            row |= {"at equal length": equal.estimate, "equal low": equal.low, "equal high": equal.high}
        row["tied"] = float(np.mean([outcome["tied"] for outcome in found[model]])) / len(found[model][0]["right"])
        if model.removesuffix(FINETUNED) in ARMS:
            row |= {name: float(np.mean([outcome[name] for outcome in found[model]])) for name in ("ece", "brier")}
        rows.append(row)
    by_chance = items_record(file, kind)["outcome.chance"].get(headline_section(kind), np.nan)
    rows.append({"model": "chance", "score": by_chance, "comparisons": 0.5})
    return pd.DataFrame(rows).set_index("model").astype({"rank": "Int64"})


def length_bias_table(file: Path, kind: str = DEFAULT) -> pd.DataFrame:
    """Share of comparisons ordered rightly by length difference (`bias.accuracy_by_length`), for each model."""
    _, answers, table = _answers(file, kind)
    right = {model: by_seed(values) for model, values in answers.items()}
    parts = {model: bias.accuracy_by_length(each, table, seed=BOOTSTRAP_SEED) for model, each in right.items()}
    return pd.concat(parts, names=["model"]).reset_index().set_index("model")


def subsets_table(file: Path, kind: str = DEFAULT) -> pd.DataFrame:
    """Score of every model in every subset, mean of its seeds: columns section, subset, estimate, low, high, n.

    The interval is Wilson's for one model on n items, at the mean of the seeds: other seeds meet the same items.
    """
    rows = []
    for model, reports in _by_model(benchmark_runs(file, kind), "outcome.subsets").items():
        for subset, first in reports[0].items():
            estimate, n = float(np.mean([report[subset]["estimate"] for report in reports])), int(first["n"])
            bounds = wilson_interval(round(estimate * n), n)
            row = {"model": model, "section": first["section"], "subset": subset, "estimate": estimate}
            rows.append(row | {"low": bounds.low, "high": bounds.high, "n": n})
    return pd.DataFrame(rows).set_index("model")


def items_record(file: Path, kind: str = DEFAULT) -> pd.Series:
    """The record of the items that the `benchmark_runs` were scored on; RecordError where there is none."""
    last, table = benchmark_runs(file, kind).iloc[-1], optional(file, "benchmark_items")
    if len(table):
        same = (table["asked.benchmark"] == kind) & (table["asked.items"] == last["asked.items"])
        table = table[same & (table["asked.n"] == last["outcome.n"])]
    if table.empty:
        raise RecordError(f"{file.name}: no record of what the items of {kind} are like; {AGAIN}")
    return table.iloc[-1]


def _answers(
    file: Path, kind: str
) -> tuple[dict[str, list[Mapping[str, Any]]], dict[str, Shaped[np.ndarray, "seed comparison"]], pd.DataFrame]:
    """What the records of each model say of bias, which comparisons it orders rightly (0 or 1), and the comparisons.

    Comparisons of items that some model has no scores for are left out for all. Raises RecordError for answers to other
    comparisons than those of the items.
    """
    table = pd.DataFrame(items_record(file, kind)["outcome.comparisons"])
    found = _by_model(benchmark_runs(file, kind), "outcome.bias")
    for model, outcomes in found.items():
        if {len(outcome["right"]) for outcome in outcomes} != {len(table)}:
            n = len(outcomes[0]["right"])
            raise RecordError(f"{model} was scored on {n} comparisons of {len(table)}; {AGAIN}")
    signs = {model: np.array([list(outcome["right"]) for outcome in outcomes]) for model, outcomes in found.items()}
    known = ~np.any([(rows == bias.UNSCORED).any(axis=0) for rows in signs.values()], axis=0)
    answers = {model: rows[:, known].astype(int) for model, rows in signs.items()}
    return found, answers, table[known].reset_index(drop=True)


def _by_model(runs: pd.DataFrame, column: str) -> dict[str, list[Mapping[str, Any]]]:
    if column not in runs or runs[column].isna().any():
        raise RecordError(f"records of {runs['kind'].iloc[0]} without {column.removeprefix('outcome.')}; {AGAIN}")
    return {str(model): rows[column].tolist() for model, rows in runs.groupby("model", sort=False)}
