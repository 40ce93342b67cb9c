"""What the package `rewardbench` computes: run by benchmarks.rewardbench_oracle in an environment of its own.

    python rewardbench_peer.py questions.json answers.json

It imports nothing of this repository, which that environment cannot hold. Each question has a name of `ANSWERS`.
"""

import json
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from rewardbench.constants import EXAMPLE_COUNTS, SUBSET_MAPPING
from rewardbench.utils import calculate_scores_per_section, process_single_model, reroll_and_score_dataset

PACKAGES = ("rewardbench", "transformers", "torch", "datasets")


def constants(_: None) -> dict[str, Any]:
    """The installed counts and sections, and the versions of what is installed."""
    versions = {name: metadata.version(name).split("+")[0] for name in PACKAGES}
    return {"counts": EXAMPLE_COUNTS, "sections": SUBSET_MAPPING, "versions": versions}


def sections(accuracies: list[dict[str, float]]) -> list[dict[str, float]]:
    """Section scores of each set of accuracies, with the installed constants."""
    return [calculate_scores_per_section(EXAMPLE_COUNTS, SUBSET_MAPPING, values) for values in accuracies]


def best_of_four(rewards: list[list[float]]) -> list[float]:
    """Credit of each item; the first reward is that of the right answer."""
    flat = [reward for item in rewards for reward in item]
    number = [index for index, item in enumerate(rewards) for _ in item]
    table = Dataset.from_dict({"text": [""] * len(flat), "scores": flat, "item": number})
    return [float(row["results"]) for row in reroll_and_score_dataset(table, [len(item) for item in rewards])]


def ties(tables: list[list[dict[str, Any]]]) -> list[float]:
    """Score of the Ties domain for each table of items: id, scores, num_correct."""
    return [float(process_single_model(Dataset.from_list(table))[1]) for table in tables]


def rewards(asked: dict[str, Any]) -> list[list[float]]:
    """Rewards of pairs by the package's pipeline and loop, from a folder that transformers exported, on the CPU."""
    from rewardbench.models.pipeline import RewardBenchPipeline
    from rewardbench.utils import prepare_dialogue_from_tokenizer
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, BatchEncoding

    moved = BatchEncoding.to
    BatchEncoding.to = lambda batch, device: moved(batch, "cpu")  # the pipeline has "cuda" written into it
    tokenizer = AutoTokenizer.from_pretrained(asked["folder"], padding_side="left")
    model = AutoModelForSequenceClassification.from_pretrained(asked["folder"], torch_dtype=torch.float32)
    pipe = RewardBenchPipeline("text-classification", model=model, tokenizer=tokenizer)
    rows = [prepare_dialogue_from_tokenizer(pair, tokenizer) for pair in asked["pairs"]]
    found = []
    for start in range(0, len(rows), asked["batch_size"]):
        batch = rows[start : start + asked["batch_size"]]
        both = [pipe([row[name] for row in batch], truncation=False)[:, 0] for name in ("text_chosen", "text_rejected")]
        found += torch.stack(both, dim=1).tolist()
    return found


ANSWERS: dict[str, Callable[[Any], Any]] = {
    "constants": constants,
    "sections": sections,
    "best_of_four": best_of_four,
    "ties": ties,
    "rewards": rewards,
}


if __name__ == "__main__":
    questions = json.loads(Path(sys.argv[1]).read_text())
    Path(sys.argv[2]).write_text(json.dumps({name: ANSWERS[name](asked) for name, asked in questions.items()}))
