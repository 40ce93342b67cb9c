"""Gold against proxy: what the records of optimisations say about where a reward stops being worth following."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from rmlib import records, statistics
from rmlib.records import RecordError
from rmlib.statistics import Interval, Resamples

BOOTSTRAP_SEED, DRAWS = 0, 1000


def current(file: Path) -> pd.DataFrame:
    """The runs of the latest comparison: columns method, arm, seed, rows (a list of measurements).

    Raises RecordError where there is none.
    """
    table = records.read(file, kind="alignment")
    latest = records.read(file, kind="alignment_comparison").sort_values("time", kind="stable").iloc[-1]
    table = table[table["asked.comparison"] == latest["outcome.comparison"]]
    if table.empty:
        raise RecordError(f"{file.name}: no run of the latest comparison: run notebook 06")
    columns = {"asked.method": "method", "asked.arm": "arm", "outcome.rows": "rows"}
    return table.rename(columns=columns)[["method", "arm", "seed", "rows", "seconds"]]


def gold_gain(runs: pd.DataFrame) -> Float[np.ndarray, "seed point prompt"]:
    """True points gained over the start, of each run, measurement and prompt. Raises RecordError without a truth."""
    rows = runs["rows"].tolist()
    if any("gold" not in row for some in rows for row in some):
        raise RecordError("the runs were not measured by a truth: only simulated prompts have one")
    shortest = min(map(len, rows))
    gold = np.array([[row["gold"] for row in some[:shortest]] for some in rows])
    return gold - gold[:, :1]


def curve_table(file: Path) -> pd.DataFrame:
    """One row for each method, arm and measurement.

    Columns: point (step, or n for best of n), divergence (nats, mean over seeds), gold (points gained over the start)
    with low and high (95 %, over seeds and prompts), proxy (its gain, in standard deviations of the reward among
    answers of the start to one prompt), length (characters), not_ended (share), seeds, n (prompts).
    """
    parts = [
        _curve(str(method), str(arm), runs)
        for (method, arm), runs in current(file).groupby(["method", "arm"], sort=False)
    ]
    return pd.concat(parts, ignore_index=True)


def _curve(method: str, arm: str, runs: pd.DataFrame) -> pd.DataFrame:
    gain, every = gold_gain(runs), runs["rows"].tolist()
    found = []
    for point in range(gain.shape[1]):
        rows = [some[point] for some in every]
        first = [some[0] for some in every]
        proxy = [(row["proxy"] - start["proxy"]) / start["proxy_sd"] for row, start in zip(rows, first, strict=True)]
        found.append(
            {"method": method, "arm": arm, "point": rows[0].get("n", rows[0].get("step"))}
            | {"divergence": float(np.mean([row["divergence"] for row in rows])), "gold": float(gain[:, point].mean())}
            | _bounds(gain[:, point])
            | {"proxy": float(np.mean(proxy)), "length": float(np.mean([row["length"] for row in rows]))}
            | {"not_ended": float(np.mean([row["n not ended"] / row["n samples"] for row in rows]))}
            | {"seeds": len(rows), "n": gain.shape[2]}
        )
    return pd.DataFrame(found)


def _bounds(values: Float[np.ndarray, "seed prompt"]) -> dict[str, float]:
    interval = interval_of(values)
    return {"low": interval.low, "high": interval.high}


def interval_of(values: Float[np.ndarray, "seed prompt"]) -> Interval:
    """95 % bootstrap interval of a mean over seeds and prompts; over prompts alone where there is one seed."""
    table = values[0] if len(values) == 1 else values
    return statistics.bootstrap_interval(table, seed=BOOTSTRAP_SEED, draws=DRAWS)


def over_optimisation(file: Path) -> pd.DataFrame:
    """Of each method and arm: where gold is highest, what is gained there, and what is lost from there to the end.

    The highest point is chosen on one half of the prompts and read on the other, both ways, so that a lucky peak does
    not count as quality and its end as a loss. Columns: `peak divergence` (nats) with an interval over redrawn seeds
    and prompts, `gain` and `loss` (points; a loss is positive) with intervals, `over-optimised` (the interval of the
    loss lies above 0), `agreement` (correlation of gold's gain with the proxy's over the curve's points).
    """
    rows = []
    for (method, arm), runs in current(file).groupby(["method", "arm"], sort=False):
        gain, every = gold_gain(runs), runs["rows"].tolist()
        kl = np.array([[row["divergence"] for row in some[: gain.shape[1]]] for some in every])
        proxy = np.mean([[row["proxy"] for row in some[: gain.shape[1]]] for some in every], axis=0)
        peaks = _peak_draws(gain, kl)
        best, lost = crossed(gain)
        gained, loss = interval_of(best), interval_of(lost)
        rows.append(
            {"method": method, "arm": arm}
            | {"peak divergence": float(kl.mean(axis=0)[gain.mean(axis=(0, 2)).argmax()])}
            | dict(zip(("peak low", "peak high"), np.quantile(peaks, (0.025, 0.975)), strict=True))
            | {"gain": gained.estimate, "gain low": gained.low, "gain high": gained.high}
            | {"loss": loss.estimate, "loss low": loss.low, "loss high": loss.high, "over-optimised": loss.low > 0}
            | {"end divergence": float(kl[:, -1].mean())}
            | {"agreement": _correlation(gain.mean(axis=(0, 2)), proxy), "seeds": len(gain)}
        )
    return pd.DataFrame(rows)


def crossed(
    gain: Float[np.ndarray, "seed point prompt"],
) -> tuple[Float[np.ndarray, "seed prompt"], Float[np.ndarray, "seed prompt"]]:
    """Gain at the peak and what is lost from it to the end; one half of the prompts takes the other's peak."""
    half = np.arange(gain.shape[2]) % 2
    at_peak = np.empty_like(gain[:, 0])
    for side in (0, 1):
        chosen = gain[:, :, half != side].mean(axis=(0, 2)).argmax() if (half != side).any() else -1
        at_peak[:, half == side] = gain[:, chosen][:, half == side]
    return at_peak, at_peak - gain[:, -1]


def _peak_draws(gain: np.ndarray, kl: np.ndarray) -> Float[np.ndarray, "draw"]:
    points = gain.swapaxes(0, 1)
    drawn = Resamples.draw(points, seed=BOOTSTRAP_SEED, draws=DRAWS)
    peaks = np.argmax([drawn.means(point) for point in points], axis=0)
    return (drawn.seeds @ kl)[np.arange(DRAWS), peaks]


def _correlation(x: np.ndarray, y: np.ndarray) -> float | None:
    return float(np.corrcoef(x, y)[0, 1]) if x.std() > 0 and y.std() > 0 else None


def at_divergence(curves: pd.DataFrame, divergence: float) -> pd.Series:
    """Gold gained at a divergence, by linear interpolation, for each (method, arm) whose curve reaches it."""
    found: dict[Any, float] = {}
    for key, part in curves.groupby(["method", "arm"], sort=False):
        line = part.sort_values("divergence")
        if line["divergence"].max() >= divergence:
            found[key] = float(np.interp(divergence, line["divergence"], line["gold"]))
    return pd.Series(found, name=f"gold at {divergence:g} nats", dtype=float)


def scaling_law(divergence: np.ndarray, gain: np.ndarray, *, best_of_n: bool) -> tuple[float, float]:
    """Coefficients `(alpha, beta)` of the published form of such curves, by least squares; d = sqrt(divergence).

    Best of n: `d * (alpha - beta * d)`; reinforcement learning: `d * (alpha - beta * log d)`. Source: Gao, Schulman &
    Hilton, arXiv 2210.10760, section 3. Raises ValueError for fewer than three points away from the start.
    """
    d = np.sqrt(np.maximum(divergence, 0.0))
    away = d > 1e-6
    if away.sum() < 3:
        raise ValueError(f"{int(away.sum())} points away from the start are too few for two coefficients")
    d, y = d[away], np.asarray(gain, dtype=float)[away]
    design = np.stack([d, -d * d if best_of_n else -d * np.log(d)], axis=1)
    (alpha, beta), *_ = np.linalg.lstsq(design, y, rcond=None)
    return float(alpha), float(beta)


def scaling_curve(divergence: np.ndarray, alpha: float, beta: float, *, best_of_n: bool) -> np.ndarray:
    """The gain that the form gives at divergences."""
    d = np.sqrt(np.maximum(divergence, 1e-12))
    return d * (alpha - beta * (d if best_of_n else np.log(d)))
