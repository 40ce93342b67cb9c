"""Tables are made once for each content of their file, and no reader can spoil them for the next."""

from pathlib import Path

import pandas as pd
import pytest

from rmlib.figures.kept_tables import kept


def test_a_table_is_made_anew_only_where_its_file_has_changed(tmp_path: Path) -> None:
    file, made = tmp_path / "a.jsonl", []

    @kept
    def table(path: Path) -> pd.DataFrame:
        made.append(path.read_text())
        return pd.DataFrame({"length": [len(made[-1])]})

    file.write_text("one")
    table(file)["length"] = 0  # a copy: what a reader does to it is not seen by others
    assert table(file)["length"].tolist() == [3] and made == ["one"]
    file.write_text("three")
    assert table(file)["length"].tolist() == [5] and made == ["one", "three"]


def test_a_missing_file_raises_what_making_the_table_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        kept(lambda path: pd.DataFrame({"text": [path.read_text()]}))(tmp_path / "a.jsonl")
