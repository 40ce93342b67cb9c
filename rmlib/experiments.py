"""Arms of the comparison: each is its parent plus one change; run or reuse; one record per arm and seed."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets
from jaxtyping import Float

from rmlib import benchmarks, combining, descriptions, overlap, paths, records, statistics
from rmlib import pairs as tables
from rmlib.arms import ARMS, PAPER_ARMS, Arm, changes, settings_for
from rmlib.bars import progress_bar
from rmlib.features import FromFeatures
from rmlib.models import RewardModel, fingerprint
from rmlib.presets import Preset
from rmlib.runs import Run, write_json
from rmlib.splits import Splits, load_splits, shuffled_labels
from rmlib.training import create_model, train

logger = logging.getLogger(__name__)

# Weights of the five attributes in the scalar reward: published for the parent's Llama-3-70B model.
ATTRIBUTE_WEIGHTS_OF = "Llama-3-70B"
COARSE_FACTORS = tuple(np.round(np.arange(1.0, 2.01, 0.1), 2).tolist())


# --- run or reuse -----------------------------------------------------------------------------------------------------


@dataclass
class ArmRun:
    """A finished arm: its model, the rewards it gives the test pairs, and the record of it."""

    arm: Arm
    seed: int
    run: Run | None  # None where no training took place (extrapolation)
    model_folder: Path
    rewards: Float[np.ndarray, "pair 2"]
    record: dict[str, Any]

    @cached_property
    def model(self) -> RewardModel:
        return RewardModel.load(self.model_folder)


def run(
    arm: str, settings: Preset, splits: Splits, *, seed: int = 0, results: Path | None = None, progress: bool = True
) -> ArmRun:
    """Train an arm with a preset's settings, or return the finished run; score the test pairs; write a record.

    Parents that an arm starts from are run the same way. Raises ValueError for an unknown arm.
    """
    started = time.perf_counter()
    trained, folder, extra = _obtain(arm, settings, splits, seed, progress)
    rewards, n_cut = _test_rewards(arm, folder, splits, settings)
    outcome = outcome_of(splits.test, rewards) | {"n_texts_cut": n_cut} | extra
    asked: dict[str, Any] = {
        "arm": arm,
        "preset": settings.name,
        "comparison": comparison_of(settings, splits),
        "settings": asdict(settings_for(arm, settings, seed)) | {"backbone": paths.public_name(settings.backbone)},
        "changes": changes(arm),
        "source": asdict(splits.source),
        "n_train": len(splits.train),
    }
    file = results or results_file(splits, settings)
    # Finished runs are not recorded twice, so their age does not tell which comparison was looked at last; this does.
    current = {"comparison": asked["comparison"]}
    records.append(file, kind="comparison", asked={"beside": settings.name == "finetuned"}, outcome=current)
    record = records.append(
        file,
        kind="arm",
        asked=asked,
        outcome=outcome,
        seconds=trained.summary["seconds"] if trained else time.perf_counter() - started,
        seed=seed,
    )
    return ArmRun(ARMS[arm], seed, trained, folder, rewards, record)


def run_all(
    arms: Sequence[str],
    settings: Preset,
    splits: Splits,
    seeds: Iterable[int],
    *,
    results: Path | None = None,
) -> list[ArmRun]:
    """Every arm under every seed, with one progress bar; a second call returns at once what the first one finished.

    What occurs twice in the data is logged before anything is trained.
    """
    file = results or results_file(splits, settings)
    record_overlap(splits, file)
    record_test_pairs(splits, file)
    jobs = [(seed, arm) for seed in seeds for arm in arms]
    finished = []
    with progress_bar(jobs, unit="run", leave=False) as bar:
        for seed, arm in bar:
            bar.set_description(f"{arm}, seed {seed}")
            finished.append(run(arm, settings, splits, seed=seed, results=results, progress=False))
    return finished


def record_overlap(splits: Splits, results: Path, items: Dataset | None = None) -> dict[str, Any]:
    """What occurs twice among the pairs, and what of a benchmark's items lies in them (`overlap.report`), as recorded.

    Computed once for each source and benchmark; a second call takes the record. The summary is logged either way.
    """
    asked = {"source": asdict(splits.source), "n_pairs": splits.counts()["pairs"].to_dict(), "items": None}
    if items is not None:
        asked["items"] = items[0]["source"]
    record = records.find(results, kind="overlap", asked=asked)
    if record is None:
        found = overlap.report(concatenate_datasets([splits.train, splits.selection, splits.test]), items)
        outcome = {"summary": overlap.summary(found), **asdict(found)}
        record = records.append(results, kind="overlap", asked=asked, outcome=outcome)
    logger.info("%s: %s", splits.source.title, record["outcome"]["summary"])
    return record["outcome"]


def record_test_pairs(splits: Splits, results: Path) -> dict[str, Any]:
    """What the decided test pairs are like, in the order of every record's margins: strength and differences."""
    table = descriptions.frame(splits.test)
    table = table[table["preference"].fillna(0) != 0]
    sign = np.sign(table["preference"].astype(int))
    outcome = {
        "strength": table["preference"].astype(int).abs().tolist(),
        "helpfulness_difference": [
            None if np.isnan(value) else float(value) for value in table["helpfulness_difference"] * sign
        ],
        "chars_difference": ((table["chars_2"] - table["chars_1"]) * sign).tolist(),
    }
    asked = {"source": asdict(splits.source), "test": tables.content_hash(splits.test)}
    return records.append(results, kind="test_pairs", asked=asked, outcome=outcome)


def comparison_of(settings: Preset, splits: Splits) -> str:
    """The name that all runs with the same settings on the same splits share, whatever their arm and seed."""
    return fingerprint(asdict(settings), splits.identity)


def results_file(splits: Splits, settings: Preset) -> Path:
    """Where the records of a source and a backbone go."""
    return paths.results_dir() / f"{paths.line_name(splits.source.name, settings.backbone)}.jsonl"


def _obtain(
    arm: str, settings: Preset, splits: Splits, seed: int, progress: bool
) -> tuple[Run | None, Path, dict[str, Any]]:
    """The trained run, the folder of the arm's model, and what its record says beyond scores."""
    change = changes(arm)
    if "extrapolate" in change:
        return _extrapolated(arm, settings, splits, seed, progress)
    wanted = settings_for(arm, settings, seed)
    if "initialise_from" in change:
        parent, _, _ = _obtain(change["initialise_from"], settings, splits, seed, progress)
        assert parent is not None
        model = parent.model
    else:
        model = create_model(wanted)
    pairs = shuffled_labels(splits.train, seed) if change.get("shuffle_labels") else splits.train
    trained = train(model, pairs, wanted, selection=splits.selection, progress=progress)
    curve = trained.history[["step", "loss"]]
    thin = curve.iloc[np.unique(np.linspace(0, len(curve) - 1, 60).astype(int))]
    kept = ("n_steps", "n_pairs", "left_out", "n_cut", "loss", "tokens", "selection_loss", "selection_accuracy")
    summary = {name: trained.summary[name] for name in kept if name in trained.summary}
    summary["curve"] = thin.to_numpy().tolist()
    return trained, trained.folder / "model", {"training": summary, "layout": trained.summary["layout"]}


def _extrapolated(
    arm: str, settings: Preset, splits: Splits, seed: int, progress: bool
) -> tuple[None, Path, dict[str, Any]]:
    """The extrapolation whose factor has the highest accuracy on the selection split, the smallest among equals."""
    strong, _, _ = _obtain(str(ARMS[arm].parent), settings, splits, seed, progress)
    weak, _, _ = _obtain(changes(arm)["extrapolate"], settings, splits, seed, progress)
    assert strong is not None and weak is not None
    folder = (
        paths.runs_dir() / "extrapolated" / fingerprint(weak.model.identity, strong.model.identity, splits.identity)
    )
    if not (folder / "sweep.json").is_file():
        sweep = sweep_factors(weak.model, strong.model, splits.selection, settings)
        best = max(sweep, key=lambda row: (row["accuracy"], -row["factor"]))["factor"]
        combining.extrapolate(weak.model, strong.model, best).save(folder / "model")
        write_json(folder / "sweep.json", {"factor": best, "sweep": sweep})
    return None, folder / "model", json.loads((folder / "sweep.json").read_text())


def sweep_factors(
    weak: RewardModel,
    strong: RewardModel,
    pairs: Dataset,
    settings: Preset,
    factors: Sequence[float] = COARSE_FACTORS,
) -> list[dict[str, float]]:
    """Accuracy on the decided `pairs` of the extrapolation by each factor, with the mean loss of regular BT."""
    rows = []
    for factor in factors:
        model = scorer(combining.extrapolate(weak, strong, factor), settings)
        margin = oriented_margins(pairs, score_pairs(model, pairs))
        loss = float(np.logaddexp(0, -margin).mean())
        rows.append({"factor": float(factor), "accuracy": statistics.accuracy(margin), "loss": loss})
    return rows


# --- scoring ----------------------------------------------------------------------------------------------------------


def score_pairs(model: Any, pairs: Dataset) -> Float[np.ndarray, "pair 2"]:
    """Rewards of both responses of every pair, by anything with a `score`."""
    prompts = [prompt for prompt in pairs["prompt"] for _ in range(2)]
    responses = [text for two in zip(pairs["response_1"], pairs["response_2"], strict=True) for text in two]
    return np.asarray(model.score(prompts, responses)).reshape(-1, 2)


def scorer(model: RewardModel, settings: Preset) -> RewardModel | FromFeatures:
    """What scores fastest under a preset: a frozen backbone's features are kept and computed once."""
    return FromFeatures(scalar_model(model)) if settings.frozen else scalar_model(model)


def scalar_model(model: RewardModel) -> RewardModel:
    """The model itself, or with several attributes the one output that the parent's published weights make of them."""
    if len(model.attributes) == 1:
        return model
    return combining.weigh_attributes(model, published_weights(model.attributes))


def published_weights(attributes: Sequence[str]) -> dict[str, float]:
    """The parent's published weight of each attribute."""
    table = records.published("attribute_weights").set_index("model").loc[ATTRIBUTE_WEIGHTS_OF]
    return {name: float(table.to_dict()[name]) for name in attributes}


def _test_rewards(arm: str, folder: Path, splits: Splits, settings: Preset) -> tuple[np.ndarray, int]:
    """Rewards of the test pairs and the number of texts cut, kept beside the model."""
    file = folder.parent / f"test-{splits.identity}.json"
    if not file.is_file():
        model = RewardModel.load(folder)
        rewards = score_pairs(scorer(model, settings), splits.test)
        sides = [
            model.encode(splits.test["prompt"][:], splits.test[name][:]).cut for name in ("response_1", "response_2")
        ]
        write_json(file, {"rewards": rewards.tolist(), "n_cut": int(np.sum(sides))})
    kept = json.loads(file.read_text())
    return np.array(kept["rewards"]), kept["n_cut"]


def oriented_margins(pairs: Dataset, rewards: Float[np.ndarray, "pair 2"]) -> Float[np.ndarray, "decided"]:
    """Reward of the chosen minus that of the rejected response, for the decided pairs in the order of the table."""
    preference = np.array([value or 0 for value in pairs["preference"]])
    margin = (rewards[:, 1] - rewards[:, 0]) * np.sign(preference)
    return margin[preference != 0]


def outcome_of(pairs: Dataset, rewards: Float[np.ndarray, "pair 2"]) -> dict[str, Any]:
    """What a record of an arm or a ruler says about the rewards of the test pairs."""
    margin = oriented_margins(pairs, rewards)
    return {
        "accuracy": statistics.accuracy(margin),
        "n_test": len(margin),
        "n_equal": int((margin == 0).sum()),
        "margins": [float(f"{value:.5g}") for value in margin],
        "reward_mean": float(rewards.mean()),
        "reward_sd": float(rewards.std()),
    }


def run_ruler(
    name: str, ruler: Any, splits: Splits, settings: Preset, *, results: Path | None = None
) -> dict[str, Any]:
    """Score the test pairs by a baseline (anything with a `score`, or rewards as such), and write a `ruler` record."""
    rewards = ruler if isinstance(ruler, np.ndarray) else score_pairs(ruler, splits.test)
    asked = {"ruler": name, "source": asdict(splits.source), "test": tables.content_hash(splits.test)}
    file = results or results_file(splits, settings)
    return records.append(file, kind="ruler", asked=asked, outcome=outcome_of(splits.test, rewards))


def oracle_rewards(pairs: Dataset) -> Float[np.ndarray, "pair 2"]:
    """Rewards that differ by the true preference, which only a simulator knows; raises ValueError elsewhere."""
    preference = pairs["truth_preference"][:]
    if None in preference:
        raise ValueError("only simulated pairs carry a truth; there is no oracle for human labels")
    return np.outer(preference, (-0.5, 0.5))


def run_benchmark(
    name: str, model: Any, items: Dataset, splits: Splits, settings: Preset, *, seed: int | None, results: Path | None
) -> benchmarks.Report:
    """Score a benchmark by anything with a `score`, and write a record of the benchmark's kind."""
    report = benchmarks.summarise(items, benchmarks.score(model, items, progress=False))
    asked = {"model": name, "items": report.source, "source": asdict(splits.source), "preset": settings.name}
    asked["comparison"] = comparison_of(settings, splits)
    file = results or results_file(splits, settings)
    records.append(file, kind=report.benchmark, asked=asked, outcome=report.to_records(), seed=seed)
    return report


__all__ = ["ARMS", "PAPER_ARMS", "Arm", "ArmRun", "Splits", "load_splits", "run", "run_all"]
