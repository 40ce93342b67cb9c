"""How far a reward depends on what it is batched with, in fp32 and in bf16, on real files.

    python -m benchmarks.invariance [folder of real files]

The same responses are scored each alone, under several token budgets in the order of the file, and shuffled (which
takes responses of one prompt apart, so that nothing is shared). Differences are given in standard deviations of the
rewards, since the heads are random and their scale means nothing; a margin is that of two candidates of an item. A CPU
without bf16 instructions emulates them, many times slower: hence few items, from the shorter half of each set.
"""

import argparse
import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.measure import measure, record
from benchmarks.real_files import SETS, FileSet, data_folder, read_all
from benchmarks.scoring import SEED, write_models
from rmlib.models import RewardModel

BATCHINGS = (("as filed", 512), ("as filed", 4_096), ("as filed", 16_384), ("shuffled", 4_096))  # order, token budget
PRECISIONS = ("fp32", "bf16 autocast", "bf16 weights")
LIMITS = {"difference in fp32": 1e-5, "margin whose sign may change": 1e-4}


def spread_out(items: FileSet, size: int) -> FileSet:
    """Items of the shorter half, evenly spread over its lengths, in the order of the file."""
    columns = zip(items.prompts, items.candidates, strict=True)
    lengths = [sum(map(len, [prompt[0]["content"], *some])) for prompt, some in columns]
    shorter = np.argsort(lengths, kind="stable")[: (len(lengths) + 1) // 2]
    taken = np.unique(shorter[np.linspace(0, len(shorter) - 1, size).astype(int)])
    return FileSet([items.prompts[i] for i in taken], [items.candidates[i] for i in taken])


def rewards(model: RewardModel, precision: str, items: FileSet, order: np.ndarray, budget: int) -> np.ndarray:
    """Rewards `[response]` in the order of the items, whatever the order in which they were scored."""
    prompts, responses = items.flat
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16 autocast"):
        found = model.score([prompts[i] for i in order], [responses[i] for i in order], token_budget=budget)
    result = np.empty_like(found)
    result[order] = found
    return result.astype(float)


def compare(backbone: str, precision: str, items: FileSet) -> dict[str, Any]:
    """Largest difference from scoring each response alone, and the largest margin that changes its sign."""
    torch.set_num_threads(1)
    dtype = torch.bfloat16 if precision == "bf16 weights" else torch.float32
    model = RewardModel.create(backbone, seed=SEED, dtype=dtype)
    n, n_candidates = len(items.flat[1]), len(items.candidates[0])
    in_turn = np.arange(n).reshape(-1, n_candidates).T.ravel()  # no two responses of one prompt in a row
    alone = rewards(model, precision, items, in_turn, 1)
    orders = {"as filed": np.arange(n), "shuffled": np.random.default_rng(SEED).permutation(n)}
    margins, spread = _margins(alone, n_candidates), alone.std()
    differences, flipped = [], [0.0]
    for order, budget in BATCHINGS:
        found = rewards(model, precision, items, orders[order], budget)
        differences.append(np.abs(found - alone).max() / spread)
        changed = np.sign(_margins(found, n_candidates)) != np.sign(margins)
        flipped.append(np.abs(margins[changed]).max(initial=0.0) / spread)
    found_out = {"largest difference": max(differences), "margin of a changed sign": max(flipped)}
    row = {"responses": n, "sd": spread, **found_out}
    return row | {"ties alone": int((margins == 0).sum()), "margins": len(margins)}


def _margins(found: np.ndarray, n_candidates: int) -> np.ndarray:
    first, second = np.triu_indices(n_candidates, 1)
    table = found.reshape(-1, n_candidates)
    return (table[:, first] - table[:, second]).ravel()


def rows_of(backbones: dict[str, str], sets: dict[str, FileSet]) -> list[dict[str, Any]]:
    """One row for each backbone, precision and set."""
    rows = []
    for (name, backbone), precision, (of, items) in itertools.product(backbones.items(), PRECISIONS, sets.items()):
        about = {"backbone": name, "precision": precision, "set": of}
        rows.append(about | compare(backbone, precision, items))
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="of real files (default: $RMLIB_SHARED_DATA)")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), help="(default: all)")
    parser.add_argument("--items", type=int, default=6, help="of each set (default: 6)")
    options = parser.parse_args()
    files = read_all(data_folder(options.folder))
    sets = {name: spread_out(files[name], options.items) for name in options.sets}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = [text for items in sets.values() for text in items.texts]
        measure(write_models, folder, texts)
        backbones = {"decoder": str(folder / "backbone"), "minilm": "minilm"}
        measured = measure(rows_of, backbones, sets)
    table = pd.DataFrame(measured.result)
    worst = table.groupby(["backbone", "precision"])[["largest difference", "margin of a changed sign"]].max()
    print(worst.to_string())
    asked = {
        "sets": options.sets,
        "items": options.items,
        "batchings": BATCHINGS,
        "limits": LIMITS,
        "seed": SEED,
        "threads": 1,
    }
    record("invariance", asked, {"rows": measured.result}, measured.seconds)


if __name__ == "__main__":
    main()
