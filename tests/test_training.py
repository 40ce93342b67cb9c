"""The loop: exact means, exact resume, what the seed decides, and loud failures."""

import itertools
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
import transformers
from datasets import Dataset, concatenate_datasets

from rmlib import training
from rmlib.models import RewardModel
from rmlib.pairs import make_pairs, rating_view
from rmlib.training import evaluate, sampling_order, train
from rmlib.training.__main__ import main, run_file
from rmlib.training.examples import prepare
from rmlib.training.forward import forward_batches
from rmlib.training.loop import _Loop, scheduler_for
from rmlib.training.runs import TrainingError
from rmlib.training.settings import TrainSettings

ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")


def made_pairs(n: int, seed: int = 0, words: tuple[str, str] = ("good", "bad")) -> Dataset:
    """Pairs in which the response with more good words is rated and preferred higher."""
    rng = np.random.default_rng(seed)
    rows = []
    for index in range(n):
        good = rng.permutation(5)[:2]
        ratings = [dict.fromkeys(ATTRIBUTES, float(value)) for value in good]
        texts = [" ".join(words[int(word >= value)] for word in rng.permutation(4)) for value in good]
        rows.append(
            {
                "split": "train",
                "prompt": [{"role": "user", "content": f"question {seed}-{index}"}],
                "response_1": texts[0],
                "response_2": texts[1],
                "ratings_1": ratings[0],
                "ratings_2": ratings[1],
                "preference": int(np.clip(good[1] - good[0], -3, 3)),
            }
        )
    return make_pairs(rows, origin="made")


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RMLIB_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def backbone(tmp_path: Path) -> str:
    return tiny.save_backbone(tmp_path / "backbone", "llama")


def settings(backbone: str, **changes: object) -> TrainSettings:
    return TrainSettings(**({"backbone": backbone, "pairs_per_step": 4, "warmup_steps": 2, "epochs": 2} | changes))


def weights(model: RewardModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def gradients_of_first_step(model: RewardModel, pairs: Dataset, wanted: TrainSettings) -> torch.Tensor:
    examples = prepare(model, pairs, wanted)
    indices = list(range(len(examples)))
    count = training.n_valid(wanted.loss, examples, indices)
    model.zero_grad()
    for batch in forward_batches(model, examples, indices, wanted.token_budget):
        rewards = training.rewards_of(model, examples, batch)
        (training.example_losses(wanted, rewards, examples, batch).sum() / count).backward()
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])


# --- learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["bradley_terry", "margin_bradley_terry", "scaled_bradley_terry", "regression"])
def test_every_loss_overfits_eight_pairs(backbone: str, loss: str) -> None:
    pairs = made_pairs(8)
    wanted = settings(backbone, loss=loss, pairs_per_step=8, max_steps=60, learning_rate=3e-3)
    run = train(RewardModel.create(backbone), pairs, wanted, selection=pairs, progress=False)
    first, last = run.history["loss"].iloc[[0, -1]]
    assert run.summary["selection_accuracy"] == 1.0
    assert last < 0.2 * first


def test_a_fresh_bradley_terry_loss_starts_at_ln_2(backbone: str) -> None:
    run = train(RewardModel.create(backbone), made_pairs(8), settings(backbone, loss="bradley_terry"), progress=False)
    assert run.history["loss"].iloc[0] == pytest.approx(math.log(2), abs=0.05)


def test_a_fresh_regression_head_starts_at_the_mean_rating_and_a_kept_one_does_not(backbone: str) -> None:
    pairs, wanted = made_pairs(8), settings(backbone, loss="regression", learning_rate=1e-12)
    mean = np.mean([[row["helpfulness"] for row in pairs[side]] for side in ("ratings_1", "ratings_2")])
    run = train(RewardModel.create(backbone), pairs, wanted, progress=False)
    assert run.model.head.bias.item() == pytest.approx(mean, abs=1e-5)
    kept = run.model
    with torch.no_grad():
        kept.head.bias.fill_(-7)
    kept.identity = "moved"
    assert train(kept, pairs, wanted, progress=False).model.head.bias.item() == pytest.approx(-7, abs=1e-5)


def test_several_attributes_are_learnt_at_once(backbone: str) -> None:
    wanted = settings(backbone, loss="regression", attributes=ATTRIBUTES, max_steps=3)
    run = train(RewardModel.create(backbone, ATTRIBUTES), made_pairs(8), wanted, progress=False)
    assert run.model.score([[{"role": "user", "content": "q"}]], ["good"]).shape == (1, 5)


def test_a_frozen_backbone_stays_as_it_is_and_its_head_learns_the_same_as_without_kept_features(backbone: str) -> None:
    pairs, model = made_pairs(12), RewardModel.create(backbone)
    before = weights(model)
    wanted = settings(backbone, trainable="head", max_steps=5, learning_rate=1e-2, weight_decay=0.0)
    trained = train(model, pairs, wanted, progress=False).model
    after = weights(trained)
    assert all(torch.equal(before[name], after[name]) for name in before if not name.startswith("head"))
    # The same steps by hand: whole texts through the backbone, plain AdamW on the head.
    fresh = RewardModel.create(backbone)
    examples = prepare(fresh, pairs, settings(backbone))
    optimizer = torch.optim.AdamW(fresh.head.parameters(), lr=1e-2, betas=(0.9, 0.98), weight_decay=0.0)
    order = sampling_order(len(examples), 20, wanted)
    for step in range(5):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * min(1.0, step / 2)
        batch = order[4 * step : 4 * step + 4].tolist()
        rewards = training.rewards_of(fresh, examples, batch)
        loss = training.example_losses(wanted, rewards, examples, batch).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(fresh.head.parameters(), 1.0)
        optimizer.step()
    torch.testing.assert_close(trained.head.weight, fresh.head.weight, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("trainable", ["all", "head"])
def test_a_head_of_two_layers_learns_in_both_layers(backbone: str, trainable: str) -> None:
    pairs = made_pairs(8)
    wanted = settings(backbone, head_layers=2, trainable=trainable, pairs_per_step=8, max_steps=80, learning_rate=3e-3)
    model = training.create_model(wanted)
    before = weights(model)
    run = train(model, pairs, wanted, selection=pairs, progress=False)
    after = weights(run.model)
    assert run.summary["selection_accuracy"] == 1.0 and run.history["loss"].iloc[-1] < run.history["loss"].iloc[0]
    # The last bias adds the same to both rewards of a pair, so a preference loss leaves it alone.
    assert not any(torch.equal(before[name], after[name]) for name in ("head.0.weight", "head.0.bias", "head.2.weight"))


def test_a_model_with_another_number_of_head_layers_than_the_settings_is_refused(backbone: str) -> None:
    with pytest.raises(TrainingError, match=r"head has 1 layer\(s\), the settings ask for 2"):
        train(RewardModel.create(backbone), made_pairs(4), settings(backbone, head_layers=2), progress=False)


# --- invariances ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{}, {"loss": "regression"}, {"regression_weight": 1.0}, {"label_smoothing": 0.1}])
def test_splitting_a_step_into_forward_passes_leaves_its_gradient_as_it_was(
    backbone: str, change: dict[str, object]
) -> None:
    pairs, model = made_pairs(13), RewardModel.create(backbone)
    whole = gradients_of_first_step(model, pairs, settings(backbone, **change))
    pieces = gradients_of_first_step(model, pairs, settings(backbone, **change, token_budget=150))
    assert (whole - pieces).norm() <= 1e-5 * whole.norm()


def test_the_shared_layout_trains_as_the_plain_one_does(backbone: str) -> None:
    pairs, model = made_pairs(9), RewardModel.create(backbone)
    shared = gradients_of_first_step(model, pairs, settings(backbone))
    model.shared = False
    plain = gradients_of_first_step(model, pairs, settings(backbone))
    assert (shared - plain).norm() <= 1e-4 * plain.norm()


def test_swapping_the_responses_of_every_pair_mirrors_accuracy_and_keeps_the_loss(backbone: str) -> None:
    pairs = made_pairs(15)
    swap = {"response_1": "response_2", "ratings_1": "ratings_2"}
    rows = [{**row, **{a: row[b] for a, b in swap.items()}, **{b: row[a] for a, b in swap.items()}} for row in pairs]
    relabelled = make_pairs([row | {"pair_id": None} for row in rows], origin="swapped")  # preference now points wrong
    model, wanted = RewardModel.create(backbone, seed=3), settings(backbone, loss="bradley_terry")
    right = evaluate(model, prepare(model, pairs, wanted), wanted)["accuracy"]
    wrong = evaluate(model, prepare(model, relabelled, wanted), wanted)["accuracy"]
    assert right + wrong == pytest.approx(1.0)


def test_a_model_that_gives_every_text_the_same_reward_has_accuracy_zero_and_is_warned_of(
    backbone: str, caplog: pytest.LogCaptureFixture
) -> None:
    model, wanted = RewardModel.create(backbone, seed=1), settings(backbone)
    examples = prepare(model, made_pairs(7), wanted)
    with torch.no_grad():
        model.head.weight.normal_()
        evaluate(model, examples, wanted)
        assert "equal rewards" not in caplog.text
        model.head.weight.zero_()
    assert evaluate(model, examples, wanted)["accuracy"] == 0.0
    assert "both responses of each of 7 pairs got equal rewards" in caplog.text


@pytest.mark.parametrize("loss", ["scaled_bradley_terry", "regression"])
def test_evaluation_is_the_exact_mean_over_ragged_batches(backbone: str, loss: str) -> None:
    model, wanted = RewardModel.create(backbone, seed=2), settings(backbone, loss=loss, token_budget=170)
    examples = prepare(model, made_pairs(11), wanted)
    with torch.no_grad():
        rewards = training.rewards_of(model, examples, range(11))
        by_hand = training.example_losses(wanted, rewards, examples, range(11)).mean().item()
    assert evaluate(model, examples, wanted)["loss"] == pytest.approx(by_hand, rel=1e-5)


def test_unrated_responses_have_no_part_in_a_regression_loss_or_its_count(backbone: str) -> None:
    rows = [dict(row) for row in made_pairs(4)]
    rows[0]["ratings_1"] = None
    rows[1] |= {"ratings_1": None, "ratings_2": None}
    model, wanted = RewardModel.create(backbone), settings(backbone, loss="regression")
    examples = prepare(model, make_pairs(rows, origin="partly rated"), wanted)
    assert len(examples) == 3 and examples.left_out == {"no rating": 1}
    assert training.n_valid("regression", examples, range(3)) == 5


def rated_singles(n: int) -> Dataset:
    """The first responses of some pairs, with their ratings and no other."""
    nothing = dict.fromkeys(("pair_id", "response_2", "ratings_2", "preference"))
    return make_pairs([dict(row) | nothing for row in made_pairs(n)], origin="singles")


@pytest.mark.parametrize("trainable", ["all", "head"])
def test_regression_on_single_responses_has_the_mean_squared_error_of_their_ratings(
    backbone: str, trainable: str
) -> None:
    model, wanted = RewardModel.create(backbone, seed=2), settings(backbone, loss="regression", trainable=trainable)
    singles = rated_singles(9)
    table = concatenate_datasets([singles, made_pairs(3, seed=1)])
    view = rating_view(table)
    error = model.score(view["prompt"][:], view["response"][:]) - np.array(view["helpfulness"][:])
    for some, n, by_hand in ((table, 12, error), (singles, 9, error[:9])):
        examples = prepare(model, some, wanted)
        assert (len(examples), examples.left_out) == (n, {})
        assert training.n_valid("regression", examples, range(n)) == len(by_hand)
        assert evaluate(model, examples, wanted)["loss"] == pytest.approx((by_hand**2).mean(), rel=1e-5)
    assert math.isnan(evaluate(model, examples, wanted)["accuracy"])


def test_single_responses_train_a_regression_model_and_no_preference_model(backbone: str) -> None:
    wanted = settings(backbone, loss="regression", learning_rate=1e-2, max_steps=20)
    model, singles = RewardModel.create(backbone, seed=2), rated_singles(8)
    before = evaluate(model, prepare(model, singles, wanted), wanted)["loss"]
    trained = train(model, singles, wanted, selection=singles, progress=False).model
    assert evaluate(trained, prepare(trained, singles, wanted), wanted)["loss"] < before / 2
    with pytest.raises(TrainingError, match="no pair is left .*: single responses 8. .* set loss to 'regression'"):
        prepare(model, singles, settings(backbone))
    unrated = make_pairs(
        [dict(row) | {"ratings_1": None, "ratings_2": None} for row in made_pairs(3)], origin="unrated"
    )
    with pytest.raises(TrainingError, match="left out: no rating 3. .* set loss to 'bradley_terry'"):
        prepare(model, unrated, wanted)


# --- labels -----------------------------------------------------------------------------------------------------------


def voted_pairs(votes: list[list[int] | None]) -> Dataset:
    """One pair a list of votes, preferring response 2 more strongly from pair to pair, then response 1."""
    rows = [dict(row) for row in made_pairs(len(votes))]
    for row, given, preference in zip(rows, votes, [1, 2, 3, -1, -2, -3], strict=False):
        annotations = None if given is None else [{"annotator": None, "preference": vote} for vote in given]
        row |= {"annotations": annotations, "preference": preference}
    return make_pairs(rows, origin="voted")


VOTES = [[1, 1, 1], [2, -1, 1], [3, 2, -100], [-1, 1, -1, -1]]


def test_strengths_are_what_the_scale_says(backbone: str) -> None:
    model, pairs = RewardModel.create(backbone), voted_pairs(VOTES)
    plain = prepare(model, pairs, settings(backbone))
    steep = prepare(model, pairs, settings(backbone, strength_scale=(1.0, 3.0, 10.0)))
    assert plain.strength.tolist() == [1.0, 2.0, 3.0, 1.0] and steep.strength.tolist() == [1.0, 3.0, 10.0, 1.0]
    rewards = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.5, 0.0], [0.0, 0.0]])[..., None]
    wanted = settings(backbone, strength_scale=(1.0, 3.0, 10.0))
    by_hand = [math.log1p(math.exp(-1)), 3 * math.log1p(math.exp(2)), 10 * math.log1p(math.exp(-0.5)), math.log(2)]
    found = training.example_losses(wanted, rewards, steep, range(4))
    torch.testing.assert_close(found, torch.tensor(by_hand))


def test_a_soft_label_is_the_smoothed_share_of_votes_for_the_chosen_response(backbone: str) -> None:
    wanted = settings(backbone, loss="bradley_terry", soft_labels=True)
    examples = prepare(RewardModel.create(backbone), voted_pairs(VOTES), wanted)
    # (votes for the chosen response + 1/2) / (valid votes + 1)
    torch.testing.assert_close(examples.target, torch.tensor([3.5 / 4, 2.5 / 4, 2.5 / 3, 3.5 / 5]))


def test_smoothed_labels_give_every_pair_the_same_target_and_certain_ones_none(backbone: str) -> None:
    model, pairs = RewardModel.create(backbone), voted_pairs(VOTES)
    smoothed = prepare(model, pairs, settings(backbone, loss="bradley_terry", label_smoothing=0.1))
    torch.testing.assert_close(smoothed.target, torch.full((4,), 0.9))
    assert prepare(model, pairs, settings(backbone)).target is None


def test_soft_labels_follow_their_pairs_when_some_are_left_out(backbone: str) -> None:
    pairs = voted_pairs([[1, 1, -1], None, [3, 3, 3], [-100, -100]])
    wanted = settings(backbone, loss="bradley_terry", soft_labels=True)
    examples = prepare(RewardModel.create(backbone), pairs, wanted)
    assert examples.pair_ids == [pairs["pair_id"][0], pairs["pair_id"][2]]
    assert examples.left_out["no valid vote"] == 2
    torch.testing.assert_close(examples.target, torch.tensor([2.5 / 4, 3.5 / 4]))


def test_soft_labels_of_a_table_without_votes_are_a_named_error(backbone: str) -> None:
    with pytest.raises(TrainingError, match="soft_labels need votes"):
        prepare(RewardModel.create(backbone), made_pairs(4), settings(backbone, loss="bradley_terry", soft_labels=True))


def test_other_votes_behind_the_same_preferences_make_another_run_of_soft_labels_only(backbone: str) -> None:
    tables = [voted_pairs(VOTES), voted_pairs([[1, 1, 1], [2, 1, 1], [3, 2, -100], [-1, 1, -1, -1]])]
    for soft, n_runs in ((True, 2), (False, 1)):
        wanted = settings(backbone, loss="bradley_terry", soft_labels=soft, max_steps=1)
        runs = [train(RewardModel.create(backbone), table, wanted, progress=False) for table in tables]
        assert len({run.folder for run in runs}) == n_runs


# --- two objectives at once -------------------------------------------------------------------------------------------


def test_the_two_objectives_are_the_preference_loss_and_the_weighted_squared_error(backbone: str) -> None:
    rows = [dict(row) for row in made_pairs(3)]
    for row, preference, ratings in zip(rows, [2, -1, 3], [(1.0, 3.0), (4.0, 2.0), (None, None)], strict=True):
        first, second = (None if value is None else dict.fromkeys(ATTRIBUTES, value) for value in ratings)
        row |= {"preference": preference, "ratings_1": first, "ratings_2": second}
    wanted = settings(backbone, regression_weight=0.5)
    examples = prepare(RewardModel.create(backbone), make_pairs(rows, origin="rated"), wanted)
    np.testing.assert_array_equal(examples.ratings[..., 0], [[3.0, 1.0], [4.0, 2.0], [math.nan, math.nan]])
    rewards = torch.tensor([[2.0, 1.0], [2.0, 3.0], [5.0, 5.0]])[..., None]  # chosen, rejected
    by_hand = [
        2 * math.log1p(math.exp(-1)) + 0.5 * (1 + 0) / 2,
        1 * math.log1p(math.exp(1)) + 0.5 * (4 + 1) / 2,
        3 * math.log(2),  # no rating: the preference alone
    ]
    torch.testing.assert_close(training.example_losses(wanted, rewards, examples, range(3)), torch.tensor(by_hand))
    assert training.n_valid(wanted.loss, examples, range(3)) == 3


def test_both_objectives_are_learnt_by_one_output(backbone: str) -> None:
    pairs = made_pairs(8)
    wanted = settings(backbone, regression_weight=1.0, pairs_per_step=8, max_steps=120, learning_rate=3e-3)
    run = train(training.create_model(wanted), pairs, wanted, selection=pairs, progress=False)
    ratings = [row[side]["helpfulness"] for row in pairs for side in ("ratings_1", "ratings_2")]
    prompts = [row["prompt"] for row in pairs for _ in range(2)]
    texts = [row[side] for row in pairs for side in ("response_1", "response_2")]
    error = np.sqrt(np.mean((run.model.score(prompts, texts) - ratings) ** 2))
    # Scaled BT pulls rewards apart beyond their ratings; without ratings their mean would be anywhere.
    assert run.summary["selection_accuracy"] == 1.0 and error < 0.5 * np.std(ratings)


def test_two_objectives_without_any_rating_are_a_named_error(backbone: str) -> None:
    rows = [row | {"ratings_1": None, "ratings_2": None} for row in made_pairs(4)]
    with pytest.raises(TrainingError, match="regression_weight needs ratings"):
        prepare(
            RewardModel.create(backbone), make_pairs(rows, origin="unrated"), settings(backbone, regression_weight=1.0)
        )


# --- rankings ---------------------------------------------------------------------------------------------------------


def ranked_pairs(sizes: list[int]) -> Dataset:
    """All pairs of some responses to each prompt, where more good words are better: response i has i of them."""
    rows = [
        {
            "split": "train",
            "prompt": [{"role": "user", "content": f"question {number}"}],
            "response_1": "good " * first + "bad " * (4 - first),
            "response_2": "good " * second + "bad " * (4 - second),
            "preference": second - first,
        }
        for number, size in enumerate(sizes)
        for first, second in itertools.combinations(range(size), 2)
    ]
    return make_pairs(rows, origin="ranked")


def test_rankings_of_unequal_length_are_trained_best_first_and_shorter_ones_are_counted(backbone: str) -> None:
    model, wanted = RewardModel.create(backbone), settings(backbone, loss="plackett_luce")
    examples = prepare(model, ranked_pairs([4, 2, 3, 4]), wanted)
    assert examples.sizes(range(3)) == [4, 3, 4] and examples.left_out == {"prompts: fewer than three responses": 1}
    with torch.no_grad():
        rewards = training.rewards_of(model, examples, [1, 2])
        losses = training.example_losses(wanted, rewards, examples, [1, 2])
    texts = ["good good bad bad ", "good bad bad bad ", "bad bad bad bad "]
    scores = model.score([[{"role": "user", "content": "question 2"}]] * 3, texts)
    np.testing.assert_allclose(rewards[0, :3, 0], scores, atol=1e-5)
    by_hand = sum(np.log(np.exp(scores[i:]).sum()) - scores[i] for i in range(3))
    assert rewards.shape == (2, 4, 1) and losses[0].item() == pytest.approx(by_hand, abs=1e-5)


@pytest.mark.parametrize("trainable", ["all", "head"])
def test_plackett_luce_learns_an_order(backbone: str, trainable: str) -> None:
    pairs = ranked_pairs([4, 3, 4, 3, 4])
    wanted = settings(backbone, loss="plackett_luce", trainable=trainable, max_steps=100, learning_rate=3e-3)
    run = train(RewardModel.create(backbone), pairs, wanted, selection=pairs, progress=False)
    assert run.history["loss"].iloc[0] > 1.5  # ln 3! and ln 4! where nothing is known
    assert run.summary["selection_accuracy"] > 0.9 and run.history["loss"].iloc[-1] < run.history["loss"].iloc[0]


def test_the_accuracy_of_a_ranking_counts_all_its_pairs(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, wanted = RewardModel.create(backbone), settings(backbone, loss="plackett_luce")
    examples = prepare(model, ranked_pairs([4, 3]), wanted)
    given = torch.tensor([[3.0, 1.0, 2.0, 0.0], [1.0, 1.0, 0.0, 99.0]])[..., None]  # one pair wrong; one tied
    monkeypatch.setattr(
        "rmlib.training.forward.rewards_of", lambda _model, _examples, indices, *_: given[list(indices)]
    )
    monkeypatch.setattr("rmlib.training.forward.forward_batches", lambda *_: [[0, 1]])
    assert evaluate(model, examples, wanted)["accuracy"] == pytest.approx((5 + 2) / (6 + 3))


def test_kept_features_of_rankings_give_the_rewards_of_their_texts(backbone: str) -> None:
    model = RewardModel.create(backbone, seed=4)
    pairs = ranked_pairs([4, 3])
    frozen, plain = (
        prepare(model, pairs, settings(backbone, loss="plackett_luce", trainable=which)) for which in ("head", "all")
    )
    with torch.no_grad():
        kept, computed = (training.rewards_of(model, examples, [0, 1]) for examples in (frozen, plain))
    valid = torch.tensor([[True] * 4, [True, True, True, False]])
    torch.testing.assert_close(kept[valid], computed[valid], atol=1e-5, rtol=1e-5)


def test_pairs_alone_have_no_ranking_and_say_so(backbone: str) -> None:
    with pytest.raises(TrainingError, match="plackett_luce needs prompts whose three or more responses .*'fewer than"):
        prepare(RewardModel.create(backbone), made_pairs(4), settings(backbone, loss="plackett_luce"))


# --- order and steps --------------------------------------------------------------------------------------------------


def test_steps_are_those_of_the_original_recipe() -> None:
    assert TrainSettings(epochs=2, pairs_per_step=64).n_steps(10_162) == 317
    assert TrainSettings(epochs=1, pairs_per_step=64).n_steps(6_766) == 105


def test_each_epoch_draws_every_pair_once_and_the_seed_decides_the_order() -> None:
    order = sampling_order(10, 25, TrainSettings(seed=1))
    assert sorted(order[:10]) == sorted(order[10:20]) == list(range(10)) and len(order) == 25
    assert not np.array_equal(order, sampling_order(10, 25, TrainSettings(seed=2)))
    assert sampling_order(10, 12, TrainSettings(shuffle=False)).tolist() == [*range(10), 0, 1]


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup_steps", [0, 3, 10])
def test_learning_rates_are_those_of_transformers_to_the_bit(schedule: str, warmup_steps: int) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    name = "constant_with_warmup" if schedule == "constant" else schedule
    theirs = transformers.get_scheduler(name, optimizer, warmup_steps, 10).lr_lambdas[0]
    ours = scheduler_for(schedule, warmup_steps, optimizer, 10).lr_lambdas[0]
    assert [ours(step) for step in range(13)] == [theirs(step) for step in range(13)]


# --- run, reuse, resume -----------------------------------------------------------------------------------------------


def test_the_same_run_asked_for_again_is_not_trained_again(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, wanted = made_pairs(8), settings(backbone)
    first = train(RewardModel.create(backbone), pairs, wanted, progress=False)
    monkeypatch.setattr(_Loop, "run", lambda *_: pytest.fail("trained again"))
    again = train(RewardModel.create(backbone), pairs, wanted, progress=False)
    assert again.folder == first.folder and again.summary == first.summary


@pytest.mark.parametrize("stop_after", [3, 5, 8])
def test_a_killed_run_resumes_to_the_same_bits(
    backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    pairs, wanted = made_pairs(18), settings(backbone, epochs=3, checkpoint_every_steps=3, schedule="cosine")
    whole = train(RewardModel.create(backbone), pairs, wanted, folder=tmp_path / "whole", progress=False)
    step = _Loop._train_step

    def dies(loop: _Loop, order: np.ndarray) -> dict[str, float]:
        if loop.step == stop_after:
            raise KeyboardInterrupt
        return step(loop, order)

    monkeypatch.setattr(_Loop, "_train_step", dies)
    with pytest.raises(KeyboardInterrupt):
        train(RewardModel.create(backbone), pairs, wanted, folder=tmp_path / "killed", progress=False)
    monkeypatch.setattr(_Loop, "_train_step", step)
    resumed = train(RewardModel.create(backbone), pairs, wanted, folder=tmp_path / "killed", progress=False)
    assert whole.history["step"].tolist() == resumed.history["step"].tolist()
    assert whole.history["loss"].tolist() == resumed.history["loss"].tolist()
    expected, found = weights(whole.model), weights(resumed.model)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_folder_of_another_run_is_refused(backbone: str, tmp_path: Path) -> None:
    model, pairs = RewardModel.create(backbone), made_pairs(8)
    train(model, pairs, settings(backbone), folder=tmp_path / "run", progress=False)
    with pytest.raises(TrainingError, match=f"{tmp_path}/run holds run .*: settings, data or initial model differ"):
        train(RewardModel.create(backbone), pairs, settings(backbone, seed=1), folder=tmp_path / "run", progress=False)


@pytest.mark.parametrize(
    ("steps", "says"), [(1, "0 of 0.001, so nothing is learnt"), (4, "0.0003 of 0.001;"), (11, "")]
)
def test_a_run_that_ends_within_its_warm_up_is_warned_of(
    backbone: str, steps: int, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = settings(backbone, max_steps=steps, warmup_steps=10)
    run = train(RewardModel.create(backbone), made_pairs(4), wanted, progress=False)
    if not says:
        assert "warm-up" not in caplog.text and run.history["learning_rate"].max() == 1e-3
    else:
        assert f"within its warm-up, after {steps} of 10 steps: the learning rate reaches {says}" in caplog.text
        assert run.history["learning_rate"].max() == pytest.approx((steps - 1) / 10 * 1e-3)


def test_training_leaves_the_caller_s_generator_alone(backbone: str) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train(RewardModel.create(backbone), made_pairs(4), settings(backbone), progress=False)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_keeps_log_settings_and_tensorboard_scalars(backbone: str) -> None:
    run = train(RewardModel.create(backbone), made_pairs(8), settings(backbone), progress=False)
    assert {"step", "loss", "gradient_norm", "learning_rate", "tokens", "seconds"} <= set(run.history.columns)
    assert json.loads((run.folder / "settings.json").read_text())["settings"]["pairs_per_step"] == 4
    assert list((run.folder / "tensorboard").glob("events*"))


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [{"loss": "hinge"}, {"schedule": "steps"}, {"precision": "fp8"}, {"trainable": "none"}, {"learning_rate": 0.0}],
)
def test_unknown_settings_are_refused_by_name(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        TrainSettings(**change)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="learning_rat is not known .perhaps learning_rate is meant"):
        TrainSettings.from_dict({"learning_rat": 1e-3})


def test_a_pair_over_the_limit_is_named_or_left_out_and_counted(backbone: str) -> None:
    rows = [dict(row) for row in made_pairs(3)]
    rows[1]["response_1"] = "x" * 300
    rows[1]["pair_id"] = None
    pairs = make_pairs(rows, origin="long")
    model = RewardModel.create(backbone)
    with pytest.raises(TrainingError, match=f"pair {pairs[1]['pair_id']} has 3.. tokens, over the limit of 200"):
        prepare(model, pairs, settings(backbone, max_length=200))
    examples = prepare(model, pairs, settings(backbone, max_length=200, overlong="leave_out"))
    assert len(examples) == 2 and examples.left_out["over the length limit"] == 1


def test_a_pair_that_cutting_makes_identical_is_left_out_and_counted(tmp_path: Path) -> None:
    name = tiny.save_backbone(tmp_path / "encoder", "bert")
    rows = [dict(row) for row in made_pairs(3)]
    rows[2] |= {"response_1": "x" * 80, "response_2": "x" * 90, "pair_id": None}
    model = RewardModel.create(name)
    examples = prepare(model, make_pairs(rows, origin="long"), settings(name))
    assert examples.left_out["same tokens twice"] == 1 and len(examples) == 2


def test_nothing_left_to_train_on_is_an_error(backbone: str) -> None:
    ties = make_pairs([dict(row) | {"preference": 0} for row in made_pairs(3)], origin="ties")
    with pytest.raises(TrainingError, match="no pair is left to train on; left out: ties 3. Give pairs of which one"):
        train(RewardModel.create(backbone), ties, settings(backbone), progress=False)


def test_a_non_finite_loss_stops_the_run_with_the_pair_ids_and_keeps_the_checkpoint(
    backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs, wanted = made_pairs(16), settings(backbone, epochs=2, checkpoint_every_steps=2)
    honest = training.rewards_of
    calls: list[int] = []

    def spoilt(*arguments: object, **keywords: object) -> torch.Tensor:
        calls.append(1)
        return honest(*arguments, **keywords) * (math.inf if len(calls) > 4 else 1.0)  # type: ignore[arg-type]

    monkeypatch.setattr("rmlib.training.loop.rewards_of", spoilt)
    with pytest.raises(TrainingError, match="loss is nan at step 5, pairs ") as error:
        train(RewardModel.create(backbone), pairs, wanted, folder=tmp_path / "run", progress=False)
    assert sum(pair_id in str(error.value) for pair_id in pairs["pair_id"]) == 4
    assert (tmp_path / "run" / "checkpoint-000004").is_dir() and not (tmp_path / "run" / "finished.json").exists()


def test_the_shell_entry_trains_from_a_json_file(backbone: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = [row | {"split": "train"} for row in made_pairs(30)]
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = {"source": str(tmp_path / "own"), "settings": {"backbone": backbone, "max_steps": 2, "pairs_per_step": 4}}
    (tmp_path / "run.json").write_text(json.dumps(job))
    run_file(tmp_path / "run.json")
    assert json.loads(capsys.readouterr().out)["n_steps"] == 2


def test_every_mistake_of_a_run_file_is_listed_at_once(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    settings = {"learning_rate": "1e-5", "max_steps": 0, "warmup_steps": -3, "shuffle": 1, "epoch": 2, "betas": [0.9]}
    job = {"sauce": "simulated", "source": str(tmp_path / "nowhere"), "settings": settings, "processes": "two"}
    job |= {"adapter": "drop", "benchmarks": {"rewardbank": {}}, "folder": str(tmp_path / "run")}
    (tmp_path / "run.json").write_text(json.dumps(job))
    assert main([str(tmp_path / "run.json")]) == 1
    said = capsys.readouterr().err
    for words in (
        "sauce is not known (perhaps source is meant)", "nowhere is neither a file or folder nor one of simulated",
        "learning_rate should be a valid number, got '1e-5'", "max_steps must be positive, got 0",
        "warmup_steps must not be negative, got -3", "shuffle should be a valid boolean, got 1", "epoch is not known",
        "betas should be", "processes should be a valid integer, got 'two'", "adapter='drop' is unknown",
        "benchmarks: 'rewardbank' is unknown",
    ):  # fmt: skip
        assert words in said
    assert said.count("\n") == 1 and not (tmp_path / "run").exists()


def test_a_run_file_without_names_or_without_training_pairs_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "test.jsonl").write_text(json.dumps({"prompt": "Q", "chosen": "a", "rejected": "b"}))
    for job, says in (
        ({"source": "", "folder": "", "settings": {}}, "source is an empty text: name one, or leave it out; folder"),
        ({"source": str(tmp_path / "test.jsonl"), "settings": {}}, "0 of 1 pairs are training pairs"),
        ({"source": str(tmp_path / "test.jsonl")}, 'settings is missing (give "settings": {} for the defaults)'),
        ({"settings": {}}, "error: source is missing\n"),
    ):
        (tmp_path / "run.json").write_text(json.dumps(job))
        assert main([str(tmp_path / "run.json")]) == 1 and says in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{source: x}", "", "[1, 2]", "3", '{"settings": {}, "settings": {}}'])
def test_a_run_file_that_is_no_object_of_json_is_refused_in_one_line(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "run.json").write_text(text)
    assert main([str(tmp_path / "run.json")]) == 1
    assert "JSON" in (said := capsys.readouterr().err) or "is not an object" in said
    assert main([str(tmp_path / "absent.json")]) == 1 and "absent.json" in capsys.readouterr().err


def test_a_run_that_fails_before_its_first_step_leaves_its_folder_to_the_next(backbone: str, tmp_path: Path) -> None:
    pairs, wanted = make_pairs(made_pairs(3), origin="test"), TrainSettings(backbone=backbone, max_steps=1)
    for folder in (tmp_path / "new", tmp_path):
        with pytest.raises(TrainingError, match="head has 1 layer"):
            train(RewardModel.create(backbone), pairs, replace(wanted, head_layers=2), folder=folder, progress=False)
        assert not [*tmp_path.glob("**/settings.json")]
        assert train(RewardModel.create(backbone), pairs, wanted, folder=folder, progress=False).is_finished
        shutil.rmtree(tmp_path / "new", ignore_errors=True)
