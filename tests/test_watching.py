"""Benchmarks while training: samples that keep every subset, and a log that costs the training nothing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset

from rmlib import benchmarks, sources, training
from rmlib.benchmarks import rewardbench
from rmlib.models import RewardModel
from rmlib.training import train, watching
from rmlib.training.__main__ import run_file
from rmlib.training.loop import _Loop
from rmlib.training.runs import Run
from rmlib.training.settings import TrainSettings

SECTIONS = (*rewardbench.SECTIONS, "Score")


pytestmark = pytest.mark.usefixtures("own_runs")


@pytest.fixture
def pairs(tmp_path: Path) -> Dataset:
    table = sources.load(str(tiny.write_source(tmp_path / "source")))
    return table.select(range(16))


def write_items(file: Path, sizes: dict[str, int]) -> Path:
    """Items in RewardBench's layout, in turn from each subset, where the chosen response has more good words."""
    rows = [
        {"prompt": f"question {number}", "chosen": f"good good {number}", "rejected": f"bad {number}"}
        | {"subset": subset, "id": number}
        for subset, size in sizes.items()
        for number in range(size)
    ]
    rows = [rows[index] for index in np.random.default_rng(0).permutation(len(rows))]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def items(tmp_path: Path) -> Dataset:
    return benchmarks.load("rewardbench", write_items(tmp_path / "items.jsonl", dict.fromkeys(rewardbench.SUBSETS, 3)))


def settings(backbone: str, **changes: Any) -> TrainSettings:
    wanted = {"backbone": backbone, "pairs_per_step": 4, "warmup_steps": 2, "max_steps": 7, "evaluate_every_steps": 3}
    return TrainSettings(**(wanted | {"benchmark_every_steps": 2, "checkpoint_every_steps": 3} | changes))


def logged(run: Run) -> dict[int, dict[str, float]]:
    """The benchmark's values of each step that has some."""
    rows = [json.loads(line) for line in (run.folder / "log.jsonl").read_text().splitlines()]
    found = {row["step"]: {key: value for key, value in row.items() if "/" in key} for row in rows}
    return {step: values for step, values in found.items() if values}


# --- samples ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [23, 40, 100, 229])
def test_a_sample_holds_every_subset_by_its_share_and_just_as_many_items_as_asked(tmp_path: Path, n: int) -> None:
    sizes = {name: 1 + 19 * (index % 2) for index, name in enumerate(rewardbench.SUBSETS)}
    items = benchmarks.load("rewardbench", write_items(tmp_path / "items.jsonl", sizes))
    found = watching.sample(items, n)
    counts = {name: found["subset"][:].count(name) for name in sizes}
    assert len(found) == n and min(counts.values()) >= 1
    large = [counts[name] for name, size in sizes.items() if size > 1]
    assert max(large) - min(large) <= 1
    order = {name: index for index, name in enumerate(items["item_id"])}
    assert np.all(np.diff([order[name] for name in found["item_id"]]) > 0)


def test_the_seed_decides_the_sample_and_enough_items_are_all_of_them(items: Dataset) -> None:
    first, again, other = (watching.sample(items, 30, seed)["item_id"][:] for seed in (1, 1, 2))
    assert first == again != other
    assert watching.sample(items, 69)["item_id"][:] == items["item_id"][:]


def test_a_question_that_is_asked_twice_is_sampled_with_both_of_its_items(items: Dataset) -> None:
    names = [f"Ties/{kind}:{number}" for kind in ("ref", "tied") for number in range(20)]
    ties = items.select(range(40)).remove_columns(["item_id", "subset"])
    ties = ties.add_column("item_id", names).add_column("subset", ["Ties"] * 40)
    kinds: dict[str, set[str]] = {}
    for name in watching.sample(ties, 11)["item_id"]:
        kind, _, number = name.partition(":")
        kinds.setdefault(number, set()).add(kind)
    assert len(kinds) == 6 and all(kind == {"Ties/ref", "Ties/tied"} for kind in kinds.values())


def test_a_sample_too_small_for_the_subsets_is_an_error(items: Dataset) -> None:
    with pytest.raises(ValueError, match="22 cannot hold all 23 subsets"):
        watching.sample(items, 22)


# --- in a run ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trainable", ["all", "head"])
def test_a_benchmark_is_logged_every_so_many_steps_and_at_the_end(
    backbone: str, pairs: Dataset, items: Dataset, trainable: str
) -> None:
    wanted = settings(backbone, trainable=trainable, learning_rate=0.05)
    run = train(RewardModel.create(backbone), pairs, wanted, benchmarks={"rewardbench": items}, progress=False)
    values = logged(run)
    assert list(values) == [2, 4, 6, 7]
    assert all(set(row) == {f"rewardbench/{name}" for name in SECTIONS} for row in values.values())
    report = benchmarks.summarise(items, benchmarks.score(run.model, items, progress=False), partial=True)
    assert values[7] == {f"rewardbench/{name}": report.sections["estimate"][name] for name in SECTIONS}
    assert run.summary["rewardbench/Score"] == values[7]["rewardbench/Score"]


def test_looking_at_a_benchmark_leaves_the_trained_bits_as_they_are(
    backbone: str, pairs: Dataset, items: Dataset
) -> None:
    wanted = settings(backbone)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    plain = train(RewardModel.create(backbone), pairs, wanted, selection=pairs, progress=False)
    watched = train(
        RewardModel.create(backbone), pairs, wanted, selection=pairs, benchmarks={"rewardbench": items}, progress=False
    )
    expected, found = plain.model.state_dict(), watched.model.state_dict()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert plain.history["loss"].tolist() == watched.history["loss"].tolist() and not logged(plain)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_killed_run_logs_the_same_scores_as_one_that_was_not(
    backbone: str, pairs: Dataset, items: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(folder: str) -> Run:
        return train(
            RewardModel.create(backbone), pairs, settings(backbone), benchmarks={"rewardbench": items},
            folder=tmp_path / folder, progress=False,
        )  # fmt: skip

    whole, step = run("whole"), _Loop._train_step

    def dies(loop: _Loop, order: np.ndarray) -> dict[str, float]:
        if loop.step == 5:
            raise KeyboardInterrupt
        return step(loop, order)

    monkeypatch.setattr(_Loop, "_train_step", dies)
    with pytest.raises(KeyboardInterrupt):
        run("killed")
    monkeypatch.setattr(_Loop, "_train_step", step)
    assert logged(run("killed")) == logged(whole)


def test_tensorboard_shows_the_benchmark_s_curve(backbone: str, pairs: Dataset, items: Dataset) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # slow to import

    run = train(
        RewardModel.create(backbone), pairs, settings(backbone), benchmarks={"rewardbench": items}, progress=False
    )
    events = EventAccumulator(str(run.folder / "tensorboard")).Reload().Scalars("rewardbench/Score")
    assert [event.step for event in events] == [2, 4, 6, 7]


def test_of_several_attributes_the_first_is_watched(backbone: str, items: Dataset) -> None:
    wanted = settings(backbone, loss="regression", attributes=("helpfulness", "verbosity"))
    model = RewardModel.create(backbone, wanted.attributes)
    model.head.weight.data[1] = -model.head.weight.data[0]
    row = watching.log_row(model, {"rewardbench": items}, wanted)
    first = {item["item_id"]: model.score([item["prompt"]] * 2, item["candidates"])[:, 0].tolist() for item in items}
    expected = benchmarks.summarise(items, first, partial=True).sections["estimate"]["Score"]
    assert row["rewardbench/Score"] == expected and 0 < expected < 1


# --- names and the shell ----------------------------------------------------------------------------------------------


def test_other_items_make_another_run_and_none_keep_the_name_it_had(
    backbone: str, pairs: Dataset, items: Dataset
) -> None:
    wanted = settings(backbone)
    names = {
        training.run_identity("start", pairs, wanted, None, watched)
        for watched in (None, {"rewardbench": items}, {"rewardbench": items.select(range(68))})
    }
    assert len(names) == 3
    assert training.run_identity("start", pairs, wanted, None) in names


def test_a_benchmark_without_any_whole_section_is_refused_before_training(
    backbone: str, pairs: Dataset, tmp_path: Path
) -> None:
    file = write_items(tmp_path / "part.jsonl", {"alpacaeval-easy": 3})
    part = benchmarks.load("rewardbench", file, partial=True)
    with pytest.raises(ValueError, match="rewardbench: no section has all its subsets"):
        train(RewardModel.create(backbone), pairs, settings(backbone), benchmarks={"rewardbench": part}, progress=False)


def test_the_shell_entry_watches_a_sample(backbone: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    file = write_items(tmp_path / "items.jsonl", dict.fromkeys(rewardbench.SUBSETS, 3))
    job = {
        "source": str(tiny.write_source(tmp_path / "own")),
        "settings": {"backbone": backbone, "max_steps": 2, "pairs_per_step": 4},
        "benchmarks": {"rewardbench": {"source": str(file), "sample": 25}},
        "folder": str(tmp_path / "run"),
    }
    (tmp_path / "run.json").write_text(json.dumps(job))
    run_file(tmp_path / "run.json")
    assert 0 <= json.loads(capsys.readouterr().out)["rewardbench/Score"] <= 1
