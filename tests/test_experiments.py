"""Arms, splits, run-or-reuse and records of the comparison, on a small written source and a tiny backbone."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny

from rmlib import arms, experiments, paths, presets, records, statistics, summaries
from rmlib.experiments import ARMS, oriented_margins, run, run_all
from rmlib.models import RewardModel
from rmlib.pairs import ATTRIBUTES, make_pairs
from rmlib.presets import PRESETS, Preset
from rmlib.settings import TrainSettings
from rmlib.splits import load_splits, shuffled_labels


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("RMLIB_RESULTS", str(tmp_path / "results"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Pairs in HelpSteer2's layout, where more good words mean a higher rating."""
    rng = np.random.default_rng(0)
    (tmp_path / "own").mkdir()
    for split, n in (("train", 40), ("validation", 16)):
        lines = []
        for index in range(n):
            for good in rng.permutation(5)[:2]:
                words = " ".join("good" if word < good else "bad" for word in rng.permutation(4))
                row = {"prompt": f"{split} question {index}", "response": f"{words} {rng.integers(1000)}"}
                lines.append(json.dumps(row | dict.fromkeys(ATTRIBUTES, int(good))))
        (tmp_path / "own" / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path / "own"


@pytest.fixture
def preset(tmp_path: Path) -> Preset:
    wanted = TrainSettings(
        backbone=tiny.save_backbone(tmp_path / "backbone"), pairs_per_step=8, max_steps=12, learning_rate=3e-3
    )
    return Preset("tiny", wanted, wanted, wanted)


# --- arms -------------------------------------------------------------------------------------------------------------


def test_every_arm_changes_one_thing_from_its_parent() -> None:
    for arm in ARMS.values():
        assert len(arm.change) == 1, arm.name
        assert arm.parent is None or arm.parent in ARMS


def test_the_nine_rows_of_the_paper_are_all_arms_and_have_a_published_number() -> None:
    assert set(arms.PAPER_ARMS) == set(summaries.PAPER_ROWS) and len(arms.PAPER_ARMS) == 9


def test_an_arm_inherits_the_changes_of_its_line() -> None:
    assert arms.changes("bt_scaled_init_expo") == {
        "loss": "scaled_bradley_terry",
        "initialise_from": "regression",
        "extrapolate": "regression",
    }
    with pytest.raises(ValueError, match="unknown arm 'bt_huge'; known: regression"):
        arms.changes("bt_huge")


def test_the_paper_preset_is_the_published_recipe() -> None:
    table = records.published("hyperparameters").set_index(["stage", "setting"])["value"]
    for stage, arm, n_pairs in (
        ("regression", "regression", 10_162),
        ("scaled Bradley-Terry", "bt_scaled_init", 6_766),
    ):
        wanted = arms.settings_for(arm, PRESETS["paper"], seed=0)
        assert wanted.learning_rate == float(table[stage, "learning rate"])
        assert wanted.warmup_steps == int(table[stage, "warm-up"])
        assert wanted.max_steps == int(table[stage, "steps"])
        assert replace(wanted, max_steps=None).n_steps(n_pairs) == int(table[stage, "steps"])
        assert wanted.shuffle == (table[stage, "shuffled"] == "yes")
        assert wanted.weight_decay == float(table["both", "weight decay"])
        assert wanted.betas == tuple(map(float, table["both", "Adam betas"].split()))
        assert wanted.max_length == int(table["both", "sequence length"])


def test_an_unknown_setting_of_a_preset_is_refused() -> None:
    with pytest.raises(TypeError, match="learning_rat"):
        PRESETS["embedded"].change(learning_rat=1.0)
    assert presets.preset_for("some/model").backbone == "some/model"


# --- splits -----------------------------------------------------------------------------------------------------------


def test_selection_is_carved_from_training_and_shares_no_prompt_with_it(source: Path) -> None:
    splits = load_splits(source, selection_fraction=0.25)
    contents = [{prompt[0]["content"] for prompt in part["prompt"]} for part in (splits.train, splits.selection)]
    assert len(contents[0]) == 30 and len(contents[1]) == 10 and not contents[0] & contents[1]
    assert len(splits.test) == 16


def test_a_split_without_a_decided_pair_is_an_error(source: Path) -> None:
    rows = [json.loads(line) for line in (source / "validation.jsonl").read_text().splitlines()]
    ties = "".join(json.dumps(row | {"helpfulness": 2}) + "\n" for row in rows)
    (source / "validation.jsonl").write_text(ties)
    with pytest.raises(ValueError, match=r"no decided pair in \['test'\]"):
        load_splits(source, selection_fraction=0.25)


def test_matched_arms_learn_from_the_same_pairs_and_unmatched_regression_from_ties_too(source: Path) -> None:
    rows = [json.loads(line) for line in (source / "train.jsonl").read_text().splitlines()]
    for row in rows[:20]:  # ten ties
        row["helpfulness"] = 2
    (source / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    matched, all_pairs = (load_splits(source, selection_fraction=0.25, matched=value) for value in (True, False))
    assert 0 not in matched.train["preference"] and 0 in all_pairs.train["preference"]
    assert len(all_pairs.train) == 30 and len(matched.train) == sum(p != 0 for p in all_pairs.train["preference"])
    assert matched.test["pair_id"][:] == all_pairs.test["pair_id"][:]


def test_margins_point_to_the_chosen_response_and_leave_ties_out() -> None:
    prompt = [{"role": "user", "content": "q"}]
    rows = [
        {"split": "train", "prompt": prompt, "response_1": f"a{i}", "response_2": f"b{i}", "preference": preference}
        for i, preference in enumerate([2, -1, 0, None])
    ]
    pairs = make_pairs(rows, origin="test")
    margins = oriented_margins(pairs, np.array([[1.0, 4.0], [1.0, 4.0], [9.0, 0.0], [9.0, 0.0]]))
    assert margins.tolist() == [3.0, -3.0]


def test_shuffled_labels_keep_strengths_and_ties_and_turn_about_half_round() -> None:
    prompt = [{"role": "user", "content": "q"}]
    rows = [
        {"split": "train", "prompt": prompt, "response_1": f"a{i}", "response_2": f"b{i}", "preference": i % 4}
        for i in range(400)
    ]
    pairs = make_pairs(rows, origin="test")
    shuffled = np.array(shuffled_labels(pairs, seed=0)["preference"])
    assert (np.abs(shuffled) == np.array(pairs["preference"])).all()
    assert 0.4 < np.mean(shuffled[shuffled != 0] < 0) < 0.6


# --- run or reuse -----------------------------------------------------------------------------------------------------


def test_all_arms_run_and_a_second_call_trains_nothing_and_writes_nothing(
    source: Path, preset: Preset, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = load_splits(source, selection_fraction=0.25)
    first = run_all(list(ARMS), preset, splits, seeds=[0, 1], processes=1)
    file = experiments.results_file(splits, preset)
    written = file.read_bytes()
    monkeypatch.setattr("rmlib.training._Loop.run", lambda *_: pytest.fail("trained again"))
    again = run_all(list(ARMS), preset, splits, seeds=[0, 1])
    assert file.read_bytes() == written
    assert [arm_run.record for arm_run in again] == [arm_run.record for arm_run in first]
    table = summaries.ladder(file)
    assert len(table) == 2 * len(ARMS) and list(table["asked.arm"].unique()) == list(ARMS)
    assert not any(str(source) in line or str(preset.backbone) in line for line in file.read_text().splitlines())


def test_the_ladder_shows_what_was_asked_for_last_even_where_it_was_finished_before(
    source: Path, preset: Preset
) -> None:
    splits = load_splits(source, selection_fraction=0.25)
    short = preset.change(max_steps=2)
    for settings in (preset, short, preset):
        run_all(["bt"], settings, splits, seeds=[0])
    table = summaries.ladder(experiments.results_file(splits, preset))
    assert table["asked.comparison"].tolist() == [experiments.comparison_of(preset, splits)]


def test_a_record_s_accuracy_is_that_of_its_margins_and_of_the_model_scored_anew(source: Path, preset: Preset) -> None:
    splits = load_splits(source, selection_fraction=0.25)
    arm_run = run("bt_scaled", preset, splits, seed=3, progress=False)
    decided = [row for row in splits.test if row["preference"]]
    margins = []
    for row in decided:
        rewards = arm_run.model.score([row["prompt"]] * 2, [row["response_1"], row["response_2"]])
        margins.append((rewards[1] - rewards[0]) * np.sign(row["preference"]))
    np.testing.assert_allclose(arm_run.record["outcome"]["margins"], margins, atol=1e-4)
    assert arm_run.record["outcome"]["accuracy"] == statistics.accuracy(margins)
    assert arm_run.record["outcome"]["n_test"] == len(decided) and arm_run.record["seed"] == 3


def test_initialised_arms_start_from_the_regression_model_with_its_head(source: Path, preset: Preset) -> None:
    splits = load_splits(source, selection_fraction=0.25)
    still = preset.change(learning_rate=1e-12)
    regression, initialised = (run(arm, still, splits, progress=False).model for arm in ("regression", "bt_init"))
    np.testing.assert_allclose(initialised.head.weight.detach(), regression.head.weight.detach(), atol=1e-8)
    np.testing.assert_allclose(initialised.head.bias.detach(), regression.head.bias.detach(), atol=1e-8)


def test_expo_takes_the_factor_that_is_best_on_the_selection_split(source: Path, preset: Preset) -> None:
    splits = load_splits(source, selection_fraction=0.25)
    outcome = run("bt_scaled_init_expo", preset, splits, progress=False).record["outcome"]
    best = max(row["accuracy"] for row in outcome["sweep"])
    assert outcome["factor"] == min(row["factor"] for row in outcome["sweep"] if row["accuracy"] == best)
    strong = run("bt_scaled_init", preset, splits, progress=False).model
    margin = oriented_margins(splits.selection, experiments.score_pairs(strong, splits.selection))
    assert outcome["sweep"][0]["factor"] == 1.0
    assert outcome["sweep"][0]["accuracy"] == statistics.accuracy(margin)


def test_frozen_arms_score_the_same_from_kept_features_as_from_texts(source: Path, preset: Preset) -> None:
    splits = load_splits(source, selection_fraction=0.25)
    arm_run = run("bt", preset.change(trainable="head"), splits, progress=False)
    plain = experiments.score_pairs(RewardModel.load(arm_run.model_folder), splits.test)
    np.testing.assert_allclose(arm_run.rewards, plain, atol=1e-5)


def test_the_scalar_of_all_attributes_takes_the_published_weights(source: Path, preset: Preset) -> None:
    splits = load_splits(source, selection_fraction=0.25)
    arm_run = run("regression_all", preset, splits, progress=False)
    outputs = arm_run.model.score(splits.test["prompt"][:], splits.test["response_1"][:])
    np.testing.assert_allclose(arm_run.rewards[:, 0], outputs @ [0.65, 0.8, 0.45, 0.55, -0.4], atol=1e-4)


def test_an_interrupted_ladder_continues_with_what_is_missing(source: Path, preset: Preset) -> None:
    splits = load_splits(source, selection_fraction=0.25)
    run("regression", preset, splits, progress=False)
    folder = paths.runs_dir() / "train"
    before = set(folder.iterdir())
    run_all(["regression", "bt"], preset, splits, seeds=[0])
    assert len(set(folder.iterdir()) - before) == 1


def test_only_simulated_pairs_have_an_oracle(source: Path) -> None:
    with pytest.raises(ValueError, match="only simulated pairs carry a truth"):
        experiments.oracle_rewards(load_splits(source).test)


def test_a_ruler_may_be_given_as_rewards_of_the_test_pairs(source: Path, preset: Preset) -> None:
    splits = load_splits(source)
    second = np.tile([0.0, 1.0], (len(splits.test), 1))  # always the second response
    outcome = experiments.run_ruler("second", second, splits, preset)["outcome"]
    preferences = [value for value in splits.test["preference"] if value]
    assert outcome["margins"] == np.sign(preferences).tolist() and len(outcome["margins"]) == outcome["n_test"]
