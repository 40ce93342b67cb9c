"""Figures of the data show the numbers of their records, and tell published from simulated ones."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import written
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection

from rmlib import records
from rmlib.figures import data


@pytest.fixture
def file(tmp_path: Path) -> Path:
    plt.switch_backend("agg")
    written.write_data(tmp_path / "simulated-embedded.jsonl")
    return tmp_path / "simulated-embedded.jsonl"


def dots(axes: Axes, label: str) -> np.ndarray:
    """Places of the marks of one series, `[mark, (x, y)]`."""
    found = [c for c in axes.collections if isinstance(c, PathCollection) and c.get_label() == label]
    return np.concatenate([np.asarray(c.get_offsets()) for c in found])


def test_agreement_shows_quadratic_kappa_of_each_stage_and_the_published_values(file: Path) -> None:
    axes = data.agreement_figure(file).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["preference", "coherence"]
    assert sorted(dots(axes, "raw")[:, 0]) == [0.4, 0.45]
    assert dots(axes, "processed")[:, 0].tolist() == [0.55]
    table = records.published("agreement").set_index(["label", "stage"])["kappa"]
    expected = [table["preference", "raw"], table["preference", "processed"]]
    expected += [table["coherence", stage] for stage in ("initial", "improved", "post-processed")]
    assert sorted(dots(axes, "published, HelpSteer2")[:, 0]) == sorted(expected)


def test_published_kappas_stand_in_the_row_of_the_stage_they_belong_to(file: Path) -> None:
    axes = data.agreement_figure(file).axes[0]
    raw = {round(y, 6) for _, y in dots(axes, "raw")}
    table = records.published("agreement").set_index(["label", "stage"])["kappa"]
    published = {x: round(y, 6) for x, y in dots(axes, "published, HelpSteer2")}
    assert published[table["preference", "raw"]] in raw and published[table["preference", "processed"]] not in raw


def test_the_kappa_table_has_the_published_value_beside_each_step(file: Path) -> None:
    table = data.kappa_table(file)
    published = records.published("agreement").set_index(["label", "stage"])["kappa"]
    assert table.loc[("preference", "raw"), "estimate"] == 0.4
    assert ("preference", "processed, without 0") not in table.index
    assert table.loc[("coherence", "raw"), "published, HelpSteer2"] == published["coherence", "initial"]
    assert np.isnan(table.loc[("preference", "three most similar"), "published, HelpSteer2"])


def test_annotators_without_company_are_left_out_and_grouped_by_how_much_they_did(file: Path) -> None:
    panels = data.annotators_figure(file).axes
    assert [axes.get_xlabel() for axes in panels] == ["share of others who agree", "true share right"]
    assert [dots(panels[0], f"{size} annotations").tolist() for size in ("1 to 2", "3 to 9", "30 and more")] == [
        [[0.5, 0.6]], [[0.6, 0.7]], [[0.7, 0.8]],
    ]  # fmt: skip


def test_marks_of_many_annotators_give_way_to_counts(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n = sum(len(c.get_offsets()) for c in data.annotators_figure(file).axes[0].collections)
    monkeypatch.setattr(data, "MANY", 2)
    (cells,) = data.annotators_figure(file).axes[0].collections
    assert cells.get_array().sum() == n


def test_without_known_quality_there_is_one_panel(file: Path) -> None:
    record = records.read(file, kind="annotators").iloc[-1]
    rows = [row | {"known": None} for row in record["outcome.rows"]]
    records.append(file, kind="annotators", asked={"source": written.SOURCE}, outcome={"rows": rows, "known": ""})
    assert len(data.annotators_figure(file).axes) == 1


def test_aspects_come_by_frequency_with_their_share_at_each_strength_that_occurs(file: Path) -> None:
    left, right = data.aspects_figure(file).axes
    assert [text.get_text() for text in left.get_yticklabels()] == ["tone", "correctness"]
    assert dots(left, "all").tolist() == [[0.2, 0], [0.4, 1]]
    assert dots(left, "strength 2")[:, 0].tolist() == [0.3, 0.3]
    assert not any(c.get_label() == "strength 0" for c in left.collections)
    assert "minus" in right.get_xlabel()


def test_misfits_are_drawn_in_tolerances_and_told_from_what_is_within(file: Path) -> None:
    (axes,) = data.simulation_figure(file).axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["share of ties", "kappa"]
    assert dots(axes, "within tolerance") == pytest.approx(np.array([[0.5, 1]]))
    assert dots(axes, "misfit") == pytest.approx(np.array([[2.5, 0]]))
    assert [text.get_text() for text in axes.texts] == ["0.900 / 0.800", "0.820 / 0.800"]
