"""A run's folder: settings, log, model, and a mark that it is finished."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from rmlib.examples import TrainingError
from rmlib.models import RewardModel
from rmlib.settings import TrainSettings

SETTINGS_FILE, LOG_FILE, FINISHED_FILE, MODEL_FOLDER = "settings.json", "log.jsonl", "finished.json", "model"


@dataclass
class Run:
    """A finished run: its folder, settings and model."""

    folder: Path
    settings: TrainSettings

    @property
    def identity(self) -> str:
        """The name of the run, and of its trained model."""
        return _identity_in(self.folder)

    @property
    def is_finished(self) -> bool:
        return (self.folder / FINISHED_FILE).is_file()

    @cached_property
    def model(self) -> RewardModel:
        """The trained model, read from the run's folder."""
        return RewardModel.load(self.folder / MODEL_FOLDER)

    @property
    def history(self) -> pd.DataFrame:
        """The log: one row per optimizer step."""
        return pd.DataFrame(read_log(self.folder))

    @property
    def summary(self) -> dict[str, Any]:
        """Steps, pairs, tokens, seconds, what was left out, last evaluation."""
        return json.loads((self.folder / FINISHED_FILE).read_text())


def claim(folder: Path, settings: TrainSettings, identity: str) -> None:
    """Write the settings into a new run folder; refuse one that belongs to another run, or whose settings are lost."""
    if (folder / SETTINGS_FILE).is_file():
        if (found := _identity_in(folder)) != identity:
            raise TrainingError(
                f"{folder.name} holds run {found}, not {identity}: settings, data or initial model differ; "
                "name another folder, or remove that one"
            )
        return
    if lost := [name for name in (FINISHED_FILE, LOG_FILE) if (folder / name).is_file()]:
        raise TrainingError(f"{folder.name} holds {lost[0]} but no {SETTINGS_FILE}: whose run it is is lost; remove it")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / SETTINGS_FILE, {"identity": identity, "settings": settings.to_dict()})


def _identity_in(folder: Path) -> str:
    try:
        return str(json.loads((folder / SETTINGS_FILE).read_text())["identity"])
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{folder.name}/{SETTINGS_FILE} does not say which run this is; remove {folder.name}"
        ) from error


def write_json(file: Path, content: Any) -> None:
    """Write to a temporary name, then rename: a reader sees the old file or the new one, never half of it."""
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")  # another process may write the same file
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(file)


def read_log(folder: Path, until_step: int | None = None) -> list[dict[str, Any]]:
    """Rows of a run's log up to a step; a last line that a killed run left unfinished is passed over."""
    file = folder / LOG_FILE
    rows = [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")] if file.is_file() else []
    return [row for row in rows if until_step is None or row["step"] <= until_step]
