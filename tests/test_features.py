"""Kept features: of one backbone, tokenizer and template alone, and a file that says otherwise is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.numpy import load_file

from rmlib.models import RewardModel, features
from rmlib.models.features import FeaturesError, load_or_compute
from rmlib.records import paths

PROMPTS = [[{"role": "user", "content": "one"}]] * 2 + [[{"role": "user", "content": "two"}]]
RESPONSES = ["a", "b", "a"]


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RMLIB_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


@pytest.fixture
def model(tmp_path: Path) -> RewardModel:
    return RewardModel.create(tiny.save_backbone(tmp_path / "backbone"))


def folders() -> list[Path]:
    return sorted((paths.runs_dir() / "features").iterdir())


def test_kept_features_are_those_of_the_model_and_computed_once_per_text(model: RewardModel) -> None:
    first = load_or_compute(model, PROMPTS[:2], RESPONSES[:2])
    np.testing.assert_array_equal(first, model.features(PROMPTS[:2], RESPONSES[:2]))
    again = load_or_compute(model, PROMPTS, RESPONSES)
    np.testing.assert_array_equal(again[:2], first)
    sizes = sorted(len(load_file(file)["keys"]) for file in folders()[0].glob("*.safetensors"))
    assert sizes == [1, 2]


def test_other_weights_under_the_same_name_have_features_of_their_own(model: RewardModel) -> None:
    before = load_or_compute(model, PROMPTS, RESPONSES)
    tiny.save_backbone(Path(model.name), seed=1)
    other = RewardModel.create(model.name)
    assert other.body_identity == model.body_identity
    np.testing.assert_array_equal(load_or_compute(other, PROMPTS, RESPONSES), other.features(PROMPTS, RESPONSES))
    assert not np.allclose(load_or_compute(other, PROMPTS, RESPONSES), before)
    assert len(folders()) == 2


def test_another_template_has_features_of_its_own(model: RewardModel) -> None:
    load_or_compute(model, PROMPTS, RESPONSES)
    model.tokenizer.chat_template = tiny.TEMPLATE.replace("<|end|>", "!<|end|>")
    np.testing.assert_array_equal(load_or_compute(model, PROMPTS, RESPONSES), model.features(PROMPTS, RESPONSES))
    assert len(folders()) == 2


def test_the_head_and_padding_do_not_change_what_features_belong_to(model: RewardModel) -> None:
    before = features.identity(model)
    with torch.no_grad():
        model.head.weight.add_(1)
    model.tokenizer(["a", "long text"], padding=True, truncation=True, max_length=3)
    assert features.identity(RewardModel.create(model.name, seed=7)) == features.identity(model) == before


def test_a_file_of_another_backbone_is_a_named_error(model: RewardModel, tmp_path: Path) -> None:
    load_or_compute(model, PROMPTS, RESPONSES)
    other = RewardModel.create(tiny.save_backbone(tmp_path / "other", seed=1))
    load_or_compute(other, PROMPTS[:1], RESPONSES[:1])
    one, two = folders()
    for file in one.glob("*.safetensors"):
        shutil.copy(file, two / f"copied-{file.name}")
    for file in two.glob("*.safetensors"):
        shutil.copy(file, one / f"copied-{file.name}")
    for each in (model, other):
        with pytest.raises(FeaturesError, match=r"copied-.* was made with another weights than the model has"):
            load_or_compute(each, PROMPTS, RESPONSES)


def test_a_file_cut_short_is_a_named_error(model: RewardModel) -> None:
    load_or_compute(model, PROMPTS, RESPONSES)
    [file] = folders()[0].glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(FeaturesError, match="cannot be read"):
        load_or_compute(model, PROMPTS, RESPONSES)
