"""The trained model of an arm under a seed: what it is called, what it waits for, and how it is had or found again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from datasets import Dataset

from rmlib import combining, statistics
from rmlib.experiments import sweeps
from rmlib.experiments.arms import ARMS, changes, settings_for
from rmlib.experiments.derived import DERIVATIONS
from rmlib.experiments.jobs import run_jobs
from rmlib.experiments.presets import Preset
from rmlib.experiments.scoring import kept_rewards, oriented_margins, score_pairs, scorer
from rmlib.models import RewardModel
from rmlib.models.features import load_or_compute
from rmlib.records import paths
from rmlib.records.files import write_json
from rmlib.records.hashing import fingerprint
from rmlib.sources.splits import Splits, shuffled_labels
from rmlib.training import run_folder, run_identity, train
from rmlib.training.initial_model import Start, create_model, initial
from rmlib.training.runs import FINISHED_FILE, MODEL_FOLDER, Run

SWEEP_FILE = "sweep.json"
FIT_FILE = "fit.json"
Job = tuple[str, int]  # arm and seed
AnyJob = TypeVar("AnyJob")


@dataclass(frozen=True)
class Trained:
    """Where the model of an arm and seed lies, its run (None where none was needed), and what its record says of it."""

    run: Run | None
    model_folder: Path
    details: dict[str, Any]


def waits_for(arm: str) -> list[str]:
    """The arms whose models this one is made from; ValueError for an unknown arm."""
    change = changes(arm)
    if "extrapolate" in change:
        return [str(ARMS[arm].parent), change["extrapolate"]]
    if _derivation(arm):
        return [str(ARMS[arm].parent)]
    return [change["initialise_from"]] if "initialise_from" in change else []


def graph(arms: Sequence[str], seeds: Iterable[int]) -> dict[Job, list[Job]]:
    """Each arm under each seed, and the arms that these are made from, once: with those it waits for."""
    jobs: dict[Job, list[Job]] = {}

    def add(arm: str, seed: int) -> None:
        if (arm, seed) not in jobs:
            jobs[arm, seed] = [(other, seed) for other in waits_for(arm)]
            for other in waits_for(arm):
                add(other, seed)

    for seed in seeds:
        for arm in arms:
            add(arm, seed)
    return jobs


def identity_of(arm: str, settings: Preset, splits: Splits, seed: int) -> str:
    """What the arm's model comes from, by which it is found again; nothing is loaded to know it."""
    if "extrapolate" in changes(arm):
        strong, weak = (identity_of(other, settings, splits, seed) for other in waits_for(arm))
        return fingerprint("coarse and fine", weak, strong, splits.identity)
    if derivation := _derivation(arm):
        (parent,) = waits_for(arm)
        return fingerprint(derivation, identity_of(parent, settings, splits, seed), splits.identity)
    if changes(arm).get("untrained"):
        return initial(settings_for(arm, settings, seed)).identity
    start = start_of(arm, settings, splits, seed)
    return run_identity(
        start.identity, training_pairs(arm, splits, seed), settings_for(arm, settings, seed), splits.selection
    )


def start_of(arm: str, settings: Preset, splits: Splits, seed: int, progress: bool = False) -> Start:
    """The initial model of an arm: a new one, or the trained one of the arm that it starts from."""
    if "initialise_from" not in changes(arm):
        return initial(settings_for(arm, settings, seed))
    (parent,) = waits_for(arm)
    return Start(
        identity_of(parent, settings, splits, seed), partial(model_of, parent, settings, splits, seed, progress)
    )


def training_pairs(arm: str, splits: Splits, seed: int) -> Dataset:
    """The pairs that an arm learns from."""
    return shuffled_labels(splits.train, seed) if changes(arm).get("shuffle_labels") else splits.train


def model_of(arm: str, settings: Preset, splits: Splits, seed: int, progress: bool = False) -> RewardModel:
    """The trained model, trained now where it is not yet."""
    return RewardModel.load(obtain(arm, settings, splits, seed, progress).model_folder)


def obtain(arm: str, settings: Preset, splits: Splits, seed: int, progress: bool = False) -> Trained:
    """Train an arm, and the arms that it is made from, or find what an earlier call finished."""
    if "extrapolate" in changes(arm):
        return _extrapolated(arm, settings, splits, seed, progress)
    if derivation := _derivation(arm):
        return _derived(arm, derivation, settings, splits, seed, progress)
    if changes(arm).get("untrained"):
        return _untrained(arm, settings, splits, seed)
    wanted, start = settings_for(arm, settings, seed), start_of(arm, settings, splits, seed, progress)
    run = train(start, training_pairs(arm, splits, seed), wanted, selection=splits.selection, progress=progress)
    curve = run.history[["step", "loss"]]
    thin = curve.iloc[np.unique(np.linspace(0, len(curve) - 1, 60).astype(int))]
    kept = ("n_steps", "n_pairs", "left_out", "n_cut", "loss", "tokens", "selection_loss", "selection_accuracy")
    summary = {name: run.summary[name] for name in kept if name in run.summary}
    summary["curve"] = thin.to_numpy().tolist()
    return Trained(run, run.folder / MODEL_FOLDER, {"training": summary, "layout": run.summary["layout"]})


def as_backbone(arm: str, settings: Preset, splits: Splits, seed: int) -> str:
    """The trained backbone of an arm as the folder of a backbone, named by the arm, so that records can show it.

    Relative to the working folder: what is named after settings that hold it is named alike in every clone.
    """
    model_folder = obtain(arm, settings, splits, seed).model_folder
    name = f"{paths.public_name(settings.backbone)} trained as {arm}, seed {seed}"
    folder = paths.runs_dir() / "backbones" / model_folder.parent.name / name
    if not folder.is_dir():
        temporary = folder.with_name(f"{name}.{os.getpid()}.tmp")
        shutil.copytree(model_folder, temporary)
        temporary.replace(folder)
    return os.path.relpath(folder)


def _extrapolated(arm: str, settings: Preset, splits: Splits, seed: int, progress: bool) -> Trained:
    """The extrapolation whose factor has the highest accuracy on the selection split, the smallest among equals."""
    folder = _folder(arm, settings, splits, seed)
    if not (folder / SWEEP_FILE).is_file():
        strong, weak = (model_of(other, settings, splits, seed, progress) for other in waits_for(arm))
        sweep = sweeps.coarse_and_fine(
            weak, strong, partial(sweeps.ordering, pairs=splits.selection, settings=settings)
        )
        best = sweeps.best_factor(sweep)
        combining.extrapolate(weak, strong, best).save(folder / MODEL_FOLDER)
        write_json(folder / SWEEP_FILE, {"factor": best, "sweep": sweep})
    return Trained(None, folder / MODEL_FOLDER, json.loads((folder / SWEEP_FILE).read_text()))


def _derived(arm: str, derivation: str, settings: Preset, splits: Splits, seed: int, progress: bool) -> Trained:
    """What `rmlib.experiments.derived` makes of the parent's model; made once and kept, with what was fitted."""
    folder = _folder(arm, settings, splits, seed)
    if not (folder / FIT_FILE).is_file():
        parent = model_of(str(ARMS[arm].parent), settings, splits, seed, progress)
        make = DERIVATIONS[derivation]
        model, fit = make(parent, splits, lambda pairs: score_pairs(scorer(parent, settings), pairs))
        model.save(folder / MODEL_FOLDER)
        write_json(folder / FIT_FILE, fit)
    return Trained(None, folder / MODEL_FOLDER, json.loads((folder / FIT_FILE).read_text()))


def _untrained(arm: str, settings: Preset, splits: Splits, seed: int) -> Trained:
    """The model as the seed draws it."""
    folder = _folder(arm, settings, splits, seed)
    if not (folder / FIT_FILE).is_file():
        create_model(settings_for(arm, settings, seed)).save(folder / MODEL_FOLDER)
        write_json(folder / FIT_FILE, {})
    return Trained(None, folder / MODEL_FOLDER, {})


def _derivation(arm: str) -> str | None:
    """The change by which an arm is made of its parent's model without training, if there is one."""
    return next(iter(DERIVATIONS.keys() & ARMS[arm].change.keys()), None)


def rewards_on_test(model_folder: Path, splits: Splits, settings: Preset) -> tuple[np.ndarray, int]:
    """Rewards of the test pairs and the number of texts cut, kept beside the model."""
    return kept_rewards(_test_file(model_folder.parent, splits), model_folder, splits.test, settings)


def selection_margins(model_folder: Path, splits: Splits, settings: Preset) -> np.ndarray:
    """Margins of the decided selection pairs, by the reward that is tested later; kept beside the model."""
    file = model_folder.parent / f"selection-{splits.identity}.json"
    rewards, _ = kept_rewards(file, model_folder, splits.selection, settings)
    return oriented_margins(splits.selection, rewards)


def selection_accuracy(arm: str, settings: Preset, splits: Splits, seed: int) -> float:
    """Accuracy of the trained arm on the decided pairs of the selection split."""
    folder = obtain(arm, settings, splits, seed).model_folder
    return statistics.accuracy(selection_margins(folder, splits, settings))


def is_finished(arm: str, settings: Preset, splits: Splits, seed: int, *, tested: bool = True) -> bool:
    """Whether the arm is trained and, unless not asked for, the test pairs are scored."""
    folder = _folder(arm, settings, splits, seed)
    mark = {"extrapolated": SWEEP_FILE, "train": FINISHED_FILE}.get(folder.parent.name, FIT_FILE)
    return (folder / mark).is_file() and (not tested or _test_file(folder, splits).is_file())


def missing(arms: Sequence[str], settings: Preset, splits: Splits, seeds: Iterable[int]) -> dict[Job, list[Job]]:
    """The part of the graph that is not finished: nothing waits for what is there already."""
    jobs = graph(arms, seeds)
    asked = {job for job in jobs if job[0] in arms}
    done = {job for job in jobs if is_finished(job[0], settings, splits, job[1], tested=job in asked)}
    needed: dict[Job, list[Job]] = {}

    def add(job: Job) -> None:
        if job not in done and job not in needed:
            needed[job] = [other for other in jobs[job] if other not in done]
            for other in jobs[job]:
                add(other)

    for job in jobs:
        if job in asked:
            add(job)
    return needed


def run_training(
    jobs: Mapping[AnyJob, Collection[AnyJob]],
    work: Callable[[AnyJob], None],
    settings: Preset,
    splits: Splits,
    *,
    processes: int | None,
    show: Callable[[AnyJob], str],
) -> None:
    """`run_jobs`; features of a frozen backbone are computed before, once, where several processes would each do so."""
    if jobs and settings.frozen:
        _compute_features(settings, splits)
    run_jobs(jobs, work, processes=processes, show=show)


def _compute_features(settings: Preset, splits: Splits) -> None:
    model = create_model(settings.regression)
    for part in (splits.train, splits.selection, splits.test):
        for side in ("response_1", "response_2"):
            load_or_compute(model, part["prompt"][:], part[side][:])


def _folder(arm: str, settings: Preset, splits: Splits, seed: int) -> Path:
    identity = identity_of(arm, settings, splits, seed)
    if "extrapolate" in changes(arm):
        return paths.runs_dir() / "extrapolated" / identity
    if _derivation(arm):
        return paths.runs_dir() / "derived" / identity
    return paths.runs_dir() / "untrained" / identity if changes(arm).get("untrained") else run_folder(identity)


def _test_file(folder: Path, splits: Splits) -> Path:
    return folder / f"test-{splits.identity}.json"
