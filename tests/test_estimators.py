"""Estimators of alignment against hand arithmetic, enumeration of a policy with three answers, and brute force."""

import itertools
import math

import numpy as np
import pytest
import torch

from rmlib import alignment, losses

ONE = torch.ones(1)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- DPO ---


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("bradley_terry", math.log1p(math.exp(-0.4))),
        ("margin_bradley_terry", math.log1p(math.exp(-0.4 + 3))),
        ("scaled_bradley_terry", 3 * math.log1p(math.exp(-0.4))),
    ],
)
def test_dpo_is_the_reward_loss_on_the_implicit_margin(name: str, by_hand: float) -> None:
    # beta [(-10 + 12) - (-9 + 7)] = 0.1 * 4 = 0.4; strength 3
    found = alignment.dpo_loss(name, -10 * ONE, -9 * ONE, -12 * ONE, -7 * ONE, 3 * ONE, beta=0.1)
    assert found.item() == pytest.approx(by_hand, rel=1e-6)


def test_a_policy_equal_to_its_reference_has_a_dpo_loss_of_log_two() -> None:
    chosen, rejected = random(2, 8)
    found = alignment.dpo_loss("bradley_terry", chosen, rejected, chosen, rejected, torch.ones(8), beta=0.3)
    torch.testing.assert_close(found, torch.full((8,), math.log(2)))


@pytest.mark.usefixtures("unchecked_shapes")
def test_shapes_that_would_broadcast_and_a_beta_of_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes must be equal"):
        alignment.implicit_reward(torch.zeros(3), torch.zeros(3, 1), 0.1)
    with pytest.raises(ValueError, match="beta must be positive"):
        alignment.implicit_reward(ONE, ONE, 0.0)


# --- REINFORCE ---


def test_the_baseline_of_a_sample_is_the_mean_of_the_other_ended_ones() -> None:
    reward = torch.tensor([[1.0, 2.0, 6.0, 100.0]])
    ended = torch.tensor([[True, True, True, False]])
    expected = torch.tensor([[4.0, 3.5, 1.5, 3.0]])  # the last one never ended: it counts for nobody
    torch.testing.assert_close(alignment.leave_one_out_baseline(reward, ended), expected)


@pytest.mark.parametrize("ended", [[True, False, False], [False, False, False]])
def test_a_prompt_with_at_most_one_ended_sample_teaches_nothing(ended: list[bool]) -> None:
    reward = torch.tensor([[1.0, 2.0, 3.0]])
    baseline = alignment.leave_one_out_baseline(reward, torch.tensor([ended]))
    torch.testing.assert_close(reward - baseline, torch.zeros(1, 3))


def test_a_sample_that_did_not_end_may_carry_a_reward_that_is_not_a_number() -> None:
    reward = torch.tensor([[1.0, 3.0, torch.nan]])
    baseline = alignment.leave_one_out_baseline(reward, torch.tensor([[True, True, False]]))
    torch.testing.assert_close(baseline, torch.tensor([[3.0, 1.0, 2.0]]))


def test_leave_one_out_advantages_of_a_prompt_sum_to_zero() -> None:
    reward = random(5, 4)
    baseline = alignment.leave_one_out_baseline(reward, torch.ones(5, 4, dtype=torch.bool))
    torch.testing.assert_close((reward - baseline).sum(dim=1), torch.zeros(5), atol=1e-6, rtol=0)


# A policy with three answers: A = one token, B and C = two tokens that share their first.
REWARDS = torch.tensor([1.0, -2.0, 0.5])


def answers(theta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of the tokens of the three answers, and which of them are tokens."""
    first, second = torch.log_softmax(theta[:2], 0), torch.log_softmax(theta[2:], 0)
    nothing = torch.zeros(())
    logp = torch.stack([first[0], nothing, first[1], second[0], first[1], second[1]]).view(3, 2)
    return logp, torch.tensor([[True, False], [True, True], [True, True]])


def gradient_of_expected_reward(theta: torch.Tensor) -> torch.Tensor:
    logp, valid = answers(theta)
    expected = ((logp * valid).sum(dim=1).exp() * REWARDS).sum()
    return torch.autograd.grad(expected, theta)[0]


def expected_step(theta: torch.Tensor, reduce: str) -> torch.Tensor:
    """The mean over all pairs of samples, each with its probability, of the step that they would make."""
    logp, valid = answers(theta)
    probability = (logp * valid).sum(dim=1).exp().detach()
    total = torch.zeros_like(theta)
    for pair in itertools.product(range(3), repeat=2):
        reward = REWARDS[list(pair)]
        baseline = alignment.leave_one_out_baseline(reward[None], torch.ones(1, 2, dtype=torch.bool))[0]
        rows = list(pair)
        loss = alignment.reinforce_loss(logp[rows], reward - baseline, valid[rows], reduce=reduce)
        total -= probability[rows].prod() * torch.autograd.grad(loss, theta, retain_graph=True)[0]
    return total


def test_summed_log_probabilities_give_the_exact_gradient_of_the_expected_reward() -> None:
    theta = torch.tensor([0.3, -0.2, 0.5, 0.1], requires_grad=True)
    torch.testing.assert_close(expected_step(theta, "sum"), gradient_of_expected_reward(theta), atol=1e-6, rtol=1e-5)


def test_the_mean_over_tokens_points_elsewhere_where_lengths_differ() -> None:
    theta = torch.tensor([0.3, -0.2, 0.5, 0.1], requires_grad=True)
    cosine = torch.cosine_similarity(expected_step(theta, "token_mean"), gradient_of_expected_reward(theta), dim=0)
    assert 0.5 < cosine.item() < 0.9999


def test_the_penalty_is_absolute_and_a_mean_over_the_tokens_of_the_response() -> None:
    policy, reference = torch.tensor([[-1.0, -2.0, 9.0]]), torch.tensor([[-1.5, -1.0, 0.0]])
    valid = torch.tensor([[True, True, False]])
    found = alignment.mean_absolute_divergence(policy, reference, valid)
    torch.testing.assert_close(found, torch.tensor([0.75]))  # (|0.5| + |-1|) / 2
    with pytest.raises(ValueError, match=r"responses \[0\] have no token"):
        alignment.mean_absolute_divergence(policy, reference, torch.zeros(1, 3, dtype=torch.bool))


def test_what_stands_outside_a_response_has_no_part_in_any_loss() -> None:
    valid = torch.tensor([[True, True, False], [True, False, False]])
    outside = torch.where(valid, 0.0, torch.nan)
    logp, old, value = random(3, 2, 3)
    clean = [
        alignment.reinforce_loss(logp, torch.tensor([1.0, -1.0]), valid),
        alignment.ppo_policy_loss(logp, old, value, valid),
        alignment.ppo_value_loss(value, old, logp, valid),
    ]
    dirty = [
        alignment.reinforce_loss(logp + outside, torch.tensor([1.0, -1.0]), valid),
        alignment.ppo_policy_loss(logp + outside, old, value + outside, valid),
        alignment.ppo_value_loss(value + outside, old, logp + outside, valid),
    ]
    torch.testing.assert_close(clean, dirty)


def test_an_unknown_reduction_and_a_batch_without_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="reduce must be"):
        alignment.reinforce_loss(torch.zeros(1, 2), ONE, torch.ones(1, 2, dtype=torch.bool), reduce="mean")
    with pytest.raises(ValueError, match="no response of the batch has a token"):
        alignment.reinforce_loss(torch.zeros(1, 2), ONE, torch.zeros(1, 2, dtype=torch.bool))


# --- PPO ---


def test_advantages_of_three_tokens_worked_by_hand() -> None:
    # gamma 1, lambda 0.5; errors: 0 + 2 - 1 = 1; 0 + 3 - 2 = 1; 5 + 0 - 3 = 2
    reward, value = torch.tensor([[0.0, 0.0, 5.0]]), torch.tensor([[1.0, 2.0, 3.0]])
    advantage, returns = alignment.generalised_advantages(reward, value, torch.ones(1, 3, dtype=torch.bool), lam=0.5)
    torch.testing.assert_close(advantage, torch.tensor([[2.0, 2.0, 2.0]]))  # 2; 1 + 0.5 * 2; 1 + 0.5 * 2
    torch.testing.assert_close(returns, torch.tensor([[3.0, 4.0, 5.0]]))


def test_with_lambda_one_the_return_is_the_discounted_sum_of_rewards_and_padding_changes_nothing() -> None:
    reward, value = random(2, 4), random(2, 4, seed=1)
    valid = torch.tensor([[True, True, True, True], [True, True, False, False]])
    _, returns = alignment.generalised_advantages(reward, value, valid, gamma=0.9, lam=1.0)
    assert returns[0, 0].item() == pytest.approx(sum(0.9**t * reward[0, t].item() for t in range(4)), rel=1e-5)
    assert returns[1, 0].item() == pytest.approx(reward[1, 0].item() + 0.9 * reward[1, 1].item(), rel=1e-5)
    torch.testing.assert_close(returns[1, 2:], torch.zeros(2))


def test_the_clipped_surrogate_rewards_no_move_beyond_its_bound() -> None:
    old, valid = torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool)
    logp = torch.log(torch.tensor([[1.5]])).requires_grad_()
    up = alignment.ppo_policy_loss(logp, old, torch.ones(1, 1), valid)
    assert up.item() == pytest.approx(-1.2)
    assert torch.autograd.grad(up, logp)[0].item() == 0.0
    down = alignment.ppo_policy_loss(logp, old, -torch.ones(1, 1), valid)  # a wrong move is charged in full
    assert down.item() == pytest.approx(1.5)


def test_before_any_move_the_gradient_of_ppo_is_that_of_reinforce() -> None:
    logp = random(2, 3).requires_grad_()
    valid, advantage = torch.ones(2, 3, dtype=torch.bool), torch.tensor([1.0, -2.0])
    ppo = alignment.ppo_policy_loss(logp, logp.detach(), advantage[:, None].expand(2, 3), valid)
    reinforce = alignment.reinforce_loss(logp, advantage, valid)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logp)[0] for loss in (ppo, reinforce)))


@pytest.mark.parametrize("values", [(0.0, 0.0), (0.7, -3.0)])
def test_ppo_before_any_move_has_the_exact_gradient_of_the_expected_reward_whatever_the_values(
    values: tuple[float, float],
) -> None:
    # Enumeration: each answer with its probability; the mean over tokens times their number is the sum.
    theta = torch.tensor([0.3, -0.2, 0.5, 0.1], requires_grad=True)
    logp, valid = answers(theta)
    probability = (logp * valid).sum(dim=1).exp().detach()
    value = torch.tensor([values[0], values[1]]).expand(3, 2)  # of the start, and of the state that B and C share
    reward = torch.where(valid & ~torch.roll(valid, -1, 1) | torch.tensor([[False, True]]), REWARDS[:, None], 0.0)
    advantage, _ = alignment.generalised_advantages(reward * valid, value, valid, lam=1.0)
    total = torch.zeros_like(theta)
    for row in range(3):
        one = slice(row, row + 1)
        loss = alignment.ppo_policy_loss(logp[one], logp[one].detach(), advantage[one], valid[one])
        gradient = torch.autograd.grad(loss, theta, retain_graph=True)[0]
        total -= probability[row] * valid[row].sum() * gradient
    torch.testing.assert_close(total, gradient_of_expected_reward(theta), atol=1e-6, rtol=1e-5)


def test_the_value_loss_takes_the_worse_of_the_free_and_the_clipped_prediction() -> None:
    found = alignment.ppo_value_loss(
        torch.tensor([[1.0]]), torch.tensor([[0.0]]), torch.tensor([[1.0]]), torch.ones(1, 1, dtype=torch.bool)
    )
    assert found.item() == pytest.approx(0.5 * 0.8**2)  # moved by 1, allowed 0.2


# --- best of n ---


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_expectation_of_the_best_of_n_is_the_mean_over_all_subsets(n: int) -> None:
    rng = np.random.default_rng(0)
    proxy, gold = rng.normal(size=(2, 3, 5))
    expected = [
        np.mean([g[max(subset, key=lambda index: p[index])] for subset in itertools.combinations(range(5), n)])  # noqa: B023
        for p, g in zip(proxy, gold, strict=True)
    ]
    np.testing.assert_allclose(alignment.best_of_n_expectation(proxy, gold, n), expected)


def test_samples_of_equal_proxy_share_their_place() -> None:
    found = alignment.best_of_n_expectation(np.zeros((1, 4)), np.array([[0.0, 1.0, 2.0, 5.0]]), 3)
    np.testing.assert_allclose(found, [2.0])


def test_the_divergence_of_the_best_of_n_is_that_of_a_uniform_choice_of_many() -> None:
    # The rank of the best of n among N equally likely answers: P(rank i) = C(i-1, n-1) / C(N, n), against 1 / N.
    n, total = 4, 4000
    rank = np.arange(n, total + 1)
    p = np.array([math.comb(i - 1, n - 1) / math.comb(total, n) for i in rank])
    assert alignment.best_of_n_divergence(n) == pytest.approx((p * np.log(p * total)).sum(), abs=1e-2)
    assert alignment.best_of_n_divergence(1) == 0.0


@pytest.mark.usefixtures("unchecked_shapes")
def test_what_cannot_be_chosen_from_is_refused() -> None:
    with pytest.raises(ValueError, match="from 1 to the 4 samples"):
        alignment.best_of_n_expectation(np.zeros((1, 4)), np.zeros((1, 4)), 5)
    with pytest.raises(ValueError, match="both be"):
        alignment.best_of_n_expectation(np.zeros((1, 4)), np.zeros((1, 3)), 2)
    with pytest.raises(ValueError, match="at least 1"):
        alignment.best_of_n_divergence(0)


def test_dpo_knows_every_pair_loss() -> None:
    for name in losses.PAIR_LOSSES:
        assert alignment.dpo_loss(name, ONE, ONE, ONE, ONE, ONE, beta=1.0).isfinite().all()
