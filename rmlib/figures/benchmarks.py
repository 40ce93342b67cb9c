"""Pictures of benchmarks: sections, leaderboard, bias, subsets, and what others published, always called so."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from rmlib import records
from rmlib.benchmarks.compare import OVERALL
from rmlib.experiments.arms import ARMS, FINETUNED
from rmlib.figures import benchmark_tables, style
from rmlib.figures.arms import COMPARED, about
from rmlib.figures.benchmark_tables import DEFAULT, benchmark_runs, headline_section, items_record
from rmlib.figures.summaries import PAPER_ROWS, ladder
from rmlib.records import RecordError
from rmlib.statistics import wilson_interval

TITLES = {
    "rewardbench": "RewardBench", "rewardbench2": "RewardBench 2", "rmbench": "RM-Bench", "judgebench": "JudgeBench",
    "rmb": "RMB", "ppe": "PPE", "hhh": "HHH alignment", "own": "Own pairs",
}  # fmt: skip
PUBLISHED_SECTIONS = (OVERALL, "Chat", "Chat Hard", "Safety", "Reasoning")
OVER = "lines: 95 % intervals over items and seeds"
TIED = 0.9  # share of comparisons on which a ruler ties: it has nothing to say, and scores 0 by construction


def benchmark_figure(file: Path, kind: str = DEFAULT) -> Figure:
    """Section scores of our models and of the rulers on a benchmark, the overall score first."""
    table, names = benchmark_tables.benchmark_table(file, kind), _telling(file, kind)
    sections = sorted(dict.fromkeys(table["section"]), key=lambda name: name != OVERALL)
    figure, panels = style.new_figure(11, 0.27 * len(names) + 1.3, len(sections), sharey=True, sharex=True)
    chance = items_record(file, kind)["outcome.chance"]
    for panel, section in zip(panels, sections, strict=True):
        part = benchmark_tables.comparison(file, kind, section).leaderboard.loc[names]
        style.forest(panel, part, chance=chance.get(section, 0.5))
        panel.set_title(section)
    panels[len(panels) // 2].set_xlabel("score by the official rule of the benchmark (dotted: chance)")
    return _finished(figure, file, kind, " sections", OVER)


def leaderboard_figure(file: Path, kind: str = DEFAULT) -> Figure:
    """Models best first by the overall score; models that noise does not tell apart share a rank."""
    table = benchmark_tables.leaderboard_table(file, kind)
    table = table[table.index.isin(_telling(file, kind))]
    figure, (axes,) = style.new_figure(9, 0.3 * len(table) + 1.3)
    score = headline_section(kind)
    chance = items_record(file, kind)["outcome.chance"].get(score, 0.5)
    heights = style.forest(axes, table, f"{score} by the official rule (dotted: chance)", chance=chance)
    ranks = [f"rank {row['rank']} (place {row['rank_low']}-{row['rank_high']})" for row in table.to_dict("records")]
    style.beside(axes, heights, ranks)
    for height, (above, below) in zip(heights, pairwise(table["rank"]), strict=False):
        if above < below:
            axes.axhline(height - 0.5, color="0.8", lw=1)
    rule = "clearly: paired p by Holm below 0.05; or the rank of the model above; place: its 95 % interval"
    return _finished(figure, file, kind, " leaderboard", f"{OVER}; rank: 1 + models clearly better", rule)


def length_bias_figure(file: Path, kind: str = DEFAULT) -> Figure:
    """Does a model pay for length? Accuracy over the length difference, and the accuracy left at equal length."""
    lengths, names = benchmark_tables.length_bias_table(file, kind), _telling(file, kind)
    table = benchmark_tables.bias_table(file, kind).loc[names]
    figure, (left, right) = style.new_figure(12, max(4, 0.27 * len(names) + 1.6), 2, width_ratios=(1, 1.1))
    shown = _few(names)
    for number, name in enumerate(shown):
        part = lengths.loc[[name]]
        places = np.arange(len(part)) + 0.1 * (number - (len(shown) - 1) / 2)
        style.points(left, places, part, style.look_of(name, line=True), label=style.label(name), lw=0.8)
    left.axhline(0.5, color="0.5", lw=1, ls=":")
    left.set_xticks(range(len(part)), [f"{mean:+.0f}" for mean in part["mean"]])
    left.set(xlabel="right minus wrong response (characters, mean of a fifth)", ylabel="share ordered rightly")
    columns = ("at equal length", "equal low", "equal high")
    words = "share ordered rightly: at equal length (mark), as they are (tick)"
    heights = style.forest(right, table, words, chance=0.5, columns=columns)
    right.plot(table["comparisons"], heights, "|", color="0.3", ms=9, mew=1.5)
    n = int(lengths.loc[[shown[0]], "n"].sum())
    details = f"{n:,} comparisons; {OVER}", "equal length: logistic regression on the length difference"
    return _finished(figure, file, kind, ": what length decides", *details, legend=len(shown))


def subsets_figure(file: Path, kind: str = DEFAULT) -> Figure:
    """Where models fail: scores of few arms in every subset, and between which scores all arms lie.

    Subsets of a section come from hardest to easiest for the arms (for all models where no arm was scored).
    """
    table = benchmark_tables.subsets_table(file, kind)
    names = list(dict.fromkeys(table.index))
    arms = [name for name in names if name.removesuffix(FINETUNED) in ARMS] or names
    by_subset = table.loc[arms].groupby(["section", "subset"], sort=False)
    rows = by_subset["estimate"].agg(["mean", "min", "max"]).assign(n=by_subset["n"].first()).reset_index()
    rows["section"] = pd.Categorical(rows["section"], list(dict.fromkeys(rows["section"])))
    rows = rows.sort_values(["section", "mean"], ignore_index=True)
    figure, (axes,) = style.new_figure(9, 0.25 * len(rows) + 1.8)
    heights = np.arange(len(rows))[::-1]
    axes.hlines(heights, 100 * rows["min"], 100 * rows["max"], color="0.85", lw=7, zorder=0)
    shown = _few(arms)
    for name in shown:
        scores = table.loc[[name]].set_index("subset")["estimate"].loc[rows["subset"]]
        axes.plot(100 * scores, heights, ls="", ms=5, label=style.label(name), **style.look_of(name))
    words = [f"{row['subset']} (n={row['n']})" for row in rows.to_dict("records")]
    axes.set_yticks(heights, words, fontsize=8)
    axes.set(xlabel="score (percent, mean of seeds); grey: from worst to best arm", ylim=(-0.6, len(rows) - 0.4))
    axes.grid(axis="y", visible=False)
    for number, (above, below) in enumerate(pairwise(rows["section"])):
        if above != below:
            axes.axhline(heights[number] - 0.5, color="0.2", lw=1)
    widest = 50 * (table["high"] - table["low"]).max()
    more = f"{len(arms)} arms; 95 % Wilson interval of a mark up to ±{widest:.0f}"
    return _finished(figure, file, kind, ", subset by subset", more, legend=min(3, len(shown)))


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
    detail = f"left: {OVER}; right: published, none known; compare the order of the arms alone"
    source = f"source: {published['citation'].iloc[0]}"
    return style.finished(figure, "This run beside the paper", about(ladder(file)), detail, source)


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
        heights = style.forest(panel, table.rename(columns={column: "estimate"}), words=words)
        for height, value in zip(heights, table[column], strict=True):
            panel.annotate(
                f"{value:.1f}", (value, height), (-7, -3), textcoords="offset points", ha="right", fontsize=7.5
            )
        panel.set_title(section)
    panels[0].set_xlim(left=70)  # room for the numbers beside the marks
    panels[len(panels) // 2].set_xlabel("RewardBench (percent)")
    detail = "no intervals or seeds known", f"source: {table['citation'].iloc[0]}"
    title = "Published: the paper's reward models, Llama-3.1-70B"
    return style.finished(figure, title, "published", *detail)


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
        look = style.looks(style.series(offset))
        style.points(axes, part.index + 0.16 * (offset - 0.5), part, look, label=row["model"], ms=6)
    axes.axvline(2.5, color="0.5", lw=1, ls=":")
    axes.set_xticks(range(len(subsets)), [f"{name.replace('llmbar-', '')}\nn={sizes[name]}" for name in subsets])
    axes.set(xlim=(-0.5, len(subsets) - 0.5), ylabel="accuracy (percent)")
    axes.set_title("truth: human (left of the dotted line) or GPT-4 (right)")
    detail = "lines: 95 % Wilson intervals for the official numbers of items, computed here; none are published"
    source = f"source: {table['citation'].iloc[0]}"
    return style.finished(figure, "Published: Chat Hard by subset", "published", detail, source, legend=2)


def published_benchmarks_figure(_: Path | None = None) -> Figure:
    """What is published of the paper's model on seven benchmarks, source by source: sources do not agree."""
    table = records.published("nemotron_70b_reward")
    table = table[table["benchmark"] != "mean of seven"]
    benchmarks, sources = list(dict.fromkeys(table["benchmark"])), list(dict.fromkeys(table["source"]))
    figure, (axes,) = style.new_figure(8.5, 3.8)
    for offset, source in enumerate(sources):
        part = table[table["source"] == source]
        shift = 0.22 * ((len(sources) - 1) / 2 - offset)  # sources agree so far that their marks would hide each other
        heights = [len(benchmarks) - 1 - benchmarks.index(name) + shift for name in part["benchmark"]]
        look = style.looks(style.series(offset)) | {"ls": "", "ms": 7, "label": part["citation"].iloc[0]}
        axes.plot(part["score"], heights, **look)
    axes.set_yticks(range(len(benchmarks)), benchmarks[::-1])
    axes.set_ylim(-0.6, len(benchmarks) - 0.4)
    axes.set_xlabel("score (percent)")
    detail = "no intervals known; each benchmark has its own chance level and rule"
    rules = "JudgeBench here is a mean of categories, not the official mean of pairs; the two numbers of RM-Bench are "
    rules += "means of other columns"
    title = "Published: Llama-3.1-Nemotron-70B-Reward on seven benchmarks"
    return style.finished(figure, title, "published", detail, rules, legend=1, fontsize=7.5)


def _telling(file: Path, kind: str) -> list[str]:
    """Models that are drawn: not the rulers that tie nearly everywhere and score 0 for that."""
    tied = benchmark_tables.bias_table(file, kind).drop(index="chance")["tied"]
    return [str(name) for name, share in tied.items() if share <= TIED or name in ARMS]


def _finished(figure: Figure, file: Path, kind: str, what: str, more: str, *rest: str, legend: int = 0) -> Figure:
    """The figure with its headline: the benchmark, what of it is shown, and how far it is the official one."""
    runs = benchmark_runs(file, kind)
    n, seeds = int(runs["outcome.n"].iloc[-1]), runs.groupby("model")["seed"].nunique().max()
    title = f"{TITLES[kind]}{what}: {runs['outcome.label'].iloc[-1]}"
    detail = f"{n:,} items, up to {seeds} seeds; {more}"
    silent = f"rulers that tie on more than {100 * TIED:.0f} % of comparisons are not drawn"
    return style.finished(figure, title, about(ladder(file)), detail, *rest, silent, legend=legend)


def _few(names: list[str]) -> list[str]:
    """Models that a crowded plot shows: the arms of COMPARED, or what there is."""
    return ([name for name in names if name.removesuffix(FINETUNED) in COMPARED] or names)[: len(COMPARED)]
