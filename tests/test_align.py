"""Optimising a policy: one update against hand-made steps, resuming, what is refused, what is counted."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from several_policies import PROMPTS, fitted_policy
from tiny import save_backbone, save_language_model, write_source
from torch import nn

from rmlib import alignment
from rmlib.alignment import __main__ as command
from rmlib.alignment import methods
from rmlib.alignment.align import align
from rmlib.alignment.loop import PreferencePairs, Task, Watch
from rmlib.alignment.methods import DPO, Reinforce, labelled
from rmlib.alignment.policies import Policy, Samples, valid_tokens
from rmlib.alignment.rewards import AlignmentError, load_reward, reward_identity, rewards_of
from rmlib.alignment.settings import AlignSettings
from rmlib.combining import Ensemble
from rmlib.models import RewardModel

SMALL = AlignSettings(n_steps=3, prompts_per_step=2, max_new_tokens=10, learning_rate=1e-2)


class Scorer:
    """A reward that is a function of the text."""

    def __init__(self, function: Callable[[str], float], name: str = "function") -> None:
        self.function, self.name, self.n_calls = function, name, 0

    def score(self, prompts: Sequence[Any], responses: Sequence[str]) -> np.ndarray:
        self.n_calls += 1
        return np.array([self.function(text) for text in responses])


def early(text: str) -> float:
    """Half of all bytes are early ones."""
    return float(np.mean([ord(letter) % 2 for letter in text])) if text else 0.0


@pytest.fixture(autouse=True)
def _runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMLIB_RUNS", str(tmp_path / "runs"))


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return fitted_policy(tmp_path_factory.mktemp("policy"))


def weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in network.parameters()])


# --- REINFORCE ---


def test_one_update_follows_the_gradient_of_the_estimator_over_ended_samples(policy: Policy) -> None:
    settings = SMALL.change(kl_coefficient=0.3, clip_norm=1e9)
    learner = Reinforce(policy, settings, Task(Scorer(early), PROMPTS))
    learner.prepare()
    learner.policy.network.lm_head.weight.data.mul_(0.9)  # away from the reference, so that the penalty counts
    samples, reward, ended = learner.draw(0)
    logp, before = learner.policy.log_probabilities(samples), learner.reference.log_probabilities(samples)
    valid = valid_tokens(samples)
    assert 0 < int(ended.sum()) < ended.numel(), "the test needs both kinds"
    penalised = reward.double()
    for index in range(len(samples)):
        row, column, own = index // 4, index % 4, valid[index]
        penalised[row, column] -= 0.3 * float((logp - before).detach()[index][own].abs().mean())
    loss, n_tokens = torch.zeros(()), 0
    for index in range(len(samples)):
        row, column = index // 4, index % 4
        others = [k for k in range(4) if k != column and ended[row, k]]
        if ended[row, column]:
            n_tokens += int(valid[index].sum())
            if others:
                advantage = penalised[row, column] - penalised[row, others].mean()
                loss = loss - float(advantage) * logp[index][valid[index]].sum()
    expected = torch.autograd.grad(loss / n_tokens, list(learner.network.parameters()))
    learner.descend = lambda: 0.0  # type: ignore[method-assign]  # the gradients stay where they are
    learner.update(0)
    for weight, gradient in zip(learner.network.parameters(), expected, strict=True):
        torch.testing.assert_close(weight.grad, gradient, atol=1e-6, rtol=1e-4)


def test_an_update_does_not_depend_on_how_many_prompts_are_held_at_once(policy: Policy) -> None:
    found = []
    for size in (1, 64):
        learner = Reinforce(
            policy, SMALL.change(prompts_at_once=size, prompts_per_step=4), Task(Scorer(early), PROMPTS)
        )
        learner.prepare()
        learner.update(0)
        found.append(weights(learner.network))
    torch.testing.assert_close(*found, atol=2e-4, rtol=1e-3)


def test_the_reward_rises_and_the_start_stays_as_it_was(policy: Policy) -> None:
    before = weights(policy.network)
    settings = SMALL.change(n_steps=25, prompts_per_step=4, samples_per_prompt=8, learning_rate=2e-3)
    run = align(policy, settings, Task(reward=Scorer(early), prompts=PROMPTS), progress=False)
    rewards = run.history["reward"].dropna()
    assert rewards.tail(5).mean() > rewards.head(5).mean() + 0.1
    torch.testing.assert_close(weights(policy.network), before)


def test_samples_that_do_not_end_may_have_no_reward_and_are_counted(policy: Policy) -> None:
    never = AlignSettings(n_steps=1, prompts_per_step=2, max_new_tokens=1, learning_rate=1e-2)
    learner = Reinforce(policy, never, Task(Scorer(lambda text: float("nan") if text else 1.0), PROMPTS))
    learner.prepare()
    before = weights(learner.network)
    row = learner.update(0)
    assert row["n not ended"] > 0 and np.isfinite(weights(learner.network).numpy()).all()
    if row["n not ended"] == row["n samples"]:
        torch.testing.assert_close(weights(learner.network), before)


def test_where_no_sample_ends_the_policy_stays_as_it_is(tmp_path: Path) -> None:
    endless = Policy.create(save_language_model(tmp_path))
    endless.network.lm_head.weight.data[endless.end_id] = 0.0
    learner = Reinforce(endless, SMALL, Task(Scorer(early), PROMPTS))
    learner.draw = lambda step: _none_ended(Reinforce.draw(learner, step))  # type: ignore[method-assign]
    learner.prepare()
    before = weights(learner.network)
    assert learner.update(0)["reward"] is None
    torch.testing.assert_close(weights(learner.network), before)


def _none_ended(drawn: tuple) -> tuple:
    samples, reward, ended = drawn
    return samples, reward, torch.zeros_like(ended)


def test_a_reward_that_is_no_number_stops_the_run_with_the_text(policy: Policy) -> None:
    with pytest.raises(AlignmentError, match="responses got a reward that is no finite number, e.g."):
        align(policy, SMALL, Task(reward=Scorer(lambda text: float("nan")), prompts=PROMPTS), progress=False)


def test_several_rewards_a_response_are_refused() -> None:
    samples = Samples([PROMPTS[0]], 1, [np.array([3])], [np.array([2])], [""], np.array([True]))

    class Two:
        def score(self, prompts: Sequence[Any], responses: Sequence[str]) -> np.ndarray:
            return np.zeros((len(responses), 2))

    with pytest.raises(AlignmentError, match="one number a response"):
        rewards_of(Two(), samples)


# --- runs ---


def test_a_run_is_found_again_and_one_that_was_killed_goes_on_to_the_same_bits(policy: Policy, tmp_path: Path) -> None:
    settings = SMALL.change(n_steps=5, checkpoint_every_steps=2)
    watch = Watch(PROMPTS, {"proxy": Scorer(early, "watched")}, every_steps=2, samples_per_prompt=2)

    class Killed(Scorer):
        def score(self, prompts: Sequence[Any], responses: Sequence[str]) -> np.ndarray:
            if self.n_calls == 3:
                raise KeyboardInterrupt
            return super().score(prompts, responses)

    with pytest.raises(KeyboardInterrupt):
        align(policy, settings, Task(reward=Killed(early), prompts=PROMPTS, watch=watch), progress=False)
    resumed_reward = Scorer(early)
    resumed = align(policy, settings, Task(reward=resumed_reward, prompts=PROMPTS, watch=watch), progress=False)
    assert resumed_reward.n_calls == 3  # steps 3, 4 and 5
    whole = align(policy, settings, Task(reward=Scorer(early, "another"), prompts=PROMPTS, watch=watch), progress=False)
    assert whole.folder != resumed.folder
    assert torch.equal(weights(whole.policy.network), weights(resumed.policy.network))
    assert [row["step"] for row in resumed.measured] == [0, 2, 4, 5]
    assert resumed.measured == whole.measured
    again = Scorer(early)
    (resumed.folder / "checkpoint-000004").mkdir()  # as a run leaves it that was killed right after its mark
    align(policy, settings, Task(reward=again, prompts=PROMPTS, watch=watch), progress=False)
    assert again.n_calls == 0 and not list(resumed.folder.glob("checkpoint-*"))


def test_a_killed_run_goes_on_where_no_reward_is_watched(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = SMALL.change(method="dpo", n_steps=3, checkpoint_every_steps=2)
    task, update = Task(pairs=PAIRS, watch=Watch(PROMPTS, every_steps=1)), DPO.update

    def killed(learner: DPO, step: int) -> dict[str, Any]:
        if step == 2:
            raise KeyboardInterrupt
        return update(learner, step)

    with monkeypatch.context() as patch:
        patch.setattr(DPO, "update", killed)
        with pytest.raises(KeyboardInterrupt):
            align(policy, settings, task, progress=False)
    run = align(policy, settings, task, progress=False)
    assert [row["step"] for row in run.measured] == [0, 1, 2, 3]
    best = Policy.create(str(run.folder / "best"))
    assert torch.equal(weights(best.network), weights(run.policy.network))  # without a reward the last is the best


def test_at_the_start_the_divergence_is_zero_and_the_best_policy_is_kept(policy: Policy) -> None:
    watch = Watch(PROMPTS, {"proxy": Scorer(early)}, every_steps=1, samples_per_prompt=8)
    run = align(
        policy, SMALL.change(n_steps=4), Task(reward=Scorer(early), prompts=PROMPTS, watch=watch), progress=False
    )
    assert run.measured[0]["divergence"] == pytest.approx(0.0, abs=1e-6)
    assert run.measured[-1]["divergence"] > 0
    means = [np.mean(row["proxy"]) for row in run.measured]
    again = watch.measure(Policy.create(str(run.folder / "best")), policy, max_new_tokens=SMALL.max_new_tokens)
    assert np.mean(again["proxy"]) == pytest.approx(max(means), abs=1e-3)


def test_missing_parts_are_named(policy: Policy) -> None:
    with pytest.raises(AlignmentError, match="reinforce needs a reward"):
        align(policy, SMALL, Task(prompts=PROMPTS), progress=False)
    with pytest.raises(AlignmentError, match="DPO learns from pairs"):
        align(policy, SMALL.change(method="dpo"), Task(), progress=False)
    with pytest.raises(AlignmentError, match="0 prompts to optimise on"):
        align(policy, SMALL, Task(reward=Scorer(early)), progress=False)
    with pytest.raises(AlignmentError, match="neither identity nor name"):
        align(policy, SMALL, Task(reward=object(), prompts=PROMPTS), progress=False)  # type: ignore[arg-type]
    with pytest.raises(AlignmentError, match="the reward is a Scorer: give critic"):
        align(policy, SMALL.change(method="ppo"), Task(reward=Scorer(early), prompts=PROMPTS), progress=False)
    with pytest.raises(ValueError, match="at least 2 samples_per_prompt"):
        AlignSettings(samples_per_prompt=1)


# --- adapters, rewards of other kinds ---


def test_adapters_alone_are_trained_and_are_merged_in_a_copy(policy: Policy) -> None:
    settings = SMALL.change(lora_rank=2, learning_rate=5e-2)
    learner = Reinforce(policy, settings, Task(Scorer(early), PROMPTS))
    trained = [name for name, weight in learner.named_parameters() if weight.requires_grad]
    assert trained and all("lora" in name for name in trained)
    learner.prepare()
    for step in range(2):
        learner.update(step)
    samples = policy.sample(PROMPTS, 2, max_new_tokens=6, seed=0)
    with torch.no_grad():
        start, adapted = policy.log_probabilities(samples), learner.policy.log_probabilities(samples)
    assert (adapted - start).abs().max() > 1e-3
    with torch.no_grad():
        torch.testing.assert_close(learner.policy.copy().log_probabilities(samples), adapted, atol=1e-4, rtol=1e-4)


def test_an_adapted_policy_is_saved_whole(policy: Policy) -> None:
    run = align(policy, SMALL.change(lora_rank=2), Task(reward=Scorer(early), prompts=PROMPTS), progress=False)
    assert weights(run.policy.network).shape == weights(policy.network).shape
    assert not torch.equal(weights(run.policy.network), weights(policy.network))


def test_an_exported_folder_with_another_tokenizer_is_a_reward(policy: Policy, tmp_path: Path) -> None:
    model = RewardModel.create("embedded", seed=0)  # words, where the policy has bytes
    bias = model.export(tmp_path / "exported")
    samples = policy.sample(PROMPTS, 4, max_new_tokens=10, seed=0)
    found = rewards_of(load_reward(tmp_path / "exported"), samples)
    expected = model.score(samples.repeated_prompts, samples.texts).reshape(4, 4)
    np.testing.assert_allclose(found + bias, expected, atol=1e-4)
    run = align(policy, SMALL, Task(reward=load_reward(tmp_path / "exported"), prompts=PROMPTS), progress=False)
    assert run.is_finished


def test_an_ensemble_is_named_by_members_and_texts_not_by_the_last_digits_of_its_scales() -> None:
    members = [RewardModel.create("embedded", seed=seed) for seed in range(2)]
    ensemble = Ensemble.fit(members, PROMPTS, ["a", "bb", "c", "d"])
    rounded = replace(ensemble, scales=ensemble.scales * (1 + 1e-9))  # as another number of threads leaves them
    assert reward_identity(rounded) == reward_identity(ensemble)
    others = [Ensemble.fit(members, PROMPTS, list("abce")), Ensemble.fit(members[:1], PROMPTS, ["a", "bb", "c", "d"])]
    assert len({reward_identity(one) for one in (ensemble, *others)}) == 3


# --- PPO ---


@pytest.fixture(scope="module")
def critic(tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    return RewardModel.create(save_backbone(tmp_path_factory.mktemp("critic"), seed=3), seed=1)


@pytest.mark.parametrize("shared", [True, False])
def test_the_value_of_a_token_is_the_head_on_the_state_before_it(
    policy: Policy, critic: RewardModel, shared: bool
) -> None:
    samples = policy.sample(PROMPTS, 3, max_new_tokens=8, seed=0)
    before, critic.shared = critic.shared, shared
    with torch.no_grad():
        found = methods.token_values(critic, samples, token_budget=60)
        for index, ids in enumerate(samples.ids):
            prompt = samples.prompt_ids[index // 3]
            states = critic.backbone(torch.from_numpy(np.concatenate([prompt, ids]))[None]).last_hidden_state[0]
            expected = critic(states[len(prompt) - 1 : -1])[:, 0]
            torch.testing.assert_close(found[index, : len(ids)], expected, atol=1e-4, rtol=1e-4)
    critic.shared = before


def test_the_reward_falls_on_the_last_token_and_the_penalty_on_each() -> None:
    logp, reference = torch.tensor([[-1.0, -2.0, -9.0]] * 2), torch.tensor([[-1.5, -1.0, 0.0]] * 2)
    valid = torch.tensor([[True, True, False], [False, False, False]])
    found = methods.token_rewards(logp, reference, torch.tensor([3.0, 7.0]), valid, 0.1)
    torch.testing.assert_close(found, torch.tensor([[-0.05, 3.1, 0.0], [0.0, 0.0, 0.0]]))


def test_the_second_round_starts_from_the_best_policy_of_the_first(policy: Policy, critic: RewardModel) -> None:
    settings = SMALL.change(method="ppo", n_steps=2, prompts_per_step=4, learning_rate=3e-2)
    watch = Watch(PROMPTS, {"proxy": Scorer(early)}, every_steps=1, samples_per_prompt=4)
    run = align(
        policy, settings, Task(reward=Scorer(early), prompts=PROMPTS, critic=critic, watch=watch), progress=False
    )
    assert [row["step"] for row in run.measured] == [0, 1, 2, 3, 4]
    best = max(run.measured[:3], key=lambda row: np.mean(row["proxy"]))
    second = methods.PPO(
        Policy.create(str(run.folder / "round-1" / "best")), settings, Task(Scorer(early), PROMPTS, critic=critic)
    )
    again = watch.measure(second.policy, policy, max_new_tokens=settings.max_new_tokens)
    assert again["divergence"] == pytest.approx(best["divergence"], abs=1e-4)


def test_ppo_moves_policy_and_value_model_and_needs_one_on_the_policys_tokens(
    policy: Policy, critic: RewardModel
) -> None:
    learner = methods.PPO(
        policy, SMALL.change(method="ppo", prompts_per_step=4), Task(Scorer(early), PROMPTS, critic=critic)
    )
    learner.prepare()
    before = weights(learner.network), weights(learner.critic)
    row = learner.update(0)
    assert np.isfinite([row["loss"], row["value_loss"]]).all()
    assert not torch.equal(weights(learner.network), before[0])
    assert not torch.equal(weights(learner.critic), before[1])
    torch.testing.assert_close(weights(critic), before[1])  # the reward model itself is left alone
    with pytest.raises(AlignmentError, match="whose tokenizer is not that of the policy"):
        methods.critic_of(Task(critic=RewardModel.create("embedded")), policy)


# --- DPO ---

PAIRS = PreferencePairs(PROMPTS, ["good"] * 4, ["bad one"] * 4, np.array([1.0, 2.0, 3.0, 1.0]))


@pytest.mark.parametrize("loss", ["bradley_terry", "margin_bradley_terry", "scaled_bradley_terry"])
def test_dpo_begins_at_the_loss_of_equal_rewards_and_learns_the_pairs(policy: Policy, loss: str) -> None:
    settings = SMALL.change(method="dpo", loss=loss, prompts_per_step=4, n_steps=12)
    run = align(policy, settings, Task(pairs=PAIRS), progress=False)
    strength = torch.tensor([1.0, 2.0, 3.0, 1.0])
    zero = torch.zeros(4)
    at_start = alignment.dpo_loss(loss, zero, zero, zero, zero, strength, beta=0.1).mean()
    history = run.history.dropna(subset="loss")
    assert history["loss"].iloc[0] == pytest.approx(float(at_start), rel=1e-4)
    assert history["margin"].iloc[0] == pytest.approx(0.0, abs=1e-5) and history["margin"].iloc[-1] > 0.1
    assert history["accuracy"].iloc[-1] == 1.0


def test_the_implicit_margin_is_summed_over_the_tokens_of_each_text(policy: Policy) -> None:
    learner = DPO(policy, SMALL.change(method="dpo", prompts_per_step=4), Task(pairs=PAIRS))
    learner.policy.network.lm_head.weight.data.mul_(0.8)
    margin, _ = learner._margin_and_loss([2, 0])
    for place, index in enumerate([2, 0]):
        sums = []
        for text in ("good", "bad one"):
            one = policy.read([PROMPTS[index]], 1, [text])
            assert one.ended.all()
            sums.append(float((learner.policy.log_probabilities(one) - policy.log_probabilities(one)).sum().detach()))
        assert float(margin[place]) == pytest.approx(0.1 * (sums[0] - sums[1]), rel=1e-4, abs=1e-5)


def test_a_reward_labels_the_best_and_the_worst_of_the_ended_samples() -> None:
    texts = ["a", "bb", "cccc", "ddd", "e", "e", "f", "g"]
    ended = np.array([True, True, False, True, True, True, False, False])
    ids = [np.array([3, 2])] * 8
    samples = Samples(PROMPTS[:2], 4, [np.array([4])] * 2, ids, texts, ended)
    found = labelled(samples, Scorer(len))
    assert list(found.prompts) == [PROMPTS[0]]  # of the second prompt the ended ones are alike
    assert (list(found.chosen), list(found.rejected)) == (["ddd"], ["a"])
    with pytest.raises(AlignmentError, match="no pair to learn from"):
        labelled(samples, Scorer(lambda text: 0.0))


def test_regular_dpo_has_the_loss_of_trl(policy: Policy, tmp_path: Path) -> None:
    from trl import DPOConfig, DPOTrainer

    learner = DPO(policy, SMALL.change(method="dpo"), Task(pairs=PAIRS))
    learner.policy.network.lm_head.weight.data.mul_(0.7)
    _, ours = learner._margin_and_loss([0, 1, 2, 3])
    answers = (
        [{"role": "assistant", "content": text}]
        for two in zip(PAIRS.chosen, PAIRS.rejected, strict=True)
        for text in two
    )
    rows = [{"prompt": prompt, "chosen": next(answers), "rejected": next(answers)} for prompt in PROMPTS]
    arguments = DPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=4, beta=0.1, report_to=[], use_cpu=True, bf16=False,
        gradient_checkpointing=False,
    )  # fmt: skip
    trainer = DPOTrainer(
        model=learner.policy.copy().network, ref_model=policy.copy().network, args=arguments,
        train_dataset=Dataset.from_list(rows), processing_class=policy.tokenizer,
    )  # fmt: skip
    trainer.model.eval()
    with torch.no_grad():
        theirs = trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
    assert float(theirs) == pytest.approx(float(ours.detach().mean()), rel=1e-4)


# --- from the shell ---


def test_a_run_file_optimises_a_policy_by_an_exported_reward_on_own_pairs(tmp_path: Path, policy: Policy) -> None:
    policy.save(tmp_path / "policy")
    RewardModel.create("embedded").export(tmp_path / "reward")
    asked = {
        "source": str(write_source(tmp_path / "pairs")), "policy": str(tmp_path / "policy"),
        "reward": str(tmp_path / "reward"), "watched": 2, "every_steps": 1,
        "settings": {"n_steps": 1, "prompts_per_step": 2, "max_new_tokens": 8, "lora_rank": 2},
    }  # fmt: skip
    file = tmp_path / "run.json"
    file.write_text(json.dumps(asked))
    assert command.main([str(file)]) == 0
    run = command.run(asked, progress=False)
    assert len(run.measured) == 2 and np.isfinite(run.measured[-1]["divergence"])
    dpo_run = {name: value for name, value in asked.items() if name != "reward"}
    dpo_run["settings"] = {"method": "dpo", "n_steps": 1, "prompts_per_step": 2, "max_new_tokens": 8}
    assert command.run(dpo_run, progress=False).is_finished


def test_a_run_file_that_cannot_be_run_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for asked, reason in (
        ({"source": "simulated", "policy": "p"}, "reward is missing, which a run of reinforce needs"),
        ({"sauce": "simulated"}, "sauce is not known (perhaps source is meant); policy is missing; source is missing"),
        ({"settings": {"steps": 3}}, "settings: steps is not known"),
    ):
        (tmp_path / "run.json").write_text(json.dumps(asked))
        assert command.main([str(tmp_path / "run.json")]) == 1
        assert reason in capsys.readouterr().err
