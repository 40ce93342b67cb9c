"""Figures: what is drawn equals what was written by hand, titles say what the numbers are of, files repeat."""

import io
import runpy
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import written
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from PIL import Image

from rmlib import figures, records
from rmlib.experiments.arms import ARMS
from rmlib.figures import arms, style
from rmlib.records import RecordError


@pytest.fixture(scope="module", autouse=True)
def _own_style() -> None:
    plt.switch_backend("agg")
    figures.set_style()


@pytest.fixture(autouse=True)
def close() -> object:
    yield
    plt.close("all")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written.write_comparison(tmp_path / "simulated-embedded.jsonl")


def words(figure: Figure) -> str:
    """The headline, on one line, and what the files say besides."""
    return " ".join(text.get_text().replace("\n", " ") for text in figure.texts) + f" {figure.get_label()}"


def dots(axes: Axes) -> np.ndarray:
    """Points of a row plot from top to bottom."""
    offsets = np.concatenate([found.get_offsets() for found in axes.collections if isinstance(found, PathCollection)])
    return offsets[np.argsort(-offsets[:, 1]), 0]


def rows(axes: Axes) -> list[str]:
    """Labels of a row plot from top to bottom."""
    labels = sorted(axes.get_yticklabels(), key=lambda label: -label.get_position()[1])
    return [label.get_text() for label in labels]


def curve(axes: Axes, name: str) -> list[tuple[float, float]]:
    """Points of the line that the legend calls `name`."""
    (line,) = [line for line in axes.lines if str(line.get_label()).startswith(name)]
    return list(zip(line.get_xdata(), line.get_ydata(), strict=True))


# --- weight -----------------------------------------------------------------------------------------------------------


def test_no_module_of_figures_imports_torch_or_transformers() -> None:
    folder = Path(figures.__path__[0])
    names = [f"rmlib.figures.{file.stem}" for file in sorted(folder.glob("[!_]*.py"))]
    code = f"import sys, rmlib.figures, {', '.join(names)}; print({{'torch', 'transformers'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(names) > 10 and done.stdout.strip() == "set()"


# --- what is drawn ----------------------------------------------------------------------------------------------------


def test_the_dots_of_the_ladder_are_the_accuracies_and_its_ticks_those_of_the_seeds(file: Path) -> None:
    figure = figures.ladder_figure(file)
    (axes,) = figure.axes
    assert dots(axes).tolist() == [0.625, 0.375, 0.875, 0.875, 1.0, 0.5, 0.25]
    assert rows(axes)[0] == "Regression, helpfulness only" and rows(axes)[-1] == "Ruler: longer"
    ticks = [sorted(line.get_xdata()) for line in axes.lines if line.get_marker() == "|"]
    assert ticks == [[0.5, 0.75], [0.25, 0.5], [0.75, 1.0], [0.75, 1.0], [1.0, 1.0], [0.5, 0.5], []]


def test_the_ladder_s_lines_hold_their_dots(file: Path) -> None:
    (axes,) = figures.ladder_figure(file).axes
    lines = [found for found in axes.collections if not isinstance(found, PathCollection)]
    segments = [segment[:, 0] for found in lines for segment in found.get_segments()]
    for (low, high), dot in zip(segments, dots(axes), strict=True):
        assert low <= dot <= high


def test_the_differences_are_in_points_and_against_the_parent(file: Path) -> None:
    (axes,) = figures.differences_figure(file).axes
    drawn = dict(zip(rows(axes), dots(axes), strict=True))
    assert drawn["Scaled BT\nagainst Regular BT"] == pytest.approx(50)  # 0.875 - 0.375
    assert drawn["Scaled BT, from regression\nagainst Scaled BT"] == pytest.approx(0)
    assert not any(name.startswith("Control") for name in drawn)  # so far below that they would set the scale
    assert any("+50.0, p=" in text.get_text() for text in axes.texts)


def test_accuracy_by_strength_is_that_of_pairs_of_that_strength(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arms, "FEWEST", 1)
    axes = figures.strata_figure(file).axes[0]
    # Regression over both seeds: pairs 1 and 2 always right, pair 3 once, pair 4 never.
    assert [y for _, y in curve(axes, "Regression")] == [1.0, 0.5, 0.0]
    assert [label.get_text().split("\n")[1] for label in axes.get_xticklabels()] == ["n=2", "n=1", "n=1"]


def test_strengths_of_other_test_pairs_are_refused(file: Path) -> None:
    records.append(file, kind="test_pairs", asked={"source": "another"}, outcome={"strength": [1, 2]})
    with pytest.raises(RecordError, match="other pairs than the arms'; run notebook 02"):
        figures.strata_figure(file)


def test_the_calibration_error_is_the_distance_from_sigmoid_of_the_margin(file: Path) -> None:
    titles = {axes.get_title(loc="left") for axes in figures.calibration_figure(file).axes}
    confidence = 1 / (1 + np.exp(-1))  # all margins of regression are 1 or -1, five of eight positive
    assert f"Regression, helpfulness only\nECE {confidence - 5 / 8:.3f}" in titles


def test_calibration_draws_no_bin_of_few_pairs(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    written.write_arm(file, "bt", [[0.1] * 30 + [5.0] * 29])
    (axes,) = figures.calibration_figure(file).axes
    _, drawn = axes.lines  # after the diagonal
    assert list(drawn.get_ydata()) == [1.0]


def test_an_interval_of_calibration_counts_a_pair_once_whatever_the_number_of_seeds(tmp_path: Path) -> None:
    for seeds in (1, 4):
        written.write_arm(tmp_path / f"{seeds}.jsonl", "bt", [[0.1] * 30 + [-0.1] * 10] * seeds)
    (line,), (same,) = (
        figures.calibration_figure(tmp_path / f"{seeds}.jsonl").axes[0].collections[0].get_segments()
        for seeds in (1, 4)
    )
    assert np.allclose(line, same)
    assert np.allclose(line[:, 1], [0.598, 0.858], atol=0.002)  # Wilson's interval of 30 out of 40


def test_the_sweep_s_ring_is_at_the_chosen_factor_and_the_test_panel_appears_where_recorded(file: Path) -> None:
    figure = figures.sweep_figure(file)
    (axes,) = figure.axes
    assert curve(axes, "seed 0") == [(1.0, 0.5), (1.5, 0.75)]
    rings = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if line.get_markersize() == 11]
    assert rings == [(1.5, 0.75)] * 2
    other = [{"factor": 1.0, "accuracy": 0.25, "loss": 0.6}]
    for comparison in ("first", "another"):
        asked = {"arm": "bt_scaled_init_expo", "comparison": comparison}
        records.append(file, kind="sweep_on_test", asked=asked, outcome={"sweep": other}, seed=0)
    panels = figures.sweep_figure(file).axes
    assert len(panels) == 2 and curve(panels[1], "seed 0") == [(1.0, 0.25)]
    assert "never chosen on" in panels[1].get_title(loc="left")
    asked = {"arm": "bt_scaled_init_expo", "comparison": "first", "items": "simulated"}
    records.append(file, kind="sweep_on_benchmark", asked=asked, outcome={"sweep": other}, seed=0)
    assert figures.sweep_figure(file).axes[2].get_title(loc="left").startswith("Benchmark")


def test_the_curves_are_means_of_the_seeds_in_one_panel_a_loss(file: Path) -> None:
    panels = {axes.get_title(loc="left"): axes for axes in figures.curves_figure(file).axes}
    assert list(panels) == ["Regression (points²)", "Regular BT (nats)", "Scaled BT (nats)"]
    assert curve(panels["Scaled BT (nats)"], "Scaled BT, from regression")[0] == (1.0, 1.5)
    assert len(panels["Regular BT (nats)"].lines) == 2  # regular BT and the control


def test_figure_1_prints_the_counts(file: Path) -> None:
    axes = figures.figure_1(file).axes[0]
    assert sorted({text.get_text() for text in axes.texts}) == ["0", "2", "5"]
    assert len(axes.texts) == 7 * 9


def test_figure_1_is_refused_where_nothing_is_rated(tmp_path: Path) -> None:
    about = {"figure_1": np.zeros((7, 9), int).tolist(), "r_preference": {"helpfulness": None}}
    records.append(tmp_path / "votes.jsonl", kind="pairs", asked={"source": written.SOURCE}, outcome=about)
    with pytest.raises(RecordError, match="no pair has both a preference and ratings"):
        figures.figure_1(tmp_path / "votes.jsonl")


def test_the_affine_figure_draws_the_bins(file: Path) -> None:
    (axes,) = figures.affine_figure(file).axes
    assert curve(axes, "Scaled BT, from regression\n2.00 x reward +1.00\nr=0.50 [0.40, 0.60]") == [(1.0, 1.5)] * 2


def test_the_benchmark_has_a_panel_a_section_and_the_rulers_last(file: Path) -> None:
    panels = figures.benchmark_figure(file).axes
    assert [axes.get_title(loc="left") for axes in panels] == ["Score", "Chat"]
    assert dots(panels[0]).tolist() == [0.7, 0.4]
    assert rows(panels[0]) == ["Scaled BT", "Ruler: longer"]


def test_the_published_figure_shows_the_paper_s_nine_rows(file: Path) -> None:
    panels = figures.published_figure().axes
    assert dots(panels[0]).tolist() == [92.4, 93.0, 91.5, 91.5, 92.7, 92.7, 93.0, 93.7, 94.1]
    assert dots(panels[2])[-1] == 85.7  # Chat Hard of Llama-3.1-Nemotron-70B-Reward


# Of records that a comparison of arms does not write; the small run of notebook 07 draws them.
OF_JUDGES = {"fine_tuning", "judges", "judges_by_strength"}
OF_ARMS = [name for name in figures.FIGURES if name not in OF_JUDGES]


# --- looks ------------------------------------------------------------------------------------------------------------


def test_no_two_arms_look_alike_and_those_of_one_plot_differ_in_grey() -> None:
    looks = [arm.look[:2] for arm in ARMS.values()]
    assert len(set(looks)) == len(looks)
    assert len({ARMS[name].look[1] for name in arms.COMPARED}) == len(arms.COMPARED)


@pytest.mark.parametrize("name", ["strata", "uncertainty", "curves", "affine"])
def test_an_arm_looks_in_every_figure_as_it_was_declared(name: str, file: Path) -> None:
    titles = {arm.title: arm.look[:2] for arm in ARMS.values()}
    lines = [line for axes in figures.FIGURES[name](file).axes for line in axes.lines]
    shown = [(str(line.get_label()).split("\n")[0], (line.get_color(), line.get_marker())) for line in lines]
    known = [(label, look) for label, look in shown if label in titles]
    assert known and all(titles[label] == look for label, look in known)


def test_an_arm_fine_tuned_beside_a_frozen_one_is_the_same_mark_hollow() -> None:
    own, tuned = style.look_of("bt"), style.look_of("bt_finetuned")
    assert tuned == own | {"mfc": "white"}


# --- titles -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OF_ARMS)
def test_every_title_says_that_the_pairs_are_simulated(name: str, file: Path) -> None:
    assert "simulated pairs (8 train, 4 validation)" in words(figures.FIGURES[name](file))


OF_THE_DATA = ("figure_1", "agreement", "annotators", "aspects", "simulation")


@pytest.mark.parametrize("name", [name for name in OF_ARMS if name not in OF_THE_DATA])
def test_titles_say_where_preferences_are_derived_from_ratings(name: str, tmp_path: Path) -> None:
    figure = figures.FIGURES[name](written.write_comparison(tmp_path / "own.jsonl", source=written.DERIVED))
    assert "preferences derived from helpfulness" in words(figure) and "simulated pairs" not in words(figure)


def test_titles_give_number_of_pairs_seeds_and_kind_of_interval(file: Path) -> None:
    ladder, differences = words(figures.ladder_figure(file)), words(figures.differences_figure(file))
    assert "4 decided test pairs; up to 2 seeds (ticks); lines: 95 % intervals" in ladder
    assert "trained on 8 pairs" in ladder and "backbone embedded" in ladder
    assert "lines: 95 %, p: Holm, both over prompts and seeds" in differences
    assert "n=7 with a preference and both ratings, Pearson r=0.91" in words(figures.figure_1(file))


def test_the_benchmark_s_title_says_how_far_it_is_the_official_one(file: Path) -> None:
    assert "simulated items" in words(figures.benchmark_figure(file))


def test_the_lesson_figure_prints_value_and_slope_of_each_loss() -> None:
    # At margin 0 and strength 2: ln 2 and -1/2; softplus(2) = 2.1269 and -sigmoid(2) = -0.881; twice the first.
    titles = [axes.get_title(loc="left") for axes in figures.loss_at_figure(0.0, 2.0).axes]
    expected = [("Regular", "0.693", "-0.500"), ("Margin", "2.127", "-0.881"), ("Scaled", "1.386", "-1.000")]
    assert titles == [f"{name}: loss {loss}, slope {slope}" for name, loss, slope in expected]


def test_published_numbers_are_called_so_with_their_source() -> None:
    title = words(figures.published_figure())
    assert title.startswith("published") and "poster" in title and "no intervals or seeds known" in title


def test_a_frozen_backbone_is_told_from_a_trained_one(tmp_path: Path) -> None:
    written.write_arm(tmp_path / "a.jsonl", "bt", [[1, 1, -1]], preset="frozen")
    assert "head trained on 8 pairs" in words(figures.ladder_figure(tmp_path / "a.jsonl"))
    written.write_arm(tmp_path / "a.jsonl", "bt", [[1, 1, -1]], preset="finetuned", comparison="second")
    assert "head or all weights trained" in words(figures.ladder_figure(tmp_path / "a.jsonl"))


def boxes(figure: Figure) -> dict[str, tuple[float, float, float, float]]:
    """Where the headline, the legends and the panels (with their labels) lie, in pixels."""
    figure.canvas.draw()
    found = {f"headline {i}": text.get_window_extent() for i, text in enumerate(figure.texts)}
    found |= {f"legend {i}": legend.get_window_extent() for i, legend in enumerate(figure.legends)}
    found |= {f"panel {i}": axes.get_tightbbox() for i, axes in enumerate(figure.axes)}
    return {name: box.extents for name, box in found.items()}


@pytest.mark.parametrize("name", [*OF_ARMS, *figures.GENERAL])
def test_headline_legend_and_panels_do_not_overlap(name: str, file: Path) -> None:
    drawn = boxes((figures.FIGURES | figures.GENERAL)[name](file))
    names, slack = list(drawn), 2  # pixels: frames may touch
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            if first[:5] == second[:5] == "panel":  # the label in the middle may reach below its neighbours
                continue
            (left, bottom, right, top), (x, y, u, v) = drawn[first], drawn[second]
            apart = left > u - slack or x > right - slack or bottom > v - slack or y > top - slack
            assert apart, f"{first} and {second} overlap"


# --- missing records, files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", figures.FIGURES)
def test_a_figure_without_its_records_says_what_to_run(name: str, tmp_path: Path) -> None:
    records.append(tmp_path / "a.jsonl", kind="note", asked={}, outcome={})
    with pytest.raises(RecordError, match="run the notebook that writes them"):
        figures.FIGURES[name](tmp_path / "a.jsonl")


def test_a_comparison_without_the_arm_that_a_figure_is_about_names_the_notebook(tmp_path: Path) -> None:
    written.write_arm(tmp_path / "a.jsonl", "bt_init", [[1, 1, -1]])
    records.append(tmp_path / "a.jsonl", kind="test_pairs", asked={}, outcome={"strength": [1, 2, 3]})
    with pytest.raises(RecordError, match="bt_scaled_init_expo; run notebook 03"):
        figures.sweep_figure(tmp_path / "a.jsonl")
    with pytest.raises(RecordError, match="run notebook 02"):
        figures.strata_figure(tmp_path / "a.jsonl")


def test_saving_twice_gives_equal_bytes_as_pdf_and_png(file: Path, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        figures.save_figure(figures.ladder_figure(file), "ladder", tmp_path / folder)
    for suffix in ("pdf", "png"):
        one, two = ((tmp_path / folder / f"ladder.{suffix}").read_bytes() for folder in ("one", "two"))
        assert one == two and len(one) > 5000 and b"CreationDate" not in one
    figures.save_figure(figures.differences_figure(file), "ladder", tmp_path / "two")
    assert (tmp_path / "two" / "ladder.png").read_bytes() != (tmp_path / "one" / "ladder.png").read_bytes()


def test_a_notebook_s_png_is_small_and_looks_the_same(file: Path) -> None:
    figure, full = figures.ladder_figure(file), io.BytesIO()
    figure.savefig(full, format="png", dpi=figure.dpi, bbox_inches="tight")
    small = style.small_png(figure)
    assert len(small) < len(full.getvalue()) / 2
    pictures = [np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), float) for png in (small, full.getvalue())]
    assert pictures[0].shape == pictures[1].shape and np.abs(pictures[0] - pictures[1]).mean() < 1  # of 255


@pytest.fixture
def moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RMLIB_RESULTS", str(tmp_path / "results"))
    monkeypatch.setenv("RMLIB_FIGURES", str(tmp_path / "figures"))
    (tmp_path / "results").mkdir()
    return tmp_path


def test_the_command_draws_every_figure_and_table_of_every_file(
    moved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written.write_comparison(moved / "results" / "simulated-embedded.jsonl")
    written.write_arm(moved / "results" / "own-minilm.jsonl", "bt", [[1, 1, -1]], source=written.DERIVED)
    runpy.run_module("rmlib.figures", run_name="__main__")
    names = {path.relative_to(moved / "figures").as_posix() for path in (moved / "figures").rglob("*.*")}
    expected = {f"{name}.{kind}" for name in figures.GENERAL for kind in ("pdf", "png")}
    expected |= {f"simulated-embedded/{name}.{kind}" for name in OF_ARMS for kind in ("pdf", "png")}
    expected |= {f"simulated-embedded/{name}.csv" for name in figures.TABLES}
    assert expected <= names
    assert "own-minilm/ladder.png" in names and "own-minilm/sweep.png" not in names
    assert "own-minilm.jsonl: figures ladder" in capsys.readouterr().out


def test_drawing_what_is_not_recorded_logs_it_and_goes_on(
    file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    empty = tmp_path / "empty.jsonl"
    records.append(empty, kind="note", asked={}, outcome={})
    assert figures.draw("ladder", empty, tmp_path) is None and figures.tabulate("arms", empty, tmp_path) is None
    assert "empty: no figure 'ladder'" in caplog.text and "empty: no table 'arms'" in caplog.text
    assert figures.draw("ladder", file, tmp_path) is not None and (tmp_path / "ladder.pdf").is_file()
