"""The files of a run's folder by name, and what is logged there: all that can be read of a run without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SETTINGS_FILE, LOG_FILE, FINISHED_FILE, MODEL_FOLDER = "settings.json", "log.jsonl", "finished.json", "model"


def read_log(folder: Path, until_step: int | None = None) -> list[dict[str, Any]]:
    """Rows of a run's log up to a step; a last line that a killed run left unfinished is passed over."""
    file = folder / LOG_FILE
    rows = [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")] if file.is_file() else []
    return [row for row in rows if until_step is None or row["step"] <= until_step]
