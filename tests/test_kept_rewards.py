"""Rewards and features that one state of the code made are not read after any module of the room has changed."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import tiny
from written import benchmark_items

from rmlib import benchmarks
from rmlib.benchmarks import scorers
from rmlib.models import RewardModel, features
from rmlib.records import hashing
from rmlib.records.hashing import PACKAGE, hash_of_code

pytestmark = pytest.mark.usefixtures("own_runs")
PROMPT = [{"role": "user", "content": "q"}]
ANSWERS = ["a", "bb"]
MODULES = sorted(path.relative_to(PACKAGE / "models") for path in (PACKAGE / "models").rglob("*.py"))


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the room `models`, whose code is hashed in place of the room's own."""
    package = tmp_path / "package"
    shutil.copytree(PACKAGE / "models", package / "models", ignore=shutil.ignore_patterns("__pycache__"))
    for user in (features, scorers):
        monkeypatch.setattr(user, "hash_of_code", partial(hash_of_code, package=package))
    return package / "models"


def features_of(model: RewardModel) -> object:
    return features.load_or_compute(model, [PROMPT] * 2, ANSWERS)


def rewards_of(model: RewardModel) -> object:
    items = [{"item_id": "1", "subset": "s", "prompt": PROMPT, "candidates": ANSWERS}]
    return benchmarks.score(model, benchmark_items("rewardbench", items))


@pytest.mark.parametrize(
    ("made_by", "read"), [("features", features_of), ("score", rewards_of)], ids=["features", "rewards"]
)
def test_what_is_kept_is_read_as_long_as_no_module_has_changed(
    made_by: str, read: Callable, room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, n_computed = RewardModel.create(tiny.save_backbone(tmp_path / "backbone")), []
    honest = getattr(RewardModel, made_by)
    monkeypatch.setattr(RewardModel, made_by, lambda *given, **how: n_computed.append(1) or honest(*given, **how))
    for number, module in enumerate((None, *MODULES), start=1):
        if module is not None:
            (room / module).write_text((room / module).read_text() + "\n")
        hashing.hash_of_code.cache_clear()  # a process reads its code once
        read(model)
        read(model)
        assert len(n_computed) == number, module
