"""Tables of a comparison, made from its records: accuracies, paired differences, choices, provenance."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Num, Shaped
from numpy.typing import ArrayLike

from rmlib import records, statistics
from rmlib.experiments import sweeps
from rmlib.experiments.arms import ARMS, FINETUNED, POSITIONS, title
from rmlib.records import RecordError
from rmlib.statistics import Interval

BOOTSTRAP_SEED = 0
DETECTABLE = "smallest difference (80 % power)"
# Where an arm stands in the paper's table of reward models.
PAPER_ROWS = {
    "regression_all": ("SteerLM regression", "all attributes"),
    "regression": ("SteerLM regression", "helpfulness only"),
    "bt": ("Bradley-Terry", "regular"),
    "bt_margin": ("Bradley-Terry", "margin"),
    "bt_scaled": ("Bradley-Terry", "scaled"),
    "bt_init": ("Bradley-Terry from helpfulness regression", "regular"),
    "bt_margin_init": ("Bradley-Terry from helpfulness regression", "margin"),
    "bt_scaled_init": ("Bradley-Terry from helpfulness regression", "scaled"),
    "bt_scaled_init_expo": ("Bradley-Terry from helpfulness regression", "scaled + ExPO"),
}


def kept(make: Callable[[Path], pd.DataFrame]) -> Callable[[Path], pd.DataFrame]:
    """A function from a file to a table, which makes it again only where the file has changed since.

    A figure and its table, or two figures, share the work.
    """

    @lru_cache(maxsize=4)
    def made(file: Path, state: tuple[int, int] | None) -> pd.DataFrame:
        return make(file)  # where there is no file, it says what is missing

    @wraps(make)
    def found(file: Path) -> pd.DataFrame:
        state = (file.stat().st_mtime_ns, file.stat().st_size) if file.is_file() else None
        return made(file, state).copy()

    return found


def optional(file: Path, kind: str) -> pd.DataFrame:
    """The records of a kind, or an empty table where the file has none."""
    try:
        return records.read(file, kind=kind)
    except RecordError:
        return pd.DataFrame()


def latest(file: Path, kind: str) -> pd.Series:
    """The newest record of a kind; raises RecordError where there is none."""
    return records.read(file, kind=kind).sort_values("time", kind="stable").iloc[-1]


def ladder(file: Path) -> pd.DataFrame:
    """Arm records of the latest comparison in a file: one row per `name` and seed, arms in the paper's order.

    The latest fine-tuned runs stand beside a frozen comparison, under names that end in `_finetuned`.
    """
    table = records.read(file, kind="arm").sort_values("time", kind="stable")
    table["beside"] = table["asked.preset"] == "finetuned"
    current = optional(file, "comparison")
    if current.empty:
        chosen = table.groupby("beside")["asked.comparison"].transform("last")
    else:
        chosen = table["beside"].map(current.set_index("asked.beside")["outcome.comparison"].to_dict())
    table = table[table["asked.comparison"] == chosen]
    table["name"] = table["asked.arm"] + np.where(table["beside"], FINETUNED, "")
    return table.sort_values(
        ["name", "seed"], key=lambda column: column.map(POSITIONS) if column.name == "name" else column
    )


def margins(table: pd.DataFrame, arm: str, of: str = "margins") -> Float[np.ndarray, "seed pair"]:
    """Margins of an arm on the test pairs (`of="selection_margins"`: on the selection pairs)."""
    return np.array(table.loc[table["name"] == arm, f"outcome.{of}"].tolist(), dtype=float)


def by_seed(values: Shaped[np.ndarray, "seed item"]) -> Shaped[np.ndarray, "*any item"]:
    """Values as `statistics` takes them: those of one seed alone have no axis of seeds."""
    return values[0] if len(values) == 1 else values


def interval_of(
    values: Num[np.ndarray, "seed pair"], groups: np.ndarray | None = None, *, draws: int = 2000
) -> Interval:
    """95 % bootstrap interval of a mean over `[seed, pair]`; over pairs alone where there is one seed.

    `groups` (`prompt_groups`) are redrawn together.
    """
    return statistics.bootstrap_interval(by_seed(values), seed=BOOTSTRAP_SEED, groups=groups, draws=draws)


def columns_of(name: str, interval: Interval) -> dict[str, float]:
    """An interval as columns of a table: the estimate by its name, and its bounds."""
    return {name: interval.estimate, f"{name} low": interval.low, f"{name} high": interval.high}


def described_pairs(file: Path, n: int) -> pd.DataFrame:
    """The newest `test_pairs` record of a file as a table, one row for each of the n decided test pairs of its arms.

    Raises RecordError where it is of other pairs.
    """
    outcome = latest(file, "test_pairs").filter(like="outcome.").dropna()
    table = pd.DataFrame({str(name).removeprefix("outcome."): values for name, values in outcome.items()})
    if len(table) != n:
        other = "the newest test_pairs record is of other pairs than the arms'"
        raise RecordError(f"{file.name}: {other}; run notebook 02")
    return table


def prompt_groups(file: Path, n: int) -> np.ndarray:
    """Which of the n decided test pairs belong together: a number for each prompt, or for each fold of several.

    Each pair has its own where the records do not tell: those of earlier versions, and files with rulers alone.
    """
    table = pd.DataFrame() if optional(file, "test_pairs").empty else described_pairs(file, n)
    known = [name for name in ("group", "prompt") if name in table]
    return table[known[0]].to_numpy() if known else np.arange(n)


@kept
def arms_table(file: Path) -> pd.DataFrame:
    """Test accuracy of every arm and ruler with its 95 % interval over pairs (and seeds, where there are several)."""
    answers, groups = answers_of(file)
    rows = [
        {"arm": name, "title": title(name), "seeds": len(each), **vars(interval_of((each > 0).astype(int), groups))}
        for name, each in answers.items()
    ]
    return pd.DataFrame(rows).set_index("arm")


def answers_of(file: Path) -> tuple[dict[str, Float[np.ndarray, "seed pair"]], Shaped[np.ndarray, "pair"]]:
    """Margins of every arm and ruler on the test pairs, and which of these belong together (`prompt_groups`).

    Raises RecordError where arms were read on different numbers of pairs.
    """
    table = ladder(file)
    answers = {str(name): margins(table, name) for name in table["name"].unique()} | rulers_beside(file, table.iloc[-1])
    sizes = {name: values.shape[1] for name, values in answers.items()}
    if len(set(sizes.values())) > 1:
        raise RecordError(f"arms were read on different test pairs: {sizes}; run notebook 02 for all of them")
    return answers, prompt_groups(file, next(iter(sizes.values())))


def rulers_beside(file: Path, arm: pd.Series) -> dict[str, Float[np.ndarray, "1 pair"]]:
    """Margins of each ruler on the test pairs of an arm's record, from its newest record of them."""
    rulers = optional(file, "ruler")
    if rulers.empty:
        return {}
    same = (rulers["asked.source"] == arm["asked.source"]) & (rulers["outcome.n_test"] == arm["outcome.n_test"])
    newest = rulers[same].sort_values("time", kind="stable").drop_duplicates("asked.ruler", keep="last")
    return {ruler["asked.ruler"]: np.array([ruler["outcome.margins"]], dtype=float) for _, ruler in newest.iterrows()}


@kept
def differences_table(file: Path) -> pd.DataFrame:
    """Each arm against the parent that it changes by one thing; columns as in `compare`."""
    names, couples = list(ladder(file)["name"].unique()), []
    for name in names:
        arm = name.removesuffix(FINETUNED)
        parent = ARMS[arm].parent if name == arm else arm
        if parent is not None and parent in names:
            couples.append((name, parent))
    if not couples:
        raise RecordError(f"{file.name}: no arm together with its parent; run both")
    return compare(file, couples)


def compare(file: Path, couples: Sequence[tuple[str, str]]) -> pd.DataFrame:
    """Paired differences in accuracy of (arm, against) over prompts and seeds, as `statistics.crossed_difference`.

    Columns estimate, low, high, n, p and, of the same law, the smallest true difference that would have been found with
    80 % power (NaN: none would); `p (Holm)` over the rows of this table; `p (McNemar)`, which asks of the trained
    models at hand alone; the odds ratio of the pairs that only one of the two orders rightly, with its exact interval
    (NaN where these are none).
    """
    (answers, groups), rows = answers_of(file), []
    for name, against in couples:
        ours, theirs = ((answers[each] > 0).astype(int) for each in (name, against))
        shared = min(len(ours), len(theirs))
        pair = by_seed(ours[:shared]), by_seed(theirs[:shared])
        found, odds = statistics.paired_difference(*pair, groups=groups), statistics.discordant_odds_ratio(*pair)
        row = {"arm": name, "against": against, **vars(found.interval()), "p": found.p_value}
        row |= {"p (McNemar)": statistics.mcnemar(*pair, groups=groups)}
        row |= {"odds ratio": odds.estimate, "odds low": odds.low, "odds high": odds.high}
        detectable = found.detectable()
        rows.append(row | {DETECTABLE: detectable if detectable <= 1 else np.nan})
    differences = pd.DataFrame(rows).set_index("arm")
    differences["p (Holm)"] = statistics.holm(differences["p"])
    return differences


def shown(row: Mapping[str, Any], *, points: bool = False) -> str:
    """An estimate with its interval as text: `0.726 [0.704, 0.747]`; a difference in points: `+2.1 [+0.4, +3.8]`."""
    low, estimate, high = (100 * row[key] if points else row[key] for key in ("low", "estimate", "high"))
    return f"{estimate:+.1f} [{low:+.1f}, {high:+.1f}]" if points else f"{estimate:.3f} [{low:.3f}, {high:.3f}]"


def rating_by_reward(rewards: ArrayLike, ratings: ArrayLike, *, bins: int = 10) -> pd.DataFrame:
    """Mean rating of responses in bins of equally many by reward: columns reward (mean), estimate, low, high, n.

    Responses without a rating (NaN) are left out; the interval is the 95 % bootstrap one over responses.
    """
    table = pd.DataFrame({"reward": np.asarray(rewards), "rating": np.asarray(ratings)}).dropna()
    table["bin"] = pd.qcut(table["reward"].rank(method="first"), min(bins, len(table)), labels=False)
    rows = []
    for _, part in table.groupby("bin"):
        interval = statistics.bootstrap_interval(part["rating"], seed=BOOTSTRAP_SEED)
        rows.append({"reward": part["reward"].mean(), **vars(interval)})
    return pd.DataFrame(rows)


def ensemble(margins: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Margin of each pair by all members together, and their disagreement about it.

    `margins`: `[member, pair]`, as records hold them, chosen minus rejected. Each member's are divided by their root
    mean square, so that none weighs more for its scale; a pair's margin is their mean, its uncertainty their standard
    deviation. Raises ValueError for fewer than two members, who cannot disagree, and for a member whose margins are
    all 0.
    """
    table = np.asarray(margins, dtype=float)
    if table.ndim != 2 or len(table) < 2:
        raise ValueError(f"disagreement needs margins [member, pair] of two members or more, got {table.shape}")
    scale = np.sqrt((table**2).mean(axis=1, keepdims=True))
    if not (scale > 0).all():
        raise ValueError(f"members {np.flatnonzero(~(scale[:, 0] > 0)).tolist()} give no pair a margin: leave them out")
    return (table / scale).mean(axis=0), (table / scale).std(axis=0)


def accuracy_by_uncertainty(margins: ArrayLike, *, bins: int = 5, relative: bool = False) -> pd.DataFrame:
    """Accuracy of an `ensemble` in bins of equally many pairs by the disagreement of its members.

    `relative`: disagreement divided by the size of the mean margin; members disagree by more where margins are large,
    and are right there nevertheless. Columns: uncertainty (mean of the bin), estimate, low, high (Wilson), n. Raises
    ValueError as `ensemble`.
    """
    margin, uncertainty = ensemble(margins)
    if relative:
        uncertainty = uncertainty / np.maximum(np.abs(margin), np.finfo(float).tiny)
    rows = []
    for part in np.array_split(np.argsort(uncertainty, kind="stable"), min(bins, len(margin))):
        interval = statistics.wilson_interval(int((margin[part] > 0).sum()), len(part))
        rows.append({"uncertainty": uncertainty[part].mean(), **vars(interval)})
    return pd.DataFrame(rows)


def factor_choices(file: Path) -> pd.DataFrame:
    """ExPO's factor as chosen on the selection split beside the best one on the test, and on a benchmark, by seed.

    One row for each seed and each sweep recorded beside the choice; columns as in `sweeps.beside`, `optimism` in
    points. Raises RecordError where no such sweep was recorded.
    """
    arms, rows = ladder(file), []
    chosen = arms[arms["name"] == "bt_scaled_init_expo"].set_index("seed")
    for kind, place in (("sweep_on_test", "test"), ("sweep_on_benchmark", "benchmark")):
        for _, row in optional(file, kind).iterrows():
            if row["seed"] in chosen.index and row["asked.comparison"] == chosen["asked.comparison"][row["seed"]]:
                found = sweeps.beside(chosen["outcome.sweep"][row["seed"]], row["outcome.sweep"])
                rows.append({"reported on": place, "seed": row["seed"], **found})
    if not rows:
        raise RecordError(f"{file.name}: no sweep beside a choice of bt_scaled_init_expo; run notebook 03")
    return pd.DataFrame(rows).set_index(["reported on", "seed"])


def provenance_table(file: Path) -> pd.DataFrame:
    """What the records of each kind came from: commit, command, hardware, packages; their number and their seconds."""
    table = records.read(file)
    packages = table.filter(like="packages.").rename(columns=lambda name: name.removeprefix("packages."))
    gpu = table["hardware.gpu"].map(lambda name: "" if name is None else f", {name}")
    where = table["hardware.cpu"] + ", " + table["hardware.cores"].astype(str) + " cores" + gpu
    used = packages.apply(lambda row: ", ".join(f"{name} {version}" for name, version in row.items()), axis=1)
    table = table.assign(hardware=where, packages=used, seconds=table["seconds"].astype(float).fillna(0.0))
    groups = table.groupby(["kind", "commit", "command", "hardware", "packages"], sort=False)
    return groups.agg(records=("record_id", "size"), seconds=("seconds", "sum"), newest=("time", "max")).reset_index()


def paper_and_this_run(file: Path) -> pd.DataFrame:
    """The paper's overall RewardBench score (published, 70B) beside this run's held-out accuracy, both in percent."""
    published = records.published("table1").set_index(["type", "model"])["overall"]
    ours, rows = arms_table(file), []
    for arm, row in PAPER_ROWS.items():
        line: dict[str, Any] = {"arm": ARMS[arm].title, "published: RewardBench, 70B": float(published.to_dict()[row])}
        if arm in ours.index:
            found = 100 * ours.loc[arm, ["estimate", "low", "high"]].astype(float)
            line["this run: held-out accuracy"] = round(found["estimate"], 1)
            line["95 % interval"] = f"{found['low']:.1f} to {found['high']:.1f}"
        rows.append(line)
    return pd.DataFrame(rows).set_index("arm")
