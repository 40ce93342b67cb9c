"""Models compared by the official score of a benchmark: its weights, its sections, its groups of items."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel
from statsmodels.stats.multitest import multipletests

from rmlib import benchmarks
from rmlib.benchmarks import rewardbench, rewardbench2, rmbench
from rmlib.benchmarks.compare import compare, compare_by_subset, drawn_scores
from rmlib.benchmarks.recording import pack, unpack
from rmlib.statistics import Longer, Random, Shorter


@pytest.fixture(scope="module")
def credits() -> dict[str, list[pd.DataFrame]]:
    items = benchmarks.load("rewardbench")
    models = {"longer": [Longer()], "shorter": [Shorter()], "random": [Random(0), Random(1)]}
    scored = {name: [benchmarks.score(m, items, progress=False) for m in seeds] for name, seeds in models.items()}
    return {name: [benchmarks.credits(items, scores) for scores in seeds] for name, seeds in scored.items()}


def one(credits: np.ndarray, subsets: list[str]) -> list[pd.DataFrame]:
    return [pd.DataFrame({"subset": subsets, "credit": credits})]


def test_scores_and_their_intervals_are_those_of_the_report(credits: dict) -> None:
    items = benchmarks.load("rewardbench")
    board = compare(rewardbench.BENCHMARK, credits, seed=0).leaderboard
    report = benchmarks.summarise(items, credits["shorter"][0], seed=0).sections.loc["Score"]
    assert board.loc["shorter", ["estimate", "low", "high"]].tolist() == pytest.approx(
        report[["estimate", "low", "high"]].tolist(), abs=1e-9
    )


def test_what_records_keep_gives_the_same_comparison(credits: dict) -> None:
    kept = {model: [unpack(pack(table)) for table in tables] for model, tables in credits.items()}
    direct, again = (compare(rewardbench.BENCHMARK, each, draws=200) for each in (credits, kept))
    pd.testing.assert_frame_equal(direct.leaderboard, again.leaderboard)
    pd.testing.assert_frame_equal(direct.differences, again.differences)


def test_a_section_alone_counts_its_own_items(credits: dict) -> None:
    result = compare(rewardbench.BENCHMARK, credits, section="Chat Hard", draws=200)
    inside = credits["longer"][0]["subset"].map(lambda name: rewardbench.SUBSETS[name].section) == "Chat Hard"
    assert set(result.leaderboard["n"]) == {240} and inside.sum() == 240
    row = result.differences.query("model == 'longer' and against == 'shorter'").iloc[0]
    a, b = (credits[name][0]["credit"][inside].astype(int) for name in ("longer", "shorter"))
    assert row["p"] == pytest.approx(ttest_rel(a, b).pvalue, rel=0.25)  # of weighted subsets, each redrawn by itself


def test_p_by_subset_is_corrected_over_the_number_of_subsets(credits: dict) -> None:
    found = compare_by_subset(rewardbench.BENCHMARK, credits, draws=50)
    pair = found[(found["model"] == "longer") & (found["against"] == "shorter")].set_index("subset")
    assert len(pair) == len(rewardbench.SUBSETS) == 23 and (pair["n"] == 40).all()
    a, b = (credits[name][0].set_index("subset")["credit"] for name in ("longer", "shorter"))
    for subset in pair.index:
        assert pair.loc[subset, "estimate"] == pytest.approx(a[subset].mean() - b[subset].mean())
        assert pair.loc[subset, "p"] >= 2.0 ** (1 - (a[subset] != b[subset]).sum())
    assert pair["p"].to_numpy() == pytest.approx([ttest_rel(a[each], b[each]).pvalue for each in pair.index], abs=0.1)
    assert pair["p (Holm)"].to_numpy() == pytest.approx(multipletests(pair["p"], method="holm")[1])
    assert pair["p (Šidák)"].to_numpy() == pytest.approx(multipletests(pair["p"], method="sidak")[1])


def test_the_official_weights_decide_not_the_number_of_items() -> None:
    subsets = [name for name in rewardbench.SUBSETS for _ in range(10)]
    mathematics = np.array([name == "math-prm" for name in subsets])
    code = np.array([name.startswith("hep-") for name in subsets])
    scores = drawn_scores(
        rewardbench.BENCHMARK,
        {"mathematics": one(mathematics * 1.0, subsets), "code": one(code * 1.0, subsets)},
        section="Reasoning",
        draws=5,
    )
    assert scores["mathematics"][:, 0].tolist() == pytest.approx([0.5] * 6)  # one subset of seven
    assert scores["code"][:, 0].tolist() == pytest.approx([0.5] * 6)


def test_seeds_of_a_model_are_columns_and_all_models_meet_the_same_draws(credits: dict) -> None:
    twice = {"a": credits["random"], "b": [credits["random"][1], credits["random"][0]]}
    scores = drawn_scores(rewardbench.BENCHMARK, twice, draws=20)
    assert scores["a"].shape == (21, 2)
    np.testing.assert_allclose(scores["a"], scores["b"][:, ::-1], atol=1e-12)


def test_rm_bench_is_compared_by_shared_credit_and_its_difficulties_have_their_own() -> None:
    rng = np.random.default_rng(0)
    subsets = [name for name in rmbench.SUBSETS for _ in range(30)]

    def model(share: float) -> list[pd.DataFrame]:
        parts = {name: rng.binomial(3, share, len(subsets)) / 3 for name in rmbench.DIFFICULTIES}
        table = pd.DataFrame({"subset": subsets, **parts})
        return [table.assign(credit=table[list(rmbench.DIFFICULTIES)].mean(axis=1))]

    models = {"good": model(0.9), "poor": model(0.5)}
    result = compare(rmbench.BENCHMARK, models, draws=500)
    assert result.leaderboard["rank"].to_dict() == {"good": 1, "poor": 2} and result.differences["clear"].all()
    parts = [drawn_scores(rmbench.BENCHMARK, models, section=name, draws=0) for name in rmbench.DIFFICULTIES]
    mean = np.mean([part["good"][0, 0] for part in parts])
    assert result.leaderboard.loc["good", "estimate"] == pytest.approx(mean)


def test_a_question_of_ties_is_tested_with_both_of_its_items() -> None:
    rows = [
        {"subset": "Ties", "item_id": f"Ties/{kind}:{k}", "group": str(k)} for k in range(6) for kind in ("tied", "ref")
    ]
    table = pd.DataFrame(rows).assign(**{name: 1.0 for name in rewardbench2.BENCHMARK.columns})
    nothing = table.assign(**{name: 0.0 for name in rewardbench2.BENCHMARK.columns})
    result = compare(rewardbench2.BENCHMARK, {"all": [table], "none": [nothing]}, section="Ties", draws=50)
    assert result.differences["p"].tolist() == [pytest.approx(2 * 0.5**6)]  # six questions, not twelve items


def test_items_without_a_credit_are_left_out_for_all() -> None:
    subsets = ["chat"] * 4
    tables = {"a": [1.0, 1.0, np.nan, 1.0], "b": [0.0, 0.0, 0.0, 0.0]}
    frames = {
        name: [pd.DataFrame({"subset": subsets, "credit": values, **dict.fromkeys(rmbench.DIFFICULTIES, 0.5)})]
        for name, values in tables.items()
    }
    result = compare(rmbench.BENCHMARK, frames, section="chat", draws=50)
    assert result.leaderboard["n"].tolist() == [3, 3] and result.differences["p"].tolist() == [0.25]


def test_other_items_and_missing_sections_are_refused(credits: dict) -> None:
    with pytest.raises(ValueError, match="'b' was scored on other items"):
        compare(rewardbench.BENCHMARK, {"a": one(np.ones(2), ["hep-go"] * 2), "b": one(np.ones(2), ["math-prm"] * 2)})
    with pytest.raises(ValueError, match=r"no 'Score' from these items, only \[\]"):
        compare(rewardbench.BENCHMARK, {"a": one(np.ones(2), ["hep-go"] * 2)})
