"""Pictures of the arms: accuracies, differences, where they are right, agreement, calibration, sweeps, inputs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from rmlib import records, statistics
from rmlib.alignment.titles import EXPO_FACTOR
from rmlib.experiments.arms import CONTROL_ARMS, FINETUNED
from rmlib.figures import breakdowns, style, summaries
from rmlib.figures.summaries import DETECTABLE, interval_of, ladder, margins
from rmlib.pairs import ANNOTATED
from rmlib.records import RecordError

COMPARED = ("regression", "bt", "bt_margin", "bt_scaled", "bt_scaled_init")  # where all arms would crowd a plot
FEWEST = 30  # pairs of a group; the accuracy of fewer says little, and its interval would set the scale
UNITS = {
    "strength": "strength of the preference",
    "rating gap": "helpfulness, chosen minus rejected (points)",
    "length gap": "length, chosen minus rejected (characters)",
}
SWEPT_BESIDE = {
    "sweep_on_test": "Test split, never chosen on",
    "sweep_on_benchmark": "Benchmark, never chosen on",
}


def about(table: pd.DataFrame) -> str:
    """What the records of a comparison were made from: source, origin of the preferences, backbone, training pairs."""
    settings = table["asked.settings"]
    frozen = settings.map(lambda values: values["trainable"] == "head")
    how = "head trained" if frozen.all() else "head or all weights trained" if frozen.any() else "all weights trained"
    if any(values["lora_rank"] for values in settings):
        how = "adapters trained"
    row = table.iloc[-1]
    backbone, n_train = row["asked.settings"]["backbone"], int(row["asked.n_train"])
    source = row["asked.source"]
    preferences = "" if source["preferences"] == ANNOTATED else f", preferences {source['preferences']}"
    return f"{source['title']}{preferences}; backbone {backbone}, {how} on {n_train:,} pairs"


def compared(table: pd.DataFrame, file: Path) -> list[str]:
    """The few arms that a crowded plot shows; RecordError where none of them is recorded."""
    names = set(table["name"])
    shown = [arm for arm in COMPARED if arm in names] or [n for arm in COMPARED if (n := arm + FINETUNED) in names]
    if not shown:
        raise RecordError(f"{file.name}: no record of {', '.join(COMPARED)}; run notebook 02")
    return shown


def ladder_figure(file: Path) -> Figure:
    """Test accuracy of every arm, with intervals, beside the rulers."""
    table, runs, (answers, _) = summaries.arms_table(file), ladder(file), summaries.answers_of(file)
    figure, (axes,) = style.new_figure(8.5, 0.3 * len(table) + 1.3)
    words = "accuracy: share of held-out pairs ordered rightly (a tie is wrong; dotted: chance)"
    heights = style.forest(axes, table, words, chance=0.5)
    n, seeds = int(table["n"].iloc[0]), int(table["seeds"].max())
    for height, name in zip(heights, map(str, table.index), strict=True):
        single = (answers[name] > 0).mean(axis=1) if name in set(runs["name"]) and seeds > 1 else []
        axes.plot(single, np.full(len(single), height), "|", color=style.look_of(name)["color"], ms=8, alpha=0.6)
    texts = {str(name): f"{value:.3f}" for name, value in table["estimate"].items()}
    if "random_head" in texts and not (table["low"] <= 0.5).mul(table["high"] >= 0.5)["random_head"]:
        texts["random_head"] += f" ({table['seeds']['random_head']} arbitrary directions)"
    style.beside(axes, heights, texts.values())
    shown = f"up to {seeds} seeds (ticks)" if seeds > 1 else "1 seed"
    detail = f"{n:,} decided test pairs; {shown}; lines: 95 % intervals"
    title = "The ladder of arms: one change a step" if len(table) > 1 else "One arm on held-out pairs"
    return style.finished(figure, title, about(runs), detail)


def differences_figure(file: Path) -> Figure:
    """What each single change does to accuracy, with paired intervals; controls, far below, only where all are."""
    table = summaries.differences_table(file)
    changed = table[~table.index.isin(CONTROL_ARMS)]
    table = table if changed.empty else changed
    shown = table.assign(**{key: 100 * table[key] for key in ("estimate", "low", "high")})
    figure, (axes,) = style.new_figure(9, 0.38 * len(table) + 1.3)
    words = [f"{style.label(str(arm))}\nagainst {style.label(parent)}" for arm, parent in table["against"].items()]
    axis = "difference in accuracy (percentage points; grey: too small to be found)"
    heights = style.forest(axes, shown, axis, words=words, chance=0)
    axes.tick_params(axis="y", labelsize=8)
    found = 100 * table[DETECTABLE]
    axes.hlines(heights, -found, found, color="0.88", lw=9, zorder=0)
    style.beside(axes, heights, [f"{row['estimate']:+.1f}, p={row['p (Holm)']:.2g}" for _, row in shown.iterrows()])
    n = int(table["n"].iloc[0])
    detail = f"{n:,} decided test pairs; lines: 95 %, p: Holm, both over prompts and seeds"
    return style.finished(figure, "What one change does", about(ladder(file)), detail, could_have_shown(table))


def could_have_shown(table: pd.DataFrame) -> str:
    """What the test pairs could have shown at all: the range of the column DETECTABLE, in words."""
    sizes = 100 * table[DETECTABLE].dropna()
    if sizes.empty:
        return "too few test pairs to find any difference with 80 % power"
    limits = f"±{sizes.min():.1f} to ±{sizes.max():.1f}"
    return f"grey: true differences too small to be found with 80 % power at p=0.05, unadjusted ({limits})"


def _large(table: pd.DataFrame) -> pd.DataFrame:
    """Groups of FEWEST pairs or more; all of them where none is so large, as in a small trial."""
    large = table["n"] >= FEWEST
    return table[large] if large.any() else table


def _side_by_side(axes: Axes, tables: Mapping[str, pd.DataFrame], width: float = 0.12, ms: float = 5) -> None:
    """Points with intervals at the groups that index the tables, arm beside arm, over the line of chance."""
    for number, (arm, table) in enumerate(tables.items()):
        places = table.index + (number - (len(tables) - 1) / 2) * width
        style.points(axes, places, table, style.look_of(arm), label=style.label(arm), ms=ms)
    axes.axhline(0.5, color="0.5", lw=1, ls=":")


def strata_figure(file: Path) -> Figure:
    """Accuracy by strength of the preference, by rating gap and by length gap, arm by arm."""
    runs, table = ladder(file), breakdowns.strata_table(file)
    shown = compared(runs, file)
    n, large = len(runs["outcome.margins"].iloc[-1]), _large(table)
    few, table = (len(table) - len(large)) // table.index.nunique(), large
    properties = [name for name in UNITS if name in set(table["property"])]
    widths = [table.loc[table["property"] == name, "stratum"].nunique() + 1 for name in properties]
    figure, panels = style.new_figure(12.5, 4.2, len(properties), sharey=True, width_ratios=widths)
    for panel, name in zip(panels, properties, strict=True):
        part = table[table["property"] == name]
        parts = {arm: part.loc[[arm]].reset_index() for arm in shown}
        _side_by_side(panel, parts, 0.13, 4.5)
        groups = [(str(row["stratum"]).replace(" to ", "\nto "), row["n"]) for _, row in parts[shown[0]].iterrows()]
        panel.set_xticks(range(len(groups)), [f"{words}\nn={n}" for words, n in groups])
        panel.tick_params(axis="x", labelsize=8)
        panel.set(xlim=(-0.6, len(groups) - 0.4), xlabel=UNITS[name])
    panels[0].set_ylabel("accuracy")
    detail = f"{n:,} decided test pairs; lines: 95 % bootstrap intervals over pairs and seeds; dotted: chance"
    detail += f"; {few} groups of fewer than {FEWEST} pairs are not drawn" if few else ""
    return style.finished(figure, "Where the arms are right", about(runs), detail, legend=len(shown))


def uncertainty_figure(file: Path) -> Figure:
    """Accuracy of the seeds of an arm together, by how far they disagree. RecordError where every arm has one seed."""
    runs = ladder(file)
    shown = {arm: values for arm in compared(runs, file) if len(values := margins(runs, arm)) > 1}
    if not shown:
        raise RecordError(f"{file.name}: every arm has one seed; disagreement needs two")
    figure, panels = style.new_figure(11, 3.6, 2, sharey=True)
    for panel, relative in zip(panels, (False, True), strict=True):
        found = {arm: summaries.accuracy_by_uncertainty(each, relative=relative) for arm, each in shown.items()}
        _side_by_side(panel, found)
        n_groups = len(found[next(iter(shown))])
        panel.set_xticks(range(n_groups), ["least", *[""] * (n_groups - 2), "most"])
        panel.set_xlabel(f"{n_groups} groups of equally many pairs")
    panels[0].set_title("By disagreement: standard deviation of the seeds' margins")
    panels[1].set_title("By disagreement over the size of the mean margin")
    panels[0].set_ylabel("accuracy of the seeds together")
    n_seeds, n = next(iter(shown.values())).shape
    detail = f"{n:,} decided test pairs; {n_seeds} seeds together; lines: 95 % Wilson intervals; dotted: chance"
    scaled = "margins of each seed divided by their root mean square"
    return style.finished(figure, "Is disagreement a warning?", about(runs), detail, scaled, legend=5)


def agreement_of_arms_figure(file: Path) -> Figure:
    """Which arms order the test pairs alike: a tree in which arms join at the share of pairs that they agree on.

    Of two groups of arms it is the mean share over their couples. RecordError for fewer than three arms and rulers:
    two agree by one number, and the table has it.
    """
    table = breakdowns.agreement_table(file)
    names = list(dict.fromkeys([*table.index, *table["with"]]))
    if len(names) < 3:
        raise RecordError(f"{file.name}: {len(names)} arms make no clusters; the table has their agreement")
    half = table.pivot(columns="with", values="share").reindex(index=names, columns=names)
    shares = 100 * half.combine_first(half.T).loc[names, names].to_numpy()
    own, apart = np.diag(shares).copy(), 100 - shares
    np.fill_diagonal(apart, 0)
    tree = hierarchy.linkage(squareform(apart), "average")
    figure, (axes,) = style.new_figure(8.5, 0.27 * len(names) + 1.5)
    drawn = hierarchy.dendrogram(tree, orientation="left", ax=axes, color_threshold=0, above_threshold_color="0.55")
    heights = np.arange(len(names)) * 10 + 5
    for height, leaf in zip(heights, drawn["leaves"], strict=True):
        axes.plot([0], [height], **style.look_of(names[leaf]), ms=6, clip_on=False, zorder=3)
        axes.plot(100 - own[leaf], height, "|", color="k", ms=9, mew=1.5)
    axes.set_yticks(heights, [style.label(names[leaf]) for leaf in drawn["leaves"]])
    axes.yaxis.tick_right()
    axes.tick_params(axis="y", labelsize=9, pad=8)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 - value:.0f}")
    axes.set_xlabel("pairs ordered alike (percent) where two arms or groups join; black tick: two seeds of the arm")
    widest = 50 * (table["share high"] - table["share low"]).max()
    detail = f"{int(table['n'].iloc[0]):,} decided test pairs, seed by seed; 95 % intervals up to ±{widest:.0f}"
    return style.finished(figure, "Which arms order the same pairs?", about(ladder(file)), detail)


def learning_curve_figure(file: Path) -> Figure:
    """Test error over the number of training pairs, both on logarithmic scales, with a power law fitted to each arm."""
    table, laws = breakdowns.learning_curves(file), breakdowns.fitted_curves(file)
    figure, (axes,) = style.new_figure(9.5, 4.4)
    for offset, (_, record) in enumerate(table.iterrows()):
        (sizes, answers), arm = breakdowns.curve_of(record), record["asked.arm"]
        groups = summaries.prompt_groups(file, answers.shape[2])
        errors = pd.DataFrame([vars(interval_of(1 - part, groups)) for part in answers])
        x = np.array(sizes) * 1.07 ** (offset - (len(table) - 1) / 2)  # so that intervals of arms stand side by side
        law, look = laws[arm], style.look_of(arm, line=True)
        style.points(axes, x, errors, look | {"ls": ""})
        line = law.curve(np.geomspace(sizes[0], sizes[-1], 60))
        axes.plot(line["size"], line["estimate"], **look | {"marker": ""}, lw=1.5)
        off = law.curve(sizes[-1:])["estimate"].iloc[0] - errors["estimate"].iloc[-1]
        name = f"{style.label(arm)}\n{law}\nat {sizes[-1]:,} pairs the fit is {abs(off):.3f} too "
        name += "high" if off > 0 else "low"
        axes.plot([], [], label=name, ms=5, lw=1.5, **look)
    axes.set(xscale="log", yscale="log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.yaxis.set_major_locator(MultipleLocator(0.05))
    axes.yaxis.set_major_formatter("{x:.2f}")
    axes.minorticks_off()
    axes.set(xlabel="training pairs (log scale)", ylabel="test pairs ordered wrongly (share, log scale)")
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False)
    seeds = len(table["asked.seeds"].iloc[-1])
    detail = f"{answers.shape[2]:,} decided test pairs, {seeds} seeds; lines: 95 % over both; curve: a n^-b + floor"
    return style.finished(figure, "How error falls with training pairs", about(table), detail)


def calibration_figure(file: Path) -> Figure:
    """Reliability of the Bradley-Terry probability sigmoid(margin), a panel for each arm."""
    table = ladder(file)
    shown = compared(table, file)
    figure, panels = style.new_figure(max(8.5, 2.4 * len(shown)), 3.3, len(shown), sharex=True, sharey=True)
    for panel, arm in zip(panels, shown, strict=True):
        each = margins(table, arm)
        bins = _large(statistics.calibration_table(each.ravel(), bins=8))
        once = (bins["n"] / len(each)).round().astype(int).clip(1)  # seeds repeat the same pairs
        right = (bins["accuracy"] * once).round().astype(int)
        bounds = pd.DataFrame(map(vars, map(statistics.wilson_interval, right, once)), index=bins.index)
        panel.plot([0.5, 1], [0.5, 1], color="0.5", ls=":", lw=1)
        found = bounds.assign(estimate=bins["accuracy"])
        style.points(panel, bins["confidence"], found, style.look_of(arm, line=True), lw=1)
        distance = statistics.expected_calibration_error(each.ravel(), bins=8)
        panel.set_title(f"{style.label(arm)}\nECE {distance:.3f}", fontsize=9)
    panels[0].set(ylabel="accuracy", ylim=(None, 1.02))
    panels[len(panels) // 2].set_xlabel("confidence: sigmoid of |margin| (dotted: perfectly calibrated)")
    detail = f"{len(table['outcome.margins'].iloc[-1]):,} test pairs, seeds pooled; lines: 95 % Wilson, each pair once"
    error = "ECE, expected calibration error: mean distance from the diagonal over all of 8 bins of equal width"
    fewest = f"bins of fewer than {FEWEST} margins are not drawn"
    return style.finished(figure, "Is the margin a probability?", about(table), detail, error, fewest)


def sweep_figure(file: Path) -> Figure:
    """ExPO: accuracy over the extrapolation factor, on the selection split and wherever else a sweep was recorded."""
    table = ladder(file)
    table = table[table["name"] == "bt_scaled_init_expo"]
    if table.empty:
        raise RecordError(f"{file.name}: no record of bt_scaled_init_expo; run notebook 03")
    if "outcome.factor" not in table:
        raise RecordError(f"{file.name}: each fold has a factor of its own, and one figure would show none of them")
    n_selected, n_test = (len(table.iloc[-1].get(f"outcome.{of}", [])) for of in ("selection_margins", "margins"))
    parts = [("Selection split, where the factor is chosen (ring)", table, n_selected)]
    for kind, name in SWEPT_BESIDE.items():
        swept = summaries.optional(file, kind)
        swept = swept if swept.empty else swept[swept["asked.comparison"] == table["asked.comparison"].iloc[-1]]
        parts += [] if swept.empty else [(name, swept, n_test if kind == "sweep_on_test" else 0)]
    figure, panels = style.new_figure(max(8.5, 4.2 * len(parts)), 3.4, len(parts), sharey=True)
    own = style.look_of("bt_scaled_init_expo")
    for panel, (name, rows, n) in zip(panels, parts, strict=True):
        sweeps = [pd.DataFrame(sweep).set_index("factor")["accuracy"] for sweep in rows["outcome.sweep"]]
        for number, (sweep, seed) in enumerate(zip(sweeps, rows["seed"], strict=True)):
            look = {"color": style.COLOURS[7], "ls": style.LINES[number % 4], "marker": style.MARKERS[number % 7]}
            panel.plot(sweep.index, sweep, label=f"seed {seed}", ms=3, lw=1, **look)
            if rows is table:
                best = rows["outcome.factor"].iloc[number]
                panel.plot(best, sweep[best], "o", ms=11, mfc="none", color=own["color"])
        mean = pd.concat(sweeps, axis=1).dropna().mean(axis=1)
        panel.plot(mean.index, mean, label="mean of the seeds", lw=2, ms=6, **own)
        if n:
            bounds = [statistics.wilson_interval(round(value * n), n) for value in mean]
            low, high = [bound.low for bound in bounds], [bound.high for bound in bounds]
            panel.fill_between(mean.index, low, high, color=own["color"], alpha=0.15, lw=0)
        panel.axvline(1, color="0.5", lw=1, ls=":")
        panel.axvline(EXPO_FACTOR, color="0.5", lw=1, ls="--")
        panel.set_title(f"{name}: {n:,} pairs" if n else name, fontsize=9)
        panel.set_xlabel(f"factor (dashed: the paper's {EXPO_FACTOR})")
    panels[0].set_ylabel("accuracy")
    detail = f"{len(table)} seeds; band: 95 % Wilson over pairs; dotted: the strong model"
    weights = "weak: regression, strong: scaled BT from it; weights are weak + factor x (strong - weak)"
    title = "ExPO: how far to walk past the strong model"
    return style.finished(figure, title, about(table), detail, weights, legend=6)


def affine_figure(file: Path) -> Figure:
    """Do calibrated rewards read as ratings? Mean rating over the reward, in bins of equally many responses."""
    table = records.read(file, kind="affine")
    table = table[table["asked.comparison"].isin(ladder(file)["asked.comparison"].unique())]
    if table.empty:
        raise RecordError(f"{file.name}: no affine fit of the comparison shown; run notebook 03")
    figure, (axes,) = style.new_figure(8.5, 4)
    for row in table.to_dict(orient="records"):
        bins = pd.DataFrame(row["outcome.bins"])
        r = row["outcome.r"]
        name = f"{style.label(row['asked.arm'])}\n{row['outcome.scale']:.2f} x reward {row['outcome.offset']:+.2f}"
        name += f"\nr={r['estimate']:.2f} [{r['low']:.2f}, {r['high']:.2f}]"
        style.points(axes, bins["reward"], bins, style.look_of(row["asked.arm"], line=True), label=name, lw=1)
    ends = np.array([axes.get_xlim(), axes.get_ylim()])
    line = [ends.min(), ends.max()]
    axes.plot(line, line, color="0.5", ls=":", lw=1, zorder=0, label="reward equals rating")
    axes.set(xlabel="reward on the rating scale (points, 0-4)", ylabel="mean helpfulness rating (points)")
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False)
    n = int(table["outcome.r"].iloc[-1]["n"])
    detail = f"{n:,} rated test responses, seed {table['seed'].iloc[-1]}; lines: 95 % bootstrap intervals of bins"
    fitted = "scale and offset fitted on the selection split"
    return style.finished(figure, "Rewards as ratings, after an affine map", about(ladder(file)), detail, fitted)


def inputs_figure(file: Path) -> Figure:
    """What frozen heads read: test accuracy and accuracy at equal length, with intervals."""
    table, runs = breakdowns.inputs_table(file), breakdowns.runs_by_inputs(file)
    newest = next(iter(runs.values()))
    heights = np.arange(len(table))[::-1]
    figure, (axes,) = style.new_figure(9.5, 0.33 * len(table) + 1.5)
    for offset, name in enumerate(("accuracy", "at equal length")):
        look: dict[str, Any] = {"marker": style.MARKERS[offset], "s": 16, "linewidths": 1, "label": name}
        columns = (name, f"{name} low", f"{name} high")
        style.rows(axes, heights + 0.12 - 0.24 * offset, table, style.COLOURS[offset], 1.5, columns, **look)
    axes.set_yticks(heights, list(table.index))
    style.beside(axes, heights, [f"{value:.3f}" for value in table["accuracy"]])
    axes.axvline(0.5, color="0.5", lw=1, ls=":")
    axes.set_xlabel("accuracy on the held-out pairs (a tie is wrong; dotted: chance)")
    seeds, n = {len(part) for part in runs.values()}, int(table["n"].iloc[0])
    arm = style.label(newest["asked.arm"].iloc[-1])
    detail = f"{arm}, {min(seeds)} to {max(seeds)} seeds; {n:,} test pairs; lines: 95 % over folds and seeds"
    return style.finished(figure, "What frozen heads read", about(newest), detail, legend=2)
