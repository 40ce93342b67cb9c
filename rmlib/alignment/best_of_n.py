"""Best of n: the answer that a reward likes best among n of a policy's; no training, and its divergence is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from rmlib.alignment import estimators
from rmlib.alignment.policies import Policy, Samples
from rmlib.alignment.rewards import AlignmentError, scores_of
from rmlib.models import Prompt, Scorer
from rmlib.records import paths
from rmlib.records.hashing import fingerprint, prompt_key
from rmlib.records.kept import kept_json

ROWS_AT_ONCE = 512  # of more, the cache of keys and values leaves that of a CPU


def kept_samples(policy: Policy, prompts: Sequence[Prompt], n: int, *, max_new_tokens: int, seed: int) -> Samples:
    """`n` samples to each prompt, drawn once and found again in runs/."""
    keys = [prompt_key(prompt) for prompt in prompts]
    identity = fingerprint("samples", policy.identity, keys, n, max_new_tokens, seed, ROWS_AT_ONCE)
    size = max(1, ROWS_AT_ONCE // n)

    def draw() -> list[list[int]]:
        rows = []
        for at in range(0, len(prompts), size):
            part = policy.sample(prompts[at : at + size], n, max_new_tokens=max_new_tokens, seed=seed + at)
            rows += [row.tolist() for row in part.ids]
        return rows

    rows = [np.array(row, dtype=np.int64) for row in kept_json(paths.runs_dir() / "samples" / f"{identity}.json", draw)]
    return policy.as_samples(prompts, policy.prompt_ids(prompts), n, rows)


def distinct_scores(scorer: Scorer, samples: Samples) -> Float[np.ndarray, "prompt sample"]:
    """Scores of all samples; a text that a prompt got several times is read once, and each prompt encoded once."""
    n = samples.n_per_prompt
    pairs = [(row // n, text) for row, text in enumerate(samples.texts)]
    place = {pair: index for index, pair in enumerate(dict.fromkeys(pairs))}
    prompts, texts = [samples.prompts[index] for index, _ in place], [text for _, text in place]
    values = scores_of(scorer, prompts, texts)
    return values[[place[pair] for pair in pairs]].reshape(-1, n)


def best_of_n(samples: Samples, reward: Float[np.ndarray, "prompt sample"]) -> list[str]:
    """The text of each prompt with the highest reward among those that ended, or among all where none did."""
    rank = _ranked(samples, reward)
    return [samples.texts[row * samples.n_per_prompt + best] for row, best in enumerate(rank.argmax(axis=1))]


def curve(
    samples: Samples, proxy: Float[np.ndarray, "prompt sample"], scores: dict[str, Float[np.ndarray, "prompt sample"]]
) -> list[dict[str, Any]]:
    """For n = 1, 2, 4, … all samples: divergence, and of each score what the best of n by the proxy is expected to get.

    Every row has `n`, `divergence` (nats; see `estimators.best_of_n_divergence`), and a list over prompts for "proxy"
    and each of the scores. What did not end ranks below all that did, with its score as it is.
    """
    rank, read = _ranked(samples, proxy), {"proxy": proxy, **scores}
    return [
        {"n": n, "divergence": estimators.best_of_n_divergence(n)}
        | {name: estimators.best_of_n_expectation(rank, values, n).round(4).tolist() for name, values in read.items()}
        for n in (2**power for power in range(int(np.log2(samples.n_per_prompt)) + 1))
    ]


def _ranked(samples: Samples, reward: Float[np.ndarray, "prompt sample"]) -> Float[np.ndarray, "prompt sample"]:
    ended = samples.ended.reshape(reward.shape)
    if broken := int((~np.isfinite(reward) & ended).sum()):
        raise AlignmentError(f"{broken} ended samples have a reward that is no finite number: mend the reward model")
    known = np.where(np.isfinite(reward), reward, np.nan)
    low, high = (function(known, axis=1, keepdims=True) for function in (np.nanmin, np.nanmax))
    return np.where(ended, reward, np.where(np.isfinite(reward), reward, low) - (high - low) - 1.0)
