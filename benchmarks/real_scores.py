"""A small reward model and the rulers on real benchmark files, through load, score and summarise, one record a set.

    python -m benchmarks.real_scores [folder of real files]

The folder is that of `benchmarks.real_files`, with HelpSteer2's own files in helpsteer2/ beside it. The model is
`minilm` as it was published, under a linear head of scaled Bradley-Terry fitted to the HelpSteer2 pairs by the grid of
`rmlib.experiments frozen`: the setting is chosen on the selection split, and the heads of all seeds are averaged, which
averages their rewards. An encoder cuts longer texts than it has positions for. Of RewardBench and RM-Bench the files
hold a part, so their reports are called partial, and an overall score is that of the part.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from benchmarks.measure import record
from benchmarks.real_files import data_folder
from rmlib import benchmarks
from rmlib.benchmarks.compare import OVERALL, compare
from rmlib.experiments.grid import GridResult, default_grid, run_grid
from rmlib.experiments.presets import PRESETS
from rmlib.models import RewardModel, Scorer
from rmlib.models.features import load_or_compute
from rmlib.records import rows
from rmlib.records.hashing import fingerprint
from rmlib.sources import Splits, load_splits
from rmlib.statistics import RULERS
from rmlib.training.watching import sample

SETS: dict[str, tuple[str, str, dict[str, Any], str]] = {  # benchmark, folder, options, and the score to compare
    "LLMBar": ("rewardbench", "llmbar", {"partial": True}, "Chat Hard"),
    "JudgeBench": ("judgebench", "judgebench", {"split": "claude"}, OVERALL),
    "RM-Bench": ("rmbench", "rm_bench", {"partial": True}, OVERALL),
    "HHH": ("hhh", "hhh_alignment", {}, OVERALL),
}
BACKBONE, ARM, SEEDS, PAIRS_AT_ONCE = "minilm", "bt_scaled", range(5), 50
MODEL = f"{BACKBONE}, scaled BT"


def fitted(folder: Path) -> tuple[RewardModel, dict[str, Any]]:
    """The model with the chosen head, and how it was chosen and does on the held-out pairs of the same source."""
    splits, settings = load_splits(folder), PRESETS["frozen"].change(backbone=BACKBONE)
    keep_features(splits)
    with tempfile.TemporaryDirectory() as name:  # the record of the comparison itself is the command's to write
        grid = default_grid(settings, SEEDS)
        result = run_grid([ARM], splits, settings, grid, results=Path(name) / "grid.jsonl")
    counts = splits.counts()["decided"].to_dict()
    chosen = result.selected.drop(columns=["arm", "fold"]).iloc[0].to_dict()
    about = {"source": splits.source, "decided pairs": counts, "chosen": chosen, "held out": result.accuracy(ARM)}
    return with_head(result), about


def keep_features(splits: Splits) -> None:
    """What the grid will read, some texts at a time, each time kept: a fit that was stopped goes on from there."""
    model = RewardModel.create(BACKBONE)
    for part in (splits.train, splits.selection, splits.test):
        for start in range(0, len(part), PAIRS_AT_ONCE):
            rows = part[start : start + PAIRS_AT_ONCE]
            load_or_compute(model, rows["prompt"] * 2, rows["response_1"] + rows["response_2"])


def with_head(result: GridResult) -> RewardModel:
    """The backbone of the grid under the mean of the chosen heads: its reward is the mean of theirs."""
    (heads,) = result.heads[ARM]
    weight, bias = heads.tensors["weight"].mean(dim=0), heads.tensors["bias"].mean(dim=0)
    model = RewardModel.create(BACKBONE)
    with torch.no_grad():
        model.output_layer.weight.copy_(weight)
        model.output_layer.bias.copy_(bias)
    model.identity, model.fresh_head = fingerprint("mean of heads", weight.tolist(), bias.tolist()), False
    return model


def scored(model: Scorer, items: Dataset) -> dict[str, Any]:
    """Credits, and the report as a record has it."""
    scores = benchmarks.score(model, items, items_per_call=16)  # rewards are kept after each call
    report = benchmarks.summarise(items, scores, partial=True)
    print(report, flush=True)
    return {"credits": benchmarks.credits(items, scores), "report": report.to_records()}


def compared(name: str, section: str, found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Every two of them: paired difference with interval, exact p adjusted by Holm's method."""
    credits = {model: [one["credits"]] for model, one in found.items()}
    official = benchmarks.BENCHMARKS[name]
    return rows(compare(official, credits, section=section, whole=False, partial=True).differences)


def main() -> None:
    """Fit, score, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="of real files (default: $RMLIB_SHARED_DATA)")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), help="(default: all)")
    parser.add_argument("--items", type=int, help="of each set, a sample that keeps every subset (default: all)")
    options = parser.parse_args()
    folder = data_folder(options.folder)
    model, about = fitted(folder / "helpsteer2")
    scorers: dict[str, Scorer] = {MODEL: model, "longer": RULERS["longer"], "shorter": RULERS["shorter"]}
    for title in options.sets:
        started = time.perf_counter()
        name, place, how, section = SETS[title]
        items = benchmarks.load(name, folder / place, **how)
        asked = {"set": title, "source": str(items[0]["source"]), "n": len(items), "model": MODEL, "fitted": about}
        if options.items:
            items = sample(items, options.items)
        found = {scorer: scored(one, items) for scorer, one in scorers.items()}
        outcome: dict[str, Any] = {"reports": {scorer: one["report"] for scorer, one in found.items()}}
        outcome |= {"compared": compared(name, section, found), "section compared": section}
        record("real_scores", asked | {"n scored": len(items)}, outcome, time.perf_counter() - started)


if __name__ == "__main__":
    main()
