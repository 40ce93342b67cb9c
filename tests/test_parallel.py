"""One model under several processes or under options that save memory or time: equal losses, models and metrics."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import several_processes
import tiny
import torch
from notebook_launch import ENVIRONMENT, SECONDS, launch
from test_training import made_pairs, settings

from rmlib import training
from rmlib.models import RewardModel
from rmlib.models.attention import SHARED_PREFIX, shared_prefix_attention
from rmlib.models.batches import Group
from rmlib.training.__main__ import run_job
from rmlib.training.examples import prepare
from rmlib.training.forward import passes
from rmlib.training.parallel import ALONE, Processes, ProcessesError, Wrapped, shares
from rmlib.training.runs import create_model
from rmlib.training.settings import TrainSettings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes trained, all in one launch."""
    place = tmp_path_factory.mktemp("two")
    for home in (place, place / "for one"):
        tiny.save_backbone(home / "llama")
        # Dropout would draw other numbers in each process.
        off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        tiny.save_backbone(home / "bert", "bert", config=off)
    launch("several_processes", place)
    return place


@pytest.fixture
def alone(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that trains one of the runs in this process alone."""
    monkeypatch.setenv("RMLIB_RUNS", str(tmp_path / "runs"))

    def trained(name: str) -> training.Run:
        settings = replace(several_processes.settings_of(name, folder), sharding="none")
        return several_processes.run(name, folder, settings, tmp_path / name)

    return trained


def of_two(folder: Path, name: str) -> training.Run:
    found = training.Run(folder / name, several_processes.settings_of(name.removesuffix(", killed"), folder))
    assert found.is_finished
    return found


def score(model: RewardModel) -> np.ndarray:
    return model.score([[{"role": "user", "content": "q"}]] * 2, ["good good", "bad"])


@pytest.mark.parametrize("name", several_processes.RUNS)
def test_two_processes_have_the_losses_and_the_model_of_one(folder: Path, alone, name: str) -> None:
    one, two = alone(name), of_two(folder, name)
    rough = 1000 if "bf16" in name else 1
    for column in {"loss", "selection_loss", "selection_accuracy"} & set(one.history):
        np.testing.assert_allclose(two.history[column], one.history[column], atol=1e-5 * rough, rtol=0)
    np.testing.assert_allclose(two.history["gradient_norm"], one.history["gradient_norm"], rtol=1e-4 * rough)
    assert two.history["tokens"].tolist() == one.history["tokens"].tolist()
    # Pairs leave the level of all rewards open: there Adam walks along the rounding of a gradient that is zero.
    level = (lambda rewards: rewards) if one.settings.loss == "regression" else np.diff
    np.testing.assert_allclose(level(score(two.model)), level(score(one.model)), atol=1e-4 * rough)


@pytest.mark.parametrize("name", several_processes.KILLED)
def test_two_processes_that_were_killed_go_on_to_the_same_losses(folder: Path, name: str) -> None:
    whole, resumed = of_two(folder, name), of_two(folder, f"{name}, killed")
    assert resumed.history["step"].tolist() == list(range(1, 21))
    np.testing.assert_allclose(resumed.history["loss"], whole.history["loss"], atol=1e-6, rtol=0)
    np.testing.assert_allclose(score(resumed.model), score(whole.model), atol=1e-6)


def test_one_process_goes_on_with_what_two_began_and_says_so(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = folder / "for one"
    settings = several_processes.settings_of("replicated", place)
    run = several_processes.run("replicated", place, settings, place / "replicated, killed")
    assert "1 processes go on with what 2 began" in caplog.text
    np.testing.assert_allclose(run.history["loss"], of_two(folder, "replicated").history["loss"], atol=1e-5, rtol=0)


def test_all_processes_stop_with_the_pairs_of_all_at_a_loss_that_is_not_finite(folder: Path) -> None:
    said = json.loads((folder / "said.json").read_text())
    assert [one["rank"] for one in said] == [0, 1] and said[0]["stopped"] == said[1]["stopped"]
    assert "lower the learning rate" in said[0]["stopped"]


def test_a_run_of_more_processes_than_there_are_is_refused(folder: Path) -> None:
    said = json.loads((folder / "said.json").read_text())
    assert all("3 processes were asked for and 2 started" in one["refusal"] for one in said)


def test_torchrun_trains_a_run_file_with_as_many_processes_as_it_asks_for(tmp_path: Path) -> None:
    settings = {"backbone": "embedded", "max_steps": 2, "pairs_per_step": 3, "token_budget": 1024}
    source = str(tiny.write_source(tmp_path / "own"))
    job = {"source": source, "settings": settings, "processes": 2, "folder": str(tmp_path / "run")}
    (tmp_path / "run.json").write_text(json.dumps(job))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += ["-m", "rmlib.training", str(tmp_path / "run.json")]
    environment = os.environ | ENVIRONMENT | {"RMLIB_RUNS": str(tmp_path / "runs")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads(done.stdout)["n_steps"] == 2  # printed once
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 2  # written once


# --- without any launch -----------------------------------------------------------------------------------------------


def test_accelerate_launch_that_starts_one_process_for_several_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # The names that `accelerate launch --cpu --num_processes 2` sets for the one process that it starts.
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert Processes.join().size == 1  # asked for one, it is right
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    with pytest.raises(ProcessesError, match="asked for several processes and started one; .*torchrun"):
        Processes.join()
    monkeypatch.delenv("MASTER_ADDR")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ProcessesError, match="sharding='full'"):
        Processes.join()


def test_a_run_file_that_asks_for_two_processes_is_refused_by_one() -> None:
    with pytest.raises(ProcessesError, match="2 processes were asked for and 1 started"):
        run_job({"source": "simulated", "settings": {}, "processes": 2})


def test_sharding_without_a_launcher_is_a_named_error(tmp_path: Path) -> None:
    settings = TrainSettings(sharding="full", pairs_per_step=2, max_steps=1)
    with pytest.raises(ProcessesError, match="start them with torchrun"):
        training.train(
            training.create_model(settings), several_processes.pairs(), settings, folder=tmp_path / "r", progress=False
        )


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_shares_deal_every_index_once_and_tokens_evenly(size: int) -> None:
    lengths = np.random.default_rng(0).integers(5, 60, 40)
    groups = [Group((np.arange(n), np.arange(n) + 1), 0) for n in lengths]
    dealt = shares(groups, list(range(40)), size)
    assert sorted(index for share in dealt for index in share) == list(range(40))
    tokens = [sum(groups[index].n_tokens_shared for index in share) for share in dealt]
    assert max(tokens) - min(tokens) <= max(group.n_tokens_shared for group in groups)


def test_every_process_makes_as_many_passes_and_counts_each_example_once(tmp_path: Path) -> None:
    settings = TrainSettings(token_budget=700)
    model = training.create_model(settings)
    examples = prepare(model, several_processes.pairs(), settings)
    for indices in ([0], list(range(len(examples)))):
        found = [list(passes(model, examples, indices, 300, Processes(rank, 3))) for rank in range(3)]
        assert len({len(part) for part in found}) == 1
        counted = [index for part in found for batch, counts in part if counts for index in batch]
        assert sorted(counted) == indices
    assert [batch for batch, counts in passes(model, examples, [3, 1], 10_000, ALONE) if counts] in ([[3, 1]], [[1, 3]])


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("sharding", ["none", "full"])
def test_two_gpus_train_a_run_file(tmp_path: Path, sharding: str) -> None:
    settings = {"max_steps": 4, "pairs_per_step": 8, "precision": "bf16", "sharding": sharding, "overlong": "leave_out"}
    job = {"source": "simulated", "settings": settings, "processes": 2, "folder": str(tmp_path / "run")}
    (tmp_path / "run.json").write_text(json.dumps(job))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "-m"]
    done = subprocess.run([*command, "rmlib.training", str(tmp_path / "run.json")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert len((tmp_path / "run" / "log.jsonl").read_text().splitlines()) == 4


# --- options that save memory or time, in one process ---------------------------------------------------------------


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
    return training.train(create_model(wanted), made_pairs(8), wanted, progress=False).history["loss"].to_numpy()


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
