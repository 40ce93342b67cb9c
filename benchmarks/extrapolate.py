"""Peak memory and time of extrapolating models on disk, in one file or many shards: made-up weights in bf16.

    python -m benchmarks.extrapolate

Each model has as many tensors as shards times four, so that a method that keeps the model, or a shard of a single large
file, shows it. Beside it the same done in memory with whole models, as the original code of ExPO does.
"""

import argparse
import json
import tempfile
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from benchmarks.measure import measure, record
from rmlib.combining import PAPER_FACTOR, extrapolate
from rmlib.models.saved_tensors import INDEX_FILE

TENSORS_A_SHARD, SIDE = 4, 1536  # 1536 x 1536 in bf16: 4.5 MiB a tensor


def write_model(folder: Path, n_shards: int, n_files: int, seed: int) -> None:
    """A model of `n_shards` shards' worth of tensors, in `n_files` files."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    names = [f"layers.{number}.weight" for number in range(n_shards * TENSORS_A_SHARD)]
    weight_map: dict[str, str] = {}
    for number in range(n_files):
        file = f"model-{number + 1:05d}-of-{n_files:05d}.safetensors" if n_files > 1 else "model.safetensors"
        tensors = {name: torch.randn(SIDE, SIDE, generator=generator).bfloat16() for name in names[number::n_files]}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, file)
    if n_files > 1:
        (folder / INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def on_disk(weak: Path, strong: Path, target: Path) -> None:
    """Ours: tensor by tensor."""
    extrapolate(weak, strong, PAPER_FACTOR, target)


def in_memory(weak: Path, strong: Path, target: Path) -> None:
    """Both models whole, then the new one."""
    old, new = ({k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}
                for folder in (weak, strong))  # fmt: skip
    moved = {k: (old[k].float() + PAPER_FACTOR * (new[k].float() - old[k].float())).to(new[k].dtype) for k in new}
    target.mkdir()
    save_file(moved, target / "model.safetensors")


def nothing() -> None:
    """What the imports alone take."""


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, nargs="+", default=[2, 12], help="(default: 2 12)")
    options = parser.parse_args()
    rows = [{"method": "imports alone", "shards": 0, "files": 0, "model MB": 0.0, "peak MB": measure(nothing).peak_mb}]
    for n_shards in options.shards:
        for n_files in (n_shards, 1):
            with tempfile.TemporaryDirectory() as folder:
                weak, strong = Path(folder) / "weak", Path(folder) / "strong"
                for seed, model in enumerate((weak, strong)):
                    write_model(model, n_shards, n_files, seed)
                size = sum(file.stat().st_size for file in strong.glob("*.safetensors")) / 2**20
                for method in (on_disk, in_memory):
                    measured = measure(method, weak, strong, Path(folder) / method.__name__)
                    row = {"method": method.__name__, "shards": n_shards, "files": n_files, "model MB": size}
                    rows.append(row | {"peak MB": measured.peak_mb, "seconds": measured.seconds})
    table = pd.DataFrame(rows)
    print(table.round(2).to_string(index=False))
    ours = table[table["method"] == "on_disk"]
    record("extrapolate", {"shards": options.shards}, {"runs": rows}, float(ours["seconds"].sum()))


if __name__ == "__main__":
    main()
