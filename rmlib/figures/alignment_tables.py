"""Tables of aligned policies: gold against proxy, where a reward stops being worth following, win rates."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from rmlib import records
from rmlib.alignment.titles import LOOKS, METHOD_TITLES, reward_title
from rmlib.experiments.arms import POSITIONS
from rmlib.figures.summaries import BOOTSTRAP_SEED, columns_of, interval_of, latest
from rmlib.records import RecordError
from rmlib.statistics import Resamples

DRAWS = 1000  # of a bootstrap


def policy_title(method: str, arm: str) -> str:
    """What a figure calls a policy: how it was trained, and by which reward."""
    return f"{METHOD_TITLES[method]}: {reward_title(arm)}"


def current(file: Path) -> pd.DataFrame:
    """The runs of the latest comparison: columns method, arm, seed, rows (a list of measurements).

    Raises RecordError where there is none.
    """
    columns = {"asked.method": "method", "asked.arm": "arm", "outcome.rows": "rows"}
    table = _of_latest(file, "alignment").rename(columns=columns)
    return table[["method", "arm", "seed", "rows", "seconds"]]


def _of_latest(file: Path, kind: str) -> pd.DataFrame:
    """The records of a kind that belong to the latest comparison; RecordError where none does."""
    table, newest = records.read(file, kind=kind), latest(file, "alignment_comparison")
    table = table[table["asked.comparison"] == newest["outcome.comparison"]]
    if table.empty:
        raise RecordError(f"{file.name}: no record of kind {kind!r} of the latest comparison: run notebook 06")
    return table


def win_rate_table(file: Path) -> pd.DataFrame:
    """The `win_rate` records of the latest comparison, one row for each method, reward and reader, as `in_order`."""
    table = _of_latest(file, "win_rate")
    outcome = table.filter(like="outcome.").rename(columns=lambda name: name.removeprefix("outcome."))
    asked = table[["asked.method", "asked.arm", "asked.reader"]].set_axis(["method", "arm", "reader"], axis=1)
    joined = asked.join(outcome).reset_index(drop=True)
    return in_order(joined.assign(title=list(map(policy_title, joined["method"], joined["arm"]))))


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Rows by method and within it by reward, in the order in which these are declared everywhere."""
    places = {name: place for place, name in enumerate([*METHOD_TITLES, *POSITIONS, *LOOKS])}
    return table.sort_values(["method", "arm"], key=lambda names: names.map(places), kind="stable", ignore_index=True)


def gold_gain(runs: pd.DataFrame) -> Float[np.ndarray, "seed point prompt"]:
    """True points gained over the start, of each run, measurement and prompt. Raises RecordError without a truth."""
    if any("gold" not in row for rows in runs["rows"] for row in rows):
        raise RecordError("the runs were not measured by a truth: only simulated prompts have one")
    gold = _measured(runs, "gold")
    return gold - gold[:, :1]


def _measured(runs: pd.DataFrame, name: str) -> Float[np.ndarray, "seed point *each"]:
    """What was measured under a name at each point of each run, up to the end of the shortest."""
    shortest = runs["rows"].map(len).min()
    return np.array([[row[name] for row in rows[:shortest]] for rows in runs["rows"]], dtype=float)


def curve_table(file: Path) -> pd.DataFrame:
    """One row for each method, arm and measurement.

    Columns: point (step, or n for best of n), divergence (nats, mean over seeds), gold (points gained over the start)
    with low and high (95 %, over seeds and prompts), proxy (its gain, in standard deviations of the reward among
    answers of the start to one prompt) with proxy low and proxy high (the lowest and the highest seed), length
    (characters), not_ended (share), seeds, n (prompts).
    """
    groups = current(file).groupby(["method", "arm"], sort=False)
    return pd.concat([_curve(str(method), str(arm), runs) for (method, arm), runs in groups], ignore_index=True)


def _curve(method: str, arm: str, runs: pd.DataFrame) -> pd.DataFrame:
    gain, proxy, first = gold_gain(runs), _measured(runs, "proxy"), runs["rows"].iloc[0]
    proxy = (proxy - proxy[:, :1]) / _measured(runs, "proxy_sd")[:, :1]
    bounds = [interval_of(gain[:, point], draws=DRAWS) for point in range(gain.shape[1])]
    columns = {
        "method": method,
        "arm": arm,
        "point": [row.get("n", row.get("step")) for row in first[: gain.shape[1]]],
        "divergence": _measured(runs, "divergence").mean(axis=0),
        "gold": [interval.estimate for interval in bounds],
        "low": [interval.low for interval in bounds],
        "high": [interval.high for interval in bounds],
        "proxy": proxy.mean(axis=0),
        "proxy low": proxy.min(axis=0),
        "proxy high": proxy.max(axis=0),
        "length": _measured(runs, "length").mean(axis=0),
        "not_ended": (_measured(runs, "n not ended") / _measured(runs, "n samples")).mean(axis=0),
    }
    return pd.DataFrame(columns).assign(seeds=len(gain), n=gain.shape[2])


def over_optimisation(file: Path) -> pd.DataFrame:
    """Of each method and arm: where gold is highest, what is gained there, and what is lost from there to the end.

    The highest point is chosen on one half of the prompts and read on the other, both ways, so that a lucky peak does
    not count as quality and its end as a loss. Columns: `peak divergence` (nats) with an interval over redrawn seeds
    and prompts, `gain` and `loss` (points; a loss is positive) with intervals, `over-optimised` (the interval of the
    loss lies above 0), `agreement` (correlation of gold's gain with the proxy's over the curve's points).
    """
    rows = []
    for (method, arm), runs in current(file).groupby(["method", "arm"], sort=False):
        gain, kl, proxy = gold_gain(runs), _measured(runs, "divergence"), _measured(runs, "proxy").mean(axis=0)
        peaks = _peak_draws(gain, kl)
        best, lost = crossed(gain)
        loss = interval_of(lost, draws=DRAWS)
        rows.append(
            {"method": method, "arm": arm}
            | {"peak divergence": float(kl.mean(axis=0)[gain.mean(axis=(0, 2)).argmax()])}
            | dict(zip(("peak low", "peak high"), np.quantile(peaks, (0.025, 0.975)), strict=True))
            | columns_of("gain", interval_of(best, draws=DRAWS))
            | columns_of("loss", loss)
            | {"over-optimised": loss.low > 0}
            | {"end divergence": float(kl[:, -1].mean())}
            | {"agreement": _correlation(gain.mean(axis=(0, 2)), proxy), "seeds": len(gain)}
        )
    return in_order(pd.DataFrame(rows))


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


TABLES: dict[str, Callable[[Path], pd.DataFrame]] = {
    "curves": lambda file: curve_table(file).round(4),
    "over_optimisation": lambda file: over_optimisation(file).round(4),
    "win_rates": lambda file: win_rate_table(file).round(4),
}
