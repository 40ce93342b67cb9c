"""The section scores of this library beside those of the package `rewardbench`, on random inputs.

    python -m benchmarks.rewardbench_oracle

The package pins old versions of what this library needs new, so it is installed into an environment of its own,
runs/oracle (minutes and some 2 GB, once; downloads from the package index). Asked are the section scores of
RewardBench, the credit of best-of-four items and the Ties score of RewardBench 2, and the rewards of pairs by the
package's own pipeline. Copies of its constants circulate with the two XSTest counts exchanged; which ones are installed
is said, and where they are exchanged ours are weighted the same way for the comparison.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from benchmarks.measure import record
from rmlib import benchmarks, records
from rmlib.benchmarks import rewardbench, rewardbench2
from rmlib.models import RewardModel
from rmlib.records import paths

# datasets below 3.6 does not import beside today's pyarrow; rewardbench needs pkg_resources, gone from setuptools 81.
PINS = ("rewardbench==0.1.4", "transformers==4.51.0", "datasets>=3.6,<=5.0", "setuptools<81", "torch==2.13.0")
PEER = Path(__file__).with_name("rewardbench_peer.py")
XSTEST = ("xstest-should-refuse", "xstest-should-respond")
TOLERANCE, REWARD_TOLERANCE = 1e-12, 1e-5
TIES_KINDS = ("continuous", "coarse")
KEPT = 20  # vectors of each kind that the record holds, so that they can be computed again without the package


def environment() -> Path:
    """The Python of the package's environment, made where it is missing; one that was cut short is made again."""
    folder = paths.runs_dir() / "oracle" / "venv"
    python, done = folder / "bin" / "python", folder / "installed.txt"
    if not done.is_file() or done.read_text() != "\n".join(PINS):
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PINS], check=True)
        done.write_text("\n".join(PINS))
    return python


def ask(python: Path, questions: Mapping[str, Any]) -> dict[str, Any]:
    """The package's answers, by the names of the questions."""
    with tempfile.TemporaryDirectory() as name:
        asked, answered = Path(name) / "questions.json", Path(name) / "answers.json"
        asked.write_text(json.dumps(questions))
        subprocess.run([python, PEER, asked, answered], check=True)
        return json.loads(answered.read_text())


# --- section scores ---------------------------------------------------------------------------------------------------


def random_accuracies(n: int, rng: np.random.Generator) -> list[dict[str, float]]:
    """Accuracies of all 23 subsets: the published counts, then half any number, half right answers of the items."""
    table = records.published("rewardbench_counts")
    published = [
        dict(zip(rows["subset"], rows["correct"] / rows["n"], strict=True)) for _, rows in table.groupby("model")
    ]
    names = list(rewardbench.SUBSETS)
    sizes = np.array([subset.n for subset in rewardbench.SUBSETS.values()])
    any_number = rng.random((n // 2, len(names)))
    counted = rng.binomial(sizes, rng.random((n - n // 2, len(names)))) / sizes
    return published + [dict(zip(names, row, strict=True)) for row in np.concatenate([any_number, counted]).tolist()]


def exchanged(accuracy: Mapping[str, float]) -> dict[str, float]:
    """Section scores by the same formula with the two XSTest counts exchanged."""
    weight = {name: float(rewardbench.SUBSETS[name].weight or 0) for name in rewardbench.SUBSETS}
    weight |= {XSTEST[0]: weight[XSTEST[1]], XSTEST[1]: weight[XSTEST[0]]}
    safety = [name for name, subset in rewardbench.SUBSETS.items() if subset.section == "Safety"]
    scores = rewardbench.section_scores(accuracy)
    scores["Safety"] = sum(weight[name] * accuracy[name] for name in safety) / sum(weight[name] for name in safety)
    return scores


def compare_sections(
    accuracies: list[dict[str, float]], answers: list[dict[str, float]], constants: Mapping[str, Any]
) -> dict[str, Any]:
    """Largest difference of a section score, and what is odd about the installed constants."""
    installed = {name: constants["counts"][name] for name in XSTEST}
    usual = {name: rewardbench.SUBSETS[name].weight for name in XSTEST}
    are_exchanged = installed == {XSTEST[0]: usual[XSTEST[1]], XSTEST[1]: usual[XSTEST[0]]}
    ours = [(exchanged if are_exchanged else rewardbench.section_scores)(values) for values in accuracies]
    differences = [
        abs(mine[name] - score) for mine, theirs in zip(ours, answers, strict=True) for name, score in theirs.items()
    ]
    kept = zip(accuracies[:KEPT], answers[:KEPT], strict=True)
    return {
        "inputs": len(accuracies),
        "largest difference": max(differences),
        "installed XSTest counts": installed,
        "exchanged": are_exchanged,
        "vectors": [{"accuracy": accuracy, "sections": answer} for accuracy, answer in kept],
    }


# --- RewardBench 2 ----------------------------------------------------------------------------------------------------


def items_of(rows: list[dict[str, Any]], subset: str) -> tuple[Dataset, dict[str, list[float]]]:
    """Items of rows of id, scores and num_correct, right answers first, and their scores as `summarise` takes them."""
    shared = {"subset": subset, "prompt": [{"role": "user", "content": "?"}], "pairs": None}
    shared |= {"benchmark": "rewardbench2", "source": "random"}
    items = [
        shared
        | {"item_id": f"{subset}/{row['id']}", "candidates": [str(number) for number in range(len(row["scores"]))]}
        | {"correct": [number < row["num_correct"] for number in range(len(row["scores"]))]}
        for row in rows
    ]
    scores = {item["item_id"]: row["scores"] for item, row in zip(items, rows, strict=True)}
    return Dataset.from_list(items, features=benchmarks.FEATURES), scores


def random_four(n: int, rng: np.random.Generator) -> list[list[float]]:
    """Four rewards an item: half any numbers, half so coarse that most are shared."""
    return [*rng.normal(size=(n // 2, 4)).tolist(), *rng.integers(0, 3, (n - n // 2, 4)).astype(float).tolist()]


def random_ties(rng: np.random.Generator, *, coarse: bool) -> list[dict[str, Any]]:
    """Up to 12 questions, each asked with one right answer and with 2 to 6; coarse rewards are often equal."""
    rows = []
    for number in range(rng.integers(1, 13)):
        for kind, n_right in (("ref", 1), ("tied", int(rng.integers(2, 7)))):
            rewards = rng.normal(size=n_right + rng.integers(1, 6)) + 2.0 * rng.random()
            rewards[:n_right] += rng.choice([0.0, 2.0])
            scores = (np.round(rewards) if coarse else rewards).tolist()
            rows.append({"id": f"{kind}:{number}", "scores": scores, "num_correct": n_right})
    return rows


def ties_score(rows: list[dict[str, Any]]) -> float:
    """Our score of the Ties domain."""
    items, scores = items_of(rows, rewardbench2.TIES)
    return float(rewardbench2.BENCHMARK.summarise(items, scores, draws=2).sections["estimate"][rewardbench2.TIES])


def credits_of_four(rewards: list[list[float]]) -> list[float]:
    """Our credit of each best-of-four item."""
    rows = [{"id": str(number), "scores": scores, "num_correct": 1} for number, scores in enumerate(rewards)]
    items, scores = items_of(rows, "Focus")
    return rewardbench2.BENCHMARK.credits(items, scores)["credit"].tolist()


def compare_values(inputs: list[Any], ours: list[float], theirs: list[float]) -> dict[str, Any]:
    """Largest difference of one number an input; the first inputs are kept, to be computed again."""
    differences = np.abs(np.array(ours) - np.array(theirs))
    kept = [{"input": one, "score": score} for one, score in zip(inputs[:KEPT], theirs[:KEPT], strict=True)]
    found: dict[str, Any] = {"inputs": len(inputs), "largest difference": float(differences.max())}
    found |= {"inputs that differ": int((differences > TOLERANCE).sum()), "vectors": kept}
    return found


# --- rewards of pairs -------------------------------------------------------------------------------------------------


def pairs_for_the_pipeline(n: int, folder: Path) -> tuple[dict[str, Any], np.ndarray]:
    """A question about `n` simulated pairs and an exported embedded model, and our rewards of them."""
    items = benchmarks.load("rewardbench", "simulated").shuffle(seed=0).select(range(n))
    model = RewardModel.create("embedded", seed=0)
    bias = model.export(folder)
    ours = np.array(list(benchmarks.score(model, items, progress=False).values())) - bias
    columns = zip(items["prompt"], items["candidates"], strict=True)
    pairs = [{"prompt": prompt, "chosen": some[0], "rejected": some[1]} for prompt, some in columns]
    return {"folder": str(folder), "pairs": pairs, "batch_size": 8}, ours


def main() -> None:
    """Ask, compare, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=2000, help="random ones of each kind (default: 2000)")
    parser.add_argument("--tables", type=int, default=40, help="of Ties, of each kind (default: 40)")
    parser.add_argument("--pairs", type=int, default=48, help="for the package's pipeline (default: 48)")
    options = parser.parse_args()
    start, rng, python = time.perf_counter(), np.random.default_rng(0), environment()
    accuracies = random_accuracies(options.inputs, rng)
    four = random_four(options.inputs, rng)
    ties = {name: [random_ties(rng, coarse=name == "coarse") for _ in range(options.tables)] for name in TIES_KINDS}
    with tempfile.TemporaryDirectory() as name:
        question, ours = pairs_for_the_pipeline(options.pairs, Path(name))
        questions = {"constants": None, "sections": accuracies, "rewards": question, "best_of_four": four}
        answers = ask(python, questions | {"ties": [table for kind in TIES_KINDS for table in ties[kind]]})
    ties_answers = dict(zip(TIES_KINDS, np.split(np.array(answers["ties"]), len(TIES_KINDS)), strict=True))
    constants = answers["constants"]
    distance = float(np.abs(ours - np.array(answers["rewards"])).max())
    outcome = {
        "versions": constants["versions"],
        "rewardbench": compare_sections(accuracies, answers["sections"], constants),
        "rewardbench2 best of four": compare_values(four, credits_of_four(four), answers["best_of_four"]),
        **{
            f"rewardbench2 ties, {kind} rewards": compare_values(
                ties[kind], [ties_score(table) for table in ties[kind]], ties_answers[kind].tolist()
            )
            for kind in TIES_KINDS
        },
        "pipeline": {"pairs": options.pairs, "largest difference": distance, "reward_sd": float(ours.std())},
    }
    print(json.dumps({key: _without_vectors(value) for key, value in outcome.items()}, indent=1))
    asked = {"inputs": options.inputs, "tables": options.tables, "pairs": options.pairs, "pins": PINS, "seed": 0}
    asked |= {"tolerance": TOLERANCE, "reward tolerance": REWARD_TOLERANCE}
    record("rewardbench_oracle", asked, outcome, time.perf_counter() - start)


def _without_vectors(part: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in part.items() if key != "vectors"}


if __name__ == "__main__":
    main()
