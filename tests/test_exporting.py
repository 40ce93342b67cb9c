"""An export is read by plain transformers as our model is, or refused."""

from pathlib import Path

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from rmlib.models import ModelError, RewardModel
from rmlib.models.exporting import check


def model_of(folder: Path, **tokenizer: object) -> RewardModel:
    model = RewardModel.create(tiny.save_backbone(folder, "llama"), seed=1)
    model.tokenizer = tiny.byte_tokenizer(**tokenizer) if tokenizer else model.tokenizer
    return model


def test_an_export_that_transformers_reads_otherwise_is_refused(tmp_path: Path) -> None:
    model, folder = model_of(tmp_path / "backbone"), tmp_path / "out"
    bias = model.export(folder)
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"score.weight": 1.5 * weights["score.weight"]}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="transformers gives"):
        check(model, folder, bias)


@pytest.mark.parametrize(
    "tokenizer",
    [{"bos": True}, {"template": "{{ strftime_now('%d %b %Y') }}" + tiny.TEMPLATE}],
    ids=["a BOS that the template does not write", "a template that writes today's date"],
)
def test_the_exported_template_alone_gives_the_tokens_that_our_model_reads(tmp_path: Path, tokenizer: dict) -> None:
    model = model_of(tmp_path / "backbone", **tokenizer)
    torch.nn.init.constant_(model.head.bias, 0.25)
    assert model.export(tmp_path / "out") == 0.25  # it compares rewards by itself, and raises where they differ
