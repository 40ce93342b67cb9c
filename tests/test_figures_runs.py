"""Runs as a table, side by side, and as a figure."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from rmlib.figures import runs
from rmlib.records.files import write_json
from rmlib.training.runs import FINISHED_FILE, LOG_FILE, claim
from rmlib.training.settings import TrainSettings

SETTINGS = TrainSettings(backbone="some backbone", loss="bradley_terry", learning_rate=1e-3)


def row(step: int, **more: float) -> dict[str, Any]:
    return {"step": step, "loss": 1 / step, "pairs": 4 * step, "tokens": 100 * step, "seconds": 0.5 * step} | more


def write_run(
    folder: Path, name: str, n_steps: int, *, finished: bool = True, settings: TrainSettings = SETTINGS
) -> Path:
    claim(folder / name, settings.to_dict(), name)
    rows = [row(step) for step in range(1, n_steps)] + [row(n_steps, selection_accuracy=0.75)]
    (folder / name / LOG_FILE).write_text("".join(json.dumps(each) + "\n" for each in rows))
    if finished:
        write_json(folder / name / FINISHED_FILE, rows[-1] | {"n_steps": n_steps, "rewardbench/Score": 0.5})
    return folder / name


def test_the_table_has_finished_and_unfinished_runs_the_latest_first(tmp_path: Path) -> None:
    for second, (name, n_steps, finished) in enumerate([("aa1", 4, True), ("ab2", 3, False)]):
        log = write_run(tmp_path, name, n_steps, finished=finished) / LOG_FILE
        os.utime(log, (second, second))
    (tmp_path / "no run").mkdir()
    table = runs.runs_table(tmp_path)
    assert list(table.index) == ["ab2", "aa1"] and list(table["state"]) == ["unfinished", "finished"]
    assert list(table["step"]) == [3, 4] and list(table["last loss"]) == [1 / 3, 1 / 4]
    assert list(table["tokens a second"]) == [200, 200] and list(table["selection_accuracy"]) == [0.75, 0.75]
    assert table["written"].iloc[1].isoformat() == "1970-01-01T00:00:00+00:00"


def test_a_run_that_has_logged_nothing_is_in_the_table_and_a_folder_without_runs_gives_an_empty_one(
    tmp_path: Path,
) -> None:
    assert runs.runs_table(tmp_path / "nothing").empty
    claim(tmp_path / "new", SETTINGS.to_dict(), "new")
    table = runs.runs_table(tmp_path)
    assert table.loc["new", "state"] == "unfinished" and table.loc[["new"], "step"].isna().all()


def test_runs_side_by_side_show_the_settings_in_which_they_differ_and_their_results(tmp_path: Path) -> None:
    write_run(tmp_path, "aa1", 4)
    write_run(tmp_path, "ab2", 2, settings=TrainSettings(**(SETTINGS.to_dict() | {"learning_rate": 1e-2})))
    table = runs.side_by_side(["aa", tmp_path / "ab2"], tmp_path)
    assert table.loc["learning_rate"].to_dict() == {"aa1": 1e-3, "ab2": 1e-2} and "backbone" not in table.index
    assert table.loc["last loss"].to_dict() == {"aa1": 1 / 4, "ab2": 1 / 2}
    assert table.loc["rewardbench/Score"].to_dict() == {"aa1": 0.5, "ab2": 0.5}


@pytest.mark.parametrize(("name", "fitting"), [("a", "aa1, ab2"), ("zz", "none")])
def test_a_name_that_fits_no_run_or_several_is_an_error_that_lists_them(
    tmp_path: Path, name: str, fitting: str
) -> None:
    for each in ("aa1", "ab2"):
        write_run(tmp_path, each, 1)
    with pytest.raises(ValueError, match=f"runs that fit: {fitting}"):
        runs.side_by_side([name], tmp_path)


def test_the_figure_draws_every_step_s_loss_its_running_mean_and_the_selection_accuracy(tmp_path: Path) -> None:
    left, right = runs.history_figure([write_run(tmp_path, "aa1", 3)], window=2).axes
    assert left.lines[0].get_ydata() == pytest.approx([1, 1 / 2, 1 / 3])
    assert left.lines[1].get_ydata() == pytest.approx([1, 3 / 4, 5 / 12])  # the first has no other before it
    assert (list(right.lines[0].get_xdata()), list(right.lines[0].get_ydata())) == ([3], [0.75])
