"""What tests write by hand: records of a comparison whose accuracies can be read off, and files of benchmarks."""

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from rmlib import records
from rmlib.benchmarks import FEATURES
from rmlib.benchmarks.benchmark import Benchmark
from rmlib.benchmarks.rewardbench import SUBSETS
from rmlib.benchmarks.sums import Sums
from rmlib.experiments.arms import changes

SOURCE = {"name": "simulated", "title": "simulated pairs (8 train, 4 validation)", "preferences": "annotated"}
DERIVED = {"name": "own", "title": "own pairs (8 train, 4 validation)", "preferences": "derived from helpfulness"}
MARGINS = {  # arm: one row of margins a seed; accuracies (mean) 0.625, 0.375, 0.875, 0.875, 1 and 0.5
    "regression": [[1, 1, -1, -1], [1, 1, 1, -1]],
    "bt": [[1, -1, -1, -1], [1, 1, -1, -1]],
    "bt_scaled": [[1, 1, 1, -1], [1, 1, 1, 1]],
    "bt_scaled_init": [[1, 1, 1, 0], [1, 1, 1, 1]],
    "bt_scaled_init_expo": [[1, 1, 1, 1], [1, 1, 1, 1]],
    "bt_shuffled": [[1, -1, 1, -1], [-1, 1, -1, 1]],
}
STRENGTH = [1, 1, 2, 3]
TEST_PAIRS = {
    "prompt": [0, 1, 2, 3],
    "strength": STRENGTH,
    "helpfulness_difference": [1.0, 0.0, 2.0, None],
    "chars_difference": [-40, 10, 20, 500],
}
SELECTION = [1.0, 2.0, -1.0, 3.0, -0.5, 1.0]  # margins of six selection pairs, under every seed
CURVE_SIZES, CURVE_ERRORS = (100, 400, 1600, 6400), (0.5, 0.3, 0.2, 0.15)  # 0.1 + 0.4 (n / 100)^-0.5
SWEEP = [{"factor": factor, "accuracy": accuracy, "loss": 0.6} for factor, accuracy in ((1.0, 0.5), (1.5, 0.75))]
BINS = [{"reward": 1.0, "estimate": 1.5, "low": 1.0, "high": 2.0, "n": 4}] * 2


def write_arm(
    file: Path,
    arm: str,
    margins: Sequence[Sequence[float]],
    *,
    comparison: str = "first",
    preset: str = "embedded",
    source: dict[str, str] = SOURCE,
    grid: dict[str, Any] | None = None,
) -> None:
    """Records of one arm, one a seed; of a `grid` of heads with the setting that was chosen in its one fold."""
    settings = {"backbone": "embedded", "trainable": "head" if preset == "frozen" else "all", "lora_rank": 0}
    asked: dict[str, Any] = {"arm": arm, "preset": preset, "comparison": comparison, "settings": settings}
    asked |= {"changes": changes(arm), "source": source, "n_train": 8} | ({"grid": grid} if grid else {})
    for seed, row in enumerate(margins):
        outcome: dict[str, Any] = {"accuracy": sum(m > 0 for m in row) / len(row), "n_test": len(row), "margins": row}
        outcome["selection_margins"] = SELECTION
        if "expo" in arm:
            outcome |= {"factor": 1.5, "sweep": SWEEP}
        else:
            outcome["training"] = {"curve": [[1, 1.0 + seed], [2, 0.5 + seed]]}  # mean over two seeds: 1.5, then 1.0
            if grid:
                outcome["training"]["selected"] = [{"accuracy": 0.6, "at_edge": False}]
        records.append(file, kind="arm", asked=asked, outcome=outcome, seconds=1.5, seed=seed)


def write_ruler(file: Path, name: str, margins: list[float], *, source: dict[str, str] = SOURCE) -> None:
    """The record of a ruler."""
    asked = {"ruler": name, "source": source, "test": "t"}
    records.append(file, kind="ruler", asked=asked, outcome={"n_test": len(margins), "margins": margins})


ITEMS_PER_SUBSET = 20


def write_benchmark(
    file: Path, model: str, score: float, *, items: str = "simulated", preset: str = "embedded", seed: int | None = 0
) -> None:
    """The record of a model that is right on this share of every subset of a benchmark; two sections are reported."""
    section = {"n": 10, "estimate": score, "low": score - 0.1, "high": score + 0.1}
    n_right = round(score * ITEMS_PER_SUBSET)
    signs = ("1" * n_right + "0" * (ITEMS_PER_SUBSET - n_right)) * len(SUBSETS)
    subset = {"n": ITEMS_PER_SUBSET, "estimate": score, "ties": 0}
    outcome: dict[str, Any] = {"label": f"{items} items", "n": len(signs), "ties": 0}
    outcome["sections"] = {"Chat": section, "Score": section}
    outcome["subsets"] = {name: subset | {"section": about.section} for name, about in SUBSETS.items()}
    counts = dict.fromkeys(SUBSETS, ITEMS_PER_SUBSET)
    outcome["credits"] = {"subsets": counts, "columns": {"credit": [int(sign) for sign in signs]}}
    outcome["bias"] = {"right": signs, "tied": 46, "ece": 0.1, "brier": 0.2, "calibration": []}
    asked = {"model": model, "items": items, "source": SOURCE, "preset": preset}
    records.append(file, kind="rewardbench", asked=asked, outcome=outcome, seed=seed)


def write_benchmark_items(file: Path, *, items: str = "simulated") -> None:
    """What the items of `write_benchmark` are like: the chosen response is longer in the first half of a subset."""
    n = ITEMS_PER_SUBSET * len(SUBSETS)
    half = ITEMS_PER_SUBSET // 2
    longer = [10 * (1 + k % 5) if k < half else -10 * (1 + k % 5) for k in range(ITEMS_PER_SUBSET)]
    compared = {"item": list(range(n)), "chars_difference": longer * len(SUBSETS), "markers_difference": [0] * n}
    outcome = {"chance": {"Chat": 0.5, "Score": 0.5}, "comparisons": compared}
    asked = {"benchmark": "rewardbench", "items": items, "n": n}
    records.append(file, kind="benchmark_items", asked=asked, outcome=outcome)


def write_rows(folder: Path, rows: list[dict[str, Any]], name: str = "items.jsonl.gz") -> Path:
    """Rows of a benchmark as a file below a folder: one object a line, or an array where the name says .json."""
    lines = json.dumps(rows) if ".jsonl" not in name else "".join(json.dumps(row) + "\n" for row in rows)
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(lines.encode()) if name.endswith(".gz") else lines.encode())
    return folder


def benchmark_items(name: str, rows: list[dict[str, Any]], n_messages: int = 1) -> Dataset:
    """Items of a benchmark: item_id, subset and candidates of each row, the first correct unless it says otherwise."""
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    shared = {"prompt": (turns * n_messages)[:n_messages], "pairs": None, "benchmark": name, "source": "simulated"}
    filled = [shared | {"correct": [True] + [False] * (len(row["candidates"]) - 1)} | row for row in rows]
    return Dataset.from_list(filled, features=FEATURES)


def write_learning_curve(
    file: Path,
    arm: str,
    errors: tuple[float, ...] = CURVE_ERRORS,
    *,
    comparison: str = "first",
    n: int = 20,
    source: dict[str, str] = SOURCE,
) -> None:
    """A learning curve of two seeds that get the same share of n test pairs wrong, each its own ones."""
    settings = {"backbone": "embedded", "trainable": "head", "lora_rank": 0}
    asked: dict[str, Any] = {"arm": arm, "preset": "embedded", "comparison": comparison, "settings": settings}
    asked |= {"source": source, "n_train": CURVE_SIZES[-1], "sizes": list(CURVE_SIZES), "seeds": [0, 1]}
    points = []
    for size, error in zip(CURVE_SIZES, errors, strict=True):
        correct = "0" * round(error * n) + "1" * (n - round(error * n))
        for seed, answers in enumerate((correct, correct[::-1])):
            points.append({"size": size, "seed": seed, "accuracy": 1 - error, "correct": answers})
    records.append(file, kind="learning_curve", asked=asked, outcome={"points": points})


def write_rates(file: Path, rates: dict[str, tuple[float, bool]], *, source: dict[str, str] = SOURCE) -> None:
    """The choice of a learning rate for each arm: the rate, and whether it is the grid's smallest or largest."""
    for arm, (rate, at_edge) in rates.items():
        asked = {"arm": arm, "preset": "embedded", "backbone": "embedded", "source": source}
        outcome = {"learning_rate": rate, "accuracy": 0.7, "n_trials": 6, "at_edge": at_edge}
        records.append(file, kind="learning_rate", asked=asked, outcome=outcome)


def write_data(file: Path, *, source: dict[str, str] = SOURCE) -> None:
    """What notebook 01 writes of annotations: agreement, annotators, justifications, the statistics of a simulation."""
    asked = {"source": source}
    kappa = {"measure": "kappa, quadratic weights", "low": 0.3, "high": 0.6, "n": 12}
    stages = {"raw": 0.4, "three most similar": 0.5, "processed": 0.55, "processed, without 0": 0.6}
    rows = [kappa | {"label": "preference", "stage": stage, "estimate": value} for stage, value in stages.items()]
    rows += [kappa | {"label": "coherence", "stage": "raw", "estimate": 0.45}]
    rows += [rows[0] | {"measure": "raw agreement", "estimate": 0.9}]
    records.append(file, kind="agreement", asked=asked, outcome={"rows": rows})
    people = [
        {"annotator": f"a{n}", "annotations": count, "agreement": 0.5 + n / 10, "quality": 0.6 + n / 10, "known": n / 4}
        for n, count in enumerate((2, 5, 40))
    ]
    people.append(people[0] | {"annotator": "alone", "agreement": None})
    records.append(file, kind="annotators", asked=asked, outcome={"rows": people, "known": "true share right"})
    shares = {"share": 0.2, "share_low": 0.1, "share_high": 0.3, "share_0": None, "share_1": 0.1, "share_2": 0.3}
    shares |= {"share_3": 0.25, "difference": 0.1, "difference_low": 0.0, "difference_high": 0.2}
    aspects = [shares | {"aspect": "tone"}, shares | {"aspect": "correctness", "share": 0.4}]
    records.append(file, kind="justifications", asked=asked, outcome={"n": 50, "aspects": aspects})
    near = {"statistic": "kappa", "published": 0.8, "simulated": 0.82, "difference": 0.02, "low": 0.8, "high": 0.84}
    far = near | {"statistic": "share of ties", "simulated": 0.9, "difference": 0.1, "low": 0.88, "high": 0.92}
    unknown = near | {"statistic": "oracle", "published": None, "difference": None}
    compared = [row | {"tolerance": 0.04} for row in (near, far)] + [unknown | {"tolerance": None}]
    records.append(file, kind="simulation", asked=asked, outcome={"rows": compared})


def write_comparison(file: Path, *, source: dict[str, str] = SOURCE) -> Path:
    """Everything that any figure draws."""
    figure_1 = [[0] * 9 for _ in range(7)]
    figure_1[6][8], figure_1[3][4] = 5, 2  # preference 3 at difference 4, preference 0 at difference 0
    about = {"figure_1": figure_1, "r_preference": {"helpfulness": 0.91}}
    records.append(file, kind="pairs", asked={"source": source}, outcome=about)
    write_data(file, source=source)
    records.append(file, kind="test_pairs", asked={"source": source}, outcome=TEST_PAIRS)
    for layer in (None, 4):  # earlier comparisons, of what frozen heads read
        grid = {"layer": layer, "surface": False, "log_length": False, "standardise": False}
        write_arm(file, "bt", MARGINS["bt"], comparison=f"layer {layer}", preset="frozen", source=source, grid=grid)
    for arm, margins in MARGINS.items():
        write_arm(file, arm, margins, source=source)
    write_ruler(file, "longer", [1, -1, 0, -1], source=source)
    write_learning_curve(file, "bt", (0.5, 0.5, 0.25, 0.25), n=4, source=source)
    write_benchmark_items(file)
    write_rates(file, {"bt": (5e-4, False), "bt_scaled": (1e-3, True)}, source=source)
    write_benchmark(file, "longer", 0.4, seed=None)
    write_benchmark(file, "bt_scaled", 0.7)
    asked = {"arm": "bt_scaled_init", "comparison": "first", "source": source}
    fitted = {"scale": 2.0, "offset": 1.0, "r": {"estimate": 0.5, "low": 0.4, "high": 0.6, "n": 8}, "bins": BINS}
    records.append(file, kind="affine", asked=asked, outcome=fitted, seed=0)
    return file


def scores_of_shares(benchmark: Benchmark, shares: Mapping[str, float]) -> dict[str, float]:
    """Sections and Score of published shares of right items; their further columns are not published."""
    plain, sums = replace(benchmark, formulas={}, extra={}), Sums()
    for name, share in shares.items():
        n = benchmark.subsets[name].n or 0
        sums[name] = {"credit": (np.array([share * n]), np.array([float(n)]))}
    return {name: float(drawn[0]) for name, drawn in plain.scores(sums).items()}
