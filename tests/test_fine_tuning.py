"""Fine-tuning: the loss against TRL's, what is kept, adapters, and language models grown on reward models."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset
from transformers import AutoModel

from rmlib.alignment import fine_tuning
from rmlib.alignment.policies import Policy
from rmlib.models import RewardModel, backbones

PROMPT = [{"role": "user", "content": "Which of the two is a fruit, Apple or Stone?"}]
LINEAR = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def rows_of(texts: Sequence[str]) -> Dataset:
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    return Dataset.from_list([{"prompt": PROMPT, "completion": completion} for completion in completions])


ROWS = rows_of(["Good. " * number + "@Response 1 is better than @Response 2." for number in range(1, 5)])


@pytest.fixture(autouse=True)
def _runs(own_runs: None) -> None:
    """Each test trains anew."""


def test_a_policy_learns_to_write_what_it_is_shown_and_is_found_again() -> None:
    rows = rows_of(["It is a fruit. @Response 1 is better than @Response 2."])
    settings = fine_tuning.FineTuning(n_steps=60, examples_per_step=2, learning_rate=3e-3)
    tuned = fine_tuning.fine_tune(Policy.create("embedded"), rows, settings)
    assert tuned.curve[0]["loss"] > 10 * tuned.curve[-1]["loss"]
    written = tuned.policy.sample([PROMPT], 1, max_new_tokens=60, seed=0, temperature=1e-4).texts
    assert written == [rows[0]["completion"][0]["content"]]
    again = fine_tuning.fine_tune(Policy.create("embedded"), rows, settings)
    assert again.folder == tuned.folder and again.curve == tuned.curve
    for name, weight in tuned.policy.network.state_dict().items():
        assert torch.equal(weight, again.policy.network.state_dict()[name])


def test_the_loss_of_the_first_step_is_that_of_trl(tmp_path: Path) -> None:
    from trl import SFTConfig, SFTTrainer

    config = SFTConfig(
        str(tmp_path), per_device_train_batch_size=len(ROWS), max_length=None, report_to="none", use_cpu=True,
        bf16=False, gradient_checkpointing=False,
    )  # fmt: skip
    policy = Policy.create("embedded")
    policy.network.set_attn_implementation("sdpa")  # its rows are padded
    trainer = SFTTrainer(policy.network, config, train_dataset=ROWS, processing_class=policy.tokenizer)
    with torch.no_grad():
        theirs = trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
    for change in ({}, {"lora_rank": 2}, {"precision": "bf16"}):
        settings = fine_tuning.FineTuning(n_steps=1, examples_per_step=len(ROWS), **change)
        found = fine_tuning.train(Policy.create("embedded"), ROWS, settings)
        assert found["curve"][0]["loss"] == pytest.approx(float(theirs), rel=1e-4 if not change else 1e-2), change


def test_adapters_alone_are_trained_and_merged_into_what_is_kept() -> None:
    settings = fine_tuning.FineTuning(n_steps=20, examples_per_step=len(ROWS), lora_rank=4, learning_rate=1e-2)
    start = Policy.create("embedded").network.state_dict()
    tuned = fine_tuning.fine_tune(Policy.create("embedded"), ROWS, settings)
    assert tuned.curve[-1]["loss"] < 0.9 * tuned.curve[0]["loss"]
    found = tuned.policy.network.state_dict()
    moved = {name.rpartition(".")[0].rpartition(".")[2] for name in start if not torch.equal(start[name], found[name])}
    assert found.keys() == start.keys() and moved == LINEAR


def test_an_example_that_is_too_long_is_cut_where_the_positions_end() -> None:
    whole, short = (Policy.create("embedded") for _ in range(2))
    short.max_length = 40
    settings = fine_tuning.FineTuning(n_steps=1, examples_per_step=len(ROWS))
    found = [fine_tuning.train(policy, ROWS, settings)["n_tokens"] for policy in (whole, short)]
    assert found[1] == 40 * len(ROWS) < found[0]


def test_another_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="precision='fp16' is unknown; known: fp32, bf16"):
        fine_tuning.FineTuning(n_steps=1, precision="fp16")


def test_new_layers_and_heads_change_nothing_until_they_are_trained(tmp_path: Path) -> None:
    model = RewardModel.create(tiny.save_backbone(tmp_path / "llama"), seed=3)
    with pytest.raises(backbones.BackboneError, match="share their keys"):
        fine_tuning.on_reward_model(model, new_heads=1)
    model.config.num_key_value_heads = model.config.num_attention_heads = 4  # the tiny one shares its keys
    model.backbone = AutoModel.from_config(model.config)
    with pytest.raises(backbones.BackboneError, match="5 heads do not divide the width 32"):
        fine_tuning.on_reward_model(model, new_heads=1)
    ids, shapes = torch.arange(40).reshape(2, 20), {"same": (0, 0), "deeper": (2, 0), "wider": (0, 4), "both": (1, 4)}
    grown = {
        name: fine_tuning.on_reward_model(model, new_layers=layers, new_heads=heads).network.base_model
        for name, (layers, heads) in shapes.items()
    }
    with torch.no_grad():
        states = {name: network(ids).last_hidden_state for name, network in grown.items()}
    for name in shapes:
        torch.testing.assert_close(states[name], states["same"], msg=name)
    widths = {name: network.layers[0].self_attn.q_proj.out_features for name, network in grown.items()}
    sizes = {name: (len(network.layers), widths[name]) for name, network in grown.items()}
    assert sizes == {"same": (2, 32), "deeper": (4, 32), "wider": (2, 64), "both": (3, 64)}


def test_a_language_model_on_a_reward_model_reads_what_that_reads(tmp_path: Path) -> None:
    model = RewardModel.create(tiny.save_backbone(tmp_path / "llama"), seed=3)
    policy = fine_tuning.on_reward_model(model)
    rows = [[{"role": "user", "content": "Name a fruit."}]]
    groups = model.groups(rows, ["Apple."])
    with torch.no_grad():
        batch = model.collate(groups, shared=False)
        states = policy.network.base_model(batch.input_ids, batch.attention_mask).last_hidden_state
        np.testing.assert_allclose(model.pool(batch)[0], states[0, batch.ends[0]], atol=1e-5)
    encoder = RewardModel.create(tiny.save_backbone(tmp_path / "bert", "bert"))
    with pytest.raises(backbones.BackboneError, match="cannot write"):
        fine_tuning.on_reward_model(encoder)


def test_examples_are_drawn_without_repetition_until_all_were_seen() -> None:
    rows = rows_of([f"Reason {number}." for number in range(3)])
    drawn = fine_tuning.drawn(rows, fine_tuning.FineTuning(n_steps=2, examples_per_step=3))
    texts = [completion[0]["content"] for completion in drawn["completion"][:]]
    assert len(set(texts[:3])) == len(set(texts[3:])) == 3
    with pytest.raises(ValueError, match="no annotation is an example"):
        fine_tuning.drawn(rows.select([]), fine_tuning.FineTuning(n_steps=1))
