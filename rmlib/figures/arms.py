"""Pictures of the arms: accuracies, differences, where they are right, agreement, calibration, sweeps, inputs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmlib import records, statistics
from rmlib.experiments.arms import CONTROL_ARMS, FINETUNED
from rmlib.figures import breakdowns, style, summaries
from rmlib.figures.summaries import DETECTABLE, interval_of, ladder, margins
from rmlib.pairs import ANNOTATED
from rmlib.records import RecordError

COMPARED = ("regression", "bt", "bt_margin", "bt_scaled", "bt_scaled_init")  # where all arms would crowd a plot
FEWEST = 10  # pairs of a group; the accuracy of fewer says nothing
UNITS = {
    "strength": "strength of the preference",
    "rating gap": "helpfulness, chosen minus rejected (points)",
    "length gap": "length, chosen minus rejected (characters)",
}
SWEPT_BESIDE = {
    "sweep_on_test": "Test split: for comparison, never chosen on",
    "sweep_on_benchmark": "Benchmark: for comparison, never chosen on",
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
    figure, (axes,) = style.new_figure(8, 0.3 * len(table) + 1.3)
    words = "accuracy: share of held-out pairs ordered rightly (a tie is wrong; dotted: chance)"
    heights = style.forest(axes, table, words, chance=0.5)
    n, seeds = int(table["n"].iloc[0]), int(table["seeds"].max())
    for height, name in zip(heights, map(str, table.index), strict=True):
        single = (answers[name] > 0).mean(axis=1) if name in set(runs["name"]) and seeds > 1 else []
        axes.plot(single, np.full(len(single), height), "|", color=style.FAMILIES[style.family(name)], ms=8)
    style.beside(axes, heights, [f"{value:.3f}" for value in table["estimate"]])
    shown = f"ticks: seeds (up to {seeds}), dot: their mean" if seeds > 1 else "1 seed"
    detail = f"{n:,} decided test pairs; {shown}, line: 95 % bootstrap interval"
    title = "The ladder of arms: one change a step"
    return style.finished(figure, title, about(runs), detail, families=table.index)


def differences_figure(file: Path) -> Figure:
    """What each single change does to accuracy, with paired intervals; controls, far below, only where all are."""
    table = summaries.differences_table(file)
    changed = table[~table.index.isin(CONTROL_ARMS)]
    table = table if changed.empty else changed
    shown = table.assign(**{key: 100 * table[key] for key in ("estimate", "low", "high")})
    figure, (axes,) = style.new_figure(8, 0.38 * len(table) + 1.3)
    words = [f"{style.label(str(arm))}\nagainst {style.label(parent)}" for arm, parent in table["against"].items()]
    heights = style.forest(axes, shown, "difference in accuracy (percentage points)", words=words, chance=0)
    axes.tick_params(axis="y", labelsize=8)
    found = 100 * table[DETECTABLE]
    axes.hlines(heights, -found, found, color="0.88", lw=9, zorder=0)
    style.beside(axes, heights, [f"{row['estimate']:+.1f}, p={row['p (Holm)']:.2g}" for _, row in shown.iterrows()])
    test = "right: the difference, and p (Holm)"
    detail = f"{int(table['n'].iloc[0]):,} decided test pairs; line: 95 % interval over prompts and seeds; {test}"
    details = about(ladder(file)), detail, could_have_shown(table)
    return style.finished(figure, "What one change does", *details, families=table.index)


def could_have_shown(table: pd.DataFrame) -> str:
    """What the test pairs could have shown at all: the range of the column DETECTABLE, in words."""
    sizes = 100 * table[DETECTABLE].dropna()
    if sizes.empty:
        return "too few test pairs to find any difference with 80 % power"
    limits = f"±{sizes.min():.1f} to ±{sizes.max():.1f}"
    return f"grey: true differences too small to be found with 80 % power at p=0.05, unadjusted ({limits})"


def _side_by_side(axes: Axes, tables: Mapping[str, pd.DataFrame], width: float = 0.12, ms: float = 5) -> None:
    """Points with intervals at the groups that index the tables, arm beside arm, over the line of chance."""
    for number, (arm, table) in enumerate(tables.items()):
        places = table.index + (number - (len(tables) - 1) / 2) * width
        style.points(axes, places, table, number, label=style.label(arm), ms=ms)
    axes.axhline(0.5, color="0.5", lw=1, ls=":")


def strata_figure(file: Path) -> Figure:
    """Accuracy by strength of the preference, by rating gap and by length gap, arm by arm."""
    runs, table = ladder(file), breakdowns.strata_table(file)
    shown = compared(runs, file)
    properties = [name for name in UNITS if name in set(table["property"])]
    widths = [table.loc[table["property"] == name, "stratum"].nunique() + 1 for name in properties]
    figure, panels = style.new_figure(12.5, 4.2, len(properties), sharey=True, width_ratios=widths)
    for panel, name in zip(panels, properties, strict=True):
        part = table[table["property"] == name]
        parts = {arm: part.loc[[arm]].reset_index() for arm in shown}
        _side_by_side(panel, {arm: each[each["n"] >= FEWEST] for arm, each in parts.items()}, 0.13, 4.5)
        groups = [(str(row["stratum"]).replace(" to ", "\nto "), row["n"]) for _, row in parts[shown[0]].iterrows()]
        panel.set_xticks(range(len(groups)), [f"{words}\nn={n}" for words, n in groups])
        panel.tick_params(axis="x", labelsize=8)
        panel.set(xlim=(-0.6, len(groups) - 0.4), xlabel=UNITS[name])
    panels[0].set_ylabel("accuracy")
    n = len(runs["outcome.margins"].iloc[-1])
    detail = f"{n:,} decided test pairs (n under each group); line: 95 % bootstrap interval over pairs and seeds; "
    detail += f"groups of fewer than {FEWEST} pairs are not drawn; dotted: chance; lengths in fifths of pairs"
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
    detail = f"{n:,} decided test pairs; {n_seeds} seeds, each divided by its root "
    detail += "mean square margin; line: 95 % Wilson interval; dotted: chance"
    return style.finished(figure, "Is disagreement a warning?", about(runs), detail, legend=5)


def agreement_of_arms_figure(file: Path) -> Figure:
    """How far each two arms order the test pairs alike: share of pairs, and kappa of being right."""
    table = breakdowns.agreement_table(file)
    names = list(dict.fromkeys([*table.index, *table["with"]]))
    figure, panels = style.new_figure(12.5, 0.33 * len(names) + 1.9, 2, sharey=True)
    titles = {"share": "Share of pairs ordered alike (%)", "kappa": "Cohen's kappa of being right (x 100)"}
    for panel, (column, title) in zip(panels, titles.items(), strict=True):
        matrix = table.pivot(columns="with", values=column).reindex(index=names, columns=names)
        shown = 100 * matrix.combine_first(matrix.T).loc[names, names]
        limits = {"vmin": 0 if column == "share" else -100, "vmax": 100}
        colours = "cividis" if column == "share" else "PuOr"
        look: dict[str, Any] = {"annot": True, "fmt": ".0f", "annot_kws": {"fontsize": 7.5}, "cbar": False}
        sns.heatmap(shown, ax=panel, cmap=colours, linewidths=0.5, **look, **limits)
        panel.grid(False)
        panel.set(title=title, xlabel="", ylabel="")
        panel.set_xticklabels([str(i + 1) for i in range(len(names))], rotation=0)
    panels[0].set_yticklabels([f"{style.label(name)}  {i + 1}" for i, name in enumerate(names)], rotation=0)
    widest = [50 * (table[f"{name} high"] - table[f"{name} low"]).max() for name in titles]
    detail = f"{int(table['n'].iloc[0]):,} decided test pairs, seed by seed; on the diagonal each two seeds of an arm "
    detail += "(empty: one seed, or always right); 95 % bootstrap intervals in the table, at the widest "
    detail += f"±{widest[0]:.0f} (share) and ±{widest[1]:.0f} (kappa)"
    return style.finished(figure, "Do the arms order the same pairs?", about(ladder(file)), detail)


def learning_curve_figure(file: Path) -> Figure:
    """Test error over the number of training pairs, with a power law fitted to each arm."""
    table, laws = breakdowns.learning_curves(file), breakdowns.fitted_curves(file)
    figure, (axes,) = style.new_figure(8.5, 4.4)
    for offset, (_, record) in enumerate(table.iterrows()):
        sizes, answers = breakdowns.curve_of(record)
        groups = summaries.prompt_groups(file, answers.shape[2])
        errors = pd.DataFrame([vars(interval_of(1 - part, groups)) for part in answers])
        x = np.array(sizes) * 1.02 ** (offset - (len(table) - 1) / 2)  # so that intervals of arms stand side by side
        style.points(axes, x, errors, offset)
        law = laws[record["asked.arm"]]
        line = law.curve(np.geomspace(sizes[0], sizes[-1], 60))
        look = style.look_of(offset, line=True) | {"ms": 5, "lw": 1.5}
        axes.plot(line["size"], line["estimate"], **look | {"marker": ""})
        name = f"{style.label(record['asked.arm'])}\n{str(law).replace('], ', '],' + chr(10))}"
        axes.plot([], [], label=name, **look)
        axes.fill_between(line["size"], line["low"], line["high"], color=look["color"], alpha=0.12, lw=0)
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.set(xlabel="training pairs (log scale)", ylabel="error: share of test pairs ordered wrongly")
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False)
    seeds = len(table["asked.seeds"].iloc[-1])
    detail = f"{answers.shape[2]:,} decided test pairs, {seeds} seeds (subset, head, order); points and bands: 95 % "
    detail += "bootstrap intervals over seeds and pairs; curve: error = a n^-exponent + floor, by least squares"
    return style.finished(figure, "How error falls with training pairs", about(table), detail)


def calibration_figure(file: Path) -> Figure:
    """Reliability of the Bradley-Terry probability sigmoid(margin), arm by arm."""
    table = ladder(file)
    figure, (axes,) = style.new_figure(7.2, 4.2)
    axes.plot([0.5, 1], [0.5, 1], color="0.5", ls=":", lw=1, label="perfectly calibrated")
    for offset, arm in enumerate(compared(table, file)):
        margin = margins(table, arm).ravel()
        bins = statistics.calibration_table(margin, bins=8)
        area = 300 * bins["n"] / bins["n"].sum()
        bins = bins[bins["n"] >= FEWEST]
        distance = statistics.expected_calibration_error(margin, bins=8)
        name = f"{style.label(arm)}\nECE {distance:.3f}"
        axes.plot(bins["confidence"], bins["accuracy"], ms=3, lw=1.2, label=name, **style.look_of(offset))
        axes.scatter(bins["confidence"], bins["accuracy"], s=area[bins.index], **style.look_of(offset))
    axes.set(xlabel="confidence: sigmoid of |margin|", ylabel="accuracy")
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False)
    pooled = f"all seeds pooled; 8 bins of equal width, drawn from {FEWEST} pairs on; area of a point: share of pairs"
    error = "ECE, expected calibration error: mean distance from the diagonal over all bins"
    return style.finished(figure, "Is the margin a probability?", about(table), pooled, error)


def sweep_figure(file: Path) -> Figure:
    """ExPO: accuracy over the extrapolation factor, on the selection split and wherever else a sweep was recorded."""
    table = ladder(file)
    table = table[table["name"] == "bt_scaled_init_expo"]
    if table.empty:
        raise RecordError(f"{file.name}: no record of bt_scaled_init_expo; run notebook 03")
    if "outcome.factor" not in table:
        raise RecordError(f"{file.name}: each fold has a factor of its own, and one figure would show none of them")
    parts = [("Selection split: where the factor is chosen (ring)", table)]
    for kind, name in SWEPT_BESIDE.items():
        swept = summaries.optional(file, kind)
        swept = swept if swept.empty else swept[swept["asked.comparison"] == table["asked.comparison"].iloc[-1]]
        parts += [] if swept.empty else [(name, swept)]
    figure, panels = style.new_figure(3.8 * len(parts) + 2, 3.4, len(parts), sharey=True)
    for panel, (name, rows) in zip(panels, parts, strict=True):
        for offset, row in enumerate(rows.to_dict(orient="records")):
            sweep = pd.DataFrame(row["outcome.sweep"]).set_index("factor")["accuracy"]
            look = style.look_of(offset, line=True)
            panel.plot(sweep.index, sweep, label=f"seed {row['seed']}", ms=4, **look)
            if rows is table:
                best = row["outcome.factor"]
                panel.plot(best, sweep[best], "o", ms=11, mfc="none", color=look["color"])
        panel.axvline(1, color="0.5", lw=1, ls=":")
        panel.set(title=name, xlabel="factor (1: the strong model; the paper took 1.52)")
    panels[0].set_ylabel("accuracy")
    seeds = panels[0].get_legend_handles_labels()  # others may show fewer
    panels[-1].legend(*seeds, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
    detail = "weak: regression, strong: scaled BT from it; weights are weak + factor x (strong - weak)"
    return style.finished(figure, "ExPO: how far to walk past the strong model", about(table), detail)


def affine_figure(file: Path) -> Figure:
    """Do calibrated rewards read as ratings? Mean rating over the reward, in bins of equally many responses."""
    table = records.read(file, kind="affine")
    table = table[table["asked.comparison"].isin(ladder(file)["asked.comparison"].unique())]
    if table.empty:
        raise RecordError(f"{file.name}: no affine fit of the comparison shown; run notebook 03")
    figure, (axes,) = style.new_figure(7.2, 4)
    for offset, row in enumerate(table.to_dict(orient="records")):
        bins = pd.DataFrame(row["outcome.bins"])
        r = row["outcome.r"]
        name = f"{style.label(row['asked.arm'])}\n{row['outcome.scale']:.2f} x reward {row['outcome.offset']:+.2f}"
        name += f"\nr={r['estimate']:.2f} [{r['low']:.2f}, {r['high']:.2f}]"
        style.points(axes, bins["reward"], bins, offset, label=name, ls="-", lw=1)
    ends = np.array([axes.get_xlim(), axes.get_ylim()])
    line = [ends.min(), ends.max()]
    axes.plot(line, line, color="0.5", ls=":", lw=1, zorder=0, label="reward equals rating")
    axes.set(xlabel="reward on the rating scale (points, 0-4)", ylabel="mean helpfulness rating (points)")
    axes.legend(loc="upper left", bbox_to_anchor=(1.02, 1), frameon=False)
    n = int(table["outcome.r"].iloc[-1]["n"])
    detail = f"{n:,} rated test responses, seed {table['seed'].iloc[-1]}; bins of equally many responses, "
    detail += "lines: 95 % bootstrap interval of the mean; scale and offset fitted on the selection split"
    return style.finished(figure, "Rewards as ratings, after an affine map", about(ladder(file)), detail)


def inputs_figure(file: Path) -> Figure:
    """What frozen heads read: test accuracy and accuracy at equal length, with intervals."""
    table, runs = breakdowns.inputs_table(file), breakdowns.runs_by_inputs(file)
    newest = next(iter(runs.values()))
    heights = np.arange(len(table))[::-1]
    figure, (axes,) = style.new_figure(8.5, 0.33 * len(table) + 1.5)
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
    detail = f"{arm}, {min(seeds)} to {max(seeds)} seeds; {n:,} decided test pairs; line: 95 % bootstrap interval "
    detail += "over folds and seeds; right: accuracy"
    return style.finished(figure, "What frozen heads read", about(newest), detail, legend=2)
