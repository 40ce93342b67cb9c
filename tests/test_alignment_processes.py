"""A policy optimised by two processes: the steps of one process on the same samples, each prompt drawn for once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from notebook_launch import launch
from several_policies import PAIRS, PROMPTS, SETTINGS, Early, fitted_policy, optimised
from tiny import save_backbone

from rmlib.alignment.loop import Alignment, Task, seed_of
from rmlib.alignment.methods import PPO, OnPolicy, Reinforce
from rmlib.alignment.policies import Policy, Samples
from rmlib.alignment.rewards import AlignmentError, rewards_of
from rmlib.models import RewardModel
from rmlib.training.parallel import Processes

SEVERAL = Processes(rank=0, size=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes optimised, all in one launch; some answers of the policy do not end in time."""
    place = tmp_path_factory.mktemp("two")
    fitted_policy(place / "random").save(place / "policy")
    save_backbone(place / "critic", seed=3)
    launch("several_policies", place)
    return place


def of_two(folder: Path, method: str) -> Alignment:
    found = Alignment(folder / method, SETTINGS[method])
    assert found.is_finished
    return found


def assert_same_policy(one: Policy, other: Policy) -> None:
    samples = one.sample(PROMPTS, 2, max_new_tokens=6, seed=0)
    with torch.no_grad():
        torch.testing.assert_close(one.log_probabilities(samples), other.log_probabilities(samples), atol=2e-4, rtol=0)


def drawn_by_both(learner: OnPolicy) -> Samples:
    """The samples of the first step, a prompt of the one process and a prompt of the other in turn."""
    taken = learner.own(0, len(PROMPTS))
    shares = [[PROMPTS[index] for index in taken[:2]], [PROMPTS[index] for index in taken[2:]]]
    n, settings = learner.settings.samples_per_prompt, learner.settings
    drawn = [
        learner.policy.sample(share, n, max_new_tokens=settings.max_new_tokens, seed=seed_of(settings, 0, rank))
        for rank, share in enumerate(shares)
    ]
    parts = [drawn[rank].take([place]) for place in range(2) for rank in range(2)]
    return Samples(
        [part.prompts[0] for part in parts],
        n,
        [part.prompt_ids[0] for part in parts],
        [row for part in parts for row in part.ids],
        [text for part in parts for text in part.texts],
        np.concatenate([part.ended for part in parts]),
    )


def test_two_processes_take_the_steps_of_dpo_that_one_takes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RMLIB_RUNS", str(tmp_path / "runs"))
    one, two = optimised("dpo", folder), of_two(folder, "dpo")
    for column in ("loss", "margin", "accuracy", "gradient_norm"):
        np.testing.assert_allclose(two.history[column], one.history[column], atol=1e-4, rtol=1e-3)
    assert_same_policy(one.policy, two.policy)
    assert [row["step"] for row in two.measured] == [row["step"] for row in one.measured] == [0, 2, 4, 5]


@pytest.mark.parametrize("method", ["reinforce", "ppo"])
def test_two_processes_take_the_step_of_one_on_the_samples_of_both(folder: Path, method: str) -> None:
    two, settings = of_two(folder, method), SETTINGS[method]
    policy, critic = Policy.create(str(folder / "policy")), RewardModel.create(str(folder / "critic"), seed=1)
    makers: dict[str, Callable[[], OnPolicy]] = {
        "reinforce": lambda: Reinforce(policy, settings, Task(Early(), PROMPTS)),
        "ppo": lambda: PPO(policy, settings, Task(Early(), PROMPTS, critic=critic)),
    }
    learner = makers[method]()
    learner.prepare()
    samples = drawn_by_both(learner)
    ended = torch.from_numpy(samples.ended).view(len(PROMPTS), -1)
    assert ended.any() and not ended.all(), "the test needs both kinds"
    learner.draw = lambda step: (samples, rewards_of(Early(), samples), ended)  # type: ignore[method-assign]
    expected, found = learner.update(0), two.history.dropna(subset="loss").iloc[0]
    assert expected["n samples"] == found["n samples"] == 16
    for name in expected:
        assert found[name] == pytest.approx(expected[name], rel=1e-3, abs=1e-6), name
    assert_same_policy(learner.policy, two.policy)


def test_every_prompt_of_a_step_is_drawn_for_by_one_process(folder: Path) -> None:
    policy = Policy.create(str(folder / "policy"))
    shares = [
        Reinforce(policy, SETTINGS["reinforce"], Task(Early(), PROMPTS), Processes(rank, 2)).own(step=3, n=4)
        for rank in range(2)
    ]
    assert sorted(sum(shares, [])) == [0, 1, 2, 3]


def test_prompts_that_cannot_be_dealt_evenly_are_refused(folder: Path) -> None:
    policy = Policy.create(str(folder / "policy"))
    with pytest.raises(AlignmentError, match="3 prompts a step cannot be dealt evenly to 2 processes"):
        Reinforce(policy, SETTINGS["reinforce"].change(prompts_per_step=3), Task(Early(), PROMPTS), SEVERAL)
    with pytest.raises(AlignmentError, match="1 prompts to optimise on are too few"):
        Reinforce(policy, SETTINGS["reinforce"], Task(Early(), PROMPTS[:1]), SEVERAL)
    assert len(PAIRS.prompts) % SEVERAL.size == 0
