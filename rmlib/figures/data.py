"""Pictures of the data, from the records of notebook 01: Figure 1, agreement, annotators, aspects, simulation."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from rmlib import records
from rmlib.figures.style import COLOURS, MARKERS, beside, finished, new_figure, rows
from rmlib.figures.summaries import latest
from rmlib.pairs.descriptions import DIFFERENCES, PREFERENCES
from rmlib.pairs.schema import ATTRIBUTES
from rmlib.records import RecordError

MEASURE = "kappa, quadratic weights"
PUBLISHED = "published, HelpSteer2"
STAGES = ("raw", "three most similar", "processed")
# Which step each published stage stands beside. The sources name the stages without defining them: this is a reading.
PUBLISHED_STAGES = {
    "raw": "raw", "initial": "raw", "improved": "three most similar",
    "processed": "processed", "post-processed": "processed",
}  # fmt: skip
LINE = 1.8  # points: the width of an interval
SIZES = ("1 to 2", "3 to 9", "10 to 29", "30 and more")
MANY = 500  # annotators whose marks would hide each other
_SIZE_EDGES = (0, 2, 9, 29, np.inf)


def figure_1(file: Path) -> Figure:
    """The paper's Figure 1: how preferences go with the difference in helpfulness.

    Raises RecordError where no pair has both a preference and ratings.
    """
    record = latest(file, "pairs")
    counts = np.array(record["outcome.figure_1"])
    if not counts.any():
        raise RecordError(f"{file.name}: no pair has both a preference and ratings: Figure 1 needs data with both")
    figure, (axes,) = new_figure(7.5, 4)
    shares = counts / np.maximum(counts.sum(axis=0, keepdims=True), 1)
    look: dict[str, Any] = {"fmt": "d", "annot_kws": {"fontsize": 9}, "cbar_kws": {"label": "share of the column"}}
    look |= {"cmap": "cividis", "vmin": 0, "vmax": 1, "xticklabels": DIFFERENCES, "yticklabels": PREFERENCES}
    sns.heatmap(shares, annot=counts, ax=axes, **look)
    axes.invert_yaxis()
    axes.tick_params(axis="y", rotation=0)
    axes.set_xlabel("helpfulness of response 2 minus response 1 (points, 0-4 scale)")
    axes.set_ylabel("preference (positive: response 2)")
    source, r = record["asked.source"], record["outcome.r_preference"]["helpfulness"]
    known = f"n={counts.sum():,} with a preference and both ratings" + ("" if r is None else f", Pearson r={r:.2f}")
    of = f"{source['title']}, preferences {source['preferences']}"
    return finished(figure, "Preference against difference in helpfulness", of, known)


def agreement_figure(file: Path) -> Figure:
    """Weighted kappa of preferences and ratings, stage by stage, with the published values of HelpSteer2."""
    record = latest(file, "agreement")
    table = _kappas(record)
    labels = [label for label in ("preference", *ATTRIBUTES) if label in set(table["label"])]
    figure, (axes,) = new_figure(8, 0.75 * len(labels) + 1.1)
    heights = dict(zip(labels, np.arange(len(labels))[::-1], strict=True))
    for step, (stage, colour, marker) in enumerate(zip(STAGES, COLOURS, MARKERS, strict=False)):
        part = table[table["stage"] == stage]
        height = part["label"].map(heights) + 0.24 * (1 - step)
        rows(axes, height, part, colour, LINE, marker=marker, label=stage)
    known = _published().query("label in @labels")
    height = known["label"].map(heights) + 0.24 * (1 - known["stage"].map(STAGES.index))
    axes.scatter(known["kappa"], height, marker="|", s=130, lw=1.8, c="k", zorder=4, label=PUBLISHED)
    axes.set_yticks(list(heights.values()), labels)
    axes.set_xlabel("kappa between annotators (quadratic weights; 0: chance, 1: perfect)")
    axes.set_ylim(-0.6, len(labels) - 0.4)
    axes.grid(axis="y", visible=False)
    n = int(table.loc[table["label"] == labels[0], "n"].max())
    detail = f"{n:,} pairs with annotations; lines: 95 % bootstrap intervals"
    title = "How far annotators agree, step by step"
    return finished(figure, title, record["asked.source"]["title"], detail, legend=4)


def kappa_table(file: Path) -> pd.DataFrame:
    """The parent's Table 1 beside this data: quadratic kappa by label and step, with interval and published value."""
    table = _kappas(latest(file, "agreement")).drop(columns="measure")
    known = _published().rename(columns={"kappa": PUBLISHED})
    return table.merge(known, on=["label", "stage"], how="left").set_index(["label", "stage"])


def _kappas(record: pd.Series) -> pd.DataFrame:
    """The rows of a record of agreement that are drawn."""
    table = pd.DataFrame(record["outcome.rows"])
    return table[(table["measure"] == MEASURE) & table["stage"].isin(STAGES)]


def _published() -> pd.DataFrame:
    """Published kappas by label and by the stage that they stand beside."""
    table = records.published("agreement")
    table = table.assign(stage=table["stage"].map(PUBLISHED_STAGES)).dropna(subset="stage")
    return table[["label", "stage", "kappa"]]


def annotators_figure(file: Path) -> Figure:
    """Estimated quality of annotators against how often others give the same preference, by how much they did."""
    record = latest(file, "annotators")
    table = pd.DataFrame(record["outcome.rows"]).dropna(subset=["agreement", "quality"])
    known = "known" in table and bool(table["known"].notna().any())
    figure, panels = new_figure(9, 3.6, 2 if known else 1, sharey=True)
    sizes = pd.cut(table["annotations"], list(_SIZE_EDGES), labels=list(SIZES))
    columns = [("agreement", "share of others who agree")]
    columns += [("known", str(record["outcome.known"]))] if known else []
    for panel, (column, words) in zip(panels, columns, strict=True):
        panel.set_xlabel(words)
        if len(table) > MANY:  # marks would hide each other
            shades = panel.hexbin(table[column], table["quality"], gridsize=28, cmap="cividis_r", bins="log", mincnt=1)
            continue
        for colour, marker, (size, part) in zip(COLOURS, MARKERS, table.groupby(sizes, observed=True), strict=False):
            panel.scatter(
                part[column], part["quality"], s=18, c=colour, marker=marker, alpha=0.9, label=f"{size} annotations"
            )
    if len(table) > MANY:
        figure.colorbar(shades, ax=list(panels), label="annotators (log scale)")
    panels[0].set_ylabel("estimated quality (share right)")
    details = record["asked.source"]["title"], f"{len(table):,} annotators; quality: Dawid and Skene (1979)"
    several = sizes.nunique() > 1 and len(table) <= MANY
    return finished(figure, "Who annotates well?", *details, legend=4 if several else 0)


def aspects_figure(file: Path) -> Figure:
    """How often justifications mention each aspect, by the strength of the preference they justify."""
    record = latest(file, "justifications")
    table = pd.DataFrame(record["outcome.aspects"]).sort_values("share")
    figure, panels = new_figure(9.5, 0.27 * len(table) + 1.2, 2, sharey=True)
    heights = np.arange(len(table))
    rows(panels[0], heights, table, "0.3", LINE, ("share", "share_low", "share_high"), label="all")
    strengths = [level for level in range(4) if table[f"share_{level}"].notna().any()]
    for colour, marker, level in zip(COLOURS, MARKERS, strengths, strict=False):
        panels[0].scatter(table[f"share_{level}"], heights, c=colour, marker=marker, s=16, label=f"strength {level}")
    rows(panels[1], heights, table, COLOURS[0], LINE, ("difference", "difference_low", "difference_high"))
    panels[1].axvline(0, color="0.5", lw=1, ls=":")
    panels[0].set_yticks(heights, table["aspect"].str.replace("_", " "))
    panels[0].set_xlabel("share of justifications that mention it")
    panels[1].set_xlabel("mean strength with the mention minus without")
    panels[1].locator_params(axis="x", nbins=6)
    n = f"{int(record['outcome.n']):,} justifications"
    detail = f"{n}; lines: 95 % intervals (left Wilson, right bootstrap over pairs)"
    return finished(figure, "What justifications speak of", record["asked.source"]["title"], detail, legend=5)


def simulation_figure(file: Path) -> Figure:
    """Simulated minus published statistics, in units of the tolerance that the calibration aims at."""
    record = latest(file, "simulation")
    table = pd.DataFrame(record["outcome.rows"]).dropna(subset=["published", "tolerance"]).iloc[::-1]
    low, high = (table[bound] - table["published"] for bound in ("low", "high"))
    misfit = pd.DataFrame({"estimate": table["difference"], "low": low, "high": high}).div(table["tolerance"], axis=0)
    figure, (axes,) = new_figure(9, 0.23 * len(table) + 1)
    heights = np.arange(len(table))
    inside = misfit["estimate"].abs() <= 1
    kinds = ((inside, COLOURS[0], "o", "within tolerance"), (~inside, COLOURS[3], "D", "misfit"))
    for chosen, colour, marker, words in kinds:
        if chosen.any():
            rows(axes, heights[chosen], misfit[chosen], colour, LINE, marker=marker, label=words)
    for edge in (-1, 1):
        axes.axvline(edge, color="0.4", ls="--", lw=1)
    axes.set_yticks(heights, table["statistic"])
    axes.set(ylim=(-0.6, len(table) - 0.4), xlabel="simulated minus published, in tolerances (dashed)")
    numbers = zip(table["simulated"], table["published"], strict=True)
    beside(axes, heights, [f"{simulated:.3f} / {published:.3f}" for simulated, published in numbers])
    detail = "lines: 95 % bootstrap intervals; right: simulated / published"
    title = "Simulated against published statistics of HelpSteer2"
    return finished(figure, title, record["asked.source"]["title"], detail, legend=2)
