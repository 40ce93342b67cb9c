"""Progress bars can be silenced, in a shell and in a notebook."""

import pytest
from datasets.utils import are_progress_bars_disabled
from tqdm.notebook import tqdm as notebook_tqdm

from rmlib.records import progress


@pytest.mark.parametrize(("value", "silent"), [("1", True), ("0", False), (None, False)])
def test_the_environment_silences_every_bar(value: str | None, silent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    if value is not None:
        monkeypatch.setenv("TQDM_DISABLE", value)
    with progress.progress_bar(range(3), leave=False) as bar:
        assert bar.disable is silent


def test_the_notebook_s_bar_is_silenced_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setattr(progress, "tqdm", notebook_tqdm)  # what tqdm.auto takes in a kernel; it ignores the variable
    assert progress.progress_bar(range(3)).disable


def test_a_bar_is_shown_only_where_it_is_wanted() -> None:
    assert progress.progress_bar(range(3), show=False).disable


def test_operations_on_tables_show_no_bar_of_their_own() -> None:
    assert are_progress_bars_disabled()
