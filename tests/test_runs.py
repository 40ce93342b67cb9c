"""TensorBoard scalars while a run goes on: every step once, also after a run was killed."""

import json
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rmlib.training.runs import LOG_FILE, Curves


def log(folder: Path, curves: Curves, steps: range) -> None:
    for step in steps:
        row = {"step": step, "loss": 1.0 / step}
        with (folder / LOG_FILE).open("a") as file:
            file.write(json.dumps(row) + "\n")
        curves.add(row)


def losses(folder: Path) -> list[tuple[int, float]]:
    scalars = EventAccumulator(str(folder / "tensorboard")).Reload().Scalars("loss")
    return [(scalar.step, round(scalar.value, 4)) for scalar in scalars]


def test_scalars_are_there_before_a_run_ends_and_each_once(tmp_path: Path) -> None:
    curves = Curves(tmp_path, every_seconds=0.0)
    log(tmp_path, curves, range(1, 3))
    assert losses(tmp_path) == [(1, 1.0), (2, 0.5)]
    log(tmp_path, curves, range(3, 5))
    curves.close()
    assert losses(tmp_path) == [(1, 1.0), (2, 0.5), (3, 0.3333), (4, 0.25)]


def test_a_run_that_goes_on_writes_all_of_its_log_anew(tmp_path: Path) -> None:
    log(tmp_path, Curves(tmp_path, every_seconds=0.0), range(1, 4))  # killed: steps 2 and 3 are no longer in the log
    (tmp_path / LOG_FILE).write_text(json.dumps({"step": 1, "loss": 1.0}) + "\n")
    curves = Curves(tmp_path)
    log(tmp_path, curves, range(2, 4))
    assert losses(tmp_path)[:1] == [(1, 1.0)]  # what the killed run left, until it is written anew
    curves.close()
    assert losses(tmp_path) == [(1, 1.0), (2, 0.5), (3, 0.3333)]
