"""The GPU part of `benchmarks.training`: a 1 B decoder in bf16 beside TRL at its best, and QLoRA of an 8 B shape.

Weights are random. Utilisation is that of the device's own measured matrix products, for the operations that the tokens
need when each prompt is computed once: padding and repeated prompts count for nothing.
"""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from benchmarks import decoders
from benchmarks.trainers import Ours, Trl, groups_of, load, n_shared
from rmlib.models import RewardModel

_LLAMA = {"max_position_embeddings": 8192, "num_key_value_heads": 8, "num_attention_heads": 32}
ONE_BILLION = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, **_LLAMA}  # Llama 3.2 1B
EIGHT_BILLION = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, **_LLAMA}  # Llama 3.1 8B
PAIRS_A_STEP, STEPS, ROUNDS, TOKEN_BUDGET, VOCABULARY = 64, 4, 3, 32_768, 16_384
NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}


def run(pairs: Dataset, texts: list[str], folder: Path) -> dict[str, Any] | None:
    """Everything on the GPU, or None where there is none."""
    if not torch.cuda.is_available():
        print("gpu: not run, this machine has no CUDA device; the script is ready for one that has")
        return None
    decoders.write(folder / "1b", texts, VOCABULARY, ONE_BILLION, 0)
    rows = _alternate(folder / "1b", pairs)
    return {"device": torch.cuda.get_device_name(), "rows": rows, "qlora": _qlora(folder / "8b", texts, pairs)}


def _alternate(folder: Path, pairs: Dataset) -> list[dict[str, Any]]:
    part = pairs.select(range(PAIRS_A_STEP * STEPS))
    ways: dict[str, Any] = {"ours": Ours(load(folder), PAIRS_A_STEP, precision="bf16", token_budget=TOKEN_BUDGET)}
    ways["TRL"] = _largest(folder, part)
    n_useful = n_shared(groups_of(ways["ours"].model.tokenizer, part))
    needed, rate = 6 * _linear_weights(ways["ours"].model) * n_useful, _matrix_rate()
    rows = []
    for number in range(ROUNDS + 1):
        for name, way in ways.items():
            way.model.to("cuda")
            torch.cuda.reset_peak_memory_stats()
            done = way(part)
            row = {"round": number, "way": name, "tokens": done.n_tokens, **vars(done.time), **_memory()}
            rows.append(row | {"utilisation": needed / done.time.seconds / rate})
            way.model.to("cpu")
            torch.cuda.empty_cache()
            print(rows[-1], flush=True)
    return [row for row in rows if row["round"]]  # the first compiles and fills caches


def _largest(folder: Path, part: Dataset) -> Trl:
    """TRL without activation checkpointing, with the largest batch that fits."""
    for size in (64, 32, 16, 8, 4, 2, 1):
        steps = PAIRS_A_STEP // size
        way = Trl(folder, size, bf16=True, gradient_checkpointing=False, gradient_accumulation_steps=steps)
        try:
            way(part.select(range(PAIRS_A_STEP)))
            return way
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
    raise RuntimeError("not even one pair fits this GPU")


def _qlora(folder: Path, texts: list[str], pairs: Dataset) -> dict[str, Any]:
    """Time and memory of four steps with adapters on a 4-bit backbone."""
    decoders.write_backbone(folder, texts, VOCABULARY, EIGHT_BILLION, 0, dtype=torch.bfloat16)
    model = RewardModel.create(str(folder / "backbone"), lora={"r": 32, "lora_alpha": 64}, quantization=NF4)
    way = Ours(model, PAIRS_A_STEP, precision="bf16", token_budget=TOKEN_BUDGET)
    torch.cuda.reset_peak_memory_stats()
    done = way(pairs.select(range(PAIRS_A_STEP * STEPS)))
    return {"tokens": done.n_tokens, **vars(done.time), **_memory()}


def _linear_weights(model: RewardModel) -> int:
    return sum(weight.numel() for weight in model.backbone.layers.parameters() if weight.ndim == 2)


def _memory() -> dict[str, float]:
    return {"peak GB": torch.cuda.max_memory_allocated() / 1e9}


def _matrix_rate() -> float:
    """Operations a second of bf16 products of 8192 x 8192, the best of ten."""
    left = torch.randn(8192, 8192, dtype=torch.bfloat16, device="cuda")
    best = 0.0
    for _ in range(10):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        left @ left
        end.record()
        torch.cuda.synchronize()
        best = max(best, 2 * 8192**3 / (start.elapsed_time(end) / 1e3))
    return best
