"""Stacks of heads against torch.optim.AdamW on nn.Linear, one at a time: the same numbers to 1e-5."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np
import pytest
import torch
from torch import nn
from transformers import get_scheduler

from rmlib import losses
from rmlib.models.network import new_head
from rmlib.training.head_stacks import (
    Compared,
    Fitted,
    Heads,
    Labels,
    PreferenceLoss,
    RegressionLoss,
    TwoLayerHeads,
    descend,
)
from rmlib.training.loop import scheduler_for
from rmlib.training.settings import TrainSettings

HIDDEN, PAIRS = 8, 30
SETTINGS = TrainSettings(max_steps=60, warmup_steps=5, clip_norm=0.3, trainable="head")
# Fp32 sums in another order, through sixty steps that Adam normalises.
TOLERANCE = {"atol": 1e-5, "rtol": 1e-4}


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


CHOSEN, REJECTED = drawn(2, PAIRS, HIDDEN)
PAIRED = Compared(CHOSEN, REJECTED)
STRENGTH = torch.arange(PAIRS).remainder(3).add(1).float()


def fit(
    start: Heads | TwoLayerHeads,
    loss: Sequence[str],
    rate: torch.Tensor,
    decay: torch.Tensor,
    settings: TrainSettings = SETTINGS,
    strength: torch.Tensor = STRENGTH,
) -> Fitted:
    """The stack trained on the pairs of this file, each head by the loss it names; equal losses stand together."""
    at, labels = 0, []
    for name, same in groupby(loss):
        count = len(list(same))
        labels.append(Labels(name, count, strength if strength.ndim == 1 else strength[at : at + count]))
        at += count
    return descend(start, PreferenceLoss(PAIRED, labels), rate, decay, settings)


def one_by_one(
    seed: int, loss_of, rate: float, decay: float, settings: TrainSettings, outputs: int = 1, layers: int = 1
) -> nn.Module:
    """The oracle: nn.Linear, torch's AdamW, its own clipping, transformers' schedule."""
    torch.manual_seed(seed)
    head = new_head(HIDDEN, outputs, layers)
    matrices = [weight for weight in head.parameters() if weight.ndim > 1]
    biases = [weight for weight in head.parameters() if weight.ndim == 1]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": biases, "weight_decay": 0.0}]
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
    fitted = fit(start, loss, torch.tensor(rate), torch.tensor(decay), settings)
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
    fitted = descend(Heads.draw(HIDDEN, outputs, (4, 5)), RegressionLoss(CHOSEN, ratings), rate, decay, SETTINGS)
    for index, seed in enumerate((4, 5)):
        alone = one_by_one(seed, loss_of, float(rate[index]), float(decay[index]), SETTINGS, outputs)
        torch.testing.assert_close(fitted.heads.weight[index], alone.weight.data, **TOLERANCE)
        torch.testing.assert_close(fitted.heads.bias[index], alone.bias.data, **TOLERANCE)


def test_a_stack_of_one_is_the_same_as_its_place_in_a_stack_of_many() -> None:
    start, rate, decay = Heads.draw(HIDDEN, 1, range(12)), torch.logspace(-4, -1, 12), torch.full((12,), 0.1)
    loss = ["bradley_terry"] * 6 + ["scaled_bradley_terry"] * 6
    many = fit(start, loss, rate, decay)
    for at in (0, 7, 11):
        one = slice(at, at + 1)
        alone = fit(start[one], loss[one], rate[one], decay[one])
        torch.testing.assert_close(many.heads.weight[one], alone.heads.weight, **TOLERANCE)


def test_a_turned_strength_trains_one_head_on_the_pair_the_other_way_round() -> None:
    turned = STRENGTH * torch.where(torch.arange(PAIRS) % 2 == 0, 1.0, -1.0)
    start, same = Heads.draw(HIDDEN, 1, (0, 0)), torch.full((2,), 1e-2)
    loss = ["margin_bradley_terry"] * 2
    both = fit(start, loss, same, same, strength=torch.stack([STRENGTH, turned]))
    swap = (turned < 0)[:, None]
    swapped = Compared(torch.where(swap, REJECTED, CHOSEN), torch.where(swap, CHOSEN, REJECTED))
    objective = PreferenceLoss(swapped, [Labels(loss[0], 1, STRENGTH)])
    alone = descend(start[:1], objective, same[:1], same[:1], SETTINGS)
    torch.testing.assert_close(both.heads.weight[1:], alone.heads.weight, **TOLERANCE)
    assert not torch.allclose(both.heads.weight[0], both.heads.weight[1])


TARGET = torch.linspace(0.5, 1, PAIRS)
RATINGS = drawn(PAIRS, 2, seed=2).add(2)


def soft_loss(head: nn.Module) -> torch.Tensor:
    return losses.pair_loss("bradley_terry", head(CHOSEN)[:, 0], head(REJECTED)[:, 0], STRENGTH, TARGET).mean()


def test_soft_labels_of_some_heads_leave_the_others_alone() -> None:
    rate, decay = torch.tensor([1e-2, 3e-2]), torch.tensor([0.0, 0.1])
    labels = [Labels("bradley_terry", 1, STRENGTH, TARGET), Labels("bradley_terry", 1, STRENGTH)]
    fitted = descend(Heads.draw(HIDDEN, 1, (0, 1)), PreferenceLoss(PAIRED, labels), rate, decay, SETTINGS)
    for index, loss_of in enumerate((soft_loss, preference_loss("bradley_terry"))):
        alone = one_by_one(index, loss_of, float(rate[index]), float(decay[index]), SETTINGS)
        torch.testing.assert_close(fitted.heads.weight[index], alone.weight.data, **TOLERANCE)


def test_two_objectives_take_the_steps_of_their_sum_head_by_head() -> None:
    ratings = RATINGS.clone()
    ratings[0], ratings[1, 1] = torch.nan, torch.nan

    def loss_of(head: nn.Module) -> torch.Tensor:
        errors = losses.regression_loss(torch.cat([head(CHOSEN), head(REJECTED)], dim=1), ratings)
        return (losses.pair_loss("scaled_bradley_terry", head(CHOSEN)[:, 0], head(REJECTED)[:, 0], STRENGTH)
                + 0.5 * errors).mean()  # fmt: skip

    rate, decay = torch.tensor([1e-2, 3e-2]), torch.tensor([0.0, 0.1])
    objective = PreferenceLoss(PAIRED, [Labels("scaled_bradley_terry", 2, STRENGTH)], ratings, 0.5)
    fitted = descend(Heads.draw(HIDDEN, 1, (0, 1)), objective, rate, decay, SETTINGS)
    for index in range(2):
        alone = one_by_one(index, loss_of, float(rate[index]), float(decay[index]), SETTINGS)
        torch.testing.assert_close(fitted.heads.weight[index], alone.weight.data, **TOLERANCE)
        torch.testing.assert_close(fitted.heads.bias[index], alone.bias.data, **TOLERANCE)


def test_two_layer_heads_take_the_steps_of_torch_s_adamw_also_where_texts_are_compared_often() -> None:
    often = torch.arange(PAIRS) % 7  # seven texts stand on the chosen side of thirty pairs
    pairs = Compared(CHOSEN[often], REJECTED)
    assert len(pairs.distinct[0]) == 7 + PAIRS

    def loss_of(head: nn.Module) -> torch.Tensor:
        rewards = head(CHOSEN[often])[:, 0], head(REJECTED)[:, 0]
        return losses.pair_loss("scaled_bradley_terry", *rewards, STRENGTH).mean()

    rate, decay = torch.tensor([1e-3, 1e-2]), torch.tensor([0.0, 0.5])
    start = TwoLayerHeads.draw(HIDDEN, 1, (3, 4))
    fitted = descend(start, PreferenceLoss(pairs, [Labels("scaled_bradley_terry", 2, STRENGTH)]), rate, decay, SETTINGS)
    for index, seed in enumerate((3, 4)):
        alone = one_by_one(seed, loss_of, float(rate[index]), float(decay[index]), SETTINGS, layers=2)
        torch.testing.assert_close(fitted.heads.first_weight[index], alone[0].weight.data, **TOLERANCE)
        torch.testing.assert_close(fitted.heads.first_bias[index], alone[0].bias.data, **TOLERANCE)
        torch.testing.assert_close(fitted.heads.weight[index], alone[2].weight.data, **TOLERANCE)
        rewards = fitted.heads[[index]].rewards(CHOSEN)[0]
        torch.testing.assert_close(rewards - rewards[0], (alone(CHOSEN) - alone(CHOSEN)[0]).detach(), **TOLERANCE)


def test_linear_heads_on_texts_that_are_compared_often_are_those_on_differences() -> None:
    first, second = torch.arange(PAIRS) % 7, 7 + torch.arange(PAIRS) % 5
    often, rate = Compared(CHOSEN[first], CHOSEN[second]), torch.tensor([1e-2, 3e-2])
    assert len(often.distinct[0]) == 12 < len(often.chosen) // 2 and len(PAIRED.distinct[0]) > len(CHOSEN) // 2
    labels = [Labels("scaled_bradley_terry", 2, STRENGTH)]
    fitted = descend(Heads.draw(HIDDEN, 1, (0, 1)), PreferenceLoss(often, labels), rate, rate, SETTINGS)

    def loss_of(head: nn.Module) -> torch.Tensor:
        rewards = head(CHOSEN[first])[:, 0], head(CHOSEN[second])[:, 0]
        return losses.pair_loss("scaled_bradley_terry", *rewards, STRENGTH).mean()

    for index in range(2):
        alone = one_by_one(index, loss_of, float(rate[index]), float(rate[index]), SETTINGS)
        torch.testing.assert_close(fitted.heads.weight[index], alone.weight.data, **TOLERANCE)


# --- parts ------------------------------------------------------------------------------------------------------------


def test_losses_of_margins_by_hand() -> None:
    pairs = Compared(torch.eye(2), torch.zeros(2, 2))  # so that a head's weights are its margins
    heads = Heads(torch.tensor([[[0.0, 2.0]], [[0.0, 2.0]], [[3.0, 0.0]], [[0.0, 2.0]]]), torch.zeros(4, 1))
    strength, names = torch.tensor([1.0, 2.0]), ("bradley_terry", "scaled_bradley_terry", "margin_bradley_terry")
    labels = [Labels(name, 1, strength) for name in names]
    labels.append(Labels("bradley_terry", 1, strength, torch.tensor([0.9, 0.9])))
    found = PreferenceLoss(pairs, labels)(heads)
    by_hand = [(0.6931 + 0.1269) / 2, (0.6931 + 2 * 0.1269) / 2, (0.1269 + 2.1269) / 2]
    by_hand.append((0.6931 + 0.9 * 0.1269 + 0.1 * 2.1269) / 2)
    np.testing.assert_allclose(found, by_hand, atol=1e-4)


def test_warm_up_rises_by_equal_parts_and_stays() -> None:
    factor = scheduler_for("constant", 5, torch.optim.SGD([torch.zeros(1)], lr=1.0), 7).lr_lambdas[0]
    np.testing.assert_allclose([factor(step) for step in range(7)], [0, 0.2, 0.4, 0.6, 0.8, 1, 1])


def test_heads_read_features_as_linear_layers_and_their_weighted_sum_is_one_output() -> None:
    heads = Heads(drawn(2, 3, HIDDEN), drawn(2, 3, seed=1))
    expected = torch.stack([nn.functional.linear(CHOSEN, w, b) for w, b in zip(heads.weight, heads.bias, strict=True)])
    torch.testing.assert_close(heads.rewards(CHOSEN), expected)
    torch.testing.assert_close(heads.margins(PAIRED), (heads.rewards(CHOSEN) - heads.rewards(REJECTED))[..., 0])
    summed = heads.weighted([0.5, -1.0, 2.0], 3.0).rewards(CHOSEN)[..., 0]
    torch.testing.assert_close(summed, expected @ torch.tensor([0.5, -1.0, 2.0]) + 3)


@pytest.mark.parametrize("kind", [Heads, TwoLayerHeads])
def test_features_beyond_the_backbone_s_own_change_nothing_until_they_are_learnt(kind: type) -> None:
    wide, plain = kind.draw(HIDDEN, 1, (0, 1), beyond=2), kind.draw(HIDDEN, 1, (0, 1))
    extended = torch.cat([CHOSEN, drawn(PAIRS, 2, seed=5)], dim=1)
    torch.testing.assert_close(wide.rewards(extended), plain.rewards(CHOSEN))


def test_the_curve_starts_at_ln_2_and_counts_steps_from_1() -> None:
    rate = torch.tensor([1e-2])
    fitted = fit(Heads.draw(HIDDEN, 1, (0,)), ["bradley_terry"], rate, rate)
    assert fitted.steps[0] == 1 and fitted.steps[-1] == SETTINGS.max_steps
    assert fitted.curve[0, 0] == pytest.approx(np.log(2), abs=0.1) and fitted.curve[-1, 0] < fitted.curve[0, 0]


# --- what is refused --------------------------------------------------------------------------------------------------


def test_an_unknown_loss_is_refused() -> None:
    rate = torch.tensor([1e-2])
    with pytest.raises(ValueError, match="unknown preference loss 'hinge'"):
        fit(Heads.draw(HIDDEN, 1, (0,)), ["hinge"], rate, rate)


@pytest.mark.usefixtures("unchecked_shapes")
def test_features_of_another_width_and_missing_rates_or_labels_are_refused() -> None:
    rate, start = torch.tensor([1e-2]), Heads.draw(HIDDEN, 1, (0,))
    with pytest.raises(ValueError, match="width 8, heads read 7"):
        fit(Heads.draw(HIDDEN - 1, 1, (0,)), ["bradley_terry"], rate, rate)
    with pytest.raises(ValueError, match=r"\[30, 8\] and \[30, 7\]"):
        Compared(CHOSEN, REJECTED[:, 1:])
    with pytest.raises(ValueError, match="one learning rate and weight decay for each head"):
        fit(start, ["bradley_terry"], rate.repeat(2), rate)
    with pytest.raises(ValueError, match="labels are for 2 heads, the stack has 1"):
        fit(start, ["bradley_terry"] * 2, rate, rate)


def test_a_loss_that_is_not_finite_names_its_heads() -> None:
    rate, start = torch.tensor([1e-2, 1e-2]), Heads.draw(HIDDEN, 1, (0, 1))
    start.weight[1, 0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"heads \[1\] is not finite"):
        fit(start, ["bradley_terry"] * 2, rate, rate)
