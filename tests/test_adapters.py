"""LoRA and QLoRA: the head once and in fp32, equal rewards through saving, merging and exporting, training on top."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file
from test_training import made_pairs, settings
from transformers import AutoModelForSequenceClassification

from rmlib.models import ModelError, RewardModel, adapters
from rmlib.models.backbones import is_adapted
from rmlib.training import train
from rmlib.training.__main__ import continue_from, run_job
from rmlib.training.loop import _Loop
from rmlib.training.runs import create_model
from rmlib.training.settings import TrainSettings

USER = [{"role": "user", "content": "hi"}]
TEXTS = ["good good bad", "bad", "x y z", "good"]
QLORA = {"lora_rank": 4, "quantization": "nf4", "learning_rate": 1e-2, "max_steps": 6}


pytestmark = pytest.mark.usefixtures("own_runs")


def score(model: RewardModel) -> np.ndarray:
    return model.score([USER] * len(TEXTS), TEXTS)


def trained(backbone: str, **changes: object) -> RewardModel:
    wanted = settings(backbone, **(QLORA | changes))
    return train(create_model(wanted), made_pairs(8), wanted, progress=False).model


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_save_load_merge_and_export_give_the_rewards_of_the_trained_adapter(
    backbone: str, tmp_path: Path, quantization: str
) -> None:
    model = trained(backbone, quantization=quantization)
    rewards = score(model)
    fresh = score(create_model(settings(backbone, **(QLORA | {"quantization": quantization}))))
    assert np.abs(rewards - fresh).max() > 0.05  # it has learnt something that could be lost
    model.save(tmp_path / "saved")
    loaded = RewardModel.load(tmp_path / "saved")
    assert adapters.is_quantised(loaded.backbone) == (quantization == "nf4")
    np.testing.assert_array_equal(score(loaded), rewards)
    merged = adapters.merge(loaded)
    assert not is_adapted(merged.backbone) and not adapters.is_quantised(merged.backbone)
    np.testing.assert_allclose(score(merged), rewards, atol=1e-4)
    merged.save(tmp_path / "merged")
    np.testing.assert_array_equal(score(RewardModel.load(tmp_path / "merged")), score(merged))
    bias = loaded.export(tmp_path / "export")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "export", dtype=torch.float32)
    ids = torch.from_numpy(model.encode([USER], TEXTS[:1]).ids[0])[None]
    with torch.no_grad():
        assert plain(input_ids=ids).logits.item() + bias == pytest.approx(rewards[0], abs=1e-4)


def test_the_head_is_trained_in_fp32_and_saved_once_outside_adapter_and_quantisation(
    backbone: str, tmp_path: Path
) -> None:
    wanted = settings(backbone, **QLORA)
    model = create_model(wanted)
    before = model.head.weight.detach().clone()
    kinds = {type(weight).__name__ for weight in model.backbone.parameters()}
    assert "Params4bit" in kinds and type(model.head) is torch.nn.Linear and model.head.weight.dtype == torch.float32
    run = train(model, made_pairs(8), wanted, progress=False)
    assert not torch.equal(run.model.head.weight, before)
    files = {path: set(load_file(path)) for path in (run.folder / "model").rglob("*.safetensors")}
    assert files[run.folder / "model" / "head.safetensors"] == {"weight", "bias"}
    names = [name for path, names in files.items() if path.name != "head.safetensors" for name in names]
    assert names and all(".lora_" in name for name in names)


@pytest.mark.parametrize("double", [True, False])
def test_double_quantisation_is_a_setting(backbone: str, double: bool) -> None:
    model = create_model(settings(backbone, **QLORA, double_quantization=double))
    states = [weight.quant_state for weight in model.backbone.parameters() if hasattr(weight, "quant_state")]
    assert states and all(state.nested == double and state.quant_type == "nf4" for state in states)


def test_a_quantised_model_can_be_taken_on_the_unquantised_weights(backbone: str, tmp_path: Path) -> None:
    trained(backbone).save(tmp_path / "saved")
    assert not adapters.is_quantised(RewardModel.load(tmp_path / "saved", quantization=None).backbone)


# --- training on top --------------------------------------------------------------------------------------------------


def test_what_becomes_of_an_adapter_has_to_be_said(backbone: str, tmp_path: Path) -> None:
    model = trained(backbone, quantization="none")
    model.save(tmp_path / "saved")
    wanted = settings(backbone, lora_rank=2)
    with pytest.raises(ModelError, match="saved has an adapter: say 'keep' .* or 'merge'"):
        continue_from(tmp_path / "saved", wanted)
    kept, merged = (continue_from(tmp_path / "saved", wanted, adapter=policy) for policy in ("keep", "merge"))
    np.testing.assert_array_equal(score(kept), score(model))
    np.testing.assert_allclose(score(merged), score(model), atol=1e-4)
    ranks = [made.backbone.peft_config["default"].r for made in (kept, merged)]
    assert ranks == [4, 2] and len({kept.identity, merged.identity, model.identity}) == 2
    RewardModel.create(backbone).save(tmp_path / "plain")
    with pytest.raises(ModelError, match="for a model that has one"):
        continue_from(tmp_path / "plain", wanted, adapter="merge")


def test_an_adapter_on_merged_weights_is_saved_with_these(backbone: str, tmp_path: Path) -> None:
    trained(backbone, quantization="none").save(tmp_path / "first")
    wanted = settings(backbone, **(QLORA | {"quantization": "none", "seed": 1}))
    second = train(
        continue_from(tmp_path / "first", wanted, "merge"), made_pairs(8, seed=3), wanted, folder=tmp_path / "run",
        progress=False,
    )  # fmt: skip
    expected = score(second.model)
    assert np.abs(expected - score(RewardModel.load(tmp_path / "first"))).max() > 1e-3
    second.model.save(tmp_path / "again")
    np.testing.assert_array_equal(score(RewardModel.load(tmp_path / "again")), expected)


def test_an_adapter_on_the_seeded_embedded_backbone_comes_back_on_the_same_weights(tmp_path: Path) -> None:
    model = RewardModel.create("embedded", lora={"r": 2}, seed=5)
    model.save(tmp_path / "saved")
    np.testing.assert_array_equal(score(RewardModel.load(tmp_path / "saved")), score(model))


def test_a_second_adapter_on_top_of_one_is_refused(backbone: str) -> None:
    with pytest.raises(ModelError, match="merge it first"):
        adapters.add(RewardModel.create(backbone, lora={"r": 2}), {"r": 2})


def test_a_run_file_goes_on_from_an_adapted_model(tmp_path: Path) -> None:
    RewardModel.create("embedded", lora={"r": 2}).save(tmp_path / "saved")
    job = {
        "source": str(tiny.write_source(tmp_path / "own")),
        "settings": {"max_steps": 1, "pairs_per_step": 2},
        "initialise_from": str(tmp_path / "saved"),
        "adapter": "keep",
    }
    run = run_job(job)
    assert json.loads((run.folder / "model" / "reward_model.json").read_text())["adapted"]


# --- optimizers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit"])
def test_optimizers_of_bitsandbytes_learn_and_resume_to_the_same_bits(
    backbone: str, tmp_path: Path, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = settings(backbone, **(QLORA | {"optimizer": optimizer, "max_steps": 8, "checkpoint_every_steps": 3}))
    whole = train(create_model(wanted), made_pairs(8), wanted, folder=tmp_path / "whole", progress=False)
    assert whole.history["loss"].iloc[-1] < whole.history["loss"].iloc[0]
    honest, steps = _Loop._train_step, itertools.count()
    with monkeypatch.context() as patch:
        patch.setattr(_Loop, "_train_step", lambda *args: honest(*args) if next(steps) < 5 else pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception):
            train(create_model(wanted), made_pairs(8), wanted, folder=tmp_path / "run", progress=False)
    resumed = train(create_model(wanted), made_pairs(8), wanted, folder=tmp_path / "run", progress=False)
    assert resumed.history["loss"].tolist() == whole.history["loss"].tolist()


# --- what does not go together ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"quantization": "nf4"}, "give a lora_rank"),
        ({"backbone_dtype": "bf16"}, "loses updates"),
        ({"sharding": "full", "quantization": "nf4", "lora_rank": 4}, "weights of one kind"),
        ({"sharding": "full", "optimizer": "adamw_8bit"}, "cannot be spread"),
        ({"sharding": "full", "trainable": "head"}, "computes its features unsharded"),
        ({"lora_dropout": 1.0}, "lora_dropout"),
        ({"optimizer": "sgd"}, "optimizer='sgd' is unknown"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TrainSettings(**change)  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_paged_optimizer_trains_a_4_bit_backbone_on_a_gpu(backbone: str) -> None:
    wanted = settings(backbone, **QLORA, optimizer="paged_adamw_8bit", precision="bf16", backbone_dtype="bf16")
    run = train(create_model(wanted), made_pairs(8), wanted, progress=False)
    assert run.history["loss"].iloc[-1] < run.history["loss"].iloc[0]
