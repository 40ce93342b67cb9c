"""Options that save memory or time compose, and none changes what is learnt."""

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from test_training import made_pairs, settings

from rmlib.models.attention import SHARED_PREFIX, shared_prefix_attention
from rmlib.training import train
from rmlib.training.initial_model import create_model
from rmlib.training.parallel import ALONE
from rmlib.training.settings import TrainSettings
from rmlib.training.wrapping import Wrapped


@pytest.fixture(autouse=True)
def _runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMLIB_RUNS", str(tmp_path / "runs"))


@pytest.fixture(autouse=True)
def _attention():
    """Compiling registers the attention anew, for all that follows."""
    yield
    from transformers import AttentionInterface

    AttentionInterface.register(SHARED_PREFIX, shared_prefix_attention)


@pytest.fixture
def backbone(tmp_path: Path) -> str:
    return tiny.save_backbone(tmp_path / "backbone", "llama")


def losses(backbone: str, **changes: object) -> np.ndarray:
    wanted = settings(backbone, **({"max_steps": 6, "token_budget": 300, "learning_rate": 1e-3} | changes))
    return train(create_model(wanted), made_pairs(8), wanted, progress=False).history["loss"].to_numpy()


@pytest.mark.parametrize(
    ("change", "tolerance"),
    [
        ({"activation_checkpointing": True}, 1e-6),
        ({"activation_checkpointing": True, "lora_rank": 4}, 1e-6),
        ({"compile": "aot_eager"}, 1e-5),
        ({"compile": "aot_eager", "activation_checkpointing": True, "lora_rank": 4}, 1e-5),
        ({"precision": "bf16"}, 5e-2),
        ({"precision": "bf16", "activation_checkpointing": True}, 5e-2),
        ({"backbone_dtype": "bf16", "precision": "bf16", "lora_rank": 4}, 5e-2),
    ],
)
def test_an_option_changes_no_loss_beyond_its_tolerance(
    backbone: str, change: dict[str, object], tolerance: float
) -> None:
    plain = {name: value for name, value in change.items() if name == "lora_rank"}
    np.testing.assert_allclose(losses(backbone, **change), losses(backbone, **plain), atol=tolerance, rtol=0)


def test_checkpointed_activations_are_computed_again(backbone: str) -> None:
    model = create_model(settings(backbone))
    Wrapped(model, settings(backbone, activation_checkpointing=True), ALONE)
    calls: list[int] = []
    model.backbone.layers[0].self_attn.register_forward_hook(lambda *_: calls.append(1))
    batch = model.train().collate(_groups(model))
    model(batch).sum().backward()
    assert len(calls) == 2


def test_head_and_loss_stay_in_fp32_under_bf16(backbone: str) -> None:
    wanted = settings(backbone, precision="bf16", backbone_dtype="bf16", lora_rank=4)
    model = create_model(wanted)
    with torch.autocast("cpu", torch.bfloat16):
        rewards = model(model.collate(_groups(model)))
    assert rewards.dtype == model.head.weight.dtype == torch.float32
    dtypes = {weight.requires_grad: weight.dtype for weight in model.backbone.parameters()}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}  # adapters, and what they sit on


@pytest.mark.parametrize("limit", [0.01, 1e9])
def test_clipping_cuts_the_norm_of_all_gradients_together(backbone: str, limit: float) -> None:
    model = create_model(settings(backbone))
    wrapped = Wrapped(model, settings(backbone), ALONE)
    model(model.collate(_groups(model))).square().sum().backward()
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    before = torch.cat([gradient.flatten() for gradient in gradients]).clone()
    norm = wrapped.clip(limit)
    after = torch.cat([gradient.flatten() for gradient in gradients])
    assert norm == pytest.approx(float(before.norm()), rel=1e-5)
    torch.testing.assert_close(after, before * min(1.0, limit / norm), rtol=1e-4, atol=1e-8)


def test_the_bias_of_a_pooler_that_nobody_reads_is_left_alone(tmp_path: Path) -> None:
    model = create_model(TrainSettings(backbone=tiny.save_backbone(tmp_path / "bert", "bert")))
    Wrapped(model, TrainSettings(), ALONE)
    assert model.backbone.pooler is None or not any(p.requires_grad for p in model.backbone.pooler.parameters())
    assert next(model.backbone.encoder.parameters()).requires_grad


def _groups(model):  # type: ignore[no-untyped-def]
    from rmlib.models import batches

    prompts = [[{"role": "user", "content": "question"}]] * 4
    return batches.group(model.encode(prompts, ["good", "bad bad", "good good", "bad"]), [2, 2])
