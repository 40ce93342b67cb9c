"""Arms, run-or-reuse and records of the comparison, on a small written source and a tiny backbone."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tiny

from rmlib import benchmarks, experiments, records, statistics
from rmlib.experiments import ARMS, arm_models, arms, presets, recording, run, run_all, sweeps
from rmlib.experiments.presets import PRESETS, Preset
from rmlib.figures import summaries
from rmlib.models import RewardModel
from rmlib.pairs import ATTRIBUTES, make_pairs
from rmlib.pairs.views import margins_of_chosen
from rmlib.records import paths
from rmlib.records.hashing import fingerprint
from rmlib.sources import load_splits
from rmlib.training.runs import TrainingError
from rmlib.training.settings import TrainSettings

NEED_MORE = ("bt_soft", "plackett_luce")  # than the rated pairs of `source`: votes, more responses
RUNNABLE = [name for name in ARMS if name not in NEED_MORE]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("RMLIB_RESULTS", str(tmp_path / "results"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Pairs in HelpSteer2's layout, where more good words mean a higher rating."""
    return tiny.write_source(tmp_path / "own")


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


def test_settings_of_an_arm_are_those_of_its_parent_but_for_its_own_change() -> None:
    for arm in ARMS.values():
        if arm.parent is None or "initialise_from" in arm.change:
            continue
        settings, parent = (arms.settings_for(name, PRESETS["embedded"], seed=3) for name in (arm.name, arm.parent))
        own = {name: value for name, value in arm.change.items() if hasattr(settings, name)}
        assert settings == replace(parent, **own), arm.name


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


def test_margins_point_to_the_chosen_response_and_leave_ties_out() -> None:
    prompt = [{"role": "user", "content": "q"}]
    rows = [
        {"split": "train", "prompt": prompt, "response_1": f"a{i}", "response_2": f"b{i}", "preference": preference}
        for i, preference in enumerate([2, -1, 0, None])
    ]
    pairs = make_pairs(rows, origin="test")
    margins = margins_of_chosen(pairs, np.array([[1.0, 4.0], [1.0, 4.0], [9.0, 0.0], [9.0, 0.0]]))
    assert margins.tolist() == [3.0, -3.0]


# --- run or reuse -----------------------------------------------------------------------------------------------------


def test_all_arms_run_and_a_second_call_trains_nothing_and_writes_nothing(
    source: Path, preset: Preset, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = load_splits(source, selection_fraction=0.25)
    first = run_all(RUNNABLE, preset, splits, seeds=[0, 1], processes=1)
    file = experiments.results_file(splits, preset)
    written = file.read_bytes()
    monkeypatch.setattr("rmlib.training.loop._Loop.run", lambda *_: pytest.fail("trained again"))
    again = run_all(RUNNABLE, preset, splits, seeds=[0, 1])
    assert file.read_bytes() == written
    assert [arm_run.record for arm_run in again] == [arm_run.record for arm_run in first]
    table = summaries.ladder(file)
    assert len(table) == 2 * len(RUNNABLE) and list(table["asked.arm"].unique()) == RUNNABLE
    assert not any(str(source) in line or str(preset.backbone) in line for line in file.read_text().splitlines())


def test_an_arm_with_seeds_of_its_own_runs_under_these_alone(source: Path, preset: Preset) -> None:
    splits = load_splits(source, selection_fraction=0.25)
    arms = ["bt", "bt_init", "bt_shuffled"]
    ran = run_all(arms, preset, splits, seeds=[0, 1], other_seeds={"bt_shuffled": [1]}, processes=1)
    found = [(arm_run.arm.name, arm_run.seed) for arm_run in ran]
    assert found == [("bt", 0), ("bt_init", 0), ("bt", 1), ("bt_init", 1), ("bt_shuffled", 1)]


def test_the_ladder_shows_what_was_asked_for_last_even_where_it_was_finished_before(
    source: Path, preset: Preset
) -> None:
    splits = load_splits(source, selection_fraction=0.25)
    short = preset.change(max_steps=2)
    for settings in (preset, short, preset):
        run_all(["bt"], settings, splits, seeds=[0], processes=1)
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


def test_a_record_holds_the_margins_of_the_selection_pairs_for_a_temperature(source: Path, preset: Preset) -> None:
    splits = load_splits(source, selection_fraction=0.25)
    arm_run = run("bt", preset, splits, seed=0, progress=False)
    margin = margins_of_chosen(splits.selection, experiments.score_pairs(arm_run.model, splits.selection))
    np.testing.assert_allclose(arm_run.record["outcome"]["selection_margins"], margin, atol=1e-4)


def test_the_test_pairs_record_numbers_their_prompts(source: Path, preset: Preset) -> None:
    rows = [json.loads(line) for line in (source / "validation.jsonl").read_text().splitlines()]
    extra = [row | {"response": row["response"] + " again"} for row in rows[:2]]  # a second pair of the first prompt
    (source / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, *extra]))
    splits = load_splits(source, selection_fraction=0.25)
    outcome = experiments.record_test_pairs(splits, paths.results_dir() / "a.jsonl")
    contents = [prompt[0]["content"] for prompt in splits.test["prompt"]]
    same = np.equal.outer(np.array(contents), np.array(contents))
    assert len(contents) == 17 and len(set(contents)) == 16
    numbers = np.array(outcome["outcome"]["prompt"])
    assert (np.equal.outer(numbers, numbers) == same).all()


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
    margin = margins_of_chosen(splits.selection, experiments.score_pairs(strong, splits.selection))
    factors = [row["factor"] for row in outcome["sweep"]]
    assert factors[0] == 1.0 and {*experiments.COARSE_FACTORS} < {*factors}
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


def test_arms_that_need_more_than_the_source_has_say_so(source: Path, preset: Preset) -> None:
    splits = load_splits(source, selection_fraction=0.25)
    with pytest.raises(TrainingError, match="soft_labels need votes"):
        run("bt_soft", preset, splits, progress=False)
    with pytest.raises(TrainingError, match="plackett_luce needs prompts"):
        run("plackett_luce", preset, splits, progress=False)


def test_whole_rankings_and_votes_are_learnt_where_the_source_has_them(preset: Preset) -> None:
    splits = load_splits("simulated-ranked", n_prompts=150)
    long = preset.change(max_length=512, overlong="leave_out", max_steps=3)
    ranked, soft, plain = (run(arm, long, splits, progress=False) for arm in ("plackett_luce", "bt_soft", "bt"))
    assert ranked.run is not None and ranked.run.summary["n_pairs"] > 3  # rankings
    assert any(reason.startswith("prompts: ") for reason in ranked.run.summary["left_out"])
    outcomes = [arm_run.record["outcome"] for arm_run in (ranked, soft, plain)]
    assert len({outcome["n_test"] for outcome in outcomes}) == 1 and len({str(o["margins"]) for o in outcomes}) == 3


def test_fitted_weights_come_from_the_training_ratings_and_weigh_the_outputs_of_the_parent(
    source: Path, preset: Preset
) -> None:
    splits = load_splits(source, selection_fraction=0.25)
    arm_run = run("regression_all_fitted", preset, splits, progress=False)
    weights = arm_run.record["outcome"]["attribute_weights"]
    # In this source all five ratings are equal, so their weights are too, and what counts is how they sum.
    assert list(weights) == list(ATTRIBUTES) and np.ptp(list(weights.values())) < 1e-4
    gaps = [
        np.sign(row["preference"]) * (row["ratings_2"]["helpfulness"] - row["ratings_1"]["helpfulness"])
        for row in splits.train
    ]
    weight = np.mean(list(weights.values()))
    assert weight == pytest.approx(sum(gap / (1 + np.exp(5 * weight * gap)) for gap in gaps), rel=1e-3)
    outputs = run("regression_all", preset, splits, progress=False).model.score(
        splits.test["prompt"][:], splits.test["response_1"][:]
    )
    np.testing.assert_allclose(arm_run.rewards[:, 0], outputs @ list(weights.values()), atol=1e-4)
    assert arm_run.run is None


def test_the_affine_arm_has_its_parent_s_order_on_the_rating_scale(source: Path, preset: Preset) -> None:
    splits = load_splits(source, selection_fraction=0.25)
    parent, arm_run = (run(arm, preset, splits, progress=False) for arm in ("bt_scaled", "bt_scaled_affine"))
    outcome = arm_run.record["outcome"]
    assert outcome["scale"] > 0 and outcome["accuracy"] == parent.record["outcome"]["accuracy"]
    np.testing.assert_allclose(arm_run.rewards, outcome["scale"] * parent.rewards + outcome["offset"], atol=1e-4)
    rewards = experiments.score_pairs(arm_run.model, splits.selection).ravel()
    ratings = [row[side]["helpfulness"] for row in splits.selection for side in ("ratings_1", "ratings_2")]
    assert np.mean(rewards) == pytest.approx(np.mean(ratings), abs=1e-4)  # as of any least-squares line
    assert np.polyfit(rewards, ratings, 1)[0] == pytest.approx(1, abs=1e-3)


def test_a_random_head_is_not_trained_and_is_drawn_by_the_seed(source: Path, preset: Preset) -> None:
    splits = load_splits(source, selection_fraction=0.25)
    first, other = (run("random_head", preset, splits, seed=seed, progress=False) for seed in (0, 1))
    assert not (paths.runs_dir() / "train").exists() and first.run is None
    fresh = RewardModel.create(preset.backbone, seed=0)
    np.testing.assert_allclose(first.rewards, experiments.score_pairs(fresh, splits.test), atol=1e-6)
    assert not np.allclose(first.rewards, other.rewards)


def test_an_interrupted_ladder_continues_with_what_is_missing(source: Path, preset: Preset) -> None:
    splits = load_splits(source, selection_fraction=0.25)
    run("regression", preset, splits, progress=False)
    folder = paths.runs_dir() / "train"
    before = set(folder.iterdir())
    run_all(["regression", "bt"], preset, splits, seeds=[0], processes=1)
    assert len(set(folder.iterdir()) - before) == 1


def test_two_processes_give_the_numbers_of_one_and_train_a_shared_parent_once(
    source: Path, preset: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits, asked = load_splits(source, selection_fraction=0.25), ["bt_init", "bt_scaled_init_expo", "bt_shuffled"]
    preset = preset.change(max_steps=4)
    found, n_lines, n_runs = {}, {}, {}
    for processes in (1, 2):
        monkeypatch.setenv("RMLIB_RUNS", str(tmp_path / f"runs-{processes}"))
        file = tmp_path / f"{processes}.jsonl"
        found[processes] = run_all(asked, preset, splits, seeds=[0, 1], results=file, processes=processes)
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        n_lines[processes] = sorted(line["record_id"] for line in lines)
        n_runs[processes] = sorted(path.name for path in (paths.runs_dir() / "train").iterdir())
    assert [run.record["outcome"] for run in found[1]] == [run.record["outcome"] for run in found[2]]
    assert [(run.arm.name, run.seed) for run in found[2]] == [(arm, seed) for seed in (0, 1) for arm in asked]
    assert n_lines[1] == n_lines[2] and len(set(n_lines[2])) == len(n_lines[2])
    # bt_init, bt_scaled_init, bt_shuffled and the regression that two of them start from, under two seeds
    assert n_runs[1] == n_runs[2] and len(n_runs[2]) == 2 * 4


@pytest.mark.parametrize("processes", [1, 2])
def test_a_failing_arm_is_named_with_its_seed_and_what_was_finished_is_kept_and_recorded(
    source: Path, preset: Preset, processes: int
) -> None:
    splits = load_splits(source, selection_fraction=0.25)
    broken = replace(preset, second=replace(preset.second, token_budget=1, max_length=1))  # no pair fits
    file = experiments.results_file(splits, broken)
    with pytest.raises(experiments.JobFailed, match="bt_init, seed 3: TrainingError"):
        run_all(["regression", "bt_init"], broken, splits, seeds=[3], processes=processes)
    assert records.read(file, kind="arm")["asked.arm"].tolist() == ["regression"]


def test_an_unknown_arm_is_refused_before_anything_is_trained(source: Path, preset: Preset) -> None:
    with pytest.raises(ValueError, match="unknown arm 'bt_huge'"):
        run_all(["regression", "bt_huge"], preset, load_splits(source), seeds=[0], processes=1)
    assert not (paths.runs_dir() / "train").exists()


def test_a_finished_ladder_is_found_again_without_loading_a_model_or_starting_a_process(
    source: Path, preset: Preset, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = load_splits(source, selection_fraction=0.25)
    first = run_all(["bt_scaled_init_expo", "bt_shuffled"], preset, splits, seeds=[0], processes=1)
    for name in ("create", "load"):
        monkeypatch.setattr(RewardModel, name, lambda *_, **__: pytest.fail("a model was made"))
    monkeypatch.setattr("rmlib.experiments.jobs._workers", lambda *_: pytest.fail("a process was started"))
    again = run_all(["bt_scaled_init_expo", "bt_shuffled"], preset, splits, seeds=[0], processes=2)
    assert [run.record for run in again] == [run.record for run in first]


def test_a_run_whose_test_rewards_are_missing_is_scored_and_not_trained_again(
    source: Path, preset: Preset, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = load_splits(source, selection_fraction=0.25)
    (first,) = run_all(["bt"], preset, splits, seeds=[0], processes=1)
    [kept] = first.model_folder.parent.glob(f"rewards-test-{splits.identity}-*.json")
    kept.unlink()
    monkeypatch.setattr("rmlib.training.loop._Loop.run", lambda *_: pytest.fail("trained again"))
    (again,) = run_all(["bt"], preset, splits, seeds=[0], processes=1)
    assert again.record == first.record


def test_a_run_folder_that_lost_its_settings_or_its_model_is_an_error_and_stays_as_it_is(
    source: Path, preset: Preset
) -> None:
    splits = load_splits(source, selection_fraction=0.25)
    folder = run("regression", preset, splits, progress=False).model_folder.parent
    content = (folder / "settings.json").read_text()
    (folder / "settings.json").write_text(content[:20])
    with pytest.raises(TrainingError, match="settings.json does not say which run this is"):
        run("regression", preset, splits, progress=False)
    (folder / "settings.json").unlink()
    with pytest.raises(TrainingError, match="holds finished.json but no settings.json"):
        run("regression", preset, splits, progress=False)
    assert not (folder / "settings.json").exists()
    (folder / "settings.json").write_text(content)
    (folder / "model" / "reward_model.json").unlink()
    with pytest.raises(experiments.JobFailed, match="bt_init, seed 0: ModelError: model holds no reward model"):
        run_all(["bt_init"], preset, splits, seeds=[0], processes=1)


# --- choices made on the selection split ------------------------------------------------------------------------------


def test_the_factor_is_swept_coarsely_and_then_finely_around_the_best() -> None:
    for peak, (low, high) in {1.0: (1.0, 1.05), 1.3: (1.25, 1.35), 2.0: (1.95, 2.05)}.items():
        found = sweeps.around_best(lambda factor, peak=peak: {"accuracy": -abs(factor - peak)})  # type: ignore[misc]
        fine = np.round(np.arange(low, high + 0.001, 0.01), 2).tolist()
        assert [row["factor"] for row in found] == sorted({*experiments.COARSE_FACTORS, *fine})


def test_what_a_choice_on_the_test_would_have_flattered_by_hand() -> None:
    selection = [{"factor": 1.0, "accuracy": 0.7}, {"factor": 1.1, "accuracy": 0.8}, {"factor": 1.2, "accuracy": 0.8}]
    test = [{"factor": 1.0, "accuracy": 0.75}, {"factor": 1.1, "accuracy": 0.7}, {"factor": 1.2, "accuracy": 0.6}]
    found = sweeps.beside(selection, test)
    assert (found["chosen"], found["own best"]) == (1.1, 1.0) and found["optimism"] == pytest.approx(5.0)
    assert sweeps.beside(test, test)["optimism"] == 0
    with pytest.raises(ValueError, match=r"lacks the chosen factor 1.1; it has \[1.0\]"):
        sweeps.beside(selection, test[:1])


def test_a_sweep_beside_the_choice_is_recorded_once_and_shows_what_choosing_there_would_have_said(
    source: Path, preset: Preset, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = load_splits(source, selection_fraction=0.25)
    chosen = run("bt_scaled_init_expo", preset, splits, progress=False)
    found = experiments.sweep_beside(chosen, preset, splits, factors=[1.0, 1.5])
    assert found["chosen"] == chosen.record["outcome"]["factor"]
    assert found["accuracy"] == chosen.record["outcome"]["accuracy"] and found["optimism"] >= 0
    file = experiments.results_file(splits, preset)
    assert summaries.factor_choices(file).loc[("test", 0)].to_dict() == found
    monkeypatch.setattr("rmlib.experiments.sweeps.rows", lambda *_: pytest.fail("swept again"))
    assert experiments.sweep_beside(chosen, preset, splits, factors=[1.0, 1.5]) == found


def test_a_sweep_on_a_benchmark_scores_it_at_each_factor_and_is_recorded_once(
    source: Path, preset: Preset, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = load_splits(source, selection_fraction=0.25)
    chosen = run("bt_scaled_init_expo", preset, splits, progress=False)
    items = benchmarks.load("rewardbench")
    items = items.select(sorted({subset: row for row, subset in enumerate(items["subset"][:])}.values()))  # one of each
    found = experiments.sweep_beside(chosen, preset, splits, items=items, factors=[1.0])
    factor = chosen.record["outcome"]["factor"]
    scorer = experiments.scorer(chosen.model, frozen=preset.frozen)
    report = benchmarks.summarise(items, benchmarks.score(scorer, items))
    assert found["chosen"] == factor and found["accuracy"] == pytest.approx(report.sections["estimate"]["Score"])
    file = experiments.results_file(splits, preset)
    assert summaries.factor_choices(file).loc[("benchmark", 0)].to_dict() == found
    monkeypatch.setattr("rmlib.experiments.sweeps.rows", lambda *_: pytest.fail("swept again"))
    assert experiments.sweep_beside(chosen, preset, splits, items=items, factors=[1.0]) == found
    monkeypatch.undo()
    with pytest.raises(ValueError, match="subsets are missing"):
        experiments.sweep_beside(chosen, preset, splits, items=items.select([0]), factors=[1.0, 1.5])


def test_a_trained_backbone_has_its_model_s_features_and_a_name_that_records_can_show(
    source: Path, preset: Preset
) -> None:
    splits = load_splits(source)
    folder = arm_models.as_backbone("regression", preset, splits, seed=1)
    assert arm_models.as_backbone("regression", preset, splits, seed=1) == folder and not Path(folder).is_absolute()
    assert paths.public_name(folder).endswith("trained as regression, seed 1")
    texts = splits.test["prompt"][:3], splits.test["response_1"][:3]
    model = arm_models.model_of("regression", preset, splits, 1)
    np.testing.assert_allclose(RewardModel.create(folder).features(*texts), model.features(*texts), atol=1e-6)


def test_learning_rates_are_chosen_on_selection_by_one_grid_and_all_trials_are_recorded(
    source: Path, preset: Preset, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits, grid, seeds = load_splits(source, selection_fraction=0.25), [3e-3, 1e-9], [0, 1]
    table = experiments.choose_learning_rates(["bt_init", "bt"], preset, splits, grid, seeds, processes=1)
    assert set(table.index) == {"bt", "bt_init", "regression"} and (table["n_trials"] == 4).all()
    file = experiments.results_file(splits, preset)
    kept = records.read(file, kind="learning_rate").set_index("asked.arm")
    for arm, row in kept.iterrows():
        trials = pd.DataFrame(row["outcome.trials"])
        means = trials.groupby("learning_rate")["accuracy"].mean()
        assert row["outcome.learning_rate"] == means[means == means.max()].index.min() == table["learning_rate"][arm]
    settings = experiments.tuned(preset, splits)
    assert settings.learning_rates == table["learning_rate"].to_dict()
    # the trial with the chosen rate is the run of the arm: nothing is trained for it again
    monkeypatch.setattr("rmlib.training.loop._Loop.run", lambda *_: pytest.fail("trained again"))
    found = run("bt_init", settings, splits, progress=False)
    assert found.record["asked"]["settings"]["learning_rate"] == table["learning_rate"]["bt_init"]
    again = experiments.choose_learning_rates(["bt_init", "bt"], preset, splits, grid, seeds, processes=1)
    pd.testing.assert_frame_equal(again, table)


def test_a_rate_that_cannot_learn_is_not_chosen_over_one_that_does(source: Path, preset: Preset) -> None:
    splits = load_splits(source, selection_fraction=0.25)
    longer = preset.change(max_steps=40)
    table = experiments.choose_learning_rates(["bt"], longer, splits, [1e-9, 3e-3], [0], processes=1)
    assert table["learning_rate"]["bt"] == 3e-3 and table["at_edge"]["bt"]


def test_a_recorded_rate_serves_its_own_source_preset_and_backbone_alone(source: Path, preset: Preset) -> None:
    splits = load_splits(source, selection_fraction=0.25)
    experiments.choose_learning_rates(["bt"], preset, splits, [1e-4], [0], processes=1)
    assert experiments.tuned(preset, splits).learning_rates == {"bt": 1e-4}
    assert experiments.tuned(replace(preset, name="another"), splits).learning_rates == {}
    other = replace(splits, source=replace(splits.source, content_hash="0" * 64))
    assert experiments.tuned(preset, other).learning_rates == {}
    with pytest.raises(ValueError, match="positive learning rates and seeds"):
        experiments.choose_learning_rates(["bt"], preset, splits, [], [0])


def test_chosen_rates_change_the_arms_they_are_for_and_no_name_where_there_are_none(
    source: Path, preset: Preset
) -> None:
    splits = load_splits(source, selection_fraction=0.25)
    plain = {name: getattr(preset, name).to_dict() for name in presets.STAGES} | {"name": preset.name}
    assert experiments.comparison_of(preset, splits) == fingerprint(plain, splits.identity)
    chosen = replace(preset, learning_rates={"bt": 5e-4})
    assert experiments.comparison_of(chosen, splits) != experiments.comparison_of(preset, splits)
    named = ("bt", "bt_shuffled", "bt_scaled_two_layers", "bt_init", "regression")
    rates = [arms.settings_for(arm, chosen, 0).learning_rate for arm in named]
    # A child trained in the same stage changes one thing, so it takes its parent's rate; another stage keeps its own.
    assert rates == [5e-4, 5e-4, 5e-4, preset.second.learning_rate, preset.regression.learning_rate]
    both = replace(preset, learning_rates={"bt": 5e-4, "bt_scaled": 2e-4})
    assert arms.settings_for("bt_scaled_two_layers", both, 0).learning_rate == 2e-4
    assert chosen.change(max_steps=3).learning_rates == {"bt": 5e-4}
    assert chosen.change(learning_rate=1e-5).learning_rates == {}


def test_only_simulated_pairs_have_an_oracle(source: Path) -> None:
    with pytest.raises(ValueError, match="only simulated pairs carry a truth"):
        experiments.oracle_rewards(load_splits(source).test)


def test_a_ruler_may_be_given_as_rewards_of_the_test_pairs(source: Path, preset: Preset) -> None:
    splits = load_splits(source)
    second = np.tile([0.0, 1.0], (len(splits.test), 1))  # always the second response
    outcome = experiments.run_ruler("second", second, splits, preset)["outcome"]
    preferences = [value for value in splits.test["preference"] if value]
    assert outcome["margins"] == np.sign(preferences).tolist() and len(outcome["margins"]) == outcome["n_test"]


def test_what_occurs_twice_is_recorded_once_and_told_each_time(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    splits, file = load_splits(source), tmp_path / "r.jsonl"
    found = experiments.record_overlap(splits, file)
    prompts = [row for row in found["duplicates"] if row["kind"] == "prompt" and row["scope"] == "train"]
    # Nothing is repeated here: 40 questions in training, those of the selection among them.
    assert [(row["texts"], row["exact_texts"]) for row in prompts] == [(len(splits.train) + len(splits.selection), 0)]
    monkeypatch.setattr(recording.overlap, "report", None)  # a second call reads the record
    with caplog.at_level("INFO"):
        assert experiments.record_overlap(splits, file) == found
    assert found["summary"] in caplog.text and len(file.read_text().splitlines()) == 1


def test_a_pair_of_both_splits_is_warned_of_with_its_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def row(split: str, number: int, spaces: str = "") -> dict[str, str | int]:
        texts = {"prompt": f"{spaces}which of {number}?", "response_1": "this one", "response_2": "that one"}
        return texts | {"split": split, "preference": 1}

    rows = [*(row("train", n) for n in range(30)), row("validation", 7, " "), row("validation", 99)]
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    splits = load_splits(tmp_path / "own", labels="-3..3")
    experiments.record_overlap(splits, tmp_path / "r.jsonl")
    (warning,) = [record for record in caplog.records if "in both splits" in record.getMessage()]
    assert warning.levelname == "WARNING" and splits.test[0]["pair_id"] in warning.getMessage()
