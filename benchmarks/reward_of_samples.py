"""Time of the rewards of K = 4 samples of a prompt: each prompt encoded once, beside plain batched scoring.

    python -m benchmarks.reward_of_samples

Both ways are `RewardModel.score` of the same decoder on the same texts, prompts as long as responses; the plain way is
the padded layout, one row a sample, sorted by length. The bound is the number of tokens, 4 (P + R) over P + 4 R: 1.6
where P = R. The two take turns in short rounds in one process; a round during which others used the cores is voided.
"""

import copy
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, LlamaConfig

from benchmarks.measure import measure, record, timed
from rmlib.models import RewardModel, backbones
from tools.embedded_backbone import make_tokenizer

K, N_PROMPTS, ROUNDS, ATTEMPTS = 4, 8, 8, 3
LENGTHS = (128, 256, 512)  # tokens of a prompt, and of a response
SHAPE = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 4}
LIMITS = {"share of the bound": 0.9, "others": 0.1, "reward difference": 1e-4}


def make_model(folder: Path, words: list[str]) -> RewardModel:
    """A random decoder whose tokenizer has each of the words as one token."""
    tokenizer = make_tokenizer(" ".join(words) for _ in range(3))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    AutoModel.from_config(LlamaConfig(vocab_size=len(tokenizer), **SHAPE)).save_pretrained(folder)
    return RewardModel.create(str(folder), seed=0)


def texts(words: list[str], n_tokens: int, rng: np.random.Generator) -> tuple[list[Any], list[str]]:
    """Prompts and their K responses, about `n_tokens` each."""

    def text() -> str:
        return " ".join(rng.choice(words, n_tokens))

    prompts = [[{"role": "user", "content": text()}] for _ in range(N_PROMPTS)]
    return [prompt for prompt in prompts for _ in range(K)], [text() for _ in range(N_PROMPTS * K)]


def compare() -> list[dict[str, Any]]:
    """One row a length: tokens, and the seconds of each round that counted."""
    torch.set_num_threads(2)
    words = [a + b for a in ("ba", "ke", "li", "mo", "nu", "pa", "re", "si") for b in ("da", "fe", "gi", "ho", "ju")]
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        once = make_model(Path(name), words)
    plain = copy.copy(once)
    plain.shared = False
    assert backbones.shares_prefix(once.backbone, once.max_length)[0]
    return [_length_row(once, plain, *texts(words, n_tokens, rng), n_tokens) for n_tokens in LENGTHS]


def _length_row(
    once: RewardModel, plain: RewardModel, prompts: list[Any], responses: list[str], n_tokens: int
) -> dict[str, Any]:
    groups = once.groups(prompts, responses)
    shared, whole = sum(item.n_tokens_shared for item in groups), sum(item.n_tokens_plain for item in groups)
    rewards = [model.score(prompts, responses) for model in (once, plain)]  # the first call loads things
    seconds: dict[str, list[float]] = {"once": [], "plain": []}
    voided = contended = 0
    for number in range(ROUNDS):
        for attempt in range(ATTEMPTS):
            order = [("once", once), ("plain", plain)][:: 1 if number % 2 else -1]
            found = {name: timed(model.score, prompts, responses)[1] for name, model in order}
            if max(one.others for one in found.values()) <= LIMITS["others"]:
                break
            voided += 1
            contended += attempt == ATTEMPTS - 1
        for name, one in found.items():
            seconds[name].append(one.seconds)
    ratios = np.array(seconds["plain"]) / np.array(seconds["once"])
    bound, ratio = whole / shared, float(np.sum(seconds["plain"]) / np.sum(seconds["once"]))
    row = {"length": n_tokens, "bound": bound, "ratio": ratio, "share": ratio / bound}
    row |= {"low": float(ratios.min()), "high": float(ratios.max()), "rounds": ROUNDS, "voided": voided}
    row |= {"contended": contended, "difference": float(np.abs(rewards[0] - rewards[1]).max())}
    print({name: round(value, 6) for name, value in row.items()}, flush=True)
    return row


def main() -> None:
    """Measure, print, record."""
    measured = measure(compare)
    asked = {"k": K, "prompts": N_PROMPTS, "lengths": LENGTHS, "rounds": ROUNDS, "attempts": ATTEMPTS, "threads": 2}
    asked |= {"decoder": SHAPE, "limits": LIMITS}
    record("reward_of_samples", asked, {"rows": measured.result}, measured.seconds)


if __name__ == "__main__":
    main()
