"""Tables of a comparison, made from its records: accuracies, paired differences, benchmark sections."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rmlib import records, statistics
from rmlib.arms import ARMS, FINETUNED, title
from rmlib.records import RecordError

BOOTSTRAP_SEED = 0
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


def ladder(file: Path) -> pd.DataFrame:
    """Arm records of the latest comparison in a file: one row per `name` and seed, arms in the paper's order.

    The latest fine-tuned runs stand beside a frozen comparison, under names that end in `_finetuned`.
    """
    table = records.read(file, kind="arm").sort_values("time", kind="stable")
    table["beside"] = table["asked.preset"] == "finetuned"
    latest = table.groupby("beside")["asked.comparison"].transform("last")
    table = table[table["asked.comparison"] == latest]
    table["name"] = table["asked.arm"] + np.where(table["beside"], FINETUNED, "")
    position = {name: index for index, name in enumerate([*ARMS, *(name + FINETUNED for name in ARMS)])}
    return table.sort_values(
        ["name", "seed"], key=lambda column: column.map(position) if column.name == "name" else column
    )


def correct(table: pd.DataFrame, arm: str) -> np.ndarray:
    """Which test pairs an arm orders rightly, `[seed, pair]` of 0 and 1."""
    return np.array([np.array(row) > 0 for row in table.loc[table["name"] == arm, "outcome.margins"]]).astype(int)


def interval_of(values: np.ndarray) -> statistics.Interval:
    """95 % bootstrap interval of a mean over `[seed, pair]`; over pairs alone where there is one seed."""
    return statistics.bootstrap_interval(values[0] if len(values) == 1 else values, seed=BOOTSTRAP_SEED)


def arms_table(file: Path) -> pd.DataFrame:
    """Test accuracy of every arm and ruler with its 95 % interval over pairs (and seeds, where there are several)."""
    table = ladder(file)
    rows = []
    for arm in table["name"].unique():
        interval = interval_of(correct(table, arm))
        seeds = int((table["name"] == arm).sum())
        rows.append({"arm": arm, "title": title(arm), "seeds": seeds, **vars(interval)})
    try:
        rulers = records.read(file, kind="ruler").drop_duplicates("asked.ruler", keep="last")
    except RecordError:
        rulers = pd.DataFrame()
    for _, ruler in rulers.iterrows():
        interval = interval_of(np.array([np.array(ruler["outcome.margins"]) > 0]).astype(int))
        rows.append({"arm": ruler["asked.ruler"], "title": ruler["asked.ruler"], "seeds": 1, **vars(interval)})
    return pd.DataFrame(rows).set_index("arm")


def differences_table(file: Path) -> pd.DataFrame:
    """Each arm against the parent that it changes by one thing: paired difference, exact McNemar p, Holm-adjusted p."""
    table = ladder(file)
    present, rows = set(table["name"]), []
    for name in table["name"].unique():
        arm = name.removesuffix(FINETUNED)
        parent = ARMS[arm].parent if name == arm else arm
        if parent is not None and parent in present:
            ours, theirs = (correct(table, each) for each in (name, parent))
            shared = min(len(ours), len(theirs))
            pair = [values[:shared] if shared > 1 else values[0] for values in (ours, theirs)]
            result = statistics.paired_difference(pair[0], pair[1], seed=BOOTSTRAP_SEED)
            rows.append({"arm": name, "against": parent, **vars(result.difference), "p": result.p_value})
    if not rows:
        raise RecordError(f"{file.name}: no arm together with its parent; run both")
    differences = pd.DataFrame(rows).set_index("arm")
    differences["p (Holm)"] = statistics.holm(differences["p"])
    return differences


def benchmark_table(file: Path) -> pd.DataFrame:
    """Section scores of every scored model on the benchmark, 0..1, with intervals: one row per model and section."""
    table = records.read(file, kind="rewardbench")
    rows = []
    for _, record in table.iterrows():
        for section, values in record["outcome.sections"].items():
            shared = {"model": record["asked.model"], "seed": record["seed"], "section": section}
            rows.append(shared | {key: values[key] for key in ("estimate", "low", "high", "n")})
    return pd.DataFrame(rows)


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
