"""The losses against hand arithmetic, scikit-free identities and invariances."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from rmlib import losses

PAIR_LOSSES = list(losses.PAIR_LOSSES)
CHOSEN = torch.tensor([1.0, 3.0, -1.0])
REJECTED = torch.tensor([1.0, 1.0, 1.0])  # margins 0, +2, -2
STRENGTH = torch.tensor([1.0, 2.0, 3.0])


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("bradley_terry", [softplus(0), softplus(-2), softplus(2)]),
        ("margin_bradley_terry", [softplus(1), softplus(0), softplus(5)]),
        ("scaled_bradley_terry", [softplus(0), 2 * softplus(-2), 3 * softplus(2)]),
    ],
)
def test_each_preference_loss_equals_hand_arithmetic_on_unequal_margins(name: str, by_hand: list[float]) -> None:
    torch.testing.assert_close(losses.pair_loss(name, CHOSEN, REJECTED, STRENGTH), torch.tensor(by_hand))


def test_bradley_terry_is_logistic_regression_on_the_margin() -> None:
    chosen, rejected = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    expected = F.binary_cross_entropy_with_logits(chosen - rejected, torch.ones(64), reduction="none")
    torch.testing.assert_close(losses.bradley_terry_loss(chosen, rejected), expected)


def test_scaled_loss_has_the_gradient_of_repeating_each_pair_as_often_as_its_strength() -> None:
    rewards = torch.randn(2, 3, generator=torch.Generator().manual_seed(1), requires_grad=True)
    scaled = losses.scaled_bradley_terry_loss(rewards[0], rewards[1], STRENGTH).sum()
    index = torch.tensor([0, 1, 1, 2, 2, 2])
    repeated = losses.bradley_terry_loss(rewards[0][index], rewards[1][index]).sum()
    torch.testing.assert_close(*(torch.autograd.grad(loss, rewards)[0] for loss in (scaled, repeated)))


def test_margin_loss_is_the_regular_loss_of_a_chosen_reward_lowered_by_the_strength() -> None:
    expected = losses.bradley_terry_loss(CHOSEN - STRENGTH, REJECTED)
    torch.testing.assert_close(losses.margin_bradley_terry_loss(CHOSEN, REJECTED, STRENGTH), expected)


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_loss_of_a_batch_is_a_permutation_of_its_examples(name: str) -> None:
    order = torch.tensor([2, 0, 1])
    whole = losses.pair_loss(name, CHOSEN, REJECTED, STRENGTH)
    torch.testing.assert_close(losses.pair_loss(name, CHOSEN[order], REJECTED[order], STRENGTH[order]), whole[order])


@pytest.mark.parametrize("name", PAIR_LOSSES)
@given(shift=st.floats(-50, 50), margin=st.floats(-30, 30))
def test_a_constant_added_to_both_rewards_changes_no_preference_loss(name: str, shift: float, margin: float) -> None:
    strength, zero = torch.tensor([2.0], dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    plain, shifted = (losses.pair_loss(name, zero + margin + c, zero + c, strength) for c in (0.0, shift))
    torch.testing.assert_close(plain, shifted, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_huge_margins_give_finite_losses_and_gradients(name: str) -> None:
    rewards = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    loss = losses.pair_loss(name, rewards[0], rewards[1], torch.ones(2))
    (gradient,) = torch.autograd.grad(loss.sum(), rewards)
    assert torch.isfinite(loss).all() and torch.isfinite(gradient).all()
    assert loss[0] == 0 and loss[1] >= 2e4


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_shapes_that_would_broadcast_are_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="shapes must be equal"):
        losses.pair_loss(name, CHOSEN, REJECTED[:, None], STRENGTH)
    if name != "bradley_terry":
        with pytest.raises(ValueError, match=r"strength \[3, 1\]"):
            losses.pair_loss(name, CHOSEN, REJECTED, STRENGTH[:, None])


def test_an_unknown_preference_loss_is_refused_with_the_known_names() -> None:
    with pytest.raises(ValueError, match="known: bradley_terry"):
        losses.pair_loss("hinge", CHOSEN, REJECTED, STRENGTH)


# --- soft labels and label smoothing ----------------------------------------------------------------------------------

TARGET = torch.tensor([0.5, 0.75, 0.875])


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        (
            "bradley_terry",
            [softplus(0), 0.75 * softplus(-2) + 0.25 * softplus(2), 0.875 * softplus(2) + 0.125 * softplus(-2)],
        ),
        (
            "margin_bradley_terry",
            [softplus(1), 0.75 * softplus(0) + 0.25 * softplus(4), 0.875 * softplus(5) + 0.125 * softplus(1)],
        ),
        (
            "scaled_bradley_terry",
            [
                softplus(0),
                2 * (0.75 * softplus(-2) + 0.25 * softplus(2)),
                3 * (0.875 * softplus(2) + 0.125 * softplus(-2)),
            ],
        ),
    ],
)
def test_a_soft_label_weighs_the_loss_as_labelled_against_that_of_the_pair_turned_round(
    name: str, by_hand: list[float]
) -> None:
    torch.testing.assert_close(losses.pair_loss(name, CHOSEN, REJECTED, STRENGTH, TARGET), torch.tensor(by_hand))


def test_the_regular_loss_with_soft_labels_is_torchs_cross_entropy() -> None:
    generator = torch.Generator().manual_seed(3)
    chosen, rejected = torch.randn(2, 64, generator=generator)
    target = torch.rand(64, generator=generator)
    expected = F.binary_cross_entropy_with_logits(chosen - rejected, target, reduction="none")
    torch.testing.assert_close(losses.pair_loss("bradley_terry", chosen, rejected, torch.ones(64), target), expected)


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_a_certain_label_leaves_the_loss_as_it_was(name: str) -> None:
    plain = losses.pair_loss(name, CHOSEN, REJECTED, STRENGTH)
    torch.testing.assert_close(losses.pair_loss(name, CHOSEN, REJECTED, STRENGTH, torch.ones(3)), plain)


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_turning_a_pair_and_its_soft_label_round_changes_nothing(name: str) -> None:
    turned = losses.pair_loss(name, REJECTED, CHOSEN, STRENGTH, 1 - TARGET)
    torch.testing.assert_close(losses.pair_loss(name, CHOSEN, REJECTED, STRENGTH, TARGET), turned)


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_soft_losses_of_a_batch_follow_a_permutation_of_its_examples(name: str) -> None:
    order = torch.tensor([2, 0, 1])
    whole = losses.pair_loss(name, CHOSEN, REJECTED, STRENGTH, TARGET)
    permuted = losses.pair_loss(name, CHOSEN[order], REJECTED[order], STRENGTH[order], TARGET[order])
    torch.testing.assert_close(permuted, whole[order])


@pytest.mark.parametrize("name", PAIR_LOSSES)
@pytest.mark.parametrize("soft", [False, True])
def test_gradients_of_preference_losses_are_finite_differences(name: str, soft: bool) -> None:
    rewards = [part.double().requires_grad_() for part in (CHOSEN.clone(), REJECTED.clone())]
    target = TARGET.double() if soft else None
    assert torch.autograd.gradcheck(lambda c, r: losses.pair_loss(name, c, r, STRENGTH.double(), target), rewards)


def test_a_smoothed_regular_loss_is_least_at_the_log_odds_of_its_target() -> None:
    margin = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0.5, 0.9, 0.7], dtype=torch.float64)
    optimizer = torch.optim.LBFGS([margin], max_iter=100, tolerance_grad=1e-12)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = losses.pair_loss("bradley_terry", margin, torch.zeros_like(margin), torch.ones(3), target).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    expected = [0.0, math.log(9), math.log(7 / 3)]
    torch.testing.assert_close(margin.detach(), torch.tensor(expected, dtype=torch.float64), atol=1e-5, rtol=0)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_soft_labels_that_would_broadcast_are_an_error(name: str) -> None:
    with pytest.raises(ValueError, match=r"target \[3, 1\]"):
        losses.pair_loss(name, CHOSEN, REJECTED, STRENGTH, TARGET[:, None])


# --- rankings ---------------------------------------------------------------------------------------------------------

RANKED = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 3.0], [1.0, 0.0, 9.0]])
VALID = torch.tensor([[True, True, True], [True, True, True], [True, True, False]])


def test_plackett_luce_equals_hand_arithmetic_whatever_stands_in_the_padding() -> None:
    by_hand = [
        math.log(math.exp(2) + math.exp(1) + 1) - 2 + math.log(math.exp(1) + 1) - 1,
        math.log(1 + math.exp(1) + math.exp(3)) - 0 + math.log(math.exp(1) + math.exp(3)) - 1,
        softplus(-1),
    ]
    torch.testing.assert_close(losses.plackett_luce_loss(RANKED, VALID), torch.tensor(by_hand))
    for padding in (math.nan, math.inf, -1e30):
        spoilt = RANKED.clone()
        spoilt[2, 2] = padding
        torch.testing.assert_close(losses.plackett_luce_loss(spoilt, VALID), torch.tensor(by_hand))


def test_plackett_luce_of_two_responses_is_bradley_terry() -> None:
    rewards = torch.randn(64, 2, generator=torch.Generator().manual_seed(4))
    found = losses.plackett_luce_loss(rewards, torch.ones(64, 2, dtype=torch.bool))
    torch.testing.assert_close(found, losses.bradley_terry_loss(rewards[:, 0], rewards[:, 1]))


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_the_likelihoods_of_all_orders_of_the_same_responses_sum_to_1(n: int) -> None:
    rewards = 2 * torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    orders = torch.tensor(list(itertools.permutations(range(n))))
    likelihood = torch.exp(-losses.plackett_luce_loss(rewards[orders], torch.ones_like(orders, dtype=torch.bool)))
    assert len(likelihood) == math.factorial(n) and likelihood.sum().item() == pytest.approx(1.0, abs=1e-12)


def test_the_first_of_a_ranking_is_a_softmax_choice() -> None:
    """Summed over the orders of the others, the likelihood that a response comes first is its softmax."""
    rewards = torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64)
    orders = torch.tensor([(1, *rest) for rest in itertools.permutations((0, 2, 3))])
    likelihood = torch.exp(-losses.plackett_luce_loss(rewards[orders], torch.ones_like(orders, dtype=torch.bool)))
    torch.testing.assert_close(likelihood.sum(), torch.softmax(rewards, dim=0)[1])


def test_gradients_of_plackett_luce_are_finite_differences_and_padding_has_none() -> None:
    rewards = RANKED.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda values: losses.plackett_luce_loss(values, VALID), [rewards])
    spoilt = RANKED.clone()
    spoilt[2, 2] = math.nan
    spoilt.requires_grad_()
    (gradient,) = torch.autograd.grad(losses.plackett_luce_loss(spoilt, VALID).sum(), spoilt)
    assert torch.isfinite(gradient).all() and gradient[2, 2] == 0
    # A constant added to all rewards of a ranking changes nothing.
    torch.testing.assert_close(gradient.sum(dim=1), torch.zeros(3), atol=1e-6, rtol=0)


def test_a_batch_of_rankings_is_a_permutation_of_its_examples() -> None:
    order = torch.tensor([2, 0, 1])
    whole = losses.plackett_luce_loss(RANKED, VALID)
    torch.testing.assert_close(losses.plackett_luce_loss(RANKED[order], VALID[order]), whole[order])


def test_huge_rewards_give_finite_ranking_losses() -> None:
    rewards = torch.tensor([[1e4, 0.0, -1e4], [-1e4, 0.0, 1e4]], requires_grad=True)
    loss = losses.plackett_luce_loss(rewards, torch.ones(2, 3, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(loss.sum(), rewards)
    assert loss.tolist() == [0.0, 3e4] and torch.isfinite(gradient).all()


@pytest.mark.usefixtures("unchecked_shapes")
def test_rankings_whose_shapes_would_broadcast_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"valid \[3, 1\]"):
        losses.plackett_luce_loss(RANKED, VALID[:, :1])
    with pytest.raises(ValueError, match=r"must be \[batch, response\], got \[3\]"):
        losses.plackett_luce_loss(RANKED[0], VALID[0])


# --- regression -------------------------------------------------------------------------------------------------------

NAN = math.nan


def test_regression_averages_squared_errors_over_the_rated_attributes_of_each_example() -> None:
    predicted = torch.tensor([[1.0, 2.0], [0.0, 5.0], [3.0, 3.0]])
    rating = torch.tensor([[3.0, 2.0], [1.0, NAN], [NAN, NAN]])
    torch.testing.assert_close(losses.regression_loss(predicted, rating), torch.tensor([2.0, 1.0, 0.0]))
    assert losses.is_rated(rating).tolist() == [True, True, False]


def test_regression_with_complete_ratings_is_torchs_mean_squared_error() -> None:
    predicted, rating = torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(losses.regression_loss(predicted, rating).mean(), F.mse_loss(predicted, rating))


def test_missing_ratings_send_no_gradient_and_no_nan() -> None:
    predicted = torch.ones(2, 2, requires_grad=True)
    rating = torch.tensor([[NAN, 0.0], [NAN, NAN]])
    (gradient,) = torch.autograd.grad(losses.regression_loss(predicted, rating).sum(), predicted)
    assert gradient.tolist() == [[0.0, 2.0], [0.0, 0.0]]


def test_gradients_of_the_regression_loss_are_finite_differences() -> None:
    predicted = torch.tensor([[1.0, 2.0], [0.0, 5.0], [3.0, 3.0]], dtype=torch.float64, requires_grad=True)
    rating = torch.tensor([[3.0, 2.0], [1.0, NAN], [NAN, NAN]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda values: losses.regression_loss(values, rating), [predicted])


@pytest.mark.usefixtures("unchecked_shapes")
def test_regression_refuses_ratings_that_would_broadcast() -> None:
    with pytest.raises(ValueError, match="shapes must be equal"):
        losses.regression_loss(torch.zeros(3, 2), torch.zeros(3, 1))
