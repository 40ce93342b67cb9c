"""A run: the model it starts from, what names it, and its folder: settings, log, model, a mark that it is finished."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from io import FileIO
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import pandas as pd
from datasets import Dataset
from safetensors import SafetensorError

from rmlib import models, pairs
from rmlib.annotations import preference_items
from rmlib.records import paths
from rmlib.records.files import write_json, written_whole
from rmlib.records.hashing import fingerprint
from rmlib.training.settings import TrainSettings

SETTINGS_FILE, LOG_FILE, FINISHED_FILE, MODEL_FOLDER = "settings.json", "log.jsonl", "finished.json", "model"
LOCK_FILE, SCALARS_FOLDER = "lock", "tensorboard"

logger = logging.getLogger(__name__)


class TrainingError(RuntimeError):
    """A run that cannot go on: a non-finite loss, an over-long pair, nothing to train on, settings that changed."""


class DiskError(TrainingError):
    """Something that could not be written, because the disk is full or a quota is reached; what was before is kept."""


@dataclass(frozen=True)
class Start:
    """An initial model that is made only where it is needed: a finished run is found by its identity alone."""

    identity: str
    make: Callable[[], models.RewardModel]


def create_model(settings: TrainSettings) -> models.RewardModel:
    """The initial model that the settings describe."""
    return initial(settings).make()


def initial(settings: TrainSettings) -> Start:
    """The same, made only where a run is not finished."""
    import torch  # slow to import, which reading a record can do without

    nf4 = {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": settings.double_quantization,
    }
    if settings.precision == "bf16":  # else the 4-bit weights would be multiplied in fp32
        nf4["bnb_4bit_compute_dtype"] = "bfloat16"
    options: dict[str, Any] = {
        "head_layers": settings.head_layers, "lora": lora_of(settings), "seed": settings.seed,
        "quantization": nf4 if settings.quantization == "nf4" else None,
        "dtype": torch.bfloat16 if settings.backbone_dtype == "bf16" else torch.float32, "chat": settings.chat,
    }  # fmt: skip
    identity = models.RewardModel.identity_of_new(settings.backbone, settings.attributes, **options)
    return Start(identity, partial(models.RewardModel.create, settings.backbone, settings.attributes, **options))


def lora_of(settings: TrainSettings) -> dict[str, Any] | None:
    """What peft's LoraConfig is to hold, or None where every weight is trained."""
    if not settings.lora_rank:
        return None
    dropout = {"lora_dropout": settings.lora_dropout} if settings.lora_dropout else {}
    return {"r": settings.lora_rank, "lora_alpha": settings.lora_alpha or 2 * settings.lora_rank} | dropout


def run_identity(
    start: str, table: Dataset, settings: TrainSettings, selection: Dataset | None,
    benchmarks: Mapping[str, Dataset] | None = None,
) -> str:  # fmt: skip
    """The name of a run, and of the model that comes out, from the identity of the initial model."""
    data = [_data_identity(own, settings) for own in (table, selection) if own is not None]
    columns = ("item_id", "subset", "prompt", "candidates")
    for name, items in sorted((benchmarks or {}).items()):
        more = ["extras"] * ("extras" in items.column_names)
        data.append([name, fingerprint([items[column][:] for column in (*columns, *more)])])
    return fingerprint("train", start, settings.to_dict(), data)


def run_folder(identity: str) -> Path:
    """Where a run lies unless `train` is told otherwise."""
    return paths.runs_dir() / "train" / identity


_known_data: WeakKeyDictionary[Dataset, list[Any]] = WeakKeyDictionary()


def _data_identity(table: Dataset, settings: TrainSettings) -> list[Any]:
    """What a run's name says of a table: labels, order of rows (the seed shuffles it), votes where they are learnt."""
    if table not in _known_data:  # reading thousands of rows takes longer than all else about a finished run
        _known_data[table] = [pairs.content_hash(table), table["pair_id"][:]]
    votes = [preference_items(table)] if settings.soft_labels else []
    return [*_known_data[table], *votes]


@dataclass
class RunFolder:
    """Where something is or was optimised."""

    folder: Path

    @property
    def identity(self) -> str:
        """The name of the run, and of its trained model; raises TrainingError where its folder does not say it."""
        name = self.folder.name
        try:
            return str(json.loads((self.folder / SETTINGS_FILE).read_text())["identity"])
        except (ValueError, KeyError, TypeError) as error:
            raise TrainingError(f"{name}/{SETTINGS_FILE} does not say which run this is; remove {name}") from error

    @property
    def is_finished(self) -> bool:
        return (self.folder / FINISHED_FILE).is_file()

    @property
    def history(self) -> pd.DataFrame:
        """The log: one row per optimizer step."""
        return pd.DataFrame(read_log(self.folder))

    @property
    def summary(self) -> dict[str, Any]:
        """Steps, pairs, tokens, seconds, what was left out, last evaluation."""
        return json.loads((self.folder / FINISHED_FILE).read_text())


@dataclass
class Run(RunFolder):
    """A finished run: its folder, settings and model."""

    settings: TrainSettings

    @cached_property
    def model(self) -> models.RewardModel:
        """The trained model, read from the run's folder."""
        return models.RewardModel.load(self.folder / MODEL_FOLDER)


def claim(folder: Path, settings: dict[str, Any], identity: str) -> bool:
    """Write the settings into a new run folder; refuse one that belongs to another run, or whose settings are lost.

    Returns whether the folder is claimed only now.
    """
    if (folder / SETTINGS_FILE).is_file():
        if (found := RunFolder(folder).identity) != identity:
            raise TrainingError(
                f"{folder} holds run {found}, not {identity}: settings, data or initial model differ; "
                "name another folder, or remove that one"
            )
        return False
    if lost := [name for name in (FINISHED_FILE, LOG_FILE) if (folder / name).is_file()]:
        raise TrainingError(f"{folder.name} holds {lost[0]} but no {SETTINGS_FILE}: whose run it is is lost; remove it")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / SETTINGS_FILE, {"identity": identity, "settings": settings})
    return True


def give_up(folder: Path) -> None:
    """Take a claim back, unless a step was made: a run that could not start is corrected and started in its folder."""
    if not read_log(folder):
        shutil.rmtree(folder / SCALARS_FOLDER, ignore_errors=True)
        for name in (SETTINGS_FILE, LOG_FILE, LOCK_FILE):
            (folder / name).unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep a run's folder for this process, until it ends however it ends.

    Raises TrainingError where another process is training in it.
    """
    with (folder / LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrainingError(f"another process is training in {folder.name}: wait for it, or stop it") from error
        except OSError as error:  # some file systems of clusters know no locks
            logger.warning("%s cannot be locked (%s): see to it that no other process trains in it", folder.name, error)
        yield


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Says what could not be written and what to do: raises DiskError where the system, safetensors or torch fail."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        of_torch = "inline_container" in str(error) or "StreamWriter" in str(error)  # how torch.save says so
        if isinstance(error, TrainingError) or (isinstance(error, RuntimeError) and not of_torch):
            raise
        raise DiskError(
            f"{what} could not be written ({error}); what was written before is kept: make room, and start the same "
            "run again"
        ) from error


class Curves:
    """The log as TensorBoard scalars beside it, at most `every_seconds` behind; a shorter run gets them at its end.

    The first time the whole log is written anew: after a run was killed, what lay there may lack steps, or have some
    twice. Raises DiskError where the disk is full.
    """

    def __init__(self, folder: Path, *, every_seconds: float = 30.0) -> None:
        self.folder, self.every_seconds = folder, every_seconds
        self._rows: list[dict[str, Any]] = []
        self._writer: Any = None
        self._written = time.monotonic()

    def add(self, row: dict[str, Any]) -> None:
        """A row that the log has by now."""
        self._rows.append(row)
        if time.monotonic() - self._written >= self.every_seconds:
            self._write()

    def close(self) -> None:
        """Write what is left."""
        self._write()
        self._writer.close()

    def _write(self) -> None:
        with writing(f"the curves of {self.folder.name}"):
            if self._writer is None:
                from torch.utils.tensorboard import SummaryWriter  # slow to import

                shutil.rmtree(self.folder / SCALARS_FOLDER, ignore_errors=True)
                self._writer, self._rows = SummaryWriter(str(self.folder / SCALARS_FOLDER)), read_log(self.folder)
            for row in self._rows:
                for name, value in row.items():
                    self._writer.add_scalar(name, value, row["step"])
            self._writer.flush()
        self._rows, self._written = [], time.monotonic()


def append_row(log: FileIO, row: dict[str, Any], curves: Curves | None = None) -> None:
    """One line of a log that is open without a buffer, and its scalars; DiskError where the disk takes only part."""
    line = (json.dumps(row) + "\n").encode()
    with writing(f"the log of step {row['step']}"):
        if log.write(line) != len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if curves is not None:
        curves.add(row)


def cut_log(folder: Path, until_step: int) -> None:
    """Leave out the rows after a step, and a last line that is not whole."""
    file = folder / LOG_FILE
    with writing(f"the log up to step {until_step}"), written_whole(file) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in read_log(folder, until_step)))


def write_result(
    folder: Path, model: models.RewardModel, summary: dict[str, Any], state: dict[str, Any] | None
) -> None:
    """Model and, after all that it stands for, the mark that the run is finished.

    `state`: the whole state dict, where the model holds only a shard of it. Raises DiskError where the disk is full.
    """
    with writing(f"the model of {folder.name}"):
        model.save(folder / MODEL_FOLDER, state)
        write_json(folder / FINISHED_FILE, {**summary, **read_log(folder)[-1]})


def read_log(folder: Path, until_step: int | None = None) -> list[dict[str, Any]]:
    """Rows of a run's log up to a step; a last line that a killed run left unfinished is passed over."""
    file = folder / LOG_FILE
    rows = [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")] if file.is_file() else []
    return [row for row in rows if until_step is None or row["step"] <= until_step]
