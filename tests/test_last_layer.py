"""The last layer at the end tokens alone: the same rewards and gradients, and what it does not touch."""

import copy
from pathlib import Path

import pytest
import tiny
import torch
from test_batches import random_groups
from transformers import MixtralConfig, PreTrainedConfig

from rmlib.models import RewardModel, attention, batches
from rmlib.models.attention import last_layer


@pytest.fixture(autouse=True)
def narrow_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "FEWEST_HIDDEN", 0)


@pytest.fixture(params=["llama", "qwen2", "qwen3"])
def model(request: pytest.FixtureRequest, tmp_path: Path) -> RewardModel:
    return RewardModel.create(tiny.save_backbone(tmp_path / "backbone", request.param)).train()


def rewards_and_gradients(model: RewardModel, *, shared: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    rewards = model(model.collate(random_groups(2), shared=shared))[:, 0]
    model.zero_grad()
    rewards.square().sum().backward()
    return rewards.detach(), torch.cat([weight.grad.flatten() for weight in model.parameters()])


@pytest.mark.parametrize("recompute", [False, True])
def test_rewards_and_gradients_are_those_of_padded_rows(model: RewardModel, recompute: bool) -> None:
    if recompute:
        model.backbone.gradient_checkpointing_enable({"use_reentrant": False})
    rewards, gradients = rewards_and_gradients(model)
    expected, expected_gradients = rewards_and_gradients(model, shared=False)
    torch.testing.assert_close(rewards, expected, atol=1e-5, rtol=1e-5)
    assert (gradients - expected_gradients).norm() < 1e-4 * expected_gradients.norm()


def test_the_mlp_of_the_last_layer_sees_as_many_tokens_as_there_are_responses(model: RewardModel) -> None:
    seen = []
    for layer in model.backbone.layers:
        linear = next(part for part in layer.mlp.modules() if isinstance(part, torch.nn.Linear))
        linear.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0].shape[1]))
    groups = random_groups(2)
    model(model.collate(groups))
    assert seen == [sum(item.n_tokens_shared for item in groups), sum(len(item.ids) for item in groups)]


def test_with_the_hooks_taken_off_every_layer_is_whole_and_rewards_stay(model: RewardModel) -> None:
    before, _ = rewards_and_gradients(model)
    assert model.ends_only is not None
    model.ends_only.remove()
    seen = []
    model.backbone.layers[-1].mlp.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0].shape[1]))
    after, _ = rewards_and_gradients(model)
    assert seen == [sum(item.n_tokens_shared for item in random_groups(2))]
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)


def test_a_copy_of_a_model_cuts_its_own_last_layer(model: RewardModel) -> None:
    twin = copy.deepcopy(model)
    assert twin.backbone.layers[-1].ends_only is not model.backbone.layers[-1].ends_only
    first, _ = rewards_and_gradients(model)
    again, _ = rewards_and_gradients(twin)
    assert torch.equal(first, again)


def test_adapters_on_every_linear_layer_learn_as_in_padded_rows(tmp_path: Path) -> None:
    name = tiny.save_backbone(tmp_path / "backbone", "llama")
    model = RewardModel.create(name, lora={"r": 2, "lora_dropout": 0.0, "init_lora_weights": False}).train()
    found = {}
    for shared in (True, False):
        model.zero_grad()
        model(model.collate(random_groups(2), shared=shared)).square().sum().backward()
        trained = [weight.grad.flatten() for weight in model.parameters() if weight.grad is not None]
        found[shared] = torch.cat(trained)
    assert (found[True] - found[False]).norm() < 1e-4 * found[False].norm()


def test_experts_and_layers_with_other_names_are_left_whole() -> None:
    class Other(torch.nn.Module):
        layers = torch.nn.ModuleList([torch.nn.Linear(2, 2)])

    assert last_layer.cut(Other(), PreTrainedConfig(hidden_size=128)) is None
    assert last_layer.cut(Other(), MixtralConfig(num_local_experts=4)) is None
    assert last_layer.cut(torch.nn.Linear(2, 2), PreTrainedConfig(hidden_size=128)) is None


def test_narrow_decoders_are_cut_too_and_attend_by_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    model = RewardModel.create(tiny.save_backbone(tmp_path / "backbone", "llama"))
    assert model.ends_only is not None
    assert isinstance(model.collate(random_groups(2)).layout.everywhere, attention.Segments)


def test_padded_rows_are_not_touched(model: RewardModel) -> None:
    seen = []
    model.backbone.layers[-1].mlp.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0].shape))
    batch = model.collate(random_groups(2), shared=False)
    assert isinstance(batch, batches.PaddedBatch)
    model(batch)
    assert seen[0][:2] == batch.input_ids.shape
