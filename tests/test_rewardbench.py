"""RewardBench: the official arithmetic against published results, and what may go wrong between items and report."""

import gzip
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from written import write_rows as write

from rmlib import benchmarks, records
from rmlib.benchmarks import rewardbench
from rmlib.benchmarks.rewardbench import SECTIONS, SUBSETS, section_scores
from rmlib.records.errors import DataError
from rmlib.statistics import Longer, Random, Shorter, wilson_interval

KEYS = {"chat": "Chat", "chat_hard": "Chat Hard", "safety": "Safety", "reasoning": "Reasoning", "score": "Score"}


def published_accuracy(model: str) -> dict[str, float]:
    counts = records.published("rewardbench_counts")
    rows = counts[counts["model"] == model]
    return dict(zip(rows["subset"], rows["correct"] / rows["n"], strict=True))


def rows_of(n_per_subset: int = 2, subsets: tuple[str, ...] = tuple(SUBSETS)) -> list[dict]:
    return [
        {
            "prompt": f"Question {number} of {subset}?",
            "chosen": f"A good answer to {number}.",
            "chosen_model": "human",
            "rejected": f"No {number}.",
            "rejected_model": "human",
            "subset": subset,
            "id": number,
        }
        for subset in subsets
        for number in range(n_per_subset)
    ]


def items_with(correct: dict[str, int], n: dict[str, int]) -> tuple[Dataset, dict[str, list[float]]]:
    """Items of the official columns, and scores of which so many in each subset favour the chosen response."""
    rows, scores = [], {}
    for subset in n:
        for number in range(n[subset]):
            name = f"{subset}/{number}"
            rows.append({"item_id": name, "subset": subset, "prompt": [{"role": "user", "content": "?"}]})
            scores[name] = [1.0, 0.0] if number < correct[subset] else [0.0, 1.0]
    shared = {"candidates": ["yes", "no"], "correct": [True, False], "pairs": None}
    shared |= {"benchmark": "rewardbench", "source": "folder sha256:0"}
    return Dataset.from_list([row | shared for row in rows], features=benchmarks.FEATURES), scores


# The arithmetic


@pytest.mark.parametrize("model", sorted(set(records.published("rewardbench_counts")["model"])))
def test_section_scores_reproduce_the_published_ones_to_four_decimals_of_percent(model):
    table = records.published("rewardbench_sections").set_index("model")
    computed = section_scores(published_accuracy(model))
    for column, section in KEYS.items():
        assert f"{100 * computed[section]:.4f}" == f"{table.loc[model, column]:.4f}", section


def test_section_scores_round_to_what_the_authors_print_for_their_model():
    table = records.published("table1").set_index("model").loc["scaled + ExPO"]
    computed = section_scores(published_accuracy("Llama-3.1-Nemotron-70B-Reward"))
    assert [round(100 * computed[KEYS[key]], 1) for key in ("chat", "chat_hard", "safety", "reasoning", "score")] == [
        *(table[["chat", "chat_hard", "safety", "reasoning"]]),
        table["overall"],
    ]


def test_the_xstest_weights_are_those_that_published_safety_scores_were_made_with():
    table = records.published("table1").set_index("model")
    accuracy = published_accuracy("Nemotron-4-340B-Reward")
    exchanged = {"xstest-should-refuse": 250, "xstest-should-respond": 154}
    weights = {name: exchanged.get(name, item.n) for name, item in SUBSETS.items() if item.section == "Safety"}
    wrong = np.average([accuracy[name] for name in weights], weights=list(weights.values()))
    printed = table.loc["Nemotron-4-340B-Reward", "safety"]
    assert round(100 * section_scores(accuracy)["Safety"], 1) == printed != round(100 * wrong, 1)


def test_the_counts_add_up_to_the_official_totals():
    sizes = pd.DataFrame(SUBSETS.values()).groupby("section").sum()
    assert sizes["n"].to_dict() == {"Chat": 358, "Chat Hard": 456, "Safety": 740, "Reasoning": 1431}
    assert sizes["n"].sum() == 2985
    assert len(SUBSETS) == 23
    assert sizes["weight"]["Reasoning"] == 984 + 6 * 164 == 1968


def test_reasoning_is_half_mathematics_and_half_the_mean_of_six_languages():
    accuracy = {name: 0.5 for name in SUBSETS} | {"math-prm": 0.9, "hep-go": 0.8}
    assert section_scores(accuracy)["Reasoning"] == pytest.approx((0.9 + (0.8 + 5 * 0.5) / 6) / 2)


@given(st.floats(0, 1))
def test_equal_accuracies_give_that_accuracy_in_every_section(accuracy):
    scores = section_scores(dict.fromkeys(SUBSETS, accuracy))
    assert list(scores) == [*SECTIONS, "Score"]
    assert list(scores.values()) == pytest.approx([accuracy] * 5)


@given(st.lists(st.floats(0, 1), min_size=23, max_size=23), st.sampled_from(sorted(SUBSETS)), st.floats(0, 1))
def test_scores_lie_in_0_to_1_and_never_fall_when_a_subset_rises(values, subset, raised):
    before = dict(zip(SUBSETS, values, strict=True))
    after = before | {subset: max(raised, before[subset])}
    low, high = section_scores(before), section_scores(after)
    assert all(0 <= low[name] <= high[name] <= 1 for name in low)
    changed = {name for name in low if high[name] != low[name]}
    assert changed <= {SUBSETS[subset].section, "Score"}


def test_missing_unknown_and_impossible_accuracies_are_refused_by_name():
    good = dict.fromkeys(SUBSETS, 0.5)
    with pytest.raises(ValueError, match="no accuracy for the subsets hep-go, math-prm: score them"):
        section_scores({name: value for name, value in good.items() if name not in ("hep-go", "math-prm")})
    with pytest.raises(ValueError, match="unknown subsets mt-bench-medium; rewardbench has alpacaeval-easy"):
        section_scores(good | {"mt-bench-medium": 0.5})
    for bad in (float("nan"), 71.0, -0.1):
        with pytest.raises(ValueError, match=f"0..1, got {{'donotanswer': {bad}}}: divide percentages"):
            section_scores(good | {"donotanswer": bad})


# Items


def test_a_folder_in_the_official_layout_becomes_items_in_its_order(tmp_path):
    rows = rows_of()
    rows[0]["prompt"] = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}] + [
        {"role": "user", "content": "Why?"}
    ]
    items = benchmarks.load("rewardbench", source=write(tmp_path / "bench", rows))
    assert items.features == benchmarks.FEATURES
    assert list(items["item_id"]) == [f"{row['subset']}/{row['id']}" for row in rows]
    assert items[0]["prompt"] == rows[0]["prompt"]
    assert items[1]["prompt"] == [{"role": "user", "content": rows[1]["prompt"]}]
    assert items[1]["candidates"] == [rows[1]["chosen"], rows[1]["rejected"]]
    assert set(items["benchmark"]) == {"rewardbench"}


def test_the_source_names_the_content_and_not_the_folder(tmp_path):
    first = benchmarks.load("rewardbench", source=write(tmp_path / "one", rows_of()))[0]["source"]
    Dataset.from_list(rows_of(3)).to_parquet(tmp_path / "other.parquet")
    second = benchmarks.load("rewardbench", source=tmp_path / "other.parquet")[0]["source"]
    assert first.startswith("folder sha256:") and str(tmp_path) not in first
    assert first != second


def test_of_an_official_download_only_the_filtered_split_is_read(tmp_path):
    (tmp_path / "data").mkdir()
    Dataset.from_list(rows_of(2)).to_parquet(tmp_path / "data" / "filtered-00000-of-00001.parquet")
    Dataset.from_list(rows_of(5)).to_parquet(tmp_path / "data" / "raw-00000-of-00001.parquet")
    assert len(benchmarks.load("rewardbench", source=tmp_path)) == 2 * 23


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subset": "chatty"}, r"items.jsonl.gz, row 4, field 'subset': unknown subset 'chatty'"),
        ({"subset": None}, r"items.jsonl.gz, row 4, field 'subset': the field is missing"),
        ({"id": None}, r"items.jsonl.gz, row 4, field 'id': the field is missing"),
        ({"chosen": "  "}, r"items.jsonl.gz, row 4, field 'chosen': the text is empty"),
        ({"rejected": ""}, r"items.jsonl.gz, row 4, field 'rejected': the text is empty"),
        ({"rejected": 7}, r"items.jsonl.gz, row 4, field 'rejected': 7 is not a text"),
        ({"prompt": ""}, r"items.jsonl.gz, row 4, field 'prompt': the text is empty"),
        ({"prompt": [{"role": "user"}]}, r"row 4, field 'prompt': .* is not a message"),
        ({"id": 0}, r"bench: ids occur twice: alpacaeval-length/0"),
        ({"chosen": "No 1."}, r"bench: chosen equals rejected: alpacaeval-length/1"),
    ],
)
def test_a_malformed_item_is_refused_with_its_place(tmp_path, change, message):
    rows = rows_of()
    rows[3] |= change
    with pytest.raises(DataError, match=message):
        benchmarks.load("rewardbench", source=write(tmp_path / "bench", rows))


def test_equal_and_empty_responses_can_be_kept_and_are_reported(tmp_path, caplog):
    rows = rows_of()
    rows[3]["chosen"], rows[5]["rejected"] = rows[3]["rejected"], ""
    items = benchmarks.load("rewardbench", source=write(tmp_path / "bench", rows), keep_degenerate=True)
    assert len(items) == len(rows)
    assert "kept 1 items whose responses are equal: alpacaeval-length/1" in caplog.text


def test_missing_subsets_are_refused_unless_asked_for(tmp_path):
    folder = write(tmp_path / "bench", rows_of(subsets=("math-prm", "donotanswer")))
    with pytest.raises(DataError, match="bench: no item of alpacaeval-easy, .*xstest-should-respond. Add them, or set"):
        benchmarks.load("rewardbench", source=folder)
    assert len(benchmarks.load("rewardbench", source=folder, partial=True)) == 4


def test_a_source_with_nothing_to_read_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file or folder .*absent: name one, or use source='simulated'"):
        benchmarks.load("rewardbench", source=tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="holds no .json, .jsonl, .parquet file"):
        benchmarks.load("rewardbench", source=tmp_path)


def test_the_hub_is_read_at_the_commit_that_the_revision_stands_for(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.HfApi.dataset_info",
        lambda self, name, revision: asked.append((name, revision)) or SimpleNamespace(sha="0123abcd"),
    )
    monkeypatch.setattr(
        "datasets.load_dataset",
        lambda name, split, revision: asked.append((name, split, revision)) or Dataset.from_list(rows_of(1)),
    )
    items = benchmarks.load("rewardbench", source="hub", revision="some-tag")
    assert asked == [("allenai/reward-bench", "some-tag"), ("allenai/reward-bench", "filtered", "0123abcd")]
    assert set(items["source"]) == {"allenai/reward-bench@0123abcd"} and len(items) == 23


def test_unknown_benchmarks_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="unknown benchmark 'rewardbnech'; known: rewardbench"):
        benchmarks.load("rewardbnech")


def test_the_simulated_set_covers_all_subsets_and_says_that_it_is_simulated():
    items = benchmarks.load("rewardbench")
    report = benchmarks.summarise(items, benchmarks.score(Longer(), items, progress=False))
    assert set(report.subsets.index) == set(SUBSETS) and "Score" in report.sections.index
    assert report.source == "simulated" and report.label.startswith("simulated") and not report.complete


# Scores


class FirstLetter:
    """Rewards the number of a's; remembers how it was asked."""

    def __init__(self, broken: str = "") -> None:
        self.calls: list[int] = []
        self.broken = broken

    def score(self, prompts, responses):
        assert len(prompts) == len(responses)
        self.calls.append(len(responses))
        return np.array([np.nan if response == self.broken else response.count("a") for response in responses])


def test_every_candidate_is_scored_with_its_own_prompt_whatever_the_cut(tmp_path):
    items = benchmarks.load("rewardbench", source=write(tmp_path / "bench", rows_of(3)))
    whole = benchmarks.score(Random(0), items, items_per_call=1000, progress=False)
    cut = benchmarks.score(Random(0), items, items_per_call=7, progress=False)
    assert whole == cut and list(whole) == list(items["item_id"])
    for item in items.select([0, 17, 68]):
        alone = Random(0).score([item["prompt"]] * 2, item["candidates"])
        assert whole[item["item_id"]] == alone.tolist()
    model = FirstLetter()
    benchmarks.score(model, items, items_per_call=20, progress=False)
    assert model.calls == [40, 40, 40, 18]


def test_a_reward_that_is_not_finite_is_refused_with_the_item(tmp_path):
    items = benchmarks.load("rewardbench", source=write(tmp_path / "bench", rows_of(1)))
    broken = items.map(lambda item: {"candidates": ["broken" if "hep-go" in item["item_id"] else "a", "b"]})
    with pytest.raises(ValueError, match=r"not finite for 1 items, e.g. \['hep-go/0'\]"):
        benchmarks.score(FirstLetter(broken="broken"), broken, progress=False)


def test_a_model_of_several_attributes_is_refused(tmp_path):
    class FiveAttributes:
        def score(self, prompts, responses):
            return np.zeros((len(responses), 5))

    items = benchmarks.load("rewardbench", source=write(tmp_path / "bench", rows_of(1)))
    with pytest.raises(
        ValueError, match=r"one reward for each of 46 responses, got shape \[46, 5\]; .*weigh_attributes"
    ):
        benchmarks.score(FiveAttributes(), items, progress=False)


# Reports


def test_a_report_of_the_published_counts_gives_the_published_scores():
    model = "Nemotron-4-340B-Reward"
    counts = records.published("rewardbench_counts").query("model == @model").set_index("subset")
    items, scores = items_with(counts["correct"].to_dict(), counts["n"].to_dict())
    report = benchmarks.summarise(items, scores)
    published = records.published("rewardbench_sections").set_index("model").loc[model]
    assert (100 * report.sections["estimate"]).tolist() == pytest.approx(published[list(KEYS)].tolist(), abs=5e-5)
    assert report.complete and report.label == "complete" and report.ties == 0
    assert report.sections.loc["Score", "n"] == 2985


def test_ties_are_wrong_and_counted(tmp_path):
    items, scores = items_with({"math-prm": 2}, {"math-prm": 4})
    scores |= {"math-prm/2": [0.5, 0.5], "math-prm/0": [3.0, 3.0]}  # of 4 items: 1 right, 2 ties, 1 wrong
    report = benchmarks.summarise(items, scores)
    row = report.subsets.loc["math-prm"]
    assert (row["estimate"], row["ties"], report.ties) == (0.25, 2, 2)
    assert "2 ties" in report.title


def test_subset_intervals_are_wilsons_and_keep_their_width_where_all_are_right():
    items, scores = items_with({"mt-bench-easy": 28}, {"mt-bench-easy": 28})
    row = benchmarks.summarise(items, scores).subsets.loc["mt-bench-easy"]
    expected = wilson_interval(28, 28)
    assert (row["low"], row["high"]) == (expected.low, expected.high) and row["low"] < 0.9


def test_section_intervals_are_as_wide_as_the_variance_of_their_weighted_sums():
    n = {name: subset.n for name, subset in SUBSETS.items()}
    items, scores = items_with({name: round(0.7 * size) for name, size in n.items()}, n)
    report = benchmarks.summarise(items, scores, draws=10_000)
    share = {name: round(0.7 * size) / size for name, size in n.items()}
    variances = {}
    for section in SECTIONS:
        members = [name for name, subset in SUBSETS.items() if subset.section == section]
        weight = np.array([SUBSETS[name].weight for name in members], dtype=float)
        weight /= weight.sum()
        spread = [share[name] * (1 - share[name]) / n[name] for name in members]
        variances[section] = (weight**2) @ np.array(spread)
    variances["Score"] = sum(variances.values()) / 16
    for name, variance in variances.items():
        row = report.sections.loc[name]
        assert (row["high"] - row["low"]) / 2 == pytest.approx(1.96 * np.sqrt(variance), rel=0.06)


def test_a_section_s_bootstrap_mean_and_width_are_those_of_a_plain_loop_over_redrawn_items():
    n, right = {"hep-go": 5, "math-prm": 8}, {"hep-go": 2, "math-prm": 7}
    items, scores = items_with(right, n)
    report = benchmarks.summarise(items, scores, draws=4000, partial=True)
    rng, drawn = np.random.default_rng(9), []
    for _ in range(4000):
        go, maths = (np.mean(rng.permuted(np.arange(k)[rng.integers(k, size=k)]) < r) for k, r in ((5, 2), (8, 7)))
        drawn.append((164 * go + 984 * maths) / (164 + 984))
    row = report.sections.loc["Reasoning"]
    assert row["estimate"] == pytest.approx((164 * 2 / 5 + 984 * 7 / 8) / 1148)
    assert [row["low"], row["high"]] == pytest.approx(np.quantile(drawn, (0.025, 0.975)), abs=0.02)


def test_the_same_seed_redraws_the_same_items_for_every_model():
    items, scores = items_with({"math-prm": 20}, {"math-prm": 40})
    turned = {name: rewards[::-1] for name, rewards in scores.items()}  # wrong where the other is right
    one, other = (benchmarks.summarise(items, given, partial=True).sections.iloc[0] for given in (scores, turned))
    assert (one["low"], one["high"]) == pytest.approx((1 - other["high"], 1 - other["low"]))


def test_a_partial_set_has_no_score_and_says_so():
    chat = {name: subset.n for name, subset in SUBSETS.items() if subset.section == "Chat"}
    items, scores = items_with({**chat, "hep-go": 1}, {**chat, "hep-go": 164})
    report = benchmarks.summarise(items, scores)
    assert list(report.sections.index) == ["Chat"]  # Reasoning lacks six of its subsets
    assert report.label == "partial: 6 of 23 subsets" and not report.complete
    none = benchmarks.summarise(items.filter(lambda item: item["subset"] == "hep-go"), {
        name: score for name, score in scores.items() if name.startswith("hep-go")
    })  # fmt: skip
    assert len(none.sections) == 0 and len(none.subsets) == 1


def test_a_partial_score_is_given_by_name_over_what_is_there():
    items, scores = items_with({"hep-go": 1, "donotanswer": 2}, {"hep-go": 2, "donotanswer": 2})
    report = benchmarks.summarise(items, scores, partial=True)
    assert report.sections["estimate"].to_dict() == {"Safety": 1.0, "Reasoning": 0.5, "Score": 0.75}
    assert report.label == "partial: 2 of 23 subsets, 4 of 2,985 items" and not report.complete


def test_skipped_items_count_against_completeness_and_are_shown_with_their_reasons():
    n = {name: subset.n for name, subset in SUBSETS.items()}
    items, scores = items_with(n, n)
    lost = {"hep-go/0": "timed out", "hep-go/1": "timed out", "math-prm/7": "no verdict"}
    kept = {name: rewards for name, rewards in scores.items() if name not in lost}
    with pytest.raises(ValueError, match=r"no scores for 3 ids, e.g. \['hep-go/0'.*name those left out as skipped"):
        benchmarks.summarise(items, kept)
    report = benchmarks.summarise(items, benchmarks.Scores(kept, lost))
    assert report.label == "partial: 3 of 2,985 items skipped" and "Score" not in report.sections.index
    assert report.skipped == {"timed out": 2, "no verdict": 1} and "2 skipped: timed out" in report.title
    assert report.subsets.loc["hep-go", ["n", "skipped"]].tolist() == [162, 2]
    assert "Score" in benchmarks.summarise(items, benchmarks.Scores(kept, lost), partial=True).sections.index


def test_credits_say_what_each_item_is_worth_and_can_be_summarised_themselves():
    items, scores = items_with({"math-prm": 1}, {"math-prm": 3})
    scores["math-prm/2"] = [1.0, 1.0]
    table = benchmarks.credits(items, scores)
    assert table["credit"].tolist() == [1, 0, 0] and table["tie"].tolist() == [False, False, True]
    again = benchmarks.summarise(items, table)
    pd.testing.assert_frame_equal(again.subsets, benchmarks.summarise(items, scores).subsets)
    with pytest.raises(ValueError, match="not of these items in their order"):
        benchmarks.summarise(items, table.iloc[::-1])
    with pytest.raises(ValueError, match=r"credits outside 0..1 for 1 ids, e.g. \['math-prm/0'\]"):
        benchmarks.summarise(items, table.assign(credit=[50.0, 0.0, 1.0]))
    with pytest.raises(ValueError, match="the credits lack the columns tie, reason"):
        benchmarks.summarise(items, table[["item_id", "subset", "credit"]])


def test_other_counts_than_the_official_ones_are_never_called_complete():
    n = {name: 2 for name in SUBSETS}
    items, scores = items_with(n, n)
    report = benchmarks.summarise(items, scores)
    assert not report.complete and report.label == "partial: 46 of 2,985 items"


def test_official_counts_of_simulated_items_are_not_complete_either():
    n = {name: subset.n for name, subset in SUBSETS.items()}
    items, scores = items_with(n, n)
    simulated = items.remove_columns("source").add_column("source", ["simulated"] * len(items))
    report = benchmarks.summarise(simulated, scores)
    assert report.label == "simulated" and not report.complete


def test_a_report_goes_through_a_record_and_back(tmp_path):
    n = {name: 4 for name in SUBSETS}
    items, scores = items_with({name: 3 for name in SUBSETS}, n)
    report = benchmarks.summarise(items, scores, partial=True)
    records.append(tmp_path / "r.jsonl", kind="rewardbench", asked={"model": "m"}, outcome=report.to_records())
    outcome = records.read(tmp_path / "r.jsonl").iloc[0]
    assert outcome["outcome.sections"]["Score"]["estimate"] == 0.75
    assert outcome["outcome.subsets"]["hep-go"] == report.subsets.loc["hep-go"].to_dict()
    assert outcome["outcome.label"] == report.label


def test_a_report_shows_itself_as_text_and_as_html():
    items, scores = items_with({"math-prm": 1}, {"math-prm": 3})
    report = benchmarks.summarise(items, scores)
    assert "0.333" in str(report) and "math-prm" in str(report)
    assert report.title in report._repr_html_() and "<table" in report._repr_html_()


def test_scores_must_be_those_of_the_items():
    items, scores = items_with({"math-prm": 1}, {"math-prm": 3})
    with pytest.raises(ValueError, match=r"no scores for 1 ids, e.g. \['math-prm/1'\]"):
        benchmarks.summarise(items, {name: value for name, value in scores.items() if name != "math-prm/1"})
    with pytest.raises(ValueError, match=r"no item for 1 ids, e.g. \['hep-go/0'\]"):
        benchmarks.summarise(items, scores | {"hep-go/0": [1.0, 0.0]})
    with pytest.raises(ValueError, match=r"not one score a candidate for 1 ids, e.g. \['math-prm/2'\]"):
        benchmarks.summarise(items, scores | {"math-prm/2": [1.0]})


def test_no_items_are_nothing_to_summarise():
    items, _ = items_with({"math-prm": 1}, {"math-prm": 3})
    with pytest.raises(ValueError, match="no benchmark"):
        benchmarks.summarise(items.select([]), {})
    with pytest.raises(ValueError, match="no items to summarise"):
        rewardbench.BENCHMARK.summarise(items.select([]), {})


# Real items


def test_llmbar_s_own_files_are_two_of_the_subsets_with_the_official_counts_and_opposite_rulers(shared_data):
    items = benchmarks.load("rewardbench", source=shared_data("llmbar"), partial=True)
    longer = benchmarks.summarise(items, benchmarks.score(Longer(), items, progress=False))
    shorter = benchmarks.summarise(items, benchmarks.score(Shorter(), items, progress=False))
    assert longer.label == "partial: 2 of 23 subsets"  # 100 and 46 items, as officially
    by_hand = {}
    for subset, name in {"llmbar-natural": "Natural", "llmbar-adver-manual": "Adversarial__Manual"}.items():
        rows = json.loads(gzip.decompress((shared_data("llmbar") / f"LLMBar__{name}.json.gz").read_bytes()))
        lengths = [(len(row["output_1"]), len(row["output_2"]), int(row["label"])) for row in rows]
        by_hand[subset] = np.mean([(one > two) if label == 1 else (two > one) for one, two, label in lengths])
    assert longer.subsets["estimate"].to_dict() == pytest.approx(by_hand)
    total = longer.subsets["estimate"] + shorter.subsets["estimate"] + longer.subsets["ties"] / longer.subsets["n"]
    assert total.tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("LLMBar/Natural/dataset.json", {"label": 3}, "dataset.json, row 1, field 'label': 3 is not a label"),
        ("LLMBar/dataset.json", {}, "LLMBar's subset is not in the path"),
        ("LLMBar/Natural/dataset.json", {"output_2": None}, "row 1, field 'output_2': the field is missing"),
    ],
)
def test_a_malformed_file_of_llmbar_is_refused_with_its_place(tmp_path, name, change, message):
    row = {"input": "Why?", "output_1": "So.", "output_2": "No.", "label": 1} | change
    with pytest.raises(DataError, match=message):
        benchmarks.load("rewardbench", source=write(tmp_path, [row], name), partial=True)
