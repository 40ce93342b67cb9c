"""Stacks of heads against torch.optim.AdamW on nn.Linear, one at a time: the same numbers to 1e-5."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import get_scheduler

from rmlib import losses
from rmlib.head_stacks import Heads, fit_heads, fit_regression_heads, learning_rate_factors, preference_losses
from rmlib.models import new_head
from rmlib.settings import TrainSettings

HIDDEN, PAIRS = 8, 30
SETTINGS = TrainSettings(max_steps=60, warmup_steps=5, clip_norm=0.3, trainable="head")
# Fp32 sums in another order, through sixty steps that Adam normalises.
TOLERANCE = {"atol": 1e-5, "rtol": 1e-4}


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


CHOSEN, REJECTED = drawn(2, PAIRS, HIDDEN)
STRENGTH = torch.arange(PAIRS).remainder(3).add(1).float()


def one_by_one(seed: int, loss_of, rate: float, decay: float, settings: TrainSettings, outputs: int = 1) -> nn.Linear:
    """The oracle: nn.Linear, torch's AdamW, its own clipping, transformers' schedule."""
    torch.manual_seed(seed)
    head = new_head(HIDDEN, outputs)
    groups = [{"params": [head.weight], "weight_decay": decay}, {"params": [head.bias], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=settings.betas)
    name = {"constant": "constant_with_warmup"}.get(settings.schedule, settings.schedule)
    scheduler = get_scheduler(
        name, optimizer, num_warmup_steps=settings.warmup_steps, num_training_steps=settings.max_steps
    )
    for _ in range(settings.max_steps):
        optimizer.zero_grad()
        loss_of(head).backward()
        nn.utils.clip_grad_norm_(head.parameters(), settings.clip_norm)
        optimizer.step()
        scheduler.step()
    return head


def preference_loss(name: str):
    def loss_of(head: nn.Linear) -> torch.Tensor:
        return losses.pair_loss(name, head(CHOSEN)[:, 0], head(REJECTED)[:, 0], STRENGTH).mean()

    return loss_of


# --- the same as one at a time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_a_mixed_stack_takes_the_steps_of_torch_s_adamw_head_by_head(schedule: str) -> None:
    settings = replace(SETTINGS, schedule=schedule)
    heads = [
        ("bradley_terry", 1e-3, 0.0, 0),
        ("bradley_terry", 3e-2, 0.5, 1),
        ("margin_bradley_terry", 1e-2, 0.1, 2),
        ("scaled_bradley_terry", 1e-2, 0.1, 3),
        ("scaled_bradley_terry", 1e-1, 1.0, 0),
    ]
    loss, rate, decay, seeds = zip(*heads, strict=True)
    start = Heads.draw(HIDDEN, 1, seeds)
    fitted = fit_heads(CHOSEN, REJECTED, STRENGTH, start, loss, torch.tensor(rate), torch.tensor(decay), settings)
    for index, (name, lr, wd, seed) in enumerate(heads):
        alone = one_by_one(seed, preference_loss(name), lr, wd, settings)
        torch.testing.assert_close(fitted.heads.weight[index], alone.weight.data, **TOLERANCE)
        assert (alone.weight.data - start.weight[index]).abs().max() > 10 * TOLERANCE["atol"]


@pytest.mark.parametrize("outputs", [1, 3])
def test_regression_heads_take_the_steps_of_torch_s_adamw_with_the_bias_not_decayed(outputs: int) -> None:
    ratings = drawn(PAIRS, outputs, seed=1).add(2)
    ratings[0], ratings[1, -1] = torch.nan, torch.nan
    rated = losses.is_rated(ratings).sum()

    def loss_of(head: nn.Linear) -> torch.Tensor:
        return losses.regression_loss(head(CHOSEN), ratings).sum() / rated

    rate, decay = torch.tensor([1e-2, 1e-1]), torch.tensor([0.5, 0.1])
    fitted = fit_regression_heads(CHOSEN, ratings, Heads.draw(HIDDEN, outputs, (4, 5)), rate, decay, SETTINGS)
    for index, seed in enumerate((4, 5)):
        alone = one_by_one(seed, loss_of, float(rate[index]), float(decay[index]), SETTINGS, outputs)
        torch.testing.assert_close(fitted.heads.weight[index], alone.weight.data, **TOLERANCE)
        torch.testing.assert_close(fitted.heads.bias[index], alone.bias.data, **TOLERANCE)


def test_a_stack_of_one_is_the_same_as_its_place_in_a_stack_of_many() -> None:
    start, rate, decay = Heads.draw(HIDDEN, 1, range(12)), torch.logspace(-4, -1, 12), torch.full((12,), 0.1)
    loss = ["bradley_terry"] * 6 + ["scaled_bradley_terry"] * 6
    many = fit_heads(CHOSEN, REJECTED, STRENGTH, start, loss, rate, decay, SETTINGS)
    for at in (0, 7, 11):
        one = slice(at, at + 1)
        alone = fit_heads(CHOSEN, REJECTED, STRENGTH, start[one], loss[one], rate[one], decay[one], SETTINGS)
        torch.testing.assert_close(many.heads.weight[one], alone.heads.weight, **TOLERANCE)


def test_a_turned_strength_trains_one_head_on_the_pair_the_other_way_round() -> None:
    turned = STRENGTH * torch.where(torch.arange(PAIRS) % 2 == 0, 1.0, -1.0)
    start, same = Heads.draw(HIDDEN, 1, (0, 0)), torch.full((2,), 1e-2)
    loss = ["margin_bradley_terry"] * 2
    both = fit_heads(CHOSEN, REJECTED, torch.stack([STRENGTH, turned]), start, loss, same, same, SETTINGS)
    swap = (turned < 0)[:, None]
    swapped = torch.where(swap, REJECTED, CHOSEN), torch.where(swap, CHOSEN, REJECTED)
    alone = fit_heads(*swapped, STRENGTH, start[:1], loss[:1], same[:1], same[:1], SETTINGS)
    torch.testing.assert_close(both.heads.weight[1:], alone.heads.weight, **TOLERANCE)
    assert not torch.allclose(both.heads.weight[0], both.heads.weight[1])


# --- parts ------------------------------------------------------------------------------------------------------------


def test_losses_of_margins_by_hand() -> None:
    margins = torch.tensor([[0.0, 2.0], [0.0, 2.0], [3.0, 0.0]])
    found = preference_losses(
        margins, torch.tensor([1.0, 2.0]), ["bradley_terry", "scaled_bradley_terry"] * 1 + ["margin_bradley_terry"]
    )
    by_hand = [(0.6931 + 0.1269) / 2, (0.6931 + 2 * 0.1269) / 2, (0.1269 + 2.1269) / 2]
    np.testing.assert_allclose(found, by_hand, atol=1e-4)


def test_warm_up_rises_by_equal_parts_and_stays() -> None:
    np.testing.assert_allclose(learning_rate_factors(SETTINGS)[:7], [0, 0.2, 0.4, 0.6, 0.8, 1, 1])


def test_heads_read_features_as_linear_layers_and_their_weighted_sum_is_one_output() -> None:
    heads = Heads(drawn(2, 3, HIDDEN), drawn(2, 3, seed=1))
    expected = torch.stack([nn.functional.linear(CHOSEN, w, b) for w, b in zip(heads.weight, heads.bias, strict=True)])
    torch.testing.assert_close(heads.rewards(CHOSEN), expected)
    torch.testing.assert_close(
        heads.margins(CHOSEN - REJECTED), (heads.rewards(CHOSEN) - heads.rewards(REJECTED))[..., 0]
    )
    summed = heads.weighted([0.5, -1.0, 2.0]).rewards(CHOSEN)[..., 0]
    torch.testing.assert_close(summed, expected @ torch.tensor([0.5, -1.0, 2.0]))


def test_the_curve_starts_at_ln_2_and_counts_steps_from_1() -> None:
    rate = torch.tensor([1e-2])
    fitted = fit_heads(CHOSEN, REJECTED, STRENGTH, Heads.draw(HIDDEN, 1, (0,)), ["bradley_terry"], rate, rate, SETTINGS)
    assert fitted.steps[0] == 1 and fitted.steps[-1] == SETTINGS.max_steps
    assert fitted.curve[0, 0] == pytest.approx(np.log(2), abs=0.1) and fitted.curve[-1, 0] < fitted.curve[0, 0]


# --- what is refused --------------------------------------------------------------------------------------------------


def test_an_unknown_loss_is_refused() -> None:
    rate = torch.tensor([1e-2])
    with pytest.raises(ValueError, match="unknown preference loss 'hinge'"):
        fit_heads(CHOSEN, REJECTED, STRENGTH, Heads.draw(HIDDEN, 1, (0,)), ["hinge"], rate, rate, SETTINGS)


def test_features_of_another_width_and_missing_rates_are_refused() -> None:
    rate, start = torch.tensor([1e-2]), Heads.draw(HIDDEN, 1, (0,))
    with pytest.raises(ValueError, match="heads read 8"):
        fit_heads(CHOSEN[:, 1:], REJECTED[:, 1:], STRENGTH, start, ["bradley_terry"], rate, rate, SETTINGS)
    with pytest.raises(ValueError, match="one loss, learning rate and weight decay for each head"):
        fit_heads(CHOSEN, REJECTED, STRENGTH, start, ["bradley_terry"] * 2, rate, rate, SETTINGS)


def test_a_loss_that_is_not_finite_names_its_heads() -> None:
    rate, start = torch.tensor([1e-2, 1e-2]), Heads.draw(HIDDEN, 1, (0, 1))
    start.weight[1, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"heads \[1\] is not finite"):
        fit_heads(CHOSEN, REJECTED, STRENGTH, start, ["bradley_terry"] * 2, rate, rate, SETTINGS)
