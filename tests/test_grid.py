"""The grid of arms on a frozen backbone: the heads of single runs, one rule of choice, a test split read once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch
from datasets import Dataset

from rmlib import experiments, figures, records
from rmlib.experiments import derived, grid_fits
from rmlib.experiments.arms import ARMS, changes
from rmlib.experiments.grid import Grid, GridError, GridResult, default_grid, run_grid
from rmlib.experiments.grid_fits import choose
from rmlib.experiments.presets import Preset
from rmlib.figures import summaries
from rmlib.models import RewardModel
from rmlib.pairs import ATTRIBUTES
from rmlib.sources import Splits, load_splits, shuffled_labels
from rmlib.training import create_model, train
from rmlib.training.encoded import Encoded, Scaling
from rmlib.training.head_stacks import Compared
from rmlib.training.settings import TrainSettings

GRID = Grid(learning_rates=(1e-3, 1e-2, 3e-2), weight_decays=(0.0, 0.1), seeds=(0, 1), n_steps=15)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("RMLIB_RESULTS", str(tmp_path / "results"))


@pytest.fixture
def splits(tmp_path: Path) -> Splits:
    """Pairs in HelpSteer2's layout, where more good words mean a higher rating."""
    return load_splits(tiny.write_source(tmp_path / "own"), selection_fraction=0.25)


@pytest.fixture
def preset(tmp_path: Path) -> Preset:
    wanted = TrainSettings(backbone=tiny.save_backbone(tmp_path / "backbone", "llama"), warmup_steps=3)
    return Preset("tiny", wanted, wanted, wanted)


def single_run(
    splits: Splits, preset: Preset, seed: int, point: pd.Series, start: RewardModel | None = None, **changes: object
) -> RewardModel:
    """The training loop itself, given the grid's full batch in the table's order."""
    settings = TrainSettings(
        backbone=preset.backbone,
        trainable="head",
        warmup_steps=3,
        pairs_per_step=len(splits.train),
        max_steps=GRID.n_steps,
        shuffle=False,
        learning_rate=point["learning_rate"],
        weight_decay=point["weight_decay"],
        seed=seed,
        **changes,
    )
    return train(start or create_model(settings), splits.train, settings, progress=False).model


def at(result: GridResult, arm: str) -> pd.Series:
    return result.selected.set_index("arm").loc[arm]


# --- the same as single runs ------------------------------------------------------------------------------------------


TRAINED_ALONE = [
    "bt", "bt_margin", "bt_scaled", "regression", "bt_scaled_regression", "bt_scaled_1_3_10", "bt_scaled_two_layers",
    "bt_smoothed", "bt_soft",
]  # fmt: skip


@pytest.mark.parametrize("arm", TRAINED_ALONE)
def test_the_chosen_heads_and_rewards_are_those_of_single_runs(splits: Splits, preset: Preset, arm: str) -> None:
    splits = with_votes(splits)
    result = run_grid([arm], splits, preset, GRID)
    if arm == "bt_soft":  # nobody voted on the first pair
        splits = replace(splits, train=splits.train.select(range(1, len(splits.train))))
    for index, seed in enumerate(GRID.seeds):
        model = single_run(splits, preset, seed, at(result, arm), **changes(arm))
        weight = result.heads[arm][0].weight[index]
        atol = 5e-4 if arm == "bt_scaled_two_layers" else 1e-4  # a ReLU near 0 turns rounding into a step
        torch.testing.assert_close(weight, model.output_layer.weight.data, atol=atol, rtol=1e-3)
        plain = experiments.score_pairs(model, splits.test)
        ours = result.rewards[arm][index]
        margins = plain[:, 1] - plain[:, 0]
        tolerance = max(2e-3, 1e-3 * float(np.abs(margins).max()))  # two layers reach margins of 20
        np.testing.assert_allclose(ours[:, 1] - ours[:, 0], margins, atol=tolerance)
        if "regression" in arm:
            np.testing.assert_allclose(ours, plain, atol=2e-3)


def with_votes(splits: Splits) -> Splits:
    """The same pairs, each but the first with three votes, of which one may be against the preference."""

    def voted(table: Dataset) -> Dataset:
        rows = table.to_list()
        for index, row in enumerate(rows):
            preference = row["preference"] or 1
            values = [preference, preference, -1 if index % 2 else preference]
            row["annotations"] = None if index == 0 else [
                {"annotator": f"a{n}", "preference": value, "statement": None, "elaboration": None,
                 "justification": None, "ratings_1": None, "ratings_2": None} for n, value in enumerate(values)
            ]  # fmt: skip
        return Dataset.from_list(rows, features=table.features, info=table.info)

    return Splits(splits.source, voted(splits.train), voted(splits.selection), splits.test)


def test_a_random_head_is_the_one_that_its_seed_draws(splits: Splits, preset: Preset) -> None:
    result = run_grid(["random_head"], splits, preset, GRID)
    for index, seed in enumerate(GRID.seeds):
        plain = experiments.score_pairs(RewardModel.create(preset.backbone, seed=seed), splits.test)
        np.testing.assert_allclose(result.rewards["random_head"][index], plain, atol=1e-4)
    assert result.trials.empty and result.selected.empty


# --- made of others ---------------------------------------------------------------------------------------------------


def test_extrapolation_and_its_sweeps_are_those_of_models_trained_alone(splits: Splits, preset: Preset) -> None:
    arms = ["regression", "bt_scaled_init", "bt_scaled_init_expo"]
    result = run_grid(arms, splits, preset, GRID)
    file = experiments.results_file(splits, preset)
    written = records.read(file, "arm").query("`asked.arm` == 'bt_scaled_init_expo'").set_index("seed")
    for index, seed in enumerate(GRID.seeds):
        weak = single_run(splits, preset, seed, at(result, "regression"), loss="regression")
        point = at(result, "bt_scaled_init")
        strong = single_run(splits, preset, seed, point, weak, loss="scaled_bradley_terry")
        weak = single_run(splits, preset, seed, at(result, "regression"), loss="regression")  # `strong` changed it
        made, fit = derived.derived_model("bt_scaled_init_expo", [strong, weak], splits, frozen=True)
        found = pd.DataFrame(written["outcome.sweep"][seed])
        pd.testing.assert_frame_equal(found, pd.DataFrame(fit["sweep"]), atol=1e-3)
        factor = written["outcome.factor"][seed]
        assert factor == fit["factor"]
        plain = experiments.score_pairs(made, splits.test)
        np.testing.assert_allclose(result.rewards["bt_scaled_init_expo"][index], plain, atol=5e-3)
    choices = summaries.factor_choices(file)
    assert set(choices.index) == {("test", 0), ("test", 1)}
    for seed in GRID.seeds:
        assert choices.loc[("test", seed), "accuracy"] == written["outcome.accuracy"][seed]


def test_fitted_attribute_weights_read_the_outputs_of_the_chosen_heads(splits: Splits, preset: Preset) -> None:
    result = run_grid(["regression_all_fitted", "regression_all"], splits, preset, GRID)
    model = single_run(splits, preset, 0, at(result, "regression_all"), loss="regression", attributes=ATTRIBUTES)
    made, fit = derived.derived_model("regression_all_fitted", [model], splits, frozen=True)
    np.testing.assert_allclose(
        result.rewards["regression_all_fitted"][0], experiments.score_pairs(made, splits.test), atol=5e-3
    )
    file = experiments.results_file(splits, preset)
    [record] = records.read(file, "arm").query("`asked.arm` == 'regression_all_fitted' and seed == 0")[
        "outcome.attribute_weights"
    ]
    assert record == pytest.approx(fit["attribute_weights"])


def test_the_line_to_the_rating_scale_is_that_of_a_model_trained_alone(splits: Splits, preset: Preset) -> None:
    result = run_grid(["bt_scaled", "bt_scaled_affine"], splits, preset, GRID)
    model = single_run(splits, preset, 1, at(result, "bt_scaled"), loss="scaled_bradley_terry")
    made, fit = derived.derived_model("bt_scaled_affine", [model], splits, frozen=True)
    np.testing.assert_allclose(
        result.rewards["bt_scaled_affine"][1], experiments.score_pairs(made, splits.test), atol=2e-3
    )
    written = records.read(experiments.results_file(splits, preset), "arm")
    [record] = written.query("`asked.arm` == 'bt_scaled_affine' and seed == 1").to_dict("records")
    assert record["outcome.scale"] == pytest.approx(fit["scale"], rel=1e-2)
    assert result.accuracy("bt_scaled_affine") == result.accuracy("bt_scaled")


def test_all_attributes_are_read_through_the_published_weights(splits: Splits, preset: Preset) -> None:
    result = run_grid(["regression_all"], splits, preset, GRID)
    model = single_run(splits, preset, 1, at(result, "regression_all"), loss="regression", attributes=ATTRIBUTES)
    outputs = model.score(splits.test["prompt"][:], splits.test["response_1"][:])
    expected = outputs @ [0.65, 0.8, 0.45, 0.55, -0.4]
    np.testing.assert_allclose(result.rewards["regression_all"][1][:, 0], expected, atol=5e-3)


def test_a_second_stage_without_a_step_worth_speaking_of_is_the_regression_head_of_its_seed(
    splits: Splits, preset: Preset
) -> None:
    still = Grid(learning_rates=(1e-12,), weight_decays=(0.0,), seeds=(0, 1), n_steps=2)
    result = run_grid(["regression", "bt_scaled_init"], splits, preset, still)
    first, second = (result.heads[arm][0] for arm in ("regression", "bt_scaled_init"))
    torch.testing.assert_close(first.weight, second.weight)
    torch.testing.assert_close(first.bias, second.bias)
    assert not torch.equal(first.weight[0], first.weight[1])


def test_the_second_stage_starts_from_the_chosen_regression_heads(splits: Splits, preset: Preset) -> None:
    result = run_grid(["bt_init", "regression"], splits, preset, GRID)
    loss_at_start = result.heads["regression"][0].margins(compared(splits, preset))
    expected = torch.nn.functional.softplus(-loss_at_start).mean()
    [record] = records.read(experiments.results_file(splits, preset), "arm").query("`asked.arm` == 'bt_init'")[
        "outcome.training"
    ][:1]
    assert record["curve"][0] == [1.0, pytest.approx(float(expected), abs=1e-5)]


def compared(splits: Splits, preset: Preset) -> Compared:
    settings = preset.change(trainable="head").preference
    inputs = Encoded(splits.train, settings)
    return Compared(*inputs.part(splits.train, settings).inputs.unbind(dim=1))


def test_shuffled_labels_are_those_of_each_seed(splits: Splits, preset: Preset) -> None:
    result = run_grid(["bt_shuffled", "bt"], splits, preset, GRID)
    point = at(result, "bt_shuffled")
    for index, seed in enumerate(GRID.seeds):
        shuffled = Splits(splits.source, shuffled_labels(splits.train, seed), splits.selection, splits.test)
        model = single_run(shuffled, preset, seed, point, loss="bradley_terry")
        found = result.heads["bt_shuffled"][0].weight[index]
        torch.testing.assert_close(found, model.head.weight.data, atol=1e-4, rtol=1e-3)


# --- choice, records --------------------------------------------------------------------------------------------------


def test_the_rule_of_choice_by_hand() -> None:
    def trial(rate: float, accuracy: float, loss: float, decay: float = 0.0) -> list[dict[str, float]]:
        shared = {"learning_rate": rate, "weight_decay": decay, "loss": loss}
        return [shared | {"seed": seed, "accuracy": accuracy + step} for seed, step in ((0, -0.1), (1, 0.1))]

    worse = trial(1e-1, 0.7, 0.1)
    assert choose(worse + trial(1e-3, 0.8, 0.9))["learning_rate"] == 1e-3
    assert choose(trial(1e-2, 0.8, 0.5) + trial(1e-3, 0.8, 0.6) + worse)["learning_rate"] == 1e-2
    assert choose(trial(1e-2, 0.8, 0.5) + trial(1e-3, 0.8, 0.5))["learning_rate"] == 1e-3
    assert choose(trial(1e-2, 0.8, 0.5, 0.1) + trial(1e-2, 0.8, 0.5, 0.01))["weight_decay"] == 0.01
    inside = choose(worse + trial(1e-2, 0.8, 0.5) + trial(1e-3, 0.6, 0.5))
    assert (inside["n_settings"], inside["n_trials"], inside["at_edge"]) == (3, 6, False)
    assert choose(worse + trial(1e-3, 0.8, 0.9))["at_edge"]


def test_every_trial_is_told_and_the_test_split_has_no_part_in_the_choice(splits: Splits, preset: Preset) -> None:
    result = run_grid(["bt", "bt_scaled"], splits, preset, GRID)
    assert len(result.trials) == 2 * 3 * 2 * 2 and set(result.selected["n_trials"]) == {12}
    turned = Splits(splits.source, splits.train, splits.selection, shuffled_labels(splits.test, 3))
    again = run_grid(["bt", "bt_scaled"], turned, preset, GRID)
    pd.testing.assert_frame_equal(again.trials, result.trials)


def test_a_second_run_trains_nothing_writes_nothing_and_a_new_arm_trains_alone(
    splits: Splits, preset: Preset, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_grid(["bt", "bt_scaled"], splits, preset, GRID)
    file = experiments.results_file(splits, preset)
    written = file.read_bytes()
    trained: list[list[str]] = []
    original = grid_fits.Fold._fit_preference
    monkeypatch.setattr(
        grid_fits.Fold, "_fit_preference", lambda fold, arms: (trained.append(list(arms)), original(fold, arms))
    )
    second = run_grid(["bt", "bt_scaled"], splits, preset, GRID)
    assert trained == [] and file.read_bytes() == written
    np.testing.assert_array_equal(second.rewards["bt"], first.rewards["bt"])
    run_grid(["bt", "bt_margin"], splits, preset, GRID)
    assert trained == [["bt_margin"]]


def test_every_figure_and_table_of_a_comparison_draws_the_grid_s_records(splits: Splits, preset: Preset) -> None:
    arms = [arm for arm in ARMS if changes(arm)["loss"] != "plackett_luce"]
    splits = with_votes(splits)
    result = run_grid(arms, splits, preset, GRID)
    file = experiments.results_file(splits, preset)
    table = summaries.arms_table(file)
    assert list(table.index) == arms
    for arm in arms:
        assert table.loc[arm, "estimate"] == pytest.approx(result.accuracy(arm).estimate)
        assert table.loc[arm, "seeds"] == 2
    for name in ("ladder", "differences", "strata", "calibration", "curves", "sweep"):
        assert figures.FIGURES[name](file).axes
    for name in ("length", "temperature", "paper_and_this_run"):
        assert len(figures.TABLES[name](file))
    [grid] = records.read(file, "grid").to_dict("records")
    assert grid["outcome.n_trials"] == len(result.trials) == len(grid["outcome.trials"])
    assert grid["asked.grid"]["learning_rates"] == list(GRID.learning_rates) and grid["outcome.left_out"] == {}


def test_selection_margins_are_those_that_the_choice_was_made_on(splits: Splits, preset: Preset) -> None:
    result = run_grid(["bt"], splits, preset, GRID)
    point, written = at(result, "bt"), records.read(experiments.results_file(splits, preset), "arm")
    for index, seed in enumerate(GRID.seeds):
        rows = result.trials.query(f"seed == {seed}").set_index(["learning_rate", "weight_decay"])
        accuracy = rows.loc[(point["learning_rate"], point["weight_decay"]), "accuracy"]
        assert np.mean(np.array(written["outcome.selection_margins"][index]) > 0) == pytest.approx(accuracy)


def test_the_default_grid_reaches_from_tiny_steps_to_large_ones_and_holds_the_preset_s_decay(preset: Preset) -> None:
    grid = default_grid(preset, range(5))
    assert grid.seeds == (0, 1, 2, 3, 4) and preset.preference.weight_decay in grid.weight_decays
    assert min(grid.learning_rates) <= 1e-4 and max(grid.learning_rates) >= 0.1 and 0.0 in grid.weight_decays


# --- inputs -----------------------------------------------------------------------------------------------------------


def test_log_length_and_standardising_use_training_texts_alone(splits: Splits, preset: Preset) -> None:
    grid = Grid((1e-2,), (0.0,), (0, 1), 15, log_length=True)
    result = run_grid(["bt"], splits, preset, grid)
    [heads] = result.heads["bt"]
    model = RewardModel.create(preset.backbone)
    lengths = [[np.log1p(len(text)) for text in splits.train[name]] for name in ("response_1", "response_2")]
    texts = [text for two in zip(splits.test["response_1"], splits.test["response_2"], strict=True) for text in two]
    read = model.features([prompt for prompt in splits.test["prompt"] for _ in range(2)], texts)
    length = (np.log1p([len(text) for text in texts]) - np.mean(lengths)) / np.std(lengths)
    expected = read @ heads.weight[1, 0, :-1].numpy() + length * heads.weight[1, 0, -1].numpy() + heads.bias[1].numpy()
    np.testing.assert_allclose(result.rewards["bt"][1].ravel(), expected, atol=1e-4)
    assert abs(float(heads.weight[1, 0, -1])) > 1e-3


def test_scaled_features_have_mean_0_and_deviation_1_and_a_constant_one_stays() -> None:
    inputs = torch.randn(50, 2, 3, generator=torch.Generator().manual_seed(0)) * 5 + 2
    inputs[..., 1] = 4
    scaled = Scaling.fit(inputs, slice(None))(inputs).flatten(0, 1)
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(0, correction=0), [1, 0, 1], atol=1e-5)
    assert torch.equal(Scaling.fit(inputs, slice(0))(inputs), inputs)


# --- folds ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folds(splits: Splits) -> list[Splits]:
    """The test pairs in two halves, each fold training on the other half of the training pairs too."""
    halves = [range(0, 8), range(8, 16)]
    rows = len(splits.train) // 2
    return [
        Splits(
            splits.source,
            splits.train.select(range(k * rows, (k + 1) * rows)),
            splits.selection,
            splits.test.select(half),
        )
        for k, half in enumerate(halves)
    ]


def test_folds_pool_their_test_pairs_and_choose_for_themselves(folds: list[Splits], preset: Preset) -> None:
    arms = ["bt", "bt_scaled"]
    pooled = run_grid(arms, folds, preset, GRID)
    apart = [run_grid(arms, fold, preset, GRID) for fold in folds]
    for arm in arms:
        np.testing.assert_array_equal(pooled.margins(arm), np.concatenate([one.margins(arm) for one in apart], axis=1))
    assert pooled.test["pair_id"] == [*folds[0].test["pair_id"], *folds[1].test["pair_id"]]
    assert list(pooled.selected["fold"]) == [0, 1, 0, 1]


def test_a_pair_tested_in_two_folds_is_refused(folds: list[Splits], preset: Preset) -> None:
    with pytest.raises(GridError, match="8 pairs are tested in more than one fold"):
        run_grid(["bt"], [folds[0], folds[0]], preset, GRID)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_unknown_arms_and_arms_that_learn_from_rankings_are_refused(splits: Splits, preset: Preset) -> None:
    with pytest.raises(ValueError, match="unknown arm 'bt_best'"):
        run_grid(["bt_best"], splits, preset, GRID)
    with pytest.raises(GridError, match="'plackett_luce' learns from rankings"):
        run_grid(["plackett_luce"], splits, preset, GRID)


def test_arms_without_their_labels_are_left_out_with_the_reason_and_refused_where_no_other_is_left(
    splits: Splits, preset: Preset, caplog: pytest.LogCaptureFixture
) -> None:
    def unrated(table: Dataset) -> Dataset:
        rows = [row | {"ratings_1": None, "ratings_2": None} for row in table.to_list()]
        return Dataset.from_list(rows, features=table.features, info=table.info)

    bare = Splits(splits.source, unrated(splits.train), unrated(splits.selection), splits.test)
    asked = ["regression", "bt", "bt_init", "bt_scaled_init_expo", "bt_scaled_affine", "bt_scaled_regression"]
    result = run_grid([*asked, "bt_soft"], bare, preset, GRID)
    assert list(result.rewards) == ["bt"]
    assert list(result.left_out) == [*[arm for arm in asked if arm != "bt"], "bt_soft"]
    assert "6 of 7 arms left out: regression needs ratings" in caplog.text and "bt_soft needs votes" in caplog.text
    [grid] = records.read(experiments.results_file(bare, preset), "grid").to_dict("records")
    assert grid["outcome.left_out"] == result.left_out
    with pytest.raises(GridError, match="no arm of 1 can be trained: bt_soft needs votes"):
        run_grid(["bt_soft"], splits, preset, GRID)


@pytest.mark.parametrize("empty", ["test", "selection"])
def test_an_empty_split_is_refused_before_anything_is_trained(splits: Splits, preset: Preset, empty: str) -> None:
    parts = {name: getattr(splits, name) for name in ("train", "selection", "test")}
    parts[empty] = parts[empty].select([])
    with pytest.raises(GridError, match=rf"no decided pair in \['{empty}'\]"):
        run_grid(["bt"], Splits(splits.source, **parts), preset, GRID)


def test_one_seed_has_no_interval_over_seeds(splits: Splits, preset: Preset) -> None:
    result = run_grid(["bt"], splits, preset, Grid((1e-2,), (0.0,), (0,), 5))
    with pytest.raises(ValueError, match="one seed: give at least two"):
        result.accuracy("bt")


@pytest.mark.parametrize("change", [{"seeds": ()}, {"learning_rates": (1e-2, 1e-2)}, {"n_steps": 0}])
def test_an_empty_axis_a_repeated_value_and_no_step_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(GridError, match=next(iter(change))):
        Grid(**({"learning_rates": (1e-2,), "weight_decays": (0.0,), "seeds": (0,), "n_steps": 5} | change))


def test_a_backbone_that_the_seed_draws_is_refused(splits: Splits, preset: Preset) -> None:
    with pytest.raises(GridError, match="drawn from the seed"):
        run_grid(["bt"], splits, preset.change(backbone="embedded"), GRID)
