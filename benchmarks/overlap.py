"""Time and memory of rmlib.pairs.overlap: simulated pairs with their benchmark, and a stand-in as large as HelpSteer2.

python -m benchmarks.overlap
"""

import time
from typing import Any

import numpy as np
import pandas as pd
from datasets import Dataset

from benchmarks.measure import measure, record
from rmlib import benchmarks
from rmlib.pairs import make_pairs, overlap
from rmlib.sources import simulated

N_PAIRS, WORDS_PER_RESPONSE, WORDS_PER_PROMPT, VOCABULARY = 10_000, 250, 60, 20_000
N_EXACT, N_NEAR = 200, 500  # responses of the stand-in that repeat an earlier one, with one word changed if near
SEED = 0


def stand_in(n_pairs: int = N_PAIRS, seed: int = SEED) -> Dataset:
    """Pairs of random words with the frequencies of a natural text (Zipf), some responses planted twice."""
    rng = np.random.default_rng(seed)
    frequency = 1 / np.arange(1, VOCABULARY + 1)
    vocabulary = np.array([_spelled(number) for number in range(VOCABULARY)])
    n_words = n_pairs * (WORDS_PER_PROMPT + 2 * WORDS_PER_RESPONSE)
    drawn = vocabulary[rng.choice(VOCABULARY, size=n_words, p=frequency / frequency.sum())].reshape(n_pairs, -1)
    prompts, first, second = np.split(drawn, [WORDS_PER_PROMPT, WORDS_PER_PROMPT + WORDS_PER_RESPONSE], axis=1)
    planted = N_EXACT + N_NEAR
    second[-planted:] = first[:planted]
    second[-N_NEAR:, WORDS_PER_RESPONSE // 2] = "replaced"
    texts = [[" ".join(row) for row in part] for part in (prompts, first, second)]
    return make_pairs(
        (
            {
                "split": "train" if index % 10 else "validation",
                "prompt": [{"role": "user", "content": prompt}],
                "response_1": one,
                "response_2": two,
            }
            for index, (prompt, one, two) in enumerate(zip(*texts, strict=True))
        ),
        origin="stand-in",
    )


def on_simulated() -> dict[str, Any]:
    """The report on the simulated pairs and their benchmark."""
    pairs, items = simulated.load(), benchmarks.load("rewardbench")
    return _reported(pairs, items)


def on_stand_in() -> dict[str, Any]:
    """The report on the stand-in, which must find what was planted."""
    outcome = _reported(stand_in(), None)
    found = outcome["response"]
    if (found["exact_pairs"], found["near_pairs"]) != (N_EXACT, N_NEAR):
        raise RuntimeError(f"planted {N_EXACT} exact and {N_NEAR} near-duplicates, found {found}")
    return outcome


def main() -> None:
    """Measure both, print a table, append a record."""
    start = time.perf_counter()
    rows, outcome = [], {}
    for name, function in {"simulated": on_simulated, "stand-in": on_stand_in}.items():
        measured = measure(function)
        outcome[name] = measured.result | {"peak_mb": round(measured.peak_mb)}
        rows.append({"pairs": name} | {key: outcome[name][key] for key in ("n_pairs", "seconds", "peak_mb")})
    print(pd.DataFrame(rows).to_string(index=False))
    asked = {"stand_in": {"n_pairs": N_PAIRS, "words": [WORDS_PER_PROMPT, WORDS_PER_RESPONSE]}, "seed": SEED}
    record("overlap", asked, outcome, time.perf_counter() - start)


def _reported(pairs: Dataset, items: Dataset | None) -> dict[str, Any]:
    """Seconds of the report alone, without loading, and its counts over all scopes."""
    start = time.perf_counter()
    report = overlap.report(pairs, items)
    seconds = round(time.perf_counter() - start, 2)
    counts = report.table().groupby("kind")[["exact_pairs", "near_pairs"]].sum()
    found = {str(kind): row.to_dict() for kind, row in counts.iterrows()}
    return {"n_pairs": len(pairs), "seconds": seconds, **found}


def _spelled(number: int) -> str:
    """A made-up word of five letters for each number, so that a response has about 1,500 characters."""
    return "".join(chr(97 + number // 26**place % 26) for place in range(5))


if __name__ == "__main__":
    main()
