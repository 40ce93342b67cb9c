"""The trained model of an arm under a seed: what it is called, what it waits for, and how it is had or found again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from datasets import Dataset

from rmlib.experiments.arms import ARMS, Job, changes, is_derived, settings_for, waits_for
from rmlib.experiments.derived import derived_model
from rmlib.experiments.jobs import run_jobs
from rmlib.experiments.presets import Preset
from rmlib.experiments.scoring import kept_rewards, rewards_file
from rmlib.models import RewardModel
from rmlib.models.features import load_or_compute
from rmlib.pairs.views import margins_of_chosen, texts_of
from rmlib.records import paths
from rmlib.records.hashing import fingerprint
from rmlib.records.kept import kept_folder, kept_json
from rmlib.sources import Splits, shuffled_labels
from rmlib.training import run_folder, run_identity, train
from rmlib.training.runs import FINISHED_FILE, MODEL_FOLDER, Run, Start, create_model, initial

FIT_FILE = "fit.json"
AnyJob = TypeVar("AnyJob")


@dataclass(frozen=True)
class Trained:
    """Where the model of an arm and seed lies, its run (None where none was needed), and what its record says of it."""

    run: Run | None
    model_folder: Path
    details: dict[str, Any]


def identity_of(arm: str, settings: Preset, splits: Splits, seed: int) -> str:
    """What the arm's model comes from, by which it is found again; nothing is loaded to know it."""
    if changes(arm).get("untrained"):
        return initial(settings_for(arm, settings, seed)).identity
    if is_derived(arm):
        (change,) = ARMS[arm].change
        parents = [identity_of(other, settings, splits, seed) for other in reversed(waits_for(arm))]
        made_by = "coarse and fine" if change == "extrapolate" else change
        return fingerprint(made_by, *parents, splits.identity)
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
    if is_derived(arm):
        return _derived(arm, settings, splits, seed, progress)
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
    return os.path.relpath(kept_folder(folder, partial(shutil.copytree, model_folder)))


def _derived(arm: str, settings: Preset, splits: Splits, seed: int, progress: bool) -> Trained:
    """A model that is drawn or made of others (`derived`): made once, and kept with what was fitted."""
    folder = _folder(arm, settings, splits, seed)

    def make() -> dict[str, Any]:
        parents = [model_of(other, settings, splits, seed, progress) for other in waits_for(arm)]
        if parents:
            model, fit = derived_model(arm, parents, splits, frozen=settings.frozen)
        else:
            model, fit = create_model(settings_for(arm, settings, seed)), {}
        model.save(folder / MODEL_FOLDER)
        return fit

    return Trained(None, folder / MODEL_FOLDER, kept_json(folder / FIT_FILE, make))


def selection_margins(model_folder: Path, splits: Splits, settings: Preset) -> np.ndarray:
    """Margins of the decided selection pairs, by the reward that is tested later; kept beside the model."""
    rewards, _ = kept_rewards(model_folder, "selection", splits, frozen=settings.frozen)
    return margins_of_chosen(splits.selection, rewards)


def is_finished(arm: str, settings: Preset, splits: Splits, seed: int, *, tested: bool = True) -> bool:
    """Whether the arm is trained and, unless not asked for, the test pairs are scored."""
    folder = _folder(arm, settings, splits, seed)
    mark = FIT_FILE if is_derived(arm) else FINISHED_FILE
    return (folder / mark).is_file() and (not tested or rewards_file(folder / MODEL_FOLDER, "test", splits).is_file())


def missing(asked: Sequence[Job], settings: Preset, splits: Splits, *, tested: bool = True) -> dict[Job, list[Job]]:
    """What is not finished of some jobs and of those they are made from: nothing waits for what is there already."""

    @cache
    def is_there(job: Job) -> bool:
        return is_finished(job[0], settings, splits, job[1], tested=tested and job in asked)

    needed: dict[Job, list[Job]] = {}

    def add(job: Job) -> None:
        if job not in needed and not is_there(job):
            made_from = [(other, job[1]) for other in waits_for(job[0])]
            needed[job] = [other for other in made_from if not is_there(other)]
            for other in made_from:
                add(other)

    for job in asked:
        add(job)
    return needed


def run_training(
    jobs: Mapping[AnyJob, Collection[AnyJob]],
    work: Callable[[AnyJob], object],
    settings: Preset,
    splits: Splits,
    *,
    processes: int | None,
    show: Callable[[AnyJob], str],
) -> None:
    """`run_jobs`; features of a frozen backbone are computed before, once, where several processes would each do so."""
    if jobs and settings.frozen:
        model = create_model(settings.regression)
        for part in (splits.train, splits.selection, splits.test):
            prompts, responses = texts_of(part)
            for side in (0, 1):
                load_or_compute(model, prompts[side::2], responses[side::2])
    run_jobs(jobs, work, processes=processes, show=show)


def _folder(arm: str, settings: Preset, splits: Splits, seed: int) -> Path:
    identity = identity_of(arm, settings, splits, seed)
    return paths.runs_dir() / "derived" / identity if is_derived(arm) else run_folder(identity)
