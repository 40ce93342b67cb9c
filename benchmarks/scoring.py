"""Time and memory of scoring real files, beside the way of reward-bench: same decoder, same items, one alternating run.

    python -m benchmarks.scoring [folder of real files]

reward-bench (`RewardBenchPipeline` as its command runs it, truncation off) makes one pass over the chosen and one over
the rejected texts, in padded batches in the order of the file, left-padded, through transformers' own classifier;
RM-Bench has six passes. Both sides render and tokenise, in fp32, without gradients. The bound is the number of tokens
they compute, padding included, over the tokens that are left when a prompt is computed once and nothing is padded.

A file is cut into short parts in its order, and the methods take turns within each part. A part during which other
processes used the cores is voided and run again; CPU seconds, which suffer less, stand beside wall seconds.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from benchmarks import decoders
from benchmarks.measure import measure, record, timed
from benchmarks.real_files import SETS, FileSet, data_folder, read_all
from rmlib.models import RewardModel

SHAPE = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 4}
SHAPE |= {"max_position_embeddings": 8192}
VOCABULARY, SEED = 8192, 0
BATCH_SIZES = (8, 32)
LIMITS = {"share of the bound": 0.9, "others": 0.1, "reward difference": 1e-5}


# --- the decoder ------------------------------------------------------------------------------------------------------


def write_models(folder: Path, texts: list[str]) -> None:
    """A random decoder with a BPE of the texts, as our reward model and as a plain classifier of equal rewards."""
    decoders.write(folder, texts, VOCABULARY, SHAPE, SEED)


# --- the two ways -----------------------------------------------------------------------------------------------------


class Ours:
    """`RewardModel.score`."""

    def __init__(self, folder: Path) -> None:
        self.model = RewardModel.load(folder / "ours")

    def __call__(self, items: FileSet) -> np.ndarray:
        return self.model.score(*items.flat).reshape(len(items.prompts), -1)

    def n_tokens(self, items: FileSet) -> int:
        """Tokens left when each prompt is computed once."""
        return sum(item.n_tokens_shared for item in self.model.groups(*items.flat))


class Official:
    """The loop and the pipeline of reward-bench's command, on the CPU; `n_tokens` counts what it computed."""

    def __init__(self, folder: Path, batch_size: int) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder / "classifier", padding_side="left")
        self.model = AutoModelForSequenceClassification.from_pretrained(folder / "classifier").eval()
        self.batch_size, self.n_tokens = batch_size, 0

    def __call__(self, items: FileSet) -> np.ndarray:
        """Rewards `[item, candidate]`: of each batch of items, one pass for each candidate."""
        columns = zip(items.prompts, items.candidates, strict=True)
        texts = [[self._render(prompt, response) for response in some] for prompt, some in columns]
        batches = [texts[start : start + self.batch_size] for start in range(0, len(texts), self.batch_size)]
        passes = [np.stack([self._pipe(list(some)) for some in zip(*batch, strict=True)], 1) for batch in batches]
        return np.concatenate(passes)

    def _render(self, prompt: list[dict[str, str]], response: str) -> str:
        messages = [*prompt, {"role": "assistant", "content": response}]
        return self.tokenizer.apply_chat_template(messages, tokenize=False)

    def _pipe(self, texts: list[str]) -> np.ndarray:
        inputs = self.tokenizer(texts, truncation=False, padding=True, return_tensors="pt")
        self.n_tokens += inputs["input_ids"].numel()
        with torch.no_grad():
            return self.model(**inputs).logits[:, 0].float().numpy()


def methods(folder: Path) -> dict[str, Ours | Official]:
    """All that is compared, by name."""
    return {"ours": Ours(folder)} | {f"official {size}": Official(folder, size) for size in BATCH_SIZES}


# --- measuring --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """Some items of a set in a row, where they begin, and of which set they are."""

    name: str
    start: int
    items: FileSet


def parts_of(sets: dict[str, FileSet], n_parts: int | None, size: int) -> list[Part]:
    """Each set in parts of `size` items, all of them or some, evenly spread over the file."""
    parts = []
    for name, whole in sets.items():
        starts = list(range(0, len(whole.prompts), size))
        if n_parts is not None:
            starts = sorted({starts[i] for i in np.linspace(0, len(starts) - 1, n_parts).astype(int)})
        parts += [Part(name, start, whole.part(start, size)) for start in starts]
    return parts


def alternate(folder: Path, parts: list[Part], attempts: int) -> list[dict[str, Any]]:
    """One row for each part: seconds and CPU seconds of each method, tokens, voided tries, reward difference."""
    torch.set_num_threads(2)
    compared = methods(folder)
    for method in compared.values():
        method(parts[0].items.part(0, 4))  # loads what the first call loads
    rows = []
    for number, part in enumerate(parts):
        order = list(compared)[number % len(compared) :] + list(compared)[: number % len(compared)]
        rows.append(_part_row(part, {name: compared[name] for name in order}, attempts))
        print(pd.Series(rows[-1]).to_frame().T.to_string(index=False, header=number == 0), flush=True)
    return rows


def _part_row(part: Part, compared: dict[str, Any], attempts: int) -> dict[str, Any]:
    voided = []
    for _ in range(attempts):
        results, rewards = {}, {}
        for name, method in compared.items():
            if isinstance(method, Official):
                method.n_tokens = 0
            rewards[name], results[name] = timed(method, part.items)
        others = max(one.others for one in results.values())
        if others <= LIMITS["others"]:
            break
        voided.append(others)
    row: dict[str, Any] = {"set": part.name, "start": part.start, "items": len(part.items.prompts), "others": others}
    row |= {"voided": len(voided), "contended": len(voided) == attempts}
    for name, method in compared.items():
        row[f"tokens {name}"] = method.n_tokens(part.items) if isinstance(method, Ours) else method.n_tokens
        row[f"seconds {name}"], row[f"cpu {name}"] = results[name].seconds, results[name].cpu_seconds
    bias = next(method.model.config.reward_bias for method in compared.values() if isinstance(method, Official))
    distances = [np.abs(rewards["ours"] - rewards[name] - bias).max() for name in compared if name != "ours"]
    return row | {"difference": float(max(distances))}


def peak(folder: Path, name: str, items: FileSet) -> None:
    """One method alone, to be measured; with no items, what loading it takes."""
    torch.set_num_threads(2)
    method = Ours(folder) if name == "ours" else Official(folder, int(name.split()[1]))
    if items.prompts:
        method(items)


def memory(folder: Path, parts: list[Part]) -> list[dict[str, Any]]:
    """Peak MB of each method in a process of its own, on the part of each set that holds the longest text."""
    longest: dict[str, Part] = {}
    for part in parts:
        if part.name not in longest or _longest(part) > _longest(longest[part.name]):
            longest[part.name] = part
    nothing = Part("loading alone", 0, FileSet([], []))
    names = ["ours", *(f"official {size}" for size in BATCH_SIZES)]
    return [
        {"set": part.name, "start": part.start}
        | {name: measure(peak, folder, name, part.items).peak_mb for name in names}
        for part in [nothing, *longest.values()]
    ]


def _longest(part: Part) -> int:
    prompts, responses = part.items.flat
    return max(len(prompt[0]["content"]) + len(response) for prompt, response in zip(prompts, responses, strict=True))


# --- what it says -----------------------------------------------------------------------------------------------------


def summary(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """For each set and batch size, and all sets together: bound, ratio of time and of CPU time, share of the bound.

    Ratios are of sums over the parts; `low` and `high` are the smallest and largest ratio of a part over its own bound.
    """
    table = pd.DataFrame(rows)
    groups = [*table.groupby("set", sort=False), ("all", table)]
    return pd.DataFrame([_line(str(name), some, size) for size in BATCH_SIZES for name, some in groups])


def _line(name: str, rows: pd.DataFrame, size: int) -> dict[str, Any]:
    total, official = rows.sum(numeric_only=True), f"official {size}"
    bound, ratio, cpu = (total[f"{what} {official}"] / total[f"{what} ours"] for what in ("tokens", "seconds", "cpu"))
    shares = [
        (rows[f"{what} {official}"] / rows[f"{what} ours"]) / (rows[f"tokens {official}"] / rows["tokens ours"])
        for what in ("seconds", "cpu")
    ]
    line = {"set": name, "batch": size, "items": int(total["items"]), "parts": len(rows), "bound": bound}
    line |= {"ratio": ratio, "share": ratio / bound, "low": shares[0].min(), "high": shares[0].max()}
    line |= {"cpu ratio": cpu, "cpu share": cpu / bound, "cpu low": shares[1].min(), "cpu high": shares[1].max()}
    return line | {"voided": int(total["voided"]), "contended": int(rows["contended"].sum())}


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="of real files (default: $RMLIB_SHARED_DATA)")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), help="(default: all)")
    parser.add_argument("--parts", type=int, help="of each set, evenly spread over its file (default: all)")
    # A multiple of the batch sizes: then cutting a file into parts leaves its batches as they are.
    parser.add_argument("--items", type=int, default=32, help="of a part (default: 32)")
    parser.add_argument("--attempts", type=int, default=3, help="at a part while others use the cores (default: 3)")
    options = parser.parse_args()
    files = read_all(data_folder(options.folder))
    sets = {name: files[name] for name in options.sets}
    parts = parts_of(sets, options.parts, options.items)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = [text for some in sets.values() for text in some.texts]
        measure(write_models, folder, texts)
        measured = measure(alternate, folder, parts, options.attempts)
        peaks = memory(folder, parts)
    table = summary(measured.result)
    print(table.round(2).to_string(index=False), pd.DataFrame(peaks).round(0).to_string(index=False), sep="\n\n")
    difference = max(row["difference"] for row in measured.result)
    print(f"largest difference of a reward: {difference:.1g}; limits: {LIMITS}")
    asked = {
        "parts": options.parts,
        "items a part": options.items,
        "attempts": options.attempts,
        "seed": SEED,
        "threads": 2,
    }
    asked |= {"decoder": SHAPE | {"vocabulary": VOCABULARY}, "limits": LIMITS}
    outcome = {"summary": table.to_dict("records"), "rounds": measured.result, "peak_mb": peaks}
    record("scoring", asked, outcome | {"largest difference": difference}, measured.seconds)


if __name__ == "__main__":
    main()
