"""Gold against proxy: peaks, losses and the published form, by hand and by simulation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rmlib import records
from rmlib.alignment import titles
from rmlib.combining import PAPER_FACTOR
from rmlib.figures import alignment_tables, summaries


def gains(*of_points: float, n: int = 200, noise: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.array(of_points)[None, :, None] + noise * rng.normal(size=(3, len(of_points), n))


def test_the_peak_is_chosen_on_one_half_of_the_prompts_and_read_on_the_other() -> None:
    gain = np.zeros((1, 3, 4))
    gain[0, 1, [0, 2]], gain[0, 2, [1, 3]] = 5.0, 3.0  # the even prompts peak at 1, the odd ones at 2
    at_peak, lost = alignment_tables.crossed(gain)
    # Even prompts are read where odd ones peak (the end, 0), odd ones where even ones peak (0).
    np.testing.assert_array_equal(at_peak, np.zeros((1, 4)))
    np.testing.assert_array_equal(lost, [[0.0, -3.0, 0.0, -3.0]])


def test_noise_alone_shows_neither_gain_nor_loss() -> None:
    at_peak, lost = alignment_tables.crossed(gains(0, 0, 0, 0, 0, noise=1.0))
    assert summaries.interval_of(at_peak).low < 0 < summaries.interval_of(at_peak).high
    assert summaries.interval_of(lost).low < 0 < summaries.interval_of(lost).high


def write_runs(file: Path, gold: np.ndarray, divergence: Sequence[float]) -> None:
    records.append(file, kind="alignment_comparison", asked={}, outcome={"comparison": "new"})
    for seed, points in enumerate(gold):
        rows = [
            {"step": 10 * point, "divergence": kl, "gold": values.round(4).tolist(), "proxy": 1.0 + kl, "proxy_sd": 2.0}
            | {"length": 50.0, "n samples": 4, "n not ended": 1, "n empty": 0}
            for point, (values, kl) in enumerate(zip(points, divergence, strict=True))
        ]
        asked = {"method": "reinforce", "arm": "bt", "comparison": "new", "source": {"title": "made up"}}
        records.append(file, kind="alignment", asked=asked, outcome={"rows": rows}, seed=seed)
    old = {"method": "reinforce", "arm": "bt", "comparison": "old", "source": {"title": "made up"}}
    records.append(file, kind="alignment", asked=old, outcome={"rows": []}, seed=0)


def test_records_of_a_reward_that_is_followed_too_far_say_where_it_ended(tmp_path: Path) -> None:
    file = tmp_path / "made_alignment.jsonl"
    write_runs(file, gains(1.0, 1.4, 1.6, 1.2, noise=0.2), [0.0, 1.0, 4.0, 9.0])
    row = alignment_tables.over_optimisation(file).iloc[0]
    assert row["peak divergence"] == row["peak low"] == row["peak high"] == 4.0
    assert row["gain"] == pytest.approx(0.6, abs=0.05) and row["loss"] == pytest.approx(0.4, abs=0.05)
    assert row["over-optimised"]
    table = alignment_tables.curve_table(file)
    assert table["proxy"].tolist() == [0.0, 0.5, 2.0, 4.5] and (table["not_ended"] == 0.25).all()


def test_runs_that_no_truth_measured_are_refused(tmp_path: Path) -> None:
    with pytest.raises(records.RecordError, match="only simulated prompts have one"):
        alignment_tables.gold_gain(pd.DataFrame({"rows": [[{"proxy": 1.0}]]}))


@pytest.mark.parametrize("best", [True, False])
def test_the_published_form_is_found_again_where_it_is_true(best: bool) -> None:
    divergence = np.array([0.0, 0.1, 0.5, 1.0, 3.0, 8.0])
    gain = alignment_tables.scaling_curve(divergence, 1.3, 0.4, best_of_n=best)
    assert alignment_tables.scaling_law(divergence, gain, best_of_n=best) == pytest.approx((1.3, 0.4), rel=1e-4)
    assert alignment_tables.scaling_curve(np.array([4.0]), 1.0, 0.25, best_of_n=True)[0] == pytest.approx(2 * (1 - 0.5))
    with pytest.raises(ValueError, match="too few"):
        alignment_tables.scaling_law(divergence[:3], gain[:3], best_of_n=best)


def test_the_title_of_the_extrapolated_reward_names_the_factor_that_it_is_made_with() -> None:
    assert str(PAPER_FACTOR) in titles.reward_title(titles.EXPO)
