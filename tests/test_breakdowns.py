"""Tables and figures of strata, equal length, agreement, temperature and learning curves, against hand arithmetic."""

import itertools
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import written
from matplotlib.axes import Axes
from scipy import optimize
from scipy.stats import t

from rmlib import figures, records, statistics
from rmlib.figures import arms, breakdowns, summaries
from rmlib.figures.style import label
from rmlib.records import RecordError


@pytest.fixture(scope="module", autouse=True)
def style() -> None:
    plt.switch_backend("agg")
    figures.set_style()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written.write_comparison(tmp_path / "simulated-embedded.jsonl")


@pytest.fixture
def forty(tmp_path: Path) -> Path:
    """Forty pairs, four a prompt: bt is right on the first thirty, scaled BT on the last thirty; the longer wins 28."""
    file = tmp_path / "forty.jsonl"
    length = [100] * 10 + [-50] * 12 + [300 + i for i in range(18)]
    pairs = {"prompt": [i // 4 for i in range(40)], "strength": [1] * 12 + [2] * 25 + [3] * 3}
    pairs |= {"helpfulness_difference": [None] * 40, "chars_difference": length}
    records.append(file, kind="test_pairs", asked={"source": written.SOURCE}, outcome=pairs)
    for arm, right in (("bt", range(30)), ("bt_scaled", range(10, 40))):
        written.write_arm(file, arm, [[1.0 if i in right else -1.0 for i in range(40)]] * 2)
    written.write_ruler(file, "longer", [float(value) for value in length])
    return file


def points(axes: Axes, name: str) -> list[tuple[float, float]]:
    (line,) = [line for line in axes.lines if str(line.get_label()).startswith(name)]
    return list(zip(line.get_xdata(), line.get_ydata(), strict=True))


def cell(table: object, arm: str, other: str) -> dict:
    (row,) = table.loc[[arm]].query("`with` == @other").to_dict(orient="records")  # type: ignore[attr-defined]
    return row


# --- strata and length ------------------------------------------------------------------------------------------------


def test_accuracy_by_strength_gap_and_length_by_hand(file: Path) -> None:
    table = breakdowns.strata_table(file).loc["regression"]  # right under both seeds: pairs 1 and 2; under one: pair 3
    by = {name: dict(zip(part["stratum"], part["estimate"], strict=True)) for name, part in table.groupby("property")}
    assert by["strength"] == {"slightly better": 1.0, "better": 0.5, "much better": 0.0}
    assert by["rating gap"] == {"0": 1.0, "+1": 1.0, "+2": 0.5}  # the fourth pair is not rated
    assert list(by["length gap"].values()) == [1.0, 1.0, 0.5, 0.0]
    assert (table["low"] <= table["estimate"]).all() and (table["estimate"] <= table["high"]).all()


def test_pairs_of_one_prompt_are_redrawn_together_in_every_interval(forty: Path) -> None:
    prompts = [i // 4 for i in range(40)]
    right = np.array([[i < 30 for i in range(40)]] * 2).astype(int)
    grouped = statistics.bootstrap_interval(right, seed=summaries.BOOTSTRAP_SEED, groups=prompts)
    row = summaries.arms_table(forty).loc["bt"]
    assert (row["low"], row["high"]) == (grouped.low, grouped.high)
    alone = statistics.bootstrap_interval(right, seed=summaries.BOOTSTRAP_SEED)
    assert row["high"] - row["low"] > 1.2 * (alone.high - alone.low)
    difference = summaries.differences_table(forty).loc["bt_scaled"]
    # Prompts 0, 1 and 7 to 9 differ: by 4, 4, 2, 4 and 4, and by 2 the third; the sum 0 is reached by any signs.
    assert difference["p (McNemar)"] == 1 and difference["estimate"] == pytest.approx(0) and difference["p"] > 0.99


def test_a_property_that_no_pair_has_is_left_out_and_small_groups_are_not_drawn(
    forty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = breakdowns.strata_table(forty)
    assert list(table["property"].unique()) == ["strength", "length gap"]
    monkeypatch.setattr(arms, "FEWEST", 10)
    panels = figures.strata_figure(forty).axes
    assert len(panels) == 2
    assert [y for _, y in points(panels[0], "Regular BT")] == [1.0, pytest.approx(18 / 25)]  # not the three pairs
    labels = [label.get_text() for label in panels[0].get_xticklabels()]
    assert labels == ["slightly better\nn=12", "better\nn=25"]
    assert "4 groups of fewer than 10 pairs are not drawn" in figures.strata_figure(forty).get_label()


def test_a_length_ruler_has_nothing_left_at_equal_length(forty: Path) -> None:
    table = breakdowns.length_table(forty)
    assert table.loc["longer", "accuracy estimate"] == pytest.approx(28 / 40)
    assert table.loc["longer", "at equal length low"] < 0.5 < table.loc["longer", "at equal length high"]
    assert table.loc["bt", "accuracy estimate"] == 0.75 and set(table["n"]) == {40}


def test_arms_read_on_other_pairs_and_records_without_lengths_are_refused(file: Path, tmp_path: Path) -> None:
    written.write_arm(file, "bt_margin", [[1.0, 1.0, -1.0]])
    with pytest.raises(RecordError, match="read on different test pairs: .*'bt_margin': 3.*run notebook 02"):
        breakdowns.strata_table(file)
    other = tmp_path / "old.jsonl"
    written.write_arm(other, "bt", [[1.0, -1.0]])
    records.append(other, kind="test_pairs", asked={}, outcome={"strength": [1, 2]})
    with pytest.raises(RecordError, match=r"lacks \['chars_difference', 'helpfulness_difference'\]; run notebook 02"):
        breakdowns.strata_table(other)


# --- agreement --------------------------------------------------------------------------------------------------------


def test_agreement_by_hand(forty: Path) -> None:
    table = breakdowns.agreement_table(forty)
    row = cell(table, "bt", "bt_scaled")
    # Alike on 20 of 40; both are right on three of four, so by chance on 10 of 16.
    assert row["share"] == 0.5 and row["kappa"] == pytest.approx((0.5 - 0.625) / 0.375)
    assert cell(table, "bt", "bt")["share"] == 1  # its seeds agree
    assert cell(table, "bt", "longer")["share"] == (10 + 8) / 40  # both right: pairs 0-9 and 22-29


def test_the_diagonal_is_the_agreement_of_two_seeds(file: Path) -> None:
    row = cell(breakdowns.agreement_table(file), "bt_shuffled", "bt_shuffled")  # margins 1 -1 1 -1 and -1 1 -1 1
    assert row["share"] == 0 and row["kappa"] == pytest.approx(-1)


def test_arms_join_in_the_tree_at_the_share_of_pairs_that_they_order_alike(forty: Path) -> None:
    table = breakdowns.agreement_table(forty)
    names = list(dict.fromkeys([*table.index, *table["with"]]))
    shares = [cell(table, *couple)["share"] for couple in itertools.combinations(names, 2)]
    (axes,) = figures.agreement_of_arms_figure(forty).axes
    joins = sorted(100 - segment[1:3, 0].max() for segment in axes.collections[0].get_segments())
    # The two that agree most join first, the third at its mean share with both.
    assert joins == pytest.approx([100 * (sum(shares) - max(shares)) / 2, 100 * max(shares)])
    ticks = [100 - line.get_xdata()[0] for line in axes.lines if line.get_marker() == "|"]
    assert sorted(ticks)[-1] == 100 and np.isnan(ticks).sum() == 1  # two seeds of an arm; a ruler has one
    assert sorted(text.get_text() for text in axes.get_yticklabels()) == sorted(map(label, names))


def test_two_arms_make_no_tree(tmp_path: Path) -> None:
    for arm in ("bt", "bt_margin"):
        written.write_arm(tmp_path / "a.jsonl", arm, [[1.0, -1.0]])
    with pytest.raises(RecordError, match="2 arms make no clusters"):
        figures.agreement_of_arms_figure(tmp_path / "a.jsonl")


def test_one_run_alone_agrees_with_nothing(tmp_path: Path) -> None:
    written.write_arm(tmp_path / "a.jsonl", "bt", [[1.0, -1.0]])
    with pytest.raises(RecordError, match="run a second arm or seed"):
        breakdowns.agreement_table(tmp_path / "a.jsonl")


# --- power ------------------------------------------------------------------------------------------------------------


def test_the_differences_show_odds_and_what_could_have_been_found(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    written.write_arm(file, "bt", [[1.0] * 60 + [-1.0] * 40])
    written.write_arm(file, "bt_scaled", [[-1.0] * 5 + [1.0] * 70 + [-1.0] * 25])
    row = summaries.differences_table(file).loc["bt_scaled"]
    assert row["estimate"] == pytest.approx(0.1) and row["odds ratio"] == pytest.approx(15 / 5)
    # 15 pairs one way and 5 the other: a standard error of 0.0438, times the quantiles of t with 99 degrees of freedom.
    error = np.std([1] * 15 + [-1] * 5 + [0] * 80, ddof=1) / 10
    assert row[summaries.DETECTABLE] == pytest.approx((t.isf(0.025, 99) + t.isf(0.2, 99)) * error)
    title = figures.differences_figure(file).get_label()
    points_found = 100 * row[summaries.DETECTABLE]
    assert f"80 % power at p=0.05, unadjusted (±{points_found:.1f} to ±{points_found:.1f})" in title


def test_arms_that_are_right_on_the_same_pairs_have_no_odds_and_no_detectable_difference(tmp_path: Path) -> None:
    for arm in ("bt", "bt_scaled"):
        written.write_arm(tmp_path / "a.jsonl", arm, [[1.0, -1.0]])
    row = summaries.differences_table(tmp_path / "a.jsonl").loc["bt_scaled"]
    assert np.isnan([row["odds ratio"], row[summaries.DETECTABLE]]).all() and row["p"] == 1
    words = figures.differences_figure(tmp_path / "a.jsonl").get_label()
    assert "too few test pairs to find any difference" in words


# --- temperature ------------------------------------------------------------------------------------------------------


def test_the_temperature_is_fitted_on_the_selection_pairs_and_judged_on_the_test_pairs(file: Path) -> None:
    table = breakdowns.temperature_table(file)
    found = optimize.minimize_scalar(
        lambda t: np.logaddexp(0, -np.array(written.SELECTION) / t).mean(), bounds=(0.01, 100), method="bounded"
    ).x
    assert table["temperature"].tolist() == pytest.approx([found] * 6, rel=1e-3) and set(table["n"]) == {6}
    row = table.loc["regression"]  # margins 1 or -1, five of eight positive
    brier = [(5 * (1 - p) ** 2 + 3 * p**2) / 8 for p in (1 / (1 + np.exp(-1 / t)) for t in (1, found))]
    assert (row["Brier"], row["Brier after"]) == pytest.approx(brier, abs=1e-4)
    assert row["change in Brier"] == pytest.approx(brier[1] - brier[0], abs=1e-4)
    assert row["change in Brier low"] <= row["change in Brier"] <= row["change in Brier high"]
    assert row["ECE after"] == pytest.approx(abs(5 / 8 - 1 / (1 + np.exp(-1 / found))), abs=1e-4)


def test_records_without_selection_margins_say_what_to_run(file: Path) -> None:
    asked = {"arm": "bt_margin", "preset": "embedded", "comparison": "first", "source": written.SOURCE}
    records.append(file, kind="arm", asked=asked, outcome={"margins": [1.0] * 4, "n_test": 4}, seed=0)
    with pytest.raises(RecordError, match="without margins of the selection pairs; run notebook 02 again"):
        breakdowns.temperature_table(file)


# --- learning curves --------------------------------------------------------------------------------------------------


def test_the_learning_curve_draws_errors_law_and_what_is_not_known(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    written.write_learning_curve(file, "bt", n=400)
    written.write_learning_curve(file, "bt_scaled", (0.5, 0.5, 0.5, 0.5), n=400)
    row = breakdowns.learning_curve_table(file).loc["bt"]
    # 0.5, 0.3, 0.2, 0.15 is 0.1 + 0.4 (n / 100)^-0.5
    assert (row["scale"], row["exponent"], row["floor"]) == pytest.approx((0.4, 0.5, 0.1), abs=1e-3)
    assert row["fall shown"] and row["n"] == 400
    assert not breakdowns.learning_curve_table(file).loc["bt_scaled", "fall shown"]
    (axes,) = figures.learning_curve_figure(file).axes
    drawn = [line.get_ydata() for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata())]
    assert drawn[0].tolist() == pytest.approx(written.CURVE_ERRORS)
    names = [str(line.get_label()) for line in axes.lines]
    assert any(name.startswith("Scaled BT\nerror does not fall with size beyond chance") for name in names)
    assert any(name.startswith("Regular BT\nexponent 0.50 [") for name in names)


def test_the_curves_shown_are_the_newest_of_the_comparison_recorded_last(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    written.write_learning_curve(file, "bt", comparison="old")
    written.write_learning_curve(file, "bt_scaled", comparison="new")
    assert list(breakdowns.fitted_curves(file)) == ["bt_scaled"]


# --- choices and ensembles --------------------------------------------------------------------------------------------


def test_the_rates_shown_are_those_of_the_arms_of_the_latest_comparison(file: Path) -> None:
    written.write_rates(file, {"bt_smoothed": (1e-3, False)})  # an arm that this comparison does not have
    table = breakdowns.trials_table(file)
    assert table["learning_rate"].to_dict() == {"bt": "0.0005", "bt_scaled": "0.001"}
    assert table["n_trials"].sum() == 12 and table["at_edge"].tolist() == [False, True]


def test_the_rates_of_a_grid_come_from_its_record_and_folds_give_a_range(file: Path) -> None:
    selected = [
        {"arm": "bt", "fold": fold, "learning_rate": rate, "at_edge": edge, "n_trials": 8}
        for fold, rate, edge in ((0, 1e-3, False), (1, 1e-2, True))
    ]
    records.append(file, kind="grid", asked={"comparison": "another"}, outcome={"selected": selected[:1]})
    assert breakdowns.trials_table(file).loc["bt", "learning_rate"] == "0.0005"  # of another comparison
    records.append(file, kind="grid", asked={"comparison": "first"}, outcome={"selected": selected})
    table = breakdowns.trials_table(file)
    assert table.loc["bt", ["learning_rate", "n_trials", "at_edge"]].tolist() == ["0.001 to 0.01", 16, True]


def test_a_comparison_without_recorded_rates_says_what_to_run(tmp_path: Path) -> None:
    written.write_arm(tmp_path / "a.jsonl", "bt", [[1, -1]])
    with pytest.raises(RecordError, match="no record of chosen learning rates; run notebook 02"):
        breakdowns.trials_table(tmp_path / "a.jsonl")


def test_seeds_together_are_right_where_their_scaled_margins_sum_to_more_than_0(tmp_path: Path) -> None:
    # Root mean squares 1 and 10: scaled, the second seed weighs as much as the first. Sums: 2, 0, 0, -2, so one of four
    # pairs is right (a tie is not), where the seeds alone are right on two of four each.
    written.write_arm(tmp_path / "a.jsonl", "bt", [[1, 1, -1, -1], [10, -10, 10, -10]])
    row = breakdowns.ensemble_table(tmp_path / "a.jsonl").loc["bt"]
    assert row["one seed"] == 0.5 and row["together"] == 0.25 and row["gain"] == pytest.approx(-0.25)
    assert row["gain low"] <= -0.25 <= row["gain high"]


def test_one_seed_is_no_ensemble(tmp_path: Path) -> None:
    written.write_arm(tmp_path / "a.jsonl", "bt", [[1, -1]])
    for made in (breakdowns.ensemble_table, figures.uncertainty_figure):
        with pytest.raises(RecordError, match="every arm has one seed"):
            made(tmp_path / "a.jsonl")


def test_disagreement_is_drawn_in_groups_of_equally_many_pairs(forty: Path) -> None:
    axes, _ = figures.uncertainty_figure(forty).axes
    assert [y for _, y in points(axes, "Regular BT")] == [
        row for row in summaries.accuracy_by_uncertainty(summaries.margins(summaries.ladder(forty), "bt"))["estimate"]
    ]


def test_disagreement_over_the_mean_margin_stands_beside_it(forty: Path) -> None:
    _, axes = figures.uncertainty_figure(forty).axes
    margins = summaries.margins(summaries.ladder(forty), "bt")
    wanted = summaries.accuracy_by_uncertainty(margins, relative=True)["estimate"].tolist()
    assert wanted == [float(y) for y in axes.lines[0].get_ydata()]
