"""Pictures of aligned policies: gold against proxy, where it ends, win rates, published results."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmlib import records
from rmlib.alignment.titles import BEST_OF_N, LOOKS, METHOD_TITLES, reward_title
from rmlib.experiments.arms import ARMS
from rmlib.figures import alignment_tables
from rmlib.figures.alignment_tables import policy_title
from rmlib.figures.style import COLOURS, MARKERS, beside, finished, forest, looks, new_figure, rows, series
from rmlib.records import RecordError

RL = ("reinforce", "ppo")
ENDING = "_alignment"  # of the names of the files of such records


def curves_figure(file: Path, methods: Sequence[str], *, law: bool = True) -> Figure:
    """Proxy and gold gained over the divergence from the start, a line for each method and reward.

    `law`: beside each gold curve of best of n or reinforcement learning, its fit by the published form.
    """
    table = alignment_tables.curve_table(file)
    table = table[table["method"].isin(methods)]
    if table.empty:
        raise RecordError(f"{file.name}: no run of {', '.join(methods)} in the latest comparison: run notebook 06")
    figure, axes = new_figure(11, 4.4, 2)
    groups = list(alignment_tables.in_order(table).groupby(["method", "arm"], sort=False))
    for number, (key, line) in enumerate(groups):
        method, arm = map(str, key)
        label = reward_title(arm) if len(methods) == 1 else policy_title(method, arm)
        look = _look(method, arm) | {"ms": 5, "lw": 1.4}
        axes[0].plot(line["divergence"], line["proxy"], label=label, **look)
        fitted = law and (method == BEST_OF_N or method in RL) and _draw_law(axes[1], line, look, method == BEST_OF_N)
        axes[1].plot(line["divergence"], line["gold"], **look | ({"ls": ""} if fitted else {}))
        # Bands of so many curves would cover each other: where a curve ends, side by side, a line is enough.
        end, shift = line.iloc[-1], 0.009 * table["divergence"].max() * (number + 1)
        for panel, low, high in zip(axes, ("proxy low", "low"), ("proxy high", "high"), strict=True):
            panel.vlines(end["divergence"] + shift, end[low], end[high], color=look["color"], lw=1.5)
    words = ("proxy gained (sd of the reward)", "gold gained (true points, 0-4 scale)")
    for panel, text in zip(axes, words, strict=True):
        panel.set(xlabel="divergence from the start (KL, nats a response)", ylabel=text)
        panel.axhline(0, color="0.6", lw=0.8)
    names = [METHOD_TITLES[method] for method in methods]
    families = dict.fromkeys(name.split(" ")[-1] if len(names) > 2 else name for name in names)
    ends = "; at the ends, gold: 95 % interval, proxy: all seeds" + ("; curves: fitted" if law else "")
    form = "intervals over seeds and prompts; fitted: the published form of Gao et al., arXiv 2210.10760"
    title = f"Gold against proxy: {' and '.join(families)}"
    return finished(figure, title, _source_title(file), about(table) + ends, form, legend=3)


def _look(method: str, arm: str) -> dict[str, Any]:
    """The look of the reward, and where a method has a loss of its own, its kind of line."""
    own = looks(LOOKS[arm] if arm in LOOKS else ARMS[arm].look, line=True)
    return own | {"ls": {"dpo_margin": "--", "dpo_scaled": ":", "ppo": "-."}.get(method, own["ls"])}


def _draw_law(axes: Axes, line: pd.DataFrame, look: dict[str, Any], best_of_n: bool) -> bool:
    """Draw the form fitted to a curve of gold; False where its points are too few."""
    divergence = line["divergence"].to_numpy()
    try:
        alpha, beta = alignment_tables.scaling_law(divergence, line["gold"].to_numpy(), best_of_n=best_of_n)
    except ValueError:  # too few points, as in a small trial
        return False
    grid = np.linspace(0, divergence.max(), 100)
    fitted = alignment_tables.scaling_curve(grid, alpha, beta, best_of_n=best_of_n)
    axes.plot(grid, fitted, color=look["color"], ls=look["ls"], lw=look["lw"])
    return True


def about(table: pd.DataFrame) -> str:
    """How many prompts and seeds the numbers are of."""
    low, high = table["seeds"].min(), table["seeds"].max()
    seeds = f"{low}" if low == high else f"{low} to {high}"
    n = int(table["n"].max())
    return f"{n} prompts of the selection split, {seeds} seeds"


def _source_title(file: Path) -> str:
    return records.read(file, kind="alignment").iloc[-1]["asked.source"]["title"]


# Each takes the file alone.
best_of_n_figure = partial(curves_figure, methods=[BEST_OF_N])
reinforce_figure = partial(curves_figure, methods=["reinforce"])
other_methods_figure = partial(curves_figure, methods=["ppo", "dpo", "dpo_margin", "dpo_scaled"], law=False)


def over_optimisation_figure(file: Path) -> Figure:
    """For each method and reward: what is gained at the peak of gold, and what is lost from there to the end.

    Where gold falls from the start, peak and gain are 0, and where it rises to the end, the loss is: said, not drawn.
    """
    table = alignment_tables.over_optimisation(file)
    figure, axes = new_figure(11.5, 1.2 + 0.3 * len(table), 3, sharey=True)
    own = list(map(_look, table["method"], table["arm"]))
    panels = {
        "peak of gold (nats; bar: end of the run)": ("peak divergence", "peak low", "peak high"),
        "gained at the peak (points)": ("gain", "gain low", "gain high"),
        "lost from there to the end (points)": ("loss", "loss low", "loss high"),
    }
    axes[1].sharex(axes[2])
    for panel, end, (words, columns) in zip(axes, ("", "start", "end"), panels.items(), strict=True):
        none = (table[["gain low", "gain", "gain high"] if end != "end" else list(columns)] == 0).all(axis=1)
        titles = list(map(policy_title, table["method"], table["arm"]))
        heights = forest(panel, table.mask(none), words, words=titles, chance=0, columns=columns, own=own)
        look: dict[str, Any] = {
            "transform": panel.get_yaxis_transform(),
            "va": "center",
            "fontsize": 7.5,
            "color": "0.4",
        }
        for height in heights[none] if end else ():
            panel.text(0.03, height, f"none: highest at the {end}", **look)
    axes[0].scatter(table["end divergence"], heights, marker="|", c="0.4", s=60)
    detail = f"{about(alignment_tables.curve_table(file))}; lines: 95 % over seeds and prompts"
    how = "peak chosen on one half of the prompts, read on the other"
    return finished(figure, "How far a reward can be followed", _source_title(file), detail, how)


def win_rates_figure(file: Path) -> Figure:
    """Win rates over the start by each reader, as counted and at equal length, with the lengths beside them."""
    table = alignment_tables.win_rate_table(file)
    readers, titles = (list(dict.fromkeys(table[name])) for name in ("reader", "title"))
    height_of = {name: height for height, name in enumerate(reversed(titles))}  # not every reader reads every policy
    figure, axes = new_figure(11, 1.6 + 0.28 * len(titles), len(readers), sharey=True, sharex=True)
    for panel, reader in zip(axes, readers, strict=True):
        part = table[table["reader"] == reader]
        heights = part["title"].map(height_of).to_numpy(dtype=float)
        for number, name in enumerate(("win rate", "at equal length")):
            if name not in part:  # of a small trial, too few answers to tell
                continue
            columns, (colour, marker, _) = (name, f"{name} low", f"{name} high"), series(number)
            rows(panel, heights + 0.12 - 0.24 * number, part, colour, columns=columns, marker=marker, s=20, label=name)
        panel.axvline(0.5, color="0.6", lw=0.8)
        panel.set_xlabel(f"win rate by {reader}")
        panel.set_yticks(list(height_of.values()), list(height_of))
        panel.grid(axis="y", visible=False)
    lengths = table.drop_duplicates("title").set_index("title")["length"]
    beside(axes[-1], map(float, height_of.values()), [f"{lengths[name]:.0f} chars" for name in height_of])
    start, n = table["length before"].mean(), int(table["prompts"].max())
    detail = f"{n} test prompts, up to {int(table['seeds'].max())} seeds; lines: 95 % over prompts; ties count half; "
    detail += f"the start writes {start:.0f} characters"
    return finished(figure, "Against the policy that it started as", _source_title(file), detail, legend=2)


def published_alignment_figure(_: Path | None = None) -> Figure:
    """Published results of aligned 70B models against the length of their answers."""
    table = records.published("alignment")
    panels = {
        "mt_bench": "MT-Bench (1-10)", "alpacaeval2_lc": "AlpacaEval 2, at equal length (%)",
        "arena_hard": "Arena Hard (%)",
    }  # fmt: skip
    figure, axes = new_figure(11, 3.8, 3)
    for panel, (column, words) in zip(axes, panels.items(), strict=True):
        for colour, (kind, part) in zip(COLOURS, table.groupby("type", sort=False), strict=False):
            for marker, row in zip(MARKERS, part.to_dict("records"), strict=False):
                look = {"color": colour, "marker": marker, "label": f"{row['model']} ({kind})"}
                panel.scatter(row["mean_length_chars"], row[column], s=34, **look)
        panel.set(xlabel="mean length (characters of MT-Bench answers)", ylabel=words)
    citation = str(table["citation"].iloc[0])
    return finished(figure, "Published: aligned policies of 70B, and others", citation, legend=3)


FIGURES: dict[str, Callable[[Path], Figure]] = {
    "best_of_n": best_of_n_figure, "reinforce": reinforce_figure, "ppo_and_dpo": other_methods_figure,
    "over_optimisation": over_optimisation_figure, "win_rates": win_rates_figure,
}  # fmt: skip


def ends_told(file: Path, method: str) -> str:
    """Gold where each curve of a method ends, as a sentence."""
    table = alignment_tables.curve_table(file)
    ends = table[table["method"] == method].groupby("arm", sort=False).tail(1)
    lines = [f"{reward_title(row['arm'])} {_with_bounds(row, 'gold', 'low', 'high')}" for _, row in ends.iterrows()]
    return f"gold at the end of each curve, in points over the start: {'; '.join(lines)}"


def over_optimisation_told(file: Path, methods: Sequence[str] = (BEST_OF_N, "reinforce")) -> str:
    """How many curves fall clearly from their peak, and under which reward the peak is latest and highest."""
    table = alignment_tables.over_optimisation(file)
    table = table[table["method"].isin(methods)]
    fell = table[table["over-optimised"]]
    names = "; ".join(f"{METHOD_TITLES[row['method']]}, {reward_title(row['arm'])}" for _, row in fell.iterrows())
    text = f"gold fall clearly from its peak in {len(fell)} of {len(table)} curves ({names or 'none'}). "
    for method, part in table.groupby("method", sort=False):
        latest, highest = (part.iloc[int(part[name].to_numpy().argmax())] for name in ("peak divergence", "gain"))
        text += f"{METHOD_TITLES[str(method)]}: the latest peak under *{reward_title(latest['arm'])}* "
        text += f"({latest['peak divergence']:.1f} nats [{latest['peak low']:.1f}, {latest['peak high']:.1f}]), the "
        text += f"most gold at a peak under *{reward_title(highest['arm'])}* "
        text += f"({_with_bounds(highest, 'gain', 'gain low', 'gain high')} points). "
    return text


def win_rates_told(file: Path, one: str, other: str) -> str:
    """How much more often one reader prefers the new answers than another does, as a sentence."""
    table = alignment_tables.win_rate_table(file)
    first, second = (table[table["reader"] == name].set_index("title")["win rate"] for name in (one, other))
    gap = (first - second).dropna()
    return (
        f"{one} prefer the new answers {gap.mean():+.2f} more often than {other} does, on average over {len(gap)} "
        f"policies; the most for *{gap.idxmax()}* ({gap.max():+.2f})"
    )


def _with_bounds(row: pd.Series, estimate: str, low: str, high: str) -> str:
    return f"{row[estimate]:+.2f} [{row[low]:+.2f}, {row[high]:+.2f}]"
