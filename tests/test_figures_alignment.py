"""Figures and sentences about aligned policies, from records made up for the purpose."""

import logging
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

from rmlib import figures, records
from rmlib.alignment import win_rates
from rmlib.figures import alignment, alignment_tables

CURVES = [("best_of_n", "bt"), ("reinforce", "bt"), ("reinforce", "ensemble"), ("ppo", "bt"), ("dpo", "annotators")]
TURNING, RISING = [1.0, 1.5, 1.7, 1.3], [1.0, 1.1, 1.2, 1.3]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two seeds of five curves; REINFORCE under bt turns, the others rise; win rates of two policies."""
    monkeypatch.setenv("RMLIB_FIGURES", str(tmp_path / "figures"))
    path, rng = tmp_path / "made-up_alignment.jsonl", np.random.default_rng(0)
    records.append(path, kind="alignment_comparison", asked={}, outcome={"comparison": "x"})
    for method, arm in CURVES:
        levels = TURNING if (method, arm) == ("reinforce", "bt") else RISING
        for seed in (0, 1):
            rows = [
                {"n" if method == "best_of_n" else "step": 2**point, "divergence": 1.0 * point, "proxy": 0.5 * point}
                | {"proxy_sd": 1.0, "gold": (level + 0.1 * rng.normal(size=40)).round(4).tolist(), "length": 60.0}
                | {"n samples": 40, "n not ended": 2, "n empty": 1}
                for point, level in enumerate(levels)
            ]
            asked = {"method": method, "arm": arm, "comparison": "x", "source": {"title": "made-up pairs"}}
            records.append(path, kind="alignment", asked=asked, outcome={"rows": rows}, seed=seed)
    for reader, share in (("the truth", 0.6), ("its own reward", 0.9)):
        credit = (np.arange(40) < 40 * share).astype(float)
        outcome = win_rates.win_rate(credit, np.tile([60, 80], 20), np.full(40, 65)).row()
        for arm in ("bt", "ensemble"):
            asked = {"method": "reinforce", "arm": arm, "comparison": "x", "reader": reader}
            records.append(path, kind="win_rate", asked=asked, outcome=outcome | {"prompts": 20, "seeds": 2})
    return path


def test_every_figure_and_table_is_drawn_and_saved(file: Path) -> None:
    assert figures.draw_all(file) == (list(alignment.FIGURES), list(alignment_tables.TABLES))
    plt.close("all")


def test_figures_say_what_they_are_of(file: Path) -> None:
    for make in alignment.FIGURES.values():
        figure = make(file)
        words = " ".join(text.get_text() for text in figure.texts)
        assert "prompts" in words and "95 %" in words
        assert all(axes.get_xlabel() for axes in figure.axes)
    shown = " ".join(text.get_text() for text in alignment.reinforce_figure(file).texts)
    assert "made-up pairs; 40 prompts of the selection split, 2 seeds" in shown
    plt.close("all")


def test_a_policy_that_a_reader_did_not_read_leaves_its_row_empty(file: Path) -> None:
    outcome = win_rates.win_rate([1.0] * 3 + [0.0], [60, 80, 60, 80], [65] * 4).row() | {"prompts": 4, "seeds": 1}
    asked = {"method": "dpo", "arm": "annotators", "comparison": "x", "reader": "the truth"}
    records.append(file, kind="win_rate", asked=asked, outcome=outcome)
    figure = alignment.win_rates_figure(file)
    labels = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert labels == [
        "DPO: the annotators' pairs",
        "REINFORCE: Ensemble of Scaled BT, from regression",
        "REINFORCE: Regular BT",
    ]
    # Dots of a panel: as counted, and at equal length, a row each; the second reader has none at the height of DPO.
    shown = [
        sorted({round(float(y)) for dots in axes.collections[1::2] for _, y in dots.get_offsets()})
        for axes in figure.axes
    ]
    assert shown == [[0, 1, 2], [1, 2]]
    plt.close("all")


def test_where_records_are_missing_a_figure_is_left_out_and_the_log_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RMLIB_FIGURES", str(tmp_path / "figures"))
    path = tmp_path / "empty_alignment.jsonl"
    records.append(path, kind="alignment_comparison", asked={}, outcome={"comparison": "x"})
    with caplog.at_level(logging.WARNING):
        assert figures.draw_all(path) == ([], [])
    assert "no figure 'win_rates'" in caplog.text


def test_sentences_name_the_curve_that_turned_and_the_reader_that_is_enthusiastic(file: Path) -> None:
    told = alignment.over_optimisation_told(file)
    assert told.startswith("gold fall clearly from its peak in 1 of 3 curves (REINFORCE, Regular BT).")
    assert "REINFORCE: the latest peak under *Ensemble of" in told
    assert "Regular BT +0." in alignment.ends_told(file, "reinforce")
    gap = alignment.win_rates_told(file, "its own reward", "the truth")
    assert gap.startswith("its own reward prefer the new answers +0.30 more often than the truth does")


def test_the_published_results_are_marked_as_70b() -> None:
    figure = alignment.published_alignment_figure()
    assert "70B" in " ".join(text.get_text() for text in figure.texts)
    plt.close(figure)
