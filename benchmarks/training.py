"""Time and memory of training on real pairs, beside TRL's RewardTrainer and a plain padded loop: one alternating run.

    python -m benchmarks.training [folder of HelpSteer2] [--only speed memory losses growth gpu]
    python -m benchmarks.training --shapes tiny --batches 2 --rounds 1 --steps 1 --pairs 64 128   # does it run?

Same weights, same decided pairs in one random order, same optimizer steps. A round is a few steps of each way in turn;
it is void where other processes used more than a tenth of the cores, and CPU seconds, which suffer less, stand beside
wall seconds. The bound is what a way computes, padding included, over the tokens left when each prompt is computed once
and nothing is padded. TRL runs as it comes (bf16 and activation checkpointing) and at its best; batches grouped by
length, and pairs one at a time with accumulation, are other batches of the same pairs, and rows of their own.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from datasets import Dataset

from benchmarks import decoders, gpu_training
from benchmarks.measure import measure, record, timed
from benchmarks.trainers import Plain, ways
from rmlib import sources
from rmlib.pairs import preference_view

FOLDER_VARIABLE = "RMLIB_HELPSTEER2"
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
    "256 x 4": {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 4},
    "512 x 8": {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8},
}
POSITIONS = {"max_position_embeddings": 4096}
VOCABULARY, SEED, TOKEN_BUDGET, THREADS, MOST_OTHERS = 16_384, 0, 4096, 2, 0.1
GOALS = {"TRL": {"8": 2.7, "16": 3.1}, "TRL, its defaults": {"8": 3.0, "16": 3.5}}
GROWTH = (1000, 2000, 4000, 8000, 16000)


def read_pairs(folder: Path) -> Dataset:
    """The decided pairs of a HelpSteer2 folder in one random order."""
    pairs = sources.load(str(folder))
    decided = np.flatnonzero([bool(preference) for preference in pairs["preference"][:]])
    return pairs.select(np.random.default_rng(SEED).permutation(decided))


def texts_of(pairs: Dataset) -> list[str]:
    view = preference_view(pairs)
    return [message["content"] for name in ("prompt", "chosen", "rejected") for row in view[name][:] for message in row]


# --- speed ------------------------------------------------------------------------------------------------------------


def alternate(
    folder: Path, data: Path, case: tuple[str, int, str], n_rounds: int, n_steps: int, names: list[str]
) -> dict[str, Any]:
    """Rounds of one case (shape, pairs a step, precision): one row for each round and way, and the machine's rate."""
    torch.set_num_threads(THREADS)
    shape, batch, precision = case
    pairs = read_pairs(data)
    made = ways(folder, batch, precision, TOKEN_BUDGET)
    compared = {name: made[name]() for name in _asked(made, names)}
    next(iter(compared.values()))(pairs.select(range(batch)))  # loads what a first call loads
    rows = []
    for number in range(n_rounds):
        start = number * n_steps * batch % (len(pairs) - n_steps * batch)
        part = pairs.select(range(start, start + n_steps * batch))
        turn = number % len(compared)
        for name in [*list(compared)[turn:], *list(compared)[:turn]]:
            done = compared[name](part)
            rows.append({"round": number, "way": name, "tokens": done.n_tokens, **vars(done.time)})
            print(shape, batch, precision, rows[-1], flush=True)
    return {"rows": rows, "gflops": matrix_rate(precision), "gflop a token": _gflop_a_token(folder)}


def _asked(known: dict[str, Any], names: list[str]) -> list[str]:
    """Ours, and the ways that were asked for: every one where none is named."""
    return [name for name in known if name == "ours" or name in names or not names]


def matrix_rate(precision: str) -> float:
    """GFLOP a CPU second of square matrix products of 1024, the best of ten."""
    left = torch.randn(1024, 1024, dtype=torch.bfloat16 if precision == "bf16" else torch.float32)
    tries = [timed(lambda: [left @ left for _ in range(10)])[1].cpu_seconds for _ in range(10)]
    return 10 * 2 * 1024**3 / 1e9 / min(tries)


def _gflop_a_token(folder: Path) -> float:
    """Forward and backward of the linear layers: six operations for each of their weights."""
    body = Plain(folder, 1).model.model
    return 6 * sum(weight.numel() for weight in body.layers.parameters() if weight.ndim == 2) / 1e9


def summary(case: tuple[str, int, str], outcome: dict[str, Any]) -> list[dict[str, Any]]:
    """Each way over ours: bound, ratio of wall and CPU time with the least and largest round, rate, voided rounds."""
    rows = pd.DataFrame(outcome["rows"])
    ours = rows[rows["way"] == "ours"].set_index("round")
    void = rows.groupby("round")["others"].max() > MOST_OTHERS
    lines = []
    for name, some in rows.groupby("way", sort=False):
        other = some.set_index("round")
        wall, cpu = (other[column] / ours[column] for column in ("seconds", "cpu_seconds"))
        line = {"decoder": case[0], "batch": case[1], "precision": case[2], "way": name, "rounds": len(other)}
        line |= {"void": int(void.sum()), "bound": other["tokens"].sum() / ours["tokens"].sum()}
        line |= {"ratio": wall[~void].mean() if not void.all() else None}
        line |= {"ratio, all rounds": _total(other, ours, "seconds")}
        line |= {"cpu ratio": _total(other, ours, "cpu_seconds"), "low": cpu.min(), "high": cpu.max()}
        useful = ours["tokens"].sum() * outcome["gflop a token"] / other["cpu_seconds"].sum()
        line |= {"goal": GOALS.get(str(name), {}).get(str(case[1])), "share of matrix rate": useful / outcome["gflops"]}
        lines.append(line | {"tokens a CPU second": ours["tokens"].sum() / other["cpu_seconds"].sum()})
    return lines


def _total(other: pd.DataFrame, ours: pd.DataFrame, column: str) -> float:
    return float(other[column].sum() / ours[column].sum())


# --- memory, losses, growth -------------------------------------------------------------------------------------------


def peak(folder: Path, data: Path, batch: int, precision: str, name: str) -> None:
    """One way alone for two steps, the second with the optimizer's states, to be measured; `nothing`: data, imports."""
    torch.set_num_threads(THREADS)
    pairs, compared = read_pairs(data), ways(folder, batch, precision, TOKEN_BUDGET)
    if name != "nothing":
        compared[name]()(pairs.select(range(2 * batch)))


def first_losses(folder: Path, data: Path, name: str, n_steps: int, batch: int) -> list[float]:
    """Losses of the first steps of a way."""
    torch.set_num_threads(THREADS)
    way = ways(folder, batch, "fp32", TOKEN_BUDGET)[name]()
    return way(read_pairs(data).select(range(n_steps * batch))).losses


def grow(n_pairs: int) -> dict[str, float]:
    """One epoch of the embedded backbone over simulated pairs, repeated as often as it takes, every one with a mark."""
    torch.set_num_threads(THREADS)
    os.environ["RMLIB_RUNS"] = tempfile.mkdtemp()
    from rmlib.experiments.presets import PRESETS
    from rmlib.training import create_model, train

    pairs = sources.load("simulated")
    pairs = pairs.select(np.flatnonzero([bool(preference) for preference in pairs["preference"][:]]))
    rows = pairs.select(np.arange(n_pairs) % len(pairs)).map(_marked, with_indices=True, keep_in_memory=False)
    settings = PRESETS["embedded"].change(epochs=1, token_budget=TOKEN_BUDGET).preference
    run, time = timed(lambda: train(create_model(settings), rows, settings, progress=False))
    return {"pairs": n_pairs, "steps": run.summary["n_steps"], "tokens": run.summary["tokens"], **vars(time)}


def _marked(row: dict[str, Any], index: int) -> dict[str, Any]:
    first, *others = row["prompt"]
    return {"pair_id": f"{index}", "prompt": [first | {"content": f"{first['content']} ({index})"}, *others]}


# --- parts of a run ---------------------------------------------------------------------------------------------------


def run_speed(folder: Path, data: Path, options: argparse.Namespace) -> dict[str, Any]:
    lines, rounds = [], []
    for shape in options.shapes:
        made = _made(folder, data, shape)
        for precision in options.precisions:
            for batch in options.batches:
                case = (shape, batch, precision)
                outcome = measure(alternate, made, data, case, options.rounds, options.steps, options.ways).result
                lines += summary(case, outcome)
                rounds.append({"case": case, **outcome})
    print(pd.DataFrame(lines).round(3).to_string(index=False))
    return {"summary": lines, "rounds": rounds}


def run_memory(folder: Path, data: Path, options: argparse.Namespace) -> dict[str, Any]:
    rows = []
    for shape in options.shapes:
        made = _made(folder, data, shape)
        for precision in options.precisions:
            for batch in options.batches:
                for name in ["nothing", *_asked(ways(made, batch, precision, TOKEN_BUDGET), options.ways)]:
                    megabytes = measure(peak, made, data, batch, precision, name).peak_mb
                    case = {"decoder": shape, "batch": batch, "precision": precision}
                    rows.append(case | {"way": name, "MB": megabytes})
                    print(rows[-1], flush=True)
    return {"peak_mb": rows}


def run_losses(folder: Path, data: Path, options: argparse.Namespace) -> dict[str, Any]:
    made, batch, n_steps = _made(folder, data, options.shapes[0]), 4, 20
    losses = {name: measure(first_losses, made, data, name, n_steps, batch).result for name in ("ours", "plain loop")}
    difference = abs(np.subtract(losses["ours"], losses["plain loop"])).max()
    print(f"largest difference of the first {n_steps} losses: {difference:.2g}")
    return {"batch": batch, "losses": losses, "largest difference": float(difference), "limit": 1e-4}


def run_growth(folder: Path, data: Path, options: argparse.Namespace) -> dict[str, Any]:
    rows = []
    for n_pairs in options.pairs:
        done = measure(grow, n_pairs)
        rows.append(done.result | {"MB": done.peak_mb})
        print(rows[-1], flush=True)
    table = pd.DataFrame(rows)
    slope = float(np.polyfit(np.log(table["pairs"]), np.log(table["cpu_seconds"]), 1)[0])
    print(f"CPU seconds grow with pairs to the power {slope:.2f}")
    return {"rows": rows, "power": slope}


def run_gpu(folder: Path, data: Path, options: argparse.Namespace) -> dict[str, Any] | None:
    pairs = read_pairs(data)
    return gpu_training.run(pairs, texts_of(pairs), folder, options.rounds, options.steps, options.ways)


PARTS: dict[str, Callable[..., dict[str, Any] | None]] = {
    "speed": run_speed,
    "losses": run_losses,
    "memory": run_memory,
    "growth": run_growth,
    "gpu": run_gpu,
}


def _made(folder: Path, data: Path, shape: str) -> Path:
    made = folder / shape.replace(" ", "")
    if not made.is_dir():
        measure(decoders.write, made, texts_of(read_pairs(data)), VOCABULARY, SHAPES[shape] | POSITIONS, SEED)
    return made


def main() -> None:
    """Measure, print, record: a record for each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help=f"of HelpSteer2 (default: ${FOLDER_VARIABLE})")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts (default: all)")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["256 x 4", "512 x 8"], help="of decoders")
    parser.add_argument("--batches", nargs="+", type=int, default=[8, 16], help="pairs a step (default: 8 16)")
    parser.add_argument("--precisions", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--ways", nargs="+", default=[], help="beside ours (default: every one)")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4, help="optimizer steps of a round (default: 4)")
    parser.add_argument("--pairs", nargs="+", type=int, default=GROWTH, help="of the growth part (1,000 to 16,000)")
    options = parser.parse_args()
    data = options.folder or Path(os.environ.get(FOLDER_VARIABLE, ""))
    if not (data / "train.jsonl.gz").is_file() and not (data / "train.jsonl").is_file():
        raise SystemExit(f"no HelpSteer2 ratings: name a folder with train.jsonl.gz, or set {FOLDER_VARIABLE}")
    asked = {"rounds": options.rounds, "steps": options.steps, "seed": SEED, "threads": THREADS}
    asked |= {"shapes": {name: SHAPES[name] for name in options.shapes}}
    asked |= {"token budget": TOKEN_BUDGET, "vocabulary": VOCABULARY, "goals": GOALS, "most others": MOST_OTHERS}
    with tempfile.TemporaryDirectory() as folder:
        for part in options.only:
            start = time.perf_counter()
            outcome = PARTS[part](Path(folder), data, options)
            if outcome is not None:
                own = asked | gpu_training.ASKED if part == "gpu" else asked
                record("training", {"part": part, **own}, outcome, time.perf_counter() - start)


if __name__ == "__main__":
    main()
