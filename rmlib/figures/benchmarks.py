"""Pictures of benchmarks: sections, leaderboard, bias, subsets, and what others published, always called so."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from rmlib import records
from rmlib.benchmarks.compare import OVERALL
from rmlib.experiments.arms import FINETUNED
from rmlib.figures import benchmark_tables, style
from rmlib.figures.arms import COMPARED, about
from rmlib.figures.benchmark_tables import DEFAULT, benchmark_runs, headline_section, items_record
from rmlib.figures.breakdowns import RULERS
from rmlib.figures.summaries import PAPER_ROWS, ladder
from rmlib.records import RecordError
from rmlib.statistics import wilson_interval

TITLES = {
    "rewardbench": "RewardBench", "rewardbench2": "RewardBench 2", "rmbench": "RM-Bench", "judgebench": "JudgeBench",
    "rmb": "RMB", "ppe": "PPE", "hhh": "HHH alignment", "own": "Own pairs",
}  # fmt: skip
PUBLISHED_SECTIONS = (OVERALL, "Chat", "Chat Hard", "Safety", "Reasoning")
OVER = "95 % bootstrap interval over items"


def benchmark_figure(file: Path, kind: str = DEFAULT) -> Figure:
    """Section scores of our models and of the rulers on a benchmark, the overall score first."""
    newest, table = benchmark_runs(file, kind).iloc[-1], benchmark_tables.benchmark_table(file, kind)
    sections = sorted(dict.fromkeys(table["section"]), key=lambda name: name != OVERALL)
    names = list(dict.fromkeys(table["model"]))
    figure, panels = style.new_figure(11, 0.27 * len(names) + 1.3, len(sections), sharey=True, sharex=True)
    chance = items_record(file, kind)["outcome.chance"]
    for panel, section in zip(panels, sections, strict=True):
        part = table[table["section"] == section].groupby("model")[["estimate", "low", "high"]].mean().loc[names]
        style.forest(panel, part, chance=chance.get(section, 0.5))
        panel.set_title(section)
    panels[len(panels) // 2].set_xlabel("score by the official rule of the benchmark (dotted: chance)")
    seeds = table["seed"].nunique()
    over = OVER + (f", mean of {seeds} seeds" if seeds > 1 else "")
    detail = f"{int(newest['outcome.n']):,} items, line: {over}; models: {about(ladder(file))}"
    return style.finished(figure, f"{TITLES[kind]} sections: {newest['outcome.label']}", detail, families=names)


def leaderboard_figure(file: Path, kind: str = DEFAULT) -> Figure:
    """Models best first by the overall score; models that noise does not tell apart share a rank."""
    table, newest = benchmark_tables.leaderboard_table(file, kind), benchmark_runs(file, kind).iloc[-1]
    figure, (axes,) = style.new_figure(8.5, 0.3 * len(table) + 1.3)
    score = headline_section(kind)
    chance = items_record(file, kind)["outcome.chance"].get(score, 0.5)
    heights = style.forest(axes, table, f"{score} by the official rule (dotted: chance)", chance=chance)
    ranks = [f"rank {row['rank']} (place {row['rank_low']}-{row['rank_high']})" for row in table.to_dict("records")]
    style.beside(axes, heights, ranks)
    for height, (above, below) in zip(heights, pairwise(table["rank"]), strict=False):
        if above < below:
            axes.axhline(height - 0.5, color="0.8", lw=1)
    n, seeds = int(table["n"].iloc[0]), int(table["seeds"].max())
    over = f"{OVER} and seeds (up to {seeds})" if seeds > 1 else OVER
    detail = f"{n:,} items; line: {over}; rank: 1 + models clearly better (paired p by Holm below 0.05, and interval "
    detail += f"of the difference without 0); place: its 95 % interval; {about(ladder(file))}"
    title = f"{TITLES[kind]} leaderboard: {newest['outcome.label']}"
    return style.finished(figure, title, detail, families=table.index)


def length_bias_figure(file: Path, kind: str = DEFAULT) -> Figure:
    """Does a model pay for length? Accuracy over the length difference, and the accuracy left at equal length."""
    lengths = benchmark_tables.length_bias_table(file, kind)
    table = benchmark_tables.bias_table(file, kind).drop(index="chance")
    newest, names = benchmark_runs(file, kind).iloc[-1], [str(name) for name in table.index]
    figure, (left, right) = style.new_figure(12, max(3.6, 0.27 * len(names) + 1.3), 2)
    shown = _few(names)
    for offset, name in enumerate(shown):
        part = lengths.loc[[name]]
        style.points(left, part["mean"], part, offset, label=style.label(name), ls="-", lw=1.2)
    left.axhline(0.5, color="0.5", lw=1, ls=":")
    left.axvline(0, color="0.5", lw=1, ls=":")
    left.set(xlabel="length, right minus wrong response (characters, mean of a fifth)", ylabel="share ordered rightly")
    left.legend(loc="lower right", frameon=True, fontsize=7.5)  # where rulers of length leave room
    columns = ("at equal length", "equal low", "equal high")
    words = "share ordered rightly: at equal length (dot), as they are (tick)"
    heights = style.forest(right, table, words, chance=0.5, columns=columns)
    right.plot(table["comparisons"], heights, "|", color="0.3", ms=9, mew=1.5)
    n = int(lengths.loc[[shown[0]], "n"].sum())
    detail = f"{n:,} comparisons of a right with a wrong response; lines: {OVER} (and seeds); equal length: logistic "
    detail += f"regression on the length difference; {about(ladder(file))}"
    title = f"{TITLES[kind]}: what length decides ({newest['outcome.label']})"
    return style.finished(figure, title, detail, families=names)


def subsets_figure(file: Path, kind: str = DEFAULT) -> Figure:
    """Where models fail: the score of every model in every subset, subsets from worst to best within their section."""
    table, newest = benchmark_tables.subsets_table(file, kind), benchmark_runs(file, kind).iloc[-1]
    names = list(dict.fromkeys(table.index))
    arms = [name for name in names if style.family(name) != "ruler or control"] or names
    worst = table.loc[arms].groupby(["section", "subset"], sort=False)["estimate"].mean().reset_index()
    worst["section"] = pd.Categorical(worst["section"], list(dict.fromkeys(worst["section"])))
    order = worst.sort_values(["section", "estimate"])["subset"].tolist()
    matrix = table.reset_index().pivot(index="subset", columns="model", values="estimate").loc[order, names]
    sizes = table.loc[[names[0]]].set_index("subset")["n"]
    figure, (axes,) = style.new_figure(0.62 * len(names) + 3.5, 0.27 * len(order) + 2.6)
    look: dict[str, Any] = {"annot": True, "fmt": ".0f", "annot_kws": {"fontsize": 7.5}, "cbar": False}
    sns.heatmap(100 * matrix, ax=axes, cmap="PuOr", vmin=0, vmax=100, linewidths=0.5, **look)
    axes.set(xlabel="", ylabel="")
    axes.set_yticks(np.arange(len(order)) + 0.5, [f"{name} (n={sizes[name]})" for name in order], rotation=0)
    axes.set_xticks(np.arange(len(names)) + 0.5, [style.label(name) for name in names], rotation=40, ha="right")
    sections = table.loc[[names[0]]].set_index("subset")["section"].loc[order].tolist()
    for row, (above, below) in enumerate(pairwise(sections), start=1):
        if above != below:
            axes.axhline(row, color="0.2", lw=1.5)
    widest = 50 * (table["high"] - table["low"]).max()
    detail = "score x 100, mean of the seeds; subsets of a section from hardest to easiest for the arms; 95 % Wilson "
    detail += f"interval of a cell up to ±{widest:.0f}; {about(ladder(file))}"
    return style.finished(figure, f"{TITLES[kind]}, subset by subset: {newest['outcome.label']}", detail)


def beside_published_figure(file: Path) -> Figure:
    """The paper's arms: this run's overall score in one panel, the published one of 70B models in another."""
    table, newest = benchmark_tables.leaderboard_table(file), benchmark_runs(file).iloc[-1]
    arms = [arm for arm in PAPER_ROWS if arm in table.index or arm + FINETUNED in table.index]
    if not arms:
        raise RecordError(f"{file.name}: none of the paper's arms was scored on RewardBench; run notebook 04")
    own = table.loc[[arm if arm in table.index else arm + FINETUNED for arm in arms]].set_axis(arms)
    published = records.published("table1").set_index(["type", "model"]).loc[[PAPER_ROWS[arm] for arm in arms]]
    figure, (left, right) = style.new_figure(11, 0.3 * len(arms) + 1.5, 2, sharey=True)
    style.forest(left, own, "overall score")
    left.set_title(f"This run: {newest['outcome.label']}", wrap=True)
    style.forest(right, published.rename(columns={"overall": "estimate"}).set_axis(arms), "overall score (percent)")
    right.set_title("Published: Llama-3.1-70B, the official 2,985 items")
    detail = f"left: {OVER} (and seeds), {about(ladder(file))}; right: published, no intervals or seeds known; source: "
    detail += f"{published['citation'].iloc[0]}. Other items and other models: compare the order of the arms alone"
    return style.finished(figure, "This run beside the paper", detail, families=arms)


def published_figure(_: Path | None = None) -> Figure:
    """The paper's table of reward models on RewardBench (published, 70B)."""
    table = records.published("table1").dropna(subset=["chat"])
    table = table[table["type"] != "external"]
    arm_of = {row: arm for arm, row in PAPER_ROWS.items()}
    table.index = pd.Index([arm_of[kind, model] for kind, model in zip(table["type"], table["model"], strict=True)])
    figure, panels = style.new_figure(11, 0.27 * len(table) + 1.3, len(PUBLISHED_SECTIONS), sharey=True, sharex=True)
    for panel, section in zip(panels, PUBLISHED_SECTIONS, strict=True):
        column = section.lower().replace(" ", "_").replace("score", "overall")
        words = (table["type"] + ": " + table["model"]).tolist()
        style.forest(panel, table.rename(columns={column: "estimate"}), words=words)
        panel.set_title(section)
    panels[len(panels) // 2].set_xlabel("RewardBench (percent)")
    detail = f"published, no intervals or seeds known; source: {table['citation'].iloc[0]}"
    title = "Published: the paper's reward models, Llama-3.1-70B"
    return style.finished(figure, title, detail, families=table.index)


def chat_hard_figure(_: Path | None = None) -> Figure:
    """The paper's breakdown of Chat Hard (published): where the truth is human, and where it is GPT-4's."""
    table = records.published("chat_hard")
    sizes = records.published("rewardbench_counts").drop_duplicates("subset").set_index("subset")["n"]
    subsets = [name for name in table.columns if name in sizes.index]
    figure, (axes,) = style.new_figure(9, 3.6)
    for offset, row in enumerate(table.to_dict(orient="records")):
        found = [wilson_interval(round(row[name] / 100 * sizes[name]), int(sizes[name])) for name in subsets]
        part = 100 * pd.DataFrame([vars(interval) for interval in found])
        part["estimate"] = [row[name] for name in subsets]  # as published: no whole number of items need give it
        style.points(axes, part.index + 0.16 * (offset - 0.5), part, offset, label=row["model"], ms=6)
    axes.axvline(2.5, color="0.5", lw=1, ls=":")
    axes.set_xticks(range(len(subsets)), [f"{name.replace('llmbar-', '')}\nn={sizes[name]}" for name in subsets])
    axes.set(xlim=(-0.5, len(subsets) - 0.5), ylabel="accuracy (percent)")
    axes.set_title("truth: human (left of the dotted line) or GPT-4 (right)")
    detail = f"published; source: {table['citation'].iloc[0]}. Lines: 95 % Wilson intervals for the official numbers "
    detail += "of items, computed here; none are published"
    return style.finished(figure, "Published: Chat Hard by subset", detail, legend=2)


def published_benchmarks_figure(_: Path | None = None) -> Figure:
    """What is published of the paper's model on seven benchmarks, source by source: sources do not agree."""
    table = records.published("nemotron_70b_reward")
    table = table[table["benchmark"] != "mean of seven"]
    benchmarks, sources = list(dict.fromkeys(table["benchmark"])), list(dict.fromkeys(table["source"]))
    figure, (axes,) = style.new_figure(8, 3.4)
    for offset, source in enumerate(sources):
        part = table[table["source"] == source]
        heights = [len(benchmarks) - 1 - benchmarks.index(name) for name in part["benchmark"]]
        look = style.look_of(offset) | {"ls": "", "ms": 7, "label": part["citation"].iloc[0]}
        axes.plot(part["score"], heights, **look)
    axes.set_yticks(range(len(benchmarks)), benchmarks[::-1])
    axes.set_ylim(-0.6, len(benchmarks) - 0.4)
    axes.set_xlabel("score (percent; each benchmark has its own chance level and rule)")
    detail = "published, no intervals known. JudgeBench here is a mean of categories, not the official mean of pairs; "
    detail += "the two numbers of RM-Bench are means of other columns"
    title = "Published: Llama-3.1-Nemotron-70B-Reward on seven benchmarks"
    return style.finished(figure, title, detail, legend=1, fontsize=7.5)


def _few(names: list[str]) -> list[str]:
    """Models that a crowded plot shows: the arms of COMPARED and two rulers, or what there is."""
    shown = [name for name in names if name.removesuffix(FINETUNED) in COMPARED or name in RULERS]
    return (shown or names)[: len(style.MARKERS)]
