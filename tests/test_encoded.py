"""What heads read beside, and in place of, the last layer of a backbone: surface features and hidden layers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from datasets import concatenate_datasets

from rmlib.experiments.grid import Grid, GridError, run_grid
from rmlib.experiments.presets import Preset
from rmlib.models import ModelError, RewardModel, features
from rmlib.models.features import HiddenLayer
from rmlib.models.surface_features import COUNTS, N_FEATURES, SHARES, surface_features
from rmlib.pairs import make_pairs
from rmlib.sources import load_splits
from rmlib.training.encoded import Encoded
from rmlib.training.settings import TrainSettings

PROMPT = [{"role": "user", "content": "why"}]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("RMLIB_RESULTS", str(tmp_path / "results"))


def test_surface_features_of_a_text_by_hand() -> None:
    [row] = surface_features(["Because, I said: it's 20. Because!"]).tolist()
    counts = {
        "characters": 34, "words": 5, "different words": 4, "sentence ends": 2, "commas": 1, "exclamation marks": 1,
        "question marks": 0, "quotation marks": 0, "numbers": 1, "line ends": 0,
        "letters a word": (7 + 1 + 4 + 4 + 7) / 5, "words a sentence": 2.5,
    }  # fmt: skip
    shares = {
        "different words": 4 / 5, "long words": 2 / 5, "capitals": 3 / 34, "letters": 22 / 34,
        "starts with a capital": 1.0, "ends a sentence": 1.0,
    }  # fmt: skip
    assert (list(counts), list(shares)) == (list(COUNTS), list(SHARES))
    np.testing.assert_allclose(row, [*np.log1p(list(counts.values())), *shares.values()], rtol=1e-6)
    assert surface_features([""]).isfinite().all()


@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_a_hidden_layer_is_pooled_as_the_last_one_is(tmp_path: Path, kind: str) -> None:
    model = RewardModel.create(tiny.save_backbone(tmp_path / kind, kind))
    answers = ["short", "somewhat longer"]
    last = HiddenLayer(model, 2).features([PROMPT] * 2, answers)
    np.testing.assert_allclose(last, model.features([PROMPT] * 2, answers), atol=1e-5)
    first = HiddenLayer(model, 1).features([PROMPT] * 2, answers)
    for row, answer in zip(first, answers, strict=True):
        batch = model.collate([*map(_group, [model.encode([PROMPT], [answer])])], shared=False)
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        if kind == "bert":
            inputs["token_type_ids"] = batch.token_type_ids
        with torch.no_grad():
            states = model.backbone(**inputs, output_hidden_states=True).hidden_states[1][0]
        expected = states.mean(dim=0) if kind == "bert" else states[-1]
        np.testing.assert_allclose(row, expected, atol=1e-4)
    with pytest.raises(ModelError, match="hidden layers 0 .embeddings. to 2, not 3"):
        HiddenLayer(model, 3)


def _group(encoded):
    from rmlib.models import batches

    return batches.group(encoded, [1])[0]


def test_features_of_another_layer_are_kept_apart(tmp_path: Path) -> None:
    model = RewardModel.create(tiny.save_backbone(tmp_path / "bert", "bert"))
    one, other = (features.load_or_compute(HiddenLayer(model, layer), [PROMPT], ["text"]) for layer in (0, 1))
    assert not np.allclose(one, other)
    np.testing.assert_array_equal(features.load_or_compute(HiddenLayer(model, 0), [PROMPT], ["text"]), one)
    np.testing.assert_allclose(features.load_or_compute(model, [PROMPT], ["text"]), model.features([PROMPT], ["text"]))


def test_a_grid_reads_the_layer_and_the_surface_that_it_names(tmp_path: Path) -> None:
    splits = load_splits(tiny.write_source(tmp_path / "own"), selection_fraction=0.25)
    wanted = TrainSettings(backbone=tiny.save_backbone(tmp_path / "backbone", "bert"), warmup_steps=3)
    preset = Preset("tiny", wanted, wanted, wanted)
    grid = Grid((1e-2,), (0.0,), (0, 1), 15, surface=True, layer=1)
    result = run_grid(["bt", "bt_scaled_two_layers"], splits, preset, grid)
    [heads] = result.heads["bt"]
    assert heads.weight.shape == (2, 1, 32 + N_FEATURES)
    model = RewardModel.create(preset.backbone)
    texts = [text for two in zip(splits.test["response_1"], splits.test["response_2"], strict=True) for text in two]
    read = HiddenLayer(model, 1).features([prompt for prompt in splits.test["prompt"] for _ in range(2)], texts)
    trained = surface_features([*splits.train["response_1"], *splits.train["response_2"]])
    surface = (surface_features(texts) - trained.mean(0)) / torch.where(trained.std(0) > 0, trained.std(0, False), 1.0)
    expected = np.c_[read, surface] @ heads.weight[0, 0].numpy() + heads.bias[0].numpy()
    np.testing.assert_allclose(result.rewards["bt"][0].ravel(), expected, atol=1e-3)
    with pytest.raises(GridError, match="ask for one of the two"):
        Grid((1e-2,), (0.0,), (0,), 5, surface=True, log_length=True)


def test_of_single_responses_regression_sees_the_ratings_and_preference_losses_nothing(tmp_path: Path) -> None:
    pairs = load_splits(tiny.write_source(tmp_path / "own"), selection_fraction=0.25).train.select(range(4))
    alone = dict.fromkeys(("pair_id", "response_2", "ratings_2", "preference"))
    singles = make_pairs([dict(row) | alone for row in pairs.select(range(3))], origin="singles")
    settings = TrainSettings(backbone=tiny.save_backbone(tmp_path / "backbone", "bert"), loss="regression")
    encoded = Encoded(concatenate_datasets([pairs, singles]), settings)
    part = encoded.part(encoded.pairs, settings)
    assert part.pair_ids == [*pairs["pair_id"], *singles["pair_id"]]
    assert part.ratings.isnan().any(dim=2).tolist() == [[False, False]] * 4 + [[False, True]] * 3
    torch.testing.assert_close(part.inputs[4:, 0], part.inputs[:3, 0])
    assert encoded.part(encoded.pairs, replace(settings, loss="bradley_terry")).pair_ids == [
        row["pair_id"] for row in pairs if row["preference"]
    ]
