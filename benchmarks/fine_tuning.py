"""Time of a fine-tuning step of the embedded justifier: TRL's SFTTrainer beside the loop of rmlib, taking turns.

    python -m benchmarks.fine_tuning

Same decoder, same examples (which the trainer shuffles once more), fp32, one thread. Time is that of the steps, not of
imports and tokenisation; the losses of both stand beside it.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from benchmarks.measure import measure, record
from rmlib import sources
from rmlib.alignment import justifier
from rmlib.alignment.fine_tuning import BETAS, FineTuning, drawn, train
from rmlib.alignment.policies import Policy

PAIRS = 400


def train_by_trl(policy: Policy, rows: Dataset, settings: FineTuning) -> dict[str, Any]:
    """The same by TRL's trainer, whose rows are padded."""
    policy.network.set_attn_implementation("sdpa")
    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            output_dir=folder, max_steps=settings.n_steps, per_device_train_batch_size=settings.examples_per_step,
            learning_rate=settings.learning_rate, lr_scheduler_type="linear", warmup_steps=settings.warmup_steps,
            weight_decay=settings.weight_decay, adam_beta2=BETAS[1], max_grad_norm=1.0, seed=settings.seed,
            max_length=policy.max_length, bf16=False, gradient_checkpointing=False,
            logging_steps=max(1, settings.n_steps // 40), save_strategy="no", report_to="none", disable_tqdm=True,
            use_cpu=policy.device.type == "cpu", dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = SFTTrainer(policy.network, config, train_dataset=rows, processing_class=policy.tokenizer)
        seconds = trainer.train().metrics["train_runtime"]
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    curve = [{"step": entry["step"], "loss": entry["loss"]} for entry in logged]
    return {"curve": curve, "n_tokens": int(logged[-1]["num_tokens"]), "seconds": seconds}


TRAINERS: dict[str, Callable[[Policy, Dataset, FineTuning], dict[str, Any]]] = {"trl": train_by_trl, "own": train}


def alternate(n_steps: int, rounds: int) -> list[dict[str, Any]]:
    """One row for each round and trainer: seconds a step, tokens a second, last mean loss."""
    torch.set_num_threads(1)
    rows = justifier.examples(sources.load("simulated").select(range(PAIRS))).rows
    found = []
    for number in range(rounds):
        for trainer in list(TRAINERS)[:: 1 if number % 2 else -1]:
            settings = FineTuning(n_steps)
            outcome = TRAINERS[trainer](Policy.create("embedded"), drawn(rows, settings), settings)
            row = {"round": number, "trainer": trainer, "seconds a step": outcome["seconds"] / n_steps}
            row |= {"tokens a second": outcome["n_tokens"] / outcome["seconds"], "loss": outcome["curve"][-1]["loss"]}
            found.append(row)
            print(row, flush=True)
    return found


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="of each round (default: 20)")
    parser.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    options = parser.parse_args()
    measured = measure(alternate, options.steps, options.rounds)
    medians = {
        trainer: statistics.median(row["seconds a step"] for row in measured.result if row["trainer"] == trainer)
        for trainer in TRAINERS
    }
    ratio = medians["trl"] / medians["own"]
    print(f"median seconds a step: {medians}; TRL takes {ratio:.1f} times as long")
    asked = {"steps": options.steps, "rounds": options.rounds, "pairs": PAIRS, "settings": FineTuning(options.steps)}
    outcome = {"rows": measured.result, "seconds a step": medians, "ratio": ratio}
    record("fine_tuning", asked | {"threads": 1}, outcome, measured.seconds)


if __name__ == "__main__":
    main()
