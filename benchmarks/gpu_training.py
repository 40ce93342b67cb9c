"""The GPU part of `benchmarks.training`: a 1 B decoder in bf16 beside TRL at its best, and QLoRA of an 8 B shape.

Weights are random. Utilisation is that of the device's own measured matrix products, for the operations that the tokens
need when each prompt is computed once: padding and repeated prompts count for nothing, nor does attention itself.
"""

import gc
from collections.abc import Callable
from functools import partial
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
PAIRS_A_STEP, TOKEN_BUDGET, VOCABULARY = 64, 16_384, 16_384
ASKED = {
    "shapes": {"1 B": ONE_BILLION, "8 B": EIGHT_BILLION},
    "pairs a step": PAIRS_A_STEP,
    "token budget": TOKEN_BUDGET,
}
NF4 = {
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "bnb_4bit_compute_dtype": torch.bfloat16,
}


def run(
    pairs: Dataset, texts: list[str], folder: Path, n_rounds: int, n_steps: int, wanted: list[str]
) -> dict[str, Any] | None:
    """Everything on the GPU, or what is `wanted` beside ours (WAYS); None where there is no GPU."""
    if not torch.cuda.is_available():
        print("gpu: not run, this machine has no CUDA device; the script is ready for one that has")
        return None
    part, rate = pairs.select(range(PAIRS_A_STEP * n_steps)), _matrix_rate()
    outcome = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "matrix TFLOP/s": rate / 1e12}
    decoders.write(folder / "1b", texts, VOCABULARY, ONE_BILLION, 0)
    outcome["rows"] = _alternate(folder / "1b", part, n_rounds, rate, wanted or list(WAYS))
    return outcome | ({"qlora": _qlora(folder / "8b", texts, part, rate)} if not wanted or "QLoRA" in wanted else {})


def _alternate(folder: Path, part: Dataset, n_rounds: int, rate: float, wanted: list[str]) -> list[dict[str, Any]]:
    ways = {name: make(folder, part) for name, make in WAYS.items() if name in ("ours", *wanted)}
    needed = 6 * _linear_weights(ONE_BILLION) * n_shared(groups_of(ways["ours"].model.tokenizer, part))
    rows = []
    for number in range(n_rounds + 1):
        for name, way in ways.items():
            way.model.to("cuda")
            rows.append({"round": number, "way": name, **_run(way, part, needed, rate)})
            way.model.to("cpu")
            _free()
            print(rows[-1], flush=True)
    return [row for row in rows if row["round"]]  # the first compiles and fills caches


def _run(way: Ours | Trl, part: Dataset, needed: float, rate: float) -> dict[str, Any]:
    """Time, memory, losses of a way on these pairs; `needed`: operations of the linear layers without waste."""
    torch.cuda.reset_peak_memory_stats()
    done = way(part)
    row = {"pairs in a pass": way.batch, "tokens": done.n_tokens, **vars(done.time), "losses": done.losses}
    return row | {"peak GB": torch.cuda.max_memory_allocated() / 1e9, "utilisation": needed / done.time.seconds / rate}


def _ours(folder: Path, part: Dataset, **options: Any) -> Ours:
    return Ours(load(folder), PAIRS_A_STEP, precision="bf16", token_budget=TOKEN_BUDGET, **options)


def _largest(folder: Path, part: Dataset) -> Trl:
    """TRL in bf16 without activation checkpointing, with the largest batch that fits all of these pairs."""
    for size in (64, 32, 16, 8, 4, 2, 1):
        steps = PAIRS_A_STEP // size
        way = Trl(folder, size, bf16=True, gradient_checkpointing=False, gradient_accumulation_steps=steps)
        if _fits(partial(way, part)):
            return way
        del way
        _free()
    raise RuntimeError("not even one pair fits this GPU")


WAYS: dict[str, Callable[[Path, Dataset], Ours | Trl]] = {
    "ours": _ours,
    "ours, compiled": lambda folder, part: _ours(folder, part, compile="inductor"),
    "TRL": _largest,
}


def _fits(call: Callable[[], Any]) -> bool:
    try:
        call()
    except torch.cuda.OutOfMemoryError:
        return False
    return True


def _free() -> None:
    gc.collect()
    torch.cuda.empty_cache()


def _qlora(folder: Path, texts: list[str], part: Dataset, rate: float) -> dict[str, Any]:
    """Time and memory of some steps with adapters on a 4-bit backbone, of the second call: the first fills caches.

    A frozen weight has no gradient: four operations in place of six.
    """
    with torch.device("cuda"):
        decoders.write_backbone(folder, texts, VOCABULARY, EIGHT_BILLION, 0, dtype=torch.bfloat16)
    _free()
    model = RewardModel.create(
        str(folder / "backbone"), lora={"r": 32, "lora_alpha": 64}, quantization=NF4, dtype=torch.bfloat16
    )
    n_weights = _linear_weights(EIGHT_BILLION)
    needed = 4 * n_weights * n_shared(groups_of(model.tokenizer, part))
    way = Ours(model, PAIRS_A_STEP, precision="bf16", token_budget=TOKEN_BUDGET // 2)
    rows = [_run(way, part, needed, rate) for _ in range(2)]
    print(rows[-1], flush=True)
    return {"linear weights": n_weights, **rows[-1]}


def _linear_weights(shape: dict[str, int]) -> int:
    """Weights of the linear layers of a Llama, embeddings aside."""
    hidden, inner = shape["hidden_size"], shape["intermediate_size"]
    shared = hidden * shape["num_key_value_heads"] // shape["num_attention_heads"]
    return shape["num_hidden_layers"] * (2 * hidden * hidden + 2 * hidden * shared + 3 * hidden * inner)


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
