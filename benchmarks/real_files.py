"""Prompts and candidates of real benchmark files, read from a folder that the user names: plain lists, nothing kept.

    llmbar/        LLMBar__*.json.gz               input, output_1, output_2
    judgebench/    *.jsonl.gz                      question, response_A, response_B
    rm_bench/      <domain>_filtered.json.gz       prompt, three chosen, three rejected
    hhh_alignment/ hhh_alignment_eval.json.gz      question and reply lie inside a judge's prompt

The order is that of the files, and of the candidates in them: what is measured here does not ask which one is better.
"""

import gzip
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER_VARIABLE = "RMLIB_SHARED_DATA"
_JUDGED = re.compile(
    r"###The instruction to evaluate:\n(.*?)\n\n###Response to evaluate:\n(.*?)\n\n###Score Rubrics:", re.DOTALL
)


@dataclass(frozen=True)
class FileSet:
    """Items of one benchmark: a prompt of one user turn each, and its candidates, as many for every item."""

    prompts: list[list[dict[str, str]]]
    candidates: list[list[str]]

    def part(self, start: int, size: int) -> "FileSet":
        """Items from `start` on, in the same order."""
        return FileSet(self.prompts[start : start + size], self.candidates[start : start + size])

    @property
    def flat(self) -> tuple[list[list[dict[str, str]]], list[str]]:
        """A prompt for each response, and the responses: what `RewardModel.score` takes."""
        repeated = [prompt for prompt, some in zip(self.prompts, self.candidates, strict=True) for _ in some]
        return repeated, [response for some in self.candidates for response in some]

    @property
    def texts(self) -> list[str]:
        """Every prompt once, then the responses."""
        return [message["content"] for prompt in self.prompts for message in prompt] + self.flat[1]


def data_folder(given: Path | None) -> Path:
    """The folder given, or that of the variable RMLIB_SHARED_DATA; FileNotFoundError where there is neither."""
    folder = given or (Path(os.environ[FOLDER_VARIABLE]) if FOLDER_VARIABLE in os.environ else None)
    if folder is None or not folder.is_dir():
        raise FileNotFoundError(f"no folder of real files: name one, or set {FOLDER_VARIABLE}")
    return folder


def read_all(folder: Path) -> dict[str, FileSet]:
    """Every set by its name; FileNotFoundError names a set without a file."""
    return {name: _file_set(folder, pattern, reader) for name, (pattern, reader) in SETS.items()}


def _file_set(folder: Path, pattern: str, reader: Callable[[dict[str, Any]], tuple[str, list[str]]]) -> FileSet:
    files = sorted(folder.glob(pattern))
    if not files:
        raise FileNotFoundError(f"no file {pattern} in the folder of real files")
    items = [reader(row) for file in files for row in _rows(file)]
    return FileSet([[{"role": "user", "content": text}] for text, _ in items], [some for _, some in items])


def _rows(file: Path) -> list[dict[str, Any]]:
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines] if ".jsonl" in file.name else json.load(lines)


def _llmbar(row: dict[str, Any]) -> tuple[str, list[str]]:
    return row["input"], [row["output_1"], row["output_2"]]


def _judgebench(row: dict[str, Any]) -> tuple[str, list[str]]:
    return row["question"], [row["response_A"], row["response_B"]]


def _rm_bench(row: dict[str, Any]) -> tuple[str, list[str]]:
    return row["prompt"], [*row["chosen"], *row["rejected"]]


def _hhh(row: dict[str, Any]) -> tuple[str, list[str]]:
    (prompt, chosen), (_, rejected) = (
        found.groups() for name in ("chosen", "rejected") if (found := _JUDGED.search(row[f"{name}_instruction"]))
    )
    return prompt, [chosen, rejected]


SETS = {
    "LLMBar": ("llmbar/LLMBar__*.json.gz", _llmbar),
    "JudgeBench": ("judgebench/*.jsonl.gz", _judgebench),
    "RM-Bench chat": ("rm_bench/chat_filtered.json.gz", _rm_bench),
    "RM-Bench safety-response": ("rm_bench/safety-response_filtered.json.gz", _rm_bench),
    "HHH": ("hhh_alignment/hhh_alignment_eval.json.gz", _hhh),
}
