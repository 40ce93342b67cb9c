"""Tables of a comparison against hand arithmetic on four pairs, and the choice of the records that go into them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import written
from scipy.stats import ttest_1samp
from statsmodels.stats.multitest import multipletests

from rmlib import records, statistics
from rmlib.figures import summaries
from rmlib.records import RecordError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written.write_comparison(tmp_path / "simulated-embedded.jsonl")


# --- accuracies and differences ---------------------------------------------------------------------------------------


def test_accuracies_are_means_over_pairs_and_seeds_and_a_tie_is_wrong(file: Path) -> None:
    table = summaries.arms_table(file)
    assert table["estimate"].tolist() == [0.625, 0.375, 0.875, 0.875, 1.0, 0.5, 0.25]
    assert table["seeds"].tolist() == [2] * 6 + [1] and set(table["n"]) == {4}
    assert table.loc["bt_scaled_init", "title"] == "Scaled BT, from regression"


def test_intervals_are_the_bootstrap_s_over_seeds_and_pairs(file: Path) -> None:
    right, prompts = np.array([[1, 1, 0, 0], [1, 1, 1, 0]]), np.arange(4)
    interval = statistics.bootstrap_interval(right, seed=summaries.BOOTSTRAP_SEED, groups=prompts)
    assert summaries.arms_table(file).loc["regression", ["low", "high"]].tolist() == [interval.low, interval.high]


def test_differences_are_paired_with_the_exact_p_of_mcnemar_beside_theirs(file: Path) -> None:
    row = summaries.differences_table(file).loc["bt_scaled"]
    assert row["against"] == "bt" and row["estimate"] == pytest.approx(0.875 - 0.375)
    # Over two seeds scaled BT is right 0, 1, 2 and 1 times more often on the four pairs. Of the 8 ways to give signs
    # to 1, 2 and 1, two reach a sum of 4 in size.
    assert row["p (McNemar)"] == pytest.approx(2 / 8) and row["p"] >= 2 / 8 and row["low"] <= 0 <= row["high"]


def test_one_seed_is_mcnemar_s_test(tmp_path: Path) -> None:
    written.write_arm(tmp_path / "a.jsonl", "bt", [[-1] * 6 + [1] * 4])
    written.write_arm(tmp_path / "a.jsonl", "bt_scaled", [[1] * 10])
    row = summaries.differences_table(tmp_path / "a.jsonl").loc["bt_scaled"]
    assert row["estimate"] == pytest.approx(0.6) and row["p (McNemar)"] == pytest.approx(2 * 0.5**6)
    assert row["p"] == pytest.approx(max(2 * 0.5**6, ttest_1samp([1] * 6 + [0] * 4, 0).pvalue))


def test_p_values_are_adjusted_over_the_comparisons_asked_for(file: Path) -> None:
    table = summaries.compare(file, [("bt_scaled", "bt"), ("bt_scaled_init_expo", "bt")])
    # Against bt, ExPO is right 0, 1, 2 and 2 times more often: 2 of 8 ways again.
    assert table["p (McNemar)"].tolist() == pytest.approx([0.25, 0.25])
    assert table["p (Holm)"].tolist() == pytest.approx(multipletests(table["p"], method="holm")[1])
    assert table["against"].tolist() == ["bt", "bt"]


def test_an_estimate_is_shown_with_its_interval_as_a_share_or_in_points() -> None:
    row = {"estimate": 0.0214, "low": -0.004, "high": 0.03, "n": 7}
    assert summaries.shown(row) == "0.021 [-0.004, 0.030]"
    assert summaries.shown(row, points=True) == "+2.1 [-0.4, +3.0]"


def test_arms_of_unequal_numbers_of_seeds_are_compared_over_the_shared_ones(tmp_path: Path) -> None:
    written.write_arm(tmp_path / "a.jsonl", "bt", [[1, -1], [-1, -1], [-1, -1]])
    written.write_arm(tmp_path / "a.jsonl", "bt_scaled", [[1, 1]])
    assert summaries.differences_table(tmp_path / "a.jsonl").loc["bt_scaled", "estimate"] == pytest.approx(0.5)


def test_every_arm_stands_against_the_parent_that_it_changes(file: Path) -> None:
    against = summaries.differences_table(file)["against"].to_dict()
    assert against == {
        "bt_scaled": "bt",
        "bt_scaled_init": "bt_scaled",
        "bt_scaled_init_expo": "bt_scaled_init",
        "bt_shuffled": "bt",
    }


def test_an_arm_alone_has_no_difference(tmp_path: Path) -> None:
    written.write_arm(tmp_path / "a.jsonl", "bt_init", [[1, -1]])
    with pytest.raises(RecordError, match="no arm together with its parent"):
        summaries.differences_table(tmp_path / "a.jsonl")


# --- which records ----------------------------------------------------------------------------------------------------


def test_the_ladder_keeps_the_latest_comparison_alone_in_the_order_of_the_paper(file: Path) -> None:
    written.write_arm(file, "bt", [[1, 1]], comparison="second")
    written.write_arm(file, "regression", [[1, -1]], comparison="second")
    table = summaries.ladder(file)
    assert table["name"].tolist() == ["regression", "bt"] and set(table["asked.comparison"]) == {"second"}


def test_fine_tuned_arms_stand_beside_frozen_ones_and_against_them(tmp_path: Path) -> None:
    written.write_arm(tmp_path / "a.jsonl", "bt", [[1, -1, -1]], preset="finetuned", comparison="old")
    written.write_arm(tmp_path / "a.jsonl", "bt", [[1, 1, -1]], preset="finetuned", comparison="fine")
    written.write_arm(tmp_path / "a.jsonl", "bt", [[1, -1, -1]], preset="frozen", comparison="frozen")
    table = summaries.arms_table(tmp_path / "a.jsonl")
    assert table["estimate"].round(3).to_dict() == {"bt": 0.333, "bt_finetuned": 0.667}
    assert table.loc["bt_finetuned", "title"] == "Regular BT, fine-tuned"
    assert summaries.differences_table(tmp_path / "a.jsonl").loc["bt_finetuned", "against"] == "bt"


def test_rulers_of_other_pairs_are_left_out(file: Path) -> None:
    written.write_ruler(file, "shorter", [1, 1, 1])
    written.write_ruler(file, "random", [1, 1, 1, 1], source=written.DERIVED)
    assert summaries.arms_table(file).index[-1] == "longer" and "shorter" not in summaries.arms_table(file).index


def test_the_newest_record_of_a_kind_counts_and_a_missing_kind_is_an_error_or_empty(file: Path) -> None:
    records.append(file, kind="test_pairs", asked={"other": 1}, outcome={"strength": [3]})
    assert summaries.latest(file, "test_pairs")["outcome.strength"] == [3]
    assert summaries.optional(file, "nothing").empty
    with pytest.raises(RecordError, match="no record of kind 'nothing'"):
        summaries.latest(file, "nothing")


# --- other tables -----------------------------------------------------------------------------------------------------


def test_ratings_are_averaged_in_bins_of_equally_many_responses() -> None:
    rewards = [0.0, 3.0, 1.0, 2.0, 9.0]
    table = summaries.rating_by_reward(rewards, [1.0, 4.0, 2.0, 3.0, np.nan], bins=2)
    assert table["reward"].tolist() == [0.5, 2.5] and table["estimate"].tolist() == [1.5, 3.5]
    assert table["n"].tolist() == [2, 2] and (table["low"] <= table["estimate"]).all()


def test_equal_rewards_still_fill_every_bin() -> None:
    assert summaries.rating_by_reward([1.0] * 6, np.arange(6.0), bins=3)["n"].tolist() == [2, 2, 2]


def test_the_paper_s_score_stands_beside_this_run_s_accuracy(file: Path) -> None:
    table = summaries.paper_and_this_run(file)
    row = table.loc["Scaled BT, from regression, ExPO"]
    assert row["published: RewardBench, 70B"] == 94.1 and row["this run: held-out accuracy"] == 100.0
    assert table.loc["Regular BT", "this run: held-out accuracy"] == 37.5
    assert table.loc["Margin BT"].isna()["this run: held-out accuracy"]  # not run, still in the table


def test_provenance_counts_the_records_and_seconds_of_each_origin(file: Path) -> None:
    table = summaries.provenance_table(file).set_index("kind")
    assert table.loc["arm", "records"] == 16 and table.loc["arm", "seconds"] == pytest.approx(16 * 1.5)
    assert table["records"].sum() == len(records.read(file))
    newest = records.read(file).iloc[-1]
    assert table.loc["affine", "commit"] == newest["commit"] and "cores" in table.loc["affine", "hardware"]
    assert f"numpy {np.__version__}" in table.loc["affine", "packages"]


# --- ensembles and choices --------------------------------------------------------------------------------------------


def test_accuracy_by_uncertainty_by_hand() -> None:
    # Both members have a root mean square of 2: they agree on the first two pairs and contradict on the other two.
    margins = np.array([[2.0, 2.0, 2.0, -2.0], [2.0, 2.0, -2.0, 2.0]])
    table = summaries.accuracy_by_uncertainty(margins, bins=2)
    assert table["uncertainty"].tolist() == [0.0, 1.0] and table["estimate"].tolist() == [1.0, 0.0]
    assert table["n"].tolist() == [2, 2]
    wilson = statistics.wilson_interval(2, 2)
    assert (table["low"][0], table["high"][0]) == (wilson.low, wilson.high)


def test_disagreement_over_the_mean_margin_by_hand() -> None:
    # Root mean squares of 1. Pair 1: margins 1.4 and 1.0, so 0.2 / 1.2; pair 2: -0.2 and -1.0, so 0.4 / 0.6.
    first, second = np.array([1.4, -0.2]), np.array([1.0, -1.0])
    table = summaries.accuracy_by_uncertainty([first, second], bins=2, relative=True)
    assert table["uncertainty"].tolist() == pytest.approx([0.2 / 1.2, 0.4 / 0.6])
    assert table["estimate"].tolist() == [1.0, 0.0]


def test_a_member_s_scale_does_not_count_and_agreement_beyond_scale_is_certain() -> None:
    margins = np.random.default_rng(0).normal(size=20)
    table = summaries.accuracy_by_uncertainty([margins, 100 * margins], bins=4)
    np.testing.assert_allclose(table["uncertainty"], 0, atol=1e-12)
    assert table["n"].sum() == 20
    assert (table["estimate"] * table["n"]).sum() == pytest.approx((margins > 0).sum())


def test_one_member_cannot_disagree_and_one_without_margins_is_refused() -> None:
    with pytest.raises(ValueError, match="two members or more"):
        summaries.accuracy_by_uncertainty([[1.0, 2.0]])
    with pytest.raises(ValueError, match=r"members \[1\] give no pair a margin"):
        summaries.accuracy_by_uncertainty([[1.0, 2.0], [0.0, 0.0]])


# --- made once --------------------------------------------------------------------------------------------------------


def test_a_table_is_made_anew_only_where_its_file_has_changed(tmp_path: Path) -> None:
    file, made = tmp_path / "a.jsonl", []

    @summaries.kept
    def table(path: Path) -> pd.DataFrame:
        made.append(path.read_text())
        return pd.DataFrame({"length": [len(made[-1])]})

    file.write_text("one")
    table(file)["length"] = 0  # a copy: what a reader does to it is not seen by others
    assert table(file)["length"].tolist() == [3] and made == ["one"]
    file.write_text("three")
    assert table(file)["length"].tolist() == [5] and made == ["one", "three"]
    with pytest.raises(FileNotFoundError):
        table(tmp_path / "b.jsonl")
