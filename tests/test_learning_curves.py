"""Learning curves: nested subsets, runs shared with other experiments, the record, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import tiny
from datasets import Dataset

from rmlib import experiments, records, statistics
from rmlib.experiments.learning_curves import learning_curve, subset
from rmlib.experiments.presets import Preset
from rmlib.figures import breakdowns
from rmlib.records import paths
from rmlib.sources import Splits, load_splits
from rmlib.training.settings import TrainSettings

SIZES = [4, 8, 16, 30]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("RMLIB_RESULTS", str(tmp_path / "results"))


@pytest.fixture
def splits(tmp_path: Path) -> Splits:
    """30 training, 10 selection and 16 test pairs in HelpSteer2's layout: more good words mean a higher rating."""
    return load_splits(tiny.write_source(tmp_path / "own"), selection_fraction=0.25)


@pytest.fixture
def preset(tmp_path: Path) -> Preset:
    wanted = TrainSettings(
        backbone=tiny.save_backbone(tmp_path / "backbone"),
        trainable="head",
        pairs_per_step=4,
        epochs=2,
        learning_rate=3e-2,
    )
    return Preset("tiny", wanted, wanted, wanted)


def test_subsets_of_one_seed_are_nested_and_of_other_seeds_others() -> None:
    pairs = Dataset.from_dict({"pair_id": [str(index) for index in range(200)]})
    parts = [set(subset(pairs, size, seed=0)["pair_id"]) for size in (10, 50, 200)]
    assert parts[0] < parts[1] < parts[2] and [len(part) for part in parts] == [10, 50, 200]
    assert set(subset(pairs, 50, seed=1)["pair_id"]) != parts[1]
    assert subset(pairs, 200, seed=1)["pair_id"][:] == pairs["pair_id"][:]


def test_a_point_is_the_accuracy_of_a_run_on_that_subset_and_the_curve_is_fitted_from_the_record(
    splits: Splits, preset: Preset
) -> None:
    record = learning_curve("bt", preset, splits, SIZES, seeds=[0, 1])
    points = record["outcome"]["points"]
    assert [(point["size"], point["seed"]) for point in points] == [(size, seed) for size in SIZES for seed in (0, 1)]
    on_all = experiments.run("bt", preset, splits, seed=1, progress=False)
    assert points[-1]["accuracy"] == on_all.record["outcome"]["accuracy"]
    right = [int(digit) for digit in points[-1]["correct"]]
    assert right == [int(margin > 0) for margin in on_all.record["outcome"]["margins"]]

    (row,) = breakdowns.learning_curve_table(experiments.results_file(splits, preset)).to_dict(orient="records")
    table = np.array([[int(digit) for digit in point["correct"]] for point in points]).reshape(4, 2, -1)
    law = statistics.fit_power_law(SIZES, table, seed=0)
    assert row["exponent"] == law.exponent.estimate and row["floor high"] == law.floor.high and row["n"] == 16


def test_a_second_call_trains_and_writes_nothing_and_leaves_the_ladder_alone(
    splits: Splits, preset: Preset, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = learning_curve("bt", preset, splits, SIZES, seeds=[0, 1])
    file = experiments.results_file(splits, preset)
    written = file.read_bytes()
    monkeypatch.setattr("rmlib.training.loop._Loop.run", lambda *_: pytest.fail("trained again"))
    assert learning_curve("bt", preset, splits, SIZES, seeds=[0, 1]) == first
    assert file.read_bytes() == written
    assert set(records.read(file)["kind"]) == {"learning_curve"}


def test_curves_without_an_interval_or_a_fit_are_refused_before_anything_is_trained(
    splits: Splits, preset: Preset
) -> None:
    for sizes in ([4, 8, 16], [8, 4, 16, 30], [4, 8, 16, 31], [4, 8, 8, 16], [0, 4, 8, 16]):
        with pytest.raises(ValueError, match=r"sizes must be 4 or more, ascending, within 1..30"):
            learning_curve("bt", preset, splits, sizes, seeds=[0, 1])
    for seeds in ([0], [1, 1]):
        with pytest.raises(ValueError, match="two or more different seeds, got"):
            learning_curve("bt", preset, splits, SIZES, seeds=seeds)
    with pytest.raises(ValueError, match="unknown arm 'bt_huge'"):
        learning_curve("bt_huge", preset, splits, SIZES, seeds=[0, 1])
    assert not (paths.runs_dir() / "train").exists()
