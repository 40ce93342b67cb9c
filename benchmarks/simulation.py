"""The simulator: pairs per second, share of distinct texts, and that memory does not grow with the number of pairs.

    python -m benchmarks.simulation [--pairs 40000]

A million pairs take minutes; the second size is always a tenth of the first.
"""

import argparse
import hashlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.measure import Measured, measure, record
from rmlib.records.hashing import prompt_key
from rmlib.sources.simulated.generation import generate
from tools import simulated_data

SEED = 0
KINDS = ("prompts", "responses", "pairs")


def write(n_pairs: int) -> int:
    """Stream pairs to a file that is then removed; its size in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        return simulated_data.stream(Path(folder), n_pairs, SEED).stat().st_size


def rows(n_pairs: int) -> int:
    """Generate pairs, and write nothing."""
    return sum(1 for _ in generate(n_pairs, SEED))


def distinct(n_pairs: int) -> dict[str, float]:
    """Share of texts that differ from all others, by 64-bit hashes: 8 bytes a text, so that a million fit."""
    hashes = {kind: np.empty(n_pairs * (2 if kind == "responses" else 1), dtype=np.uint64) for kind in KINDS}
    for index, row in enumerate(generate(n_pairs, SEED)):
        prompt, responses = prompt_key(row["prompt"]), (row["response_1"], row["response_2"])
        hashes["prompts"][index] = _hash(prompt)
        hashes["responses"][2 * index : 2 * index + 2] = [_hash(response) for response in responses]
        hashes["pairs"][index] = _hash("\0".join((prompt, *responses)))
    return {kind: len(np.unique(values)) / len(values) for kind, values in hashes.items()}


def main() -> None:
    """Print the table and append the record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation", description=__doc__)
    parser.add_argument("--pairs", type=int, default=40_000, help="default: %(default)s")
    n_pairs: int = parser.parse_args().pairs
    sizes = (n_pairs // 10, n_pairs)
    measured = {(step.__name__, n): measure(step, n) for n in sizes for step in (rows, write)}
    shares = {n: measure(distinct, n) for n in sizes}
    table = pd.DataFrame([_line(step, n, result) for (step, n), result in measured.items()])
    print(table.to_string(index=False, float_format="%.1f"))
    texts = pd.DataFrame({n: result.result for n, result in shares.items()}).T.rename_axis("pairs asked for")
    print("\nshare of distinct texts\n" + texts.to_string(float_format="%.4f"))
    outcome = {"steps": table.to_dict("records"), "distinct": {str(n): result.result for n, result in shares.items()}}
    seconds = sum(result.seconds for result in (*measured.values(), *shares.values()))
    record("simulation", {"pairs": n_pairs, "seed": SEED}, outcome, seconds)


def _line(step: str, n_pairs: int, result: Measured) -> dict[str, Any]:
    return {
        "step": step,
        "pairs": n_pairs,
        "seconds": result.seconds,
        "pairs per second": n_pairs / result.seconds,
        "peak MB": result.peak_mb,
    }


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


if __name__ == "__main__":
    main()
