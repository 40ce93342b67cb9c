"""Time and peak memory of loading HelpSteer2 at the size of the full release: `python -m benchmarks.loading`.

The files are a stand-in of random words with the released numbers of rows and lengths of text. The first load reads and
joins them, the second finds the table in the cache.
"""

import gzip
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from rmlib.pairs.schema import ATTRIBUTES, NEITHER_VALID
from rmlib.sources import helpsteer2
from rmlib.sources.helpsteer2.release import DECIDED_PAIRS, FILES, PAIRS

ROWS = {part: file.rows for part, file in FILES.items()}
PREFERENCES = {"train": 8_677, "validation": 448}
PROMPT_CHARS, RESPONSE_CHARS, JUSTIFICATION_CHARS = 713, 1_490, 500  # means; the last is a guess
MULTI_TURN = 0.29
LIMITS = {"first load": 15.0, "second load": 2.0}  # seconds
PEAK_MB = 1_500.0

Row = dict[str, Any]


class Words:
    """Random words: texts of a wanted mean length (gamma, shape 2), each with a number of its own in front."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        letters = self.rng.choice(list("etaoinshrdlucmfwypvbgk"), (4_000, 12))
        words = ["".join(row[:length]) for row, length in zip(letters, self.rng.integers(2, 12, 4_000), strict=True)]
        ranks = 1 / np.arange(2, len(words) + 2)
        self.stock = " ".join(self.rng.choice(words, 2_000_000, p=ranks / ranks.sum()))
        self.made = 0

    def text(self, mean: int) -> str:
        length = int(self.rng.gamma(2.0, mean / 2)) + 1
        start = int(self.rng.integers(0, len(self.stock) - length))
        self.made += 1
        return f"{self.made} {self.stock[start : start + length]}"

    def prompt(self) -> str:
        turns = 3 if self.rng.random() < MULTI_TURN else 1
        first, *later = [self.text(PROMPT_CHARS // turns) for _ in range(turns)]
        roles = ("Assistant", "User")
        return first + "".join(f"\n<extra_id_1>{role}\n{text}" for role, text in zip(roles, later, strict=False))


def write_release(folder: Path, seed: int) -> None:
    """The four files in the released layout and numbers of rows, one pair of twice the same text included."""
    words = Words(seed)
    rated = {split: [_pair(words) for _ in range(count)] for split, count in PAIRS.items()}
    rated["train"][4_465][1] |= rated["train"][4_465][0]
    for split, pairs in rated.items():
        _write(folder / FILES[split].name, (row for pair in pairs for row in pair))
    preferred = [(split, pair) for split, count in PREFERENCES.items() for pair in rated[split][-count:]]
    strengths = np.concatenate([_strengths(words.rng, split) for split in PREFERENCES])
    order = words.rng.permutation(len(preferred))
    rows = (_preference(words, preferred[index], int(strengths[index])) for index in order)
    _write(folder / FILES["preference"].name, rows)
    responses = [row for pairs in rated.values() for pair in pairs for row in pair]
    responses += [row for _ in range((ROWS["disagreements"] - len(responses)) // 2) for row in _pair(words)]
    order = words.rng.permutation(len(responses))
    _write(folder / FILES["disagreements"].name, (_disagreement(words.rng, responses[index]) for index in order))


def load(folder: Path) -> tuple[int, int]:
    """Numbers of pairs and of annotations."""
    table = helpsteer2.load(folder)
    return len(table), sum(map(len, filter(None, table["annotations"][:])))


def main(seed: int = 0) -> None:
    """Write the stand-in, load it twice, print and record time and peak memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "release"
        write_release(folder, seed)
        os.environ["RMLIB_RUNS"] = str(Path(name) / "runs")
        measured = {load_name: measure.measure(load, folder) for load_name in LIMITS}
    pairs, annotations = measured["first load"].result
    outcome: dict[str, Any] = {"pairs": pairs, "annotations": annotations}
    print(f"{pairs:,} pairs with {annotations:,} annotations from {sum(ROWS.values()):,} rows")
    for load_name, one in measured.items():
        limits = f"limits {LIMITS[load_name]:g} s, {PEAK_MB:,.0f} MB"
        print(f"{load_name:12} {one.seconds:6.2f} s  peak {one.peak_mb:6,.0f} MB  ({limits})")
        same = one.result == (pairs, annotations)
        outcome[load_name] = {"seconds": one.seconds, "peak_mb": one.peak_mb, "same_table": same}
    asked = {"rows": ROWS, "seed": seed, "limits_seconds": LIMITS, "limit_peak_mb": PEAK_MB}
    measure.record("loading", asked, outcome, sum(one.seconds for one in measured.values()))


def _pair(words: Words) -> list[Row]:
    prompt = words.prompt()
    return [
        {"prompt": prompt, "response": words.text(RESPONSE_CHARS)}
        | {attribute: int(words.rng.integers(0, 5)) for attribute in ATTRIBUTES}
        for _ in range(2)
    ]


def _strengths(rng: np.random.Generator, split: str) -> np.ndarray:
    """As many decided ones as released, the rest ties, in random order."""
    decided = rng.choice([-3, -2, -1, 1, 2, 3], DECIDED_PAIRS[split])
    return rng.permutation(np.append(decided, np.zeros(PREFERENCES[split] - len(decided), dtype=int)))


def _preference(words: Words, preferred: tuple[str, list[Row]], strength: int) -> Row:
    split, pair = preferred
    first, second = pair if words.rng.random() < 0.9 else pair[::-1]
    parts = [
        {"statement": words.text(JUSTIFICATION_CHARS // 4), "elaboration": words.text(3 * JUSTIFICATION_CHARS // 4)}
        | {"strength": strength}
        for _ in range(3)
    ]
    raw = [{"strength": p["strength"], "justification": f"{p['statement']} {p['elaboration']}"} for p in parts]
    if words.rng.random() < 0.4:
        raw.append({"strength": NEITHER_VALID, "justification": words.text(JUSTIFICATION_CHARS)})
    return {
        "split": {"train": "train", "validation": "val"}[split],
        "prompt": first["prompt"],
        "response_1": first["response"],
        "response_2": second["response"],
        "preference_strength": strength,
        "preference_statement": parts[0]["statement"],
        "preference_elaboration": parts[0]["elaboration"],
        "three_most_similar_preferences": parts,
        "all_preferences_unprocessed": raw,
    }


def _disagreement(rng: np.random.Generator, row: Row) -> Row:
    return row | {attribute: [row[attribute], *map(int, rng.integers(0, 5, 2))] for attribute in ATTRIBUTES}


def _write(path: Path, rows: Iterator[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=6) as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


if __name__ == "__main__":
    main()
