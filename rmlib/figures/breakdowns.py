"""Tables behind an accuracy, made from records: strata, equal length, agreement, temperature, size, inputs."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from rmlib import records, statistics
from rmlib.experiments.arms import ARMS, FINETUNED, title
from rmlib.figures import summaries
from rmlib.figures.summaries import BOOTSTRAP_SEED, answers_of, by_seed, columns_of, interval_of, kept, ladder, margins
from rmlib.records import RecordError
from rmlib.statistics import Interval, PowerLaw, Temperature
from rmlib.statistics.intervals import matched_seeds

LENGTH_BINS = 5  # of equally many pairs
RULERS = ("longer", "bag of words")  # beside the arms where all rulers would crowd a plot or table
CHOSEN = "chosen in each fold on its selection pairs"  # a row of `inputs_table`
STRENGTHS = {1: "slightly better", 2: "better", 3: "much better"}


def strata(file: Path, n: int) -> dict[str, pd.Series]:
    """Strata of the n decided test pairs, by property: an ordered categorical, missing where a pair has none.

    Properties: strength of the preference; rating gap (helpfulness of chosen minus rejected, rounded, in points);
    length gap (chosen minus rejected in characters, in fifths). A property that no pair has is left out.
    """
    pairs = summaries.described_pairs(file, n)
    missing = {"strength", "helpfulness_difference", "chars_difference"} - set(pairs)
    if missing:
        raise RecordError(f"{file.name}: the newest test_pairs record lacks {sorted(missing)}; run notebook 02")
    gap = pairs["helpfulness_difference"].astype(float).round()
    levels = sorted(gap.dropna().unique())
    names = {level: f"{level:+.0f}" if level else "0" for level in levels}
    fifths = pd.qcut(pairs["chars_difference"], LENGTH_BINS, duplicates="drop")
    ranges = [f"{edge.left:+,.0f} to {edge.right:+,.0f}" for edge in fifths.cat.categories]
    return {
        "strength": pd.Series(pd.Categorical(pairs["strength"].map(STRENGTHS), list(STRENGTHS.values()), ordered=True)),
        **({"rating gap": pd.Series(pd.Categorical(gap.map(names), list(names.values())))} if levels else {}),
        "length gap": fifths.cat.rename_categories(ranges),
    }


@kept
def strata_table(file: Path) -> pd.DataFrame:
    """Accuracy of every arm and ruler by property of the test pairs: arm, property, stratum, estimate, low, high, n."""
    answers, groups = answers_of(file)
    n = len(groups)
    rows = []
    for name, strata_of in strata(file, n).items():
        codes = strata_of.cat.codes.to_numpy()
        known = codes >= 0
        for arm, values in answers.items():
            part = by_seed(values[:, known] > 0)
            table = statistics.accuracy_by_stratum(part, codes[known], seed=BOOTSTRAP_SEED, groups=groups[known])
            table.insert(0, "stratum", strata_of.cat.categories[table.index])
            rows.append(table.assign(arm=arm, property=name))
    columns = ["arm", "property", "stratum", "estimate", "low", "high", "n"]
    return pd.concat(rows)[columns].set_index("arm")


@kept
def length_table(file: Path) -> pd.DataFrame:
    """Accuracy of every arm and ruler beside its accuracy at equal length, both with 95 % intervals."""
    answers, groups = answers_of(file)
    rows = []
    for arm, values in answers.items():
        row = {"arm": arm, "title": title(arm), "n": len(groups)}
        for name, interval in _beside_equal_length(file, values).items():
            row |= {f"{name} {key}": value for key, value in vars(interval).items() if key != "n"}
        rows.append(row)
    return pd.DataFrame(rows).set_index("arm")


def _beside_equal_length(file: Path, values: Float[np.ndarray, "seed pair"]) -> dict[str, Interval]:
    """What margins of the test pairs are right on, as they are and at equal length."""
    n = values.shape[1]
    right, groups = (values > 0).astype(int), summaries.prompt_groups(file, n)
    length = summaries.described_pairs(file, n)["chars_difference"]
    equal = statistics.length_controlled_accuracy(by_seed(right), length, seed=BOOTSTRAP_SEED, groups=groups)
    return {"accuracy": interval_of(right, groups), "at equal length": equal}


@kept
def agreement_table(file: Path) -> pd.DataFrame:
    """How far each two arms order the test pairs alike: arm, with, share and kappa with 95 % intervals.

    Two arms are compared seed by seed; an arm with itself across its seeds, each two seeds in turn: what training
    anew changes. Of the rulers, length and words stand beside them: a ruler has no seeds and is held against every
    seed of an arm.
    """
    answers, groups = answers_of(file)
    shown = [name for name in answers if name.removesuffix(FINETUNED) in ARMS or name in RULERS]
    rows = []
    for i, name in enumerate(shown):
        values = answers[name]
        for other in shown[i:]:
            if name == other:
                first, second = np.triu_indices(len(values), k=1)
                ours, theirs = values[first], values[second]
            else:
                ours, theirs = matched_seeds(values, answers[other])
            if len(ours):
                both = by_seed(ours), by_seed(theirs)
                found = statistics.agreement(*both, seed=BOOTSTRAP_SEED, groups=groups, draws=500)
                row = {"arm": name, "with": other, "n": found.share.n}
                rows.append(row | columns_of("share", found.share) | columns_of("kappa", found.kappa))
    if not rows:
        raise RecordError(f"{file.name}: one run alone agrees with nothing; run a second arm or seed")
    return pd.DataFrame(rows).set_index("arm")


@kept
def temperature_table(file: Path) -> pd.DataFrame:
    """The temperature that turns each arm's margins into logits, fitted on the selection pairs, and what it mends.

    Columns: temperature with its 95 % interval and the number of selection pairs; calibration error and Brier score of
    the test pairs before and after, and the change in Brier score with its interval (the calibration error, a mean of
    absolute values, is biased in a bootstrap and has none). Seeds share a temperature. Arms whose temperature is 0 or
    infinite keep it in the table, without an "after" for 0.
    """
    table, rows = ladder(file), []
    if "outcome.selection_margins" not in table or table["outcome.selection_margins"].isna().any():
        folds = "of arms read on several folds none are kept, since each fold has pairs and a choice of its own"
        raise RecordError(f"{file.name}: arms without margins of the selection pairs; run notebook 02 again ({folds})")
    groups = summaries.prompt_groups(file, len(table["outcome.margins"].iloc[-1]))
    for arm in table["name"].unique():
        fitted = statistics.fit_temperature(by_seed(margins(table, arm, "selection_margins")), seed=BOOTSTRAP_SEED)
        row = {"arm": arm, "title": title(arm), **columns_of("temperature", fitted), "n": fitted.n}
        rows.append(row | _mended(fitted, margins(table, arm), groups))
    return pd.DataFrame(rows).set_index("arm")


def _mended(fitted: Temperature, on_test: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    """Calibration error and Brier score of test margins before and after a temperature, and the change in Brier."""
    row = {"ECE": statistics.expected_calibration_error(on_test.ravel()), "Brier": statistics.brier(on_test)}
    if fitted.estimate == 0:
        return row
    after = fitted.apply(on_test)
    change = interval_of(statistics.squared_errors(after) - statistics.squared_errors(on_test), groups)
    row |= {"ECE after": statistics.expected_calibration_error(after.ravel()), "Brier after": statistics.brier(after)}
    return row | columns_of("change in Brier", change) | {"n test": change.n}


def ensemble_table(file: Path) -> pd.DataFrame:
    """What the seeds of each trained arm know together: accuracy of one (their mean), of all together, and the gain.

    The gain has its 95 % interval over pairs: it is that of these seeds. Arms of one seed have no ensemble. Raises
    RecordError where every arm has one seed.
    """
    table, rows = ladder(file), []
    for arm in table["name"].unique():
        each = margins(table, arm)
        if len(each) < 2:
            continue
        together = (summaries.ensemble(each)[0] > 0).astype(int)
        gain = interval_of((together - (each > 0).mean(axis=0))[None], summaries.prompt_groups(file, each.shape[1]))
        row = {"arm": arm, "title": title(arm), "seeds": len(each), "one seed": (each > 0).mean()}
        rows.append(row | {"together": together.mean(), **columns_of("gain", gain), "n": gain.n})
    if not rows:
        raise RecordError(f"{file.name}: every arm has one seed; an ensemble needs two")
    return pd.DataFrame(rows).set_index("arm")


def trials_table(file: Path) -> pd.DataFrame:
    """The learning rate that the selection split chose for each trained arm of the latest comparison, by one grid.

    Columns: title, learning_rate (of folds the range), n_trials, at_edge (the smallest or largest rate tried was
    chosen, of some fold at least). Raises RecordError where no choice is recorded.
    """
    rows = _chosen_rates(file)
    if rows.empty:
        raise RecordError(f"{file.name}: no record of chosen learning rates; run notebook 02")
    table = rows.groupby("arm", sort=False).agg(
        lowest=("learning_rate", "min"), highest=("learning_rate", "max"), n_trials=("n_trials", "sum"),
        at_edge=("at_edge", "any"),
    )  # fmt: skip
    ends = zip(table["lowest"], table["highest"], strict=True)
    table.insert(0, "title", [title(str(arm)) for arm in table.index])
    table.insert(1, "learning_rate", [f"{low:g}" if low == high else f"{low:g} to {high:g}" for low, high in ends])
    return table.drop(columns=["lowest", "highest"])


def _chosen_rates(file: Path) -> pd.DataFrame:
    """One row for each arm (and fold): from the grids of the latest comparison, else from choices arm by arm."""
    arms = ladder(file)
    grids = summaries.optional(file, "grid")
    if len(grids) and (current := grids["asked.comparison"].isin(arms["asked.comparison"])).any():
        rows = pd.DataFrame([row for selected in grids.loc[current, "outcome.selected"] for row in selected])
        return rows.drop_duplicates(["arm", "fold"], keep="last")
    choices = summaries.optional(file, "learning_rate")
    if choices.empty:
        return choices
    rows = choices.filter(regex=r"asked.arm|outcome\.").rename(columns=lambda name: name.split(".", 1)[1])
    return rows[rows["arm"].isin(arms["name"])]


def learning_curves(file: Path) -> pd.DataFrame:
    """The newest learning curve of each arm, of the comparison whose curve was recorded last: one record a row."""
    table = records.read(file, kind="learning_curve").sort_values("time", kind="stable")
    table = table[table["asked.comparison"] == table["asked.comparison"].iloc[-1]]
    return table.drop_duplicates("asked.arm", keep="last")


def curve_of(record: pd.Series) -> tuple[list[int], np.ndarray]:
    """Sizes and `[size, seed, pair]` of 0 and 1 of a learning-curve record."""
    points = pd.DataFrame(record["outcome.points"]).set_index(["size", "seed"])["correct"]
    sizes, seeds = record["asked.sizes"], record["asked.seeds"]
    rows = [[[int(digit) for digit in points[size, seed]] for seed in seeds] for size in sizes]
    return sizes, np.array(rows)


def fitted_curves(file: Path) -> dict[str, PowerLaw]:
    """The power law of each arm's newest learning curve."""
    laws = {}
    for _, record in learning_curves(file).iterrows():
        sizes, answers = curve_of(record)
        groups = summaries.prompt_groups(file, answers.shape[2])
        laws[record["asked.arm"]] = statistics.fit_power_law(sizes, answers, seed=BOOTSTRAP_SEED, groups=groups)
    return laws


def learning_curve_table(file: Path) -> pd.DataFrame:
    """Scale, exponent and floor of each arm's power law with 95 % intervals, and what the data do not show."""
    rows = []
    for arm, law in fitted_curves(file).items():
        row = {"arm": arm, "title": title(arm), "n": law.floor.n}
        row |= columns_of("scale", law.scale) | columns_of("exponent", law.exponent) | columns_of("floor", law.floor)
        rows.append(row | {"fall shown": law.fall_is_shown, "floor shown": law.floor_is_shown})
    return pd.DataFrame(rows).set_index("arm")


@kept
def inputs_table(file: Path) -> pd.DataFrame:
    """Accuracy of one arm by what its heads read: on the selection pairs, on the test pairs, and there at equal length.

    The arm that most grids of the file have, each with its newest records; all read the same test pairs. The first row
    takes in each fold the inputs whose heads order its selection pairs best: a result, where the best of the other rows
    would be a choice on the test. Rulers follow. Raises RecordError where no two grids differ in their inputs.
    """
    runs = runs_by_inputs(file)
    found = {CHOSEN: _read(file, _nested(file, runs))}
    for name, table in runs.items():
        selected = [one for training in table["outcome.training"] for one in training["selected"]]
        choices = table["outcome.training"].iloc[0]["selected"]  # the same for every seed
        row = _read(file, _margins(table)) | {"selection accuracy": np.mean([one["accuracy"] for one in selected])}
        found[name] = row | {"at edge": f"{sum(bool(one['at_edge']) for one in choices)} of {len(choices)}"}
    for ruler, values in summaries.rulers_beside(file, next(iter(runs.values())).iloc[-1]).items():
        found[f"ruler: {ruler}"] = _read(file, values)
    return pd.DataFrame.from_dict(found, orient="index").rename_axis("inputs")


def runs_by_inputs(file: Path) -> dict[str, pd.DataFrame]:
    """The newest records on each kind of inputs, one a seed; all of one arm and of the newest one's test pairs.

    The arm is that which most inputs were tried on; of several the first recorded.
    """
    table = records.read(file, kind="arm").sort_values("time", kind="stable")
    if "asked.grid" not in table:
        missing = "no grid of heads on a frozen backbone"
        raise RecordError(f"{file.name}: {missing}; run `python -m rmlib.experiments frozen`")
    table = table[table["asked.grid"].notna() & table["outcome.training"].notna()]
    table = table.assign(inputs=table["asked.grid"].map(described))
    counts = table.groupby("asked.arm", sort=False)["inputs"].nunique()
    if counts.max() < 2:
        raise RecordError(f"{file.name}: no two grids differ in their inputs; run rmlib.experiments with --inputs")
    table = table[table["asked.arm"] == counts.idxmax()]
    table = table[table["asked.source"] == table["asked.source"].iloc[-1]]
    parts = {str(name): part for name, part in table.groupby("inputs", sort=True)}
    return {name: part[part["asked.comparison"] == part["asked.comparison"].iloc[-1]] for name, part in parts.items()}


def described(grid: dict[str, Any]) -> str:
    """The inputs of a grid in words."""
    layer = "last layer" if grid.get("layer") is None else f"layer {grid['layer']}"
    extra = " + surface" if grid.get("surface") else " + log length" if grid["log_length"] else ""
    return layer + extra + (", standardised" if grid["standardise"] else "")


def _margins(table: pd.DataFrame) -> Float[np.ndarray, "seed pair"]:
    return np.array(table["outcome.margins"].tolist(), dtype=float)


def _nested(file: Path, runs: dict[str, pd.DataFrame]) -> Float[np.ndarray, "seed pair"]:
    """Margins of the inputs chosen in each fold by the mean accuracy on its selection pairs."""
    shared = min(len(table) for table in runs.values())
    values = {name: _margins(table)[:shared] for name, table in runs.items()}
    selected = {name: table["outcome.training"].iloc[0]["selected"] for name, table in runs.items()}
    accuracy = pd.DataFrame({name: [one["accuracy"] for one in folds] for name, folds in selected.items()})
    best = accuracy.idxmax(axis=1).tolist()  # one name a fold
    n = next(iter(values.values())).shape[1]
    groups = summaries.described_pairs(file, n).get("group", pd.Series(np.zeros(n, dtype=int))).to_numpy()
    return np.stack([values[best[fold]][:, pair] for pair, fold in enumerate(groups)], axis=1)


def _read(file: Path, values: Float[np.ndarray, "seed pair"]) -> dict[str, Any]:
    """A row of `inputs_table`, without what only grids have."""
    row: dict[str, Any] = {"selection accuracy": np.nan, "at edge": ""}
    for name, interval in _beside_equal_length(file, values).items():
        row |= columns_of(name, interval)
    return row | {"seeds": len(values), "n": values.shape[1]}
