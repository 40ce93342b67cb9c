"""Committed figures and tables are what their records give today; `make figures` draws them again.

Pictures are compared by what is drawn (`figures.drawn`, kept inside the PNG), not by pixels: fonts, and how matplotlib
was built, are not what a record decides.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from PIL import Image

from rmlib import figures
from rmlib.figures import alignment, alignment_tables, style
from rmlib.figures.drawn import drawn
from rmlib.records import RecordError, paths

RESULTS = sorted(path.stem for path in paths.results_dir().glob("*.jsonl"))
CLOSE = {"rel_tol": 1e-3, "abs_tol": 1e-6}  # numbers of pictures; sums of floats differ by machine


@pytest.fixture(scope="module", autouse=True)
def _own_style() -> None:
    plt.switch_backend("agg")
    figures.set_style()


def unlike(kept: Any, now: Any, place: str = "") -> Iterator[str]:
    """Where two JSON values differ: words at all, numbers by more than CLOSE."""
    if isinstance(kept, dict) and isinstance(now, dict) and kept.keys() == now.keys():
        for name in kept:
            yield from unlike(kept[name], now[name], f"{place}.{name}")
    elif isinstance(kept, list) and isinstance(now, list) and len(kept) == len(now):
        for number, (one, other) in enumerate(zip(kept, now, strict=True)):
            yield from unlike(one, other, f"{place}[{number}]")
    elif isinstance(kept, float) and isinstance(now, float):
        if not (math.isclose(kept, now, **CLOSE) or (math.isnan(kept) and math.isnan(now))):
            yield f"{place}: {kept} is now {now}"
    elif kept != now:
        yield f"{place}: {str(kept)[:120]} is now {str(now)[:120]}"


def stale_picture(figure: Any, png: Path) -> str:
    """What is wrong with the committed files of a figure; nothing where they show it."""
    if not png.is_file():
        return "not committed"
    kept = Image.open(png).info.get("drawn", "[]")
    if hashlib.sha256(kept.encode()).hexdigest().encode() not in png.with_suffix(".pdf").read_bytes():
        return "PDF and PNG were not drawn together"
    if "\n" in figure.texts[0].get_text():
        return f"its subtitle has more than one line: {figure.texts[0].get_text()!r}"
    return "; ".join(list(unlike(json.loads(kept), json.loads(json.dumps(drawn(figure)))))[:2])


def stale_table(table: pd.DataFrame, csv: Path) -> str:
    """What is wrong with the committed file of a table: words at all, numbers in the fifth digit."""
    if not csv.is_file():
        return "not committed"
    now, kept = pd.read_csv(StringIO(table.to_csv(float_format="%.6g"))), pd.read_csv(csv)
    try:
        pd.testing.assert_frame_equal(kept, now, rtol=1e-4, atol=1e-6)
    except AssertionError as error:
        return " ".join(str(error).split())[:200]
    return ""


@pytest.mark.parametrize("stem", ["", *RESULTS])
def test_committed_figures_and_tables_are_those_of_their_records(stem: str) -> None:
    folder, file = paths.figures_dir() / stem, paths.results_dir() / f"{stem}.jsonl"
    of_policies = stem.endswith(alignment.ENDING)
    makers: dict[str, Any] = (alignment.FIGURES if of_policies else figures.FIGURES) if stem else figures.GENERAL
    tables = (alignment_tables.TABLES if of_policies else figures.TABLES) if stem else {}
    expected, stale = set(), {}
    for name, make in makers.items():
        try:
            figure = make(file)
        except RecordError:
            continue
        expected |= {f"{name}.png", f"{name}.pdf"}
        stale[name] = stale_picture(figure, folder / f"{name}.png")
        plt.close(figure)
    for name, tabulate in tables.items():
        try:
            table = tabulate(file)
        except RecordError:
            continue
        expected.add(f"{name}.csv")
        stale[f"{name}.csv"] = stale_table(table, folder / f"{name}.csv")
    committed = {path.name for path in folder.iterdir() if path.is_file()} if folder.is_dir() else set()
    stale |= dict.fromkeys(committed - expected, "no record draws it: delete it")
    wrong = {name: why for name, why in stale.items() if why}
    assert not wrong, f"figures/{stem} is stale: run `make figures` and commit what changed: {wrong}"


def test_a_changed_number_word_or_colour_is_seen_and_another_last_digit_is_not(tmp_path: Path) -> None:
    def made(value: float, word: str = "a", colour: str = "C0") -> plt.Figure:
        figure, axes = plt.subplots()
        axes.plot([0, 1], [0.5, value], color=colour)
        return style.finished(figure, "title", word)

    figures.save_figure(made(0.7), "one", tmp_path)
    assert stale_picture(made(0.7), tmp_path / "one.png") == ""
    assert stale_picture(made(0.7 + 1e-9), tmp_path / "one.png") == ""
    for other in (made(0.71), made(0.7, word="b"), made(0.7, colour="C1")):
        assert "is now" in stale_picture(other, tmp_path / "one.png")
    figures.save_figure(made(0.71), "two", tmp_path)
    (tmp_path / "two.pdf").rename(tmp_path / "one.pdf")
    assert stale_picture(made(0.7), tmp_path / "one.png") == "PDF and PNG were not drawn together"


def test_a_changed_table_is_seen_and_another_last_digit_is_not(tmp_path: Path) -> None:
    def made(value: float, word: str = "a") -> pd.DataFrame:
        return pd.DataFrame({"value": [0.5, value], "word": ["x", word]}, index=pd.Index([1, 2], name="n"))

    figures.save_table(made(1 / 3), "one", tmp_path)
    assert stale_table(made(1 / 3 + 1e-9), tmp_path / "one.csv") == ""
    assert stale_table(made(0.334), tmp_path / "one.csv") and stale_table(made(1 / 3, "b"), tmp_path / "one.csv")
