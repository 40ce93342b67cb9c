"""What is kept on disk: read back by another, made once, never half of it."""

from pathlib import Path

import pytest

from rmlib.records.kept import Kept, kept_folder, kept_json

pytestmark = pytest.mark.usefixtures("own_runs")


def test_kept_values_are_read_back_by_another_and_a_broken_line_costs_that_line_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = Kept("rewards", {"weights": "x"})
    one.add({"k1": 0.1, "k2": -3e-7})
    one.add({"k3": 1.0})
    assert Kept("rewards", {"weights": "x"}).known == {"k1": 0.1, "k2": -3e-7, "k3": 1.0}
    assert Kept("rewards", {"weights": "y"}).known == {}
    lines = one.path.read_text().splitlines()
    one.path.write_text("\n".join([lines[0], lines[1], "{broken", lines[3]]) + "\n" + '["k4", 2.')
    again = Kept("rewards", {"weights": "x"})
    assert again.known == {"k1": 0.1, "k3": 1.0} and "2 lines cannot be read" in caplog.text
    again.add({"k5": 5.0})  # the line that a killed writer left is taken away first
    assert Kept("rewards", {"weights": "x"}).known == {"k1": 0.1, "k3": 1.0, "k5": 5.0}


def test_a_file_of_another_model_is_not_read(caplog: pytest.LogCaptureFixture) -> None:
    one, two = Kept("rewards", {"weights": "x"}), Kept("rewards", {"weights": "y"})
    one.add({"k": 1.0})
    one.path.replace(two.path)
    assert Kept("rewards", {"weights": "y"}).known == {} and "another header" in caplog.text


def test_a_result_is_made_once_and_read_as_json_has_it_even_the_first_time(tmp_path: Path) -> None:
    made = []
    for _ in range(2):
        assert kept_json(tmp_path / "new" / "found.json", lambda: made.append(1) or {"a": (1, 2.5)}) == {"a": [1, 2.5]}
    assert len(made) == 1


def test_a_folder_is_made_once_and_where_making_it_fails_nothing_is_left(tmp_path: Path) -> None:
    def half(folder: Path) -> None:
        folder.mkdir()
        (folder / "part").write_text("1")
        raise KeyboardInterrupt

    def fill(folder: Path) -> None:
        folder.mkdir()
        (folder / "part").write_text(folder.name)

    with pytest.raises(KeyboardInterrupt):
        kept_folder(tmp_path / "kept", half)
    assert not list(tmp_path.iterdir())
    written = (kept_folder(tmp_path / "kept", fill) / "part").read_text()
    assert written != "kept" and (kept_folder(tmp_path / "kept", fill) / "part").read_text() == written
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
