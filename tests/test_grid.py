"""The grid of arms on a frozen backbone: the heads of single runs, one rule of choice, a test split read once."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny
import torch

from rmlib import comparison_figures, experiments, grid_fits, records, statistics, summaries
from rmlib.grid import Grid, GridError, GridResult, run_folds, run_grid
from rmlib.grid_fits import choose
from rmlib.grid_inputs import Inputs, Scaling
from rmlib.models import RewardModel
from rmlib.pairs import ATTRIBUTES
from rmlib.presets import Preset
from rmlib.settings import TrainSettings
from rmlib.splits import Splits, load_splits, shuffled_labels
from rmlib.training import create_model, train

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


def single_run(splits: Splits, preset: Preset, seed: int, point: pd.Series, **changes: object) -> RewardModel:
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
    return train(create_model(settings), splits.train, settings, progress=False).model


def at(result: GridResult, arm: str) -> pd.Series:
    return result.selected.set_index("arm").loc[arm]


# --- the same as single runs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", ["bt", "bt_margin", "bt_scaled", "regression"])
def test_the_chosen_heads_and_rewards_are_those_of_single_runs(splits: Splits, preset: Preset, arm: str) -> None:
    result = run_grid([arm], splits, preset, GRID)
    loss = experiments.ARMS[arm].change["loss"]
    for index, seed in enumerate(GRID.seeds):
        model = single_run(splits, preset, seed, at(result, arm), loss=loss)
        torch.testing.assert_close(result.heads[arm][0].weight[index], model.head.weight.data, atol=1e-4, rtol=1e-3)
        plain = experiments.score_pairs(model, splits.test)
        ours = result.rewards[arm][index]
        np.testing.assert_allclose(ours[:, 1] - ours[:, 0], plain[:, 1] - plain[:, 0], atol=2e-3)
        if arm == "regression":
            np.testing.assert_allclose(ours, plain, atol=2e-3)


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
    loss_at_start = result.heads["regression"][0].margins(difference(splits, preset))
    expected = torch.nn.functional.softplus(-loss_at_start).mean()
    [record] = records.read(experiments.results_file(splits, preset), "arm").query("`asked.arm` == 'bt_init'")[
        "outcome.training"
    ][:1]
    assert record["curve"][0] == [1.0, pytest.approx(float(expected), abs=1e-5)]


def difference(splits: Splits, preset: Preset) -> torch.Tensor:
    inputs = Inputs(splits.train, preset.change(trainable="head").preference, log_length=False)
    part = inputs.part(splits.train, "bradley_terry", ("helpfulness",))
    return part.inputs[:, 0] - part.inputs[:, 1]


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


def test_the_figures_of_the_ladder_draw_the_grid_s_records(splits: Splits, preset: Preset) -> None:
    arms = ["regression", "bt", "bt_scaled", "bt_scaled_init"]
    result = run_grid(arms, splits, preset, GRID)
    file = experiments.results_file(splits, preset)
    table = summaries.arms_table(file)
    for arm in arms:
        assert table.loc[arm, "estimate"] == pytest.approx(result.accuracy(arm).estimate)
        assert table.loc[arm, "seeds"] == 2
    assert list(summaries.differences_table(file)["against"]) == ["bt", "bt_scaled"]
    for figure in (comparison_figures.ladder_figure, comparison_figures.curves_figure):
        assert figure(file).axes
    [grid] = records.read(file, "grid").to_dict("records")
    assert grid["outcome.n_trials"] == len(result.trials) == len(grid["outcome.trials"])
    assert grid["asked.grid"]["learning_rates"] == list(GRID.learning_rates)


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
    pooled = run_folds(arms, folds, preset, GRID)
    apart = [run_grid(arms, fold, preset, GRID) for fold in folds]
    for arm in arms:
        np.testing.assert_array_equal(pooled.margins(arm), np.concatenate([one.margins(arm) for one in apart], axis=1))
    assert pooled.test["pair_id"] == [*folds[0].test["pair_id"], *folds[1].test["pair_id"]]
    assert list(pooled.selected["fold"]) == [0, 1, 0, 1]


def test_a_pair_tested_in_two_folds_is_refused(folds: list[Splits], preset: Preset) -> None:
    with pytest.raises(GridError, match="8 pairs are tested in more than one fold"):
        run_folds(["bt"], [folds[0], folds[0]], preset, GRID)


def test_accuracy_among_some_pairs_is_that_of_their_margins(splits: Splits, preset: Preset) -> None:
    result = run_grid(["bt"], splits, preset, GRID)
    decided = [pair_id for pair_id, p in zip(splits.test["pair_id"], splits.test["preference"], strict=True) if p]
    interval = result.accuracy("bt", among=decided[2:7])
    assert interval.n == 5
    assert interval.estimate == pytest.approx(np.mean(result.margins("bt")[:, 2:7] > 0))
    assert interval == statistics.bootstrap_interval(result.margins("bt")[:, 2:7] > 0, seed=0)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_unknown_arms_and_arms_that_no_linear_head_expresses_are_refused(splits: Splits, preset: Preset) -> None:
    with pytest.raises(ValueError, match="unknown arm 'bt_best'"):
        run_grid(["bt_best"], splits, preset, GRID)
    with pytest.raises(GridError, match=r"'bt_scaled_init_expo' changes \['extrapolate'\]"):
        run_grid(["bt_scaled_init_expo"], splits, preset, GRID)


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
