"""The planner: its counts against tensors that are really there, and against hand arithmetic."""

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from transformers import AutoModel, LlamaConfig, Qwen2Config

from rmlib.experiments import paper, planning
from rmlib.experiments.arms import settings_for
from rmlib.experiments.planning import Hardware, PlanningError, plan
from rmlib.experiments.presets import PRESETS
from rmlib.models import attention, batches
from rmlib.models.attention import SHARED_PREFIX, backend_for, last_layer
from rmlib.training import __main__ as run_file
from rmlib.training.settings import TrainSettings

SHAPE = {"vocab_size": 270, "hidden_size": 64, "num_hidden_layers": 5, "num_attention_heads": 4}
CONFIGS = {
    "llama": LlamaConfig(**SHAPE, num_key_value_heads=2, intermediate_size=160),
    "qwen2": Qwen2Config(**SHAPE, num_key_value_heads=4, intermediate_size=96),
}


def pair(prompt: int, *responses: int) -> batches.Group:
    """A prompt and responses of some lengths, of tokens that differ at once."""
    rows = [np.concatenate([np.full(prompt, 9), np.full(own, 10 + index)]) for index, own in enumerate(responses)]
    return batches.Group(tuple(rows), prompt)


def measured(config: LlamaConfig, groups: list[batches.Group], precision: str = "fp32") -> int:
    """Bytes of real tensors that autograd keeps of a pass, weights and their copies in bf16 left out."""
    backbone = AutoModel.from_config(config, attn_implementation=SHARED_PREFIX).train()
    last_layer.cut(backbone, config)
    weights = {weight.untyped_storage().data_ptr() for weight in backbone.parameters()}
    copied = {tuple(part.weight.shape[::-1]) for part in backbone.modules() if isinstance(part, torch.nn.Linear)}
    batch = batches.collate_shared(groups, backend_for(torch.device("cpu"), config))
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"),
    ):
        backbone(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            attention_mask=torch.zeros(1, 1, 1, 1),
            segments=batch.layout.everywhere,
            row_layout=batch.layout,
            use_cache=False,
        )
    states = [tensor for at, tensor in kept.items() if at not in weights and tuple(tensor.shape) not in copied]
    return sum(tensor.untyped_storage().nbytes() for tensor in states)


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attend as wide decoders do, whose scores are never kept."""
    monkeypatch.setattr(attention, "FEWEST_HIDDEN", 0)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_activations_are_counted_to_a_hundredth_of_what_real_tensors_take(
    kind: str, precision: str, wide: None
) -> None:
    groups = [pair(30, 40, 50), pair(60, 20, 30), pair(5, 80, 70)]
    n_tokens = sum(group.n_tokens_shared for group in groups)
    counted = planning.activation_bytes(CONFIGS[kind], n_tokens, precision, recompute=False)
    assert counted == pytest.approx(measured(CONFIGS[kind], groups, precision), rel=0.01)


def test_recomputation_keeps_the_inputs_of_the_layers_and_one_layer_whole(wide: None) -> None:
    groups, shorter = [pair(30, 40, 50), pair(5, 80, 70)], LlamaConfig(**CONFIGS["llama"].to_dict())
    shorter.num_hidden_layers = 4
    n_tokens = sum(group.n_tokens_shared for group in groups)
    layer = measured(CONFIGS["llama"], groups) - measured(shorter, groups)
    inputs = 5 * n_tokens * 64 * 4  # layers, tokens, hidden, bytes
    counted = planning.activation_bytes(CONFIGS["llama"], n_tokens, "fp32", recompute=True)
    assert counted == pytest.approx(inputs + layer, rel=0.01)


@pytest.mark.parametrize("kind", CONFIGS)
def test_weights_are_counted_exactly(kind: str) -> None:
    backbone = AutoModel.from_config(CONFIGS[kind])
    counted = planning.weights_of(CONFIGS[kind])
    linear = [part.weight for part in backbone.layers.modules() if isinstance(part, torch.nn.Linear)]
    assert counted.total == sum(weight.numel() for weight in backbone.parameters())
    assert counted.linear == sum(weight.numel() for weight in linear)
    assert counted.widths == sum(sum(weight.shape) for weight in linear)


def test_gradients_and_optimizer_states_take_what_a_real_step_takes(tmp_path: Path) -> None:
    from rmlib.models import RewardModel

    name = tiny.save_backbone(tmp_path / "backbone", "llama")
    model = RewardModel.create(name)
    optimizer = torch.optim.AdamW(model.parameters())
    model(model.collate([pair(3, 4, 5)])).sum().backward()
    optimizer.step()
    gradients = sum(weight.grad.nbytes for weight in model.parameters() if weight.grad is not None)
    states = sum(value.nbytes for state in optimizer.state.values() for value in state.values() if value.ndim)
    made = plan(TrainSettings(backbone=name, max_steps=1), Hardware(1, 1)).memory_gb
    assert made["gradients"] * 1e9 == pytest.approx(gradients, rel=0.1)
    assert made["optimizer"] * 1e9 == pytest.approx(states, rel=0.1)
    assert made["weights"] * 1e9 == pytest.approx(sum(weight.nbytes for weight in model.parameters()), rel=0.1)


def test_adapters_are_counted_as_peft_makes_them(tmp_path: Path) -> None:
    from rmlib.models import RewardModel

    name = tiny.save_backbone(tmp_path / "backbone", "llama")
    model = RewardModel.create(name, lora={"r": 4, "lora_alpha": 8})
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert plan(TrainSettings(backbone=name, lora_rank=4, max_steps=1), Hardware(1, 1)).trained == trained


def test_the_70b_shape_has_the_weights_of_its_name_and_operations_by_hand_arithmetic() -> None:
    made = plan(PRESETS["paper"].regression, Hardware(8))
    # 80 layers of 8192 x (8192 + 2 x 1024 + 8192 + 3 x 28672), two norms each; embedding and the last norm.
    linear = 80 * 8192 * (8192 + 2 * 1024 + 8192 + 3 * 28672)
    assert made.weights.total == linear + 80 * 2 * 8192 + 128256 * 8192 + 8192
    assert made.n_steps == 317 and made.tokens == 317 * 64 * (150 + 365 + 405)
    assert made.petaflop == pytest.approx(6 * linear * made.tokens / 1e15, rel=0.03)  # attention is the rest
    assert made.hours == pytest.approx(made.petaflop * 1e15 / (64 * 989e12 * 0.4) / 3600)
    assert made.memory_gb["optimizer"] == pytest.approx(2 * made.memory_gb["gradients"], rel=1e-6)


def test_recomputation_and_more_gpus_take_less_memory_and_4_bits_less_still() -> None:
    settings = PRESETS["paper"].second
    on, off, few = (
        plan(replace(settings, activation_checkpointing=recompute), Hardware(nodes))
        for nodes, recompute in ((4, True), (4, False), (1, True))
    )
    assert on.memory_gb["activations"] < off.memory_gb["activations"] / 5
    assert on.petaflop == pytest.approx(off.petaflop * 4 / 3, rel=0.02)
    assert on.memory_gb["weights"] == pytest.approx(few.memory_gb["weights"] / 4) and not few.fits
    small = TrainSettings(**(settings.to_dict() | {"lora_rank": 32, "quantization": "nf4"}))
    assert plan(small, Hardware(4)).memory_gb["weights"] < on.memory_gb["weights"] / 6


def test_a_shape_that_is_not_here_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(PlanningError, match="fetch its config.json"):
        plan(TrainSettings(backbone="nobody/nothing", max_steps=1), Hardware())


def test_a_run_without_a_number_of_steps_is_an_error() -> None:
    with pytest.raises(PlanningError, match="give n_pairs"):
        plan(TrainSettings(), Hardware())


def test_the_paper_s_folder_holds_both_stages_the_second_from_the_first_s_model(tmp_path: Path) -> None:
    paper.prepare(tmp_path)
    stages = tmp_path / "1_regression", tmp_path / "2_bt_scaled_init"
    jobs = [json.loads((stage / "run.json").read_text()) for stage in stages]
    for arm, job, nodes in zip(("regression", "bt_scaled_init"), jobs, (8, 4), strict=True):
        wanted = TrainSettings.from_dict(job["settings"])
        how = {"sharding": "full", "activation_checkpointing": True, "checkpoint_every_steps": 25}
        assert wanted == replace(settings_for(arm, PRESETS["paper"], seed=0), token_budget=8192, **how)
        assert job["processes"] == 8 * nodes and job.keys() <= {item.name for item in fields(run_file.Job)}
    assert [job["settings"]["loss"] for job in jobs] == ["regression", "scaled_bradley_terry"]
    assert jobs[1]["initialise_from"] == str(Path(jobs[0]["folder"]) / "model")
    last_line = (stages[1] / "launch.sh").read_text().splitlines()[-1]
    assert last_line == f"exec sbatch --nodes=4 launch/slurm.sh {stages[1] / 'run.json'}"


def test_the_table_of_the_paper_has_a_column_for_each_stage_and_layout_of_memory() -> None:
    table = paper.table()
    assert list(table.loc["steps"]) == [317, 317, 105, 105]
    assert list(table.loc["fits"]) == ["yes", "no", "yes", "no"]  # with recomputation
    assert list(table.loc["GPUs"]) == ["8 x 8 H100", "8 x 8 H100", "4 x 8 H100", "4 x 8 H100"]


def test_presets_whose_shape_is_here_are_said_to_fit_or_not() -> None:
    rows = planning.fitting(Hardware(1, 1)).set_index("preset")
    assert rows.loc["embedded", "fits"] == "yes" and rows.loc["paper", "fits"] == "no"
    assert rows.loc["single-gpu", "fits"] == "unknown"
