"""Rewards of a benchmark's items: kept by content, gone on with where interrupted, never silently missing."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset
from written import benchmark_items

from rmlib import benchmarks
from rmlib.benchmarks import scorers
from rmlib.models import ModelError, RewardModel
from rmlib.models.backbones import BackboneError
from rmlib.models.features import FromFeatures
from rmlib.models.likelihood import load_implicit
from rmlib.records import paths
from rmlib.statistics import Longer


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RMLIB_RUNS", str(tmp_path / "runs"))
    return tmp_path / "runs"


def items_of(*candidates: list[str]) -> Dataset:
    prompts = [[{"role": "user", "content": f"q{number}"}] for number in range(len(candidates))]
    rows = [
        {"item_id": str(number), "subset": "s", "prompt": prompt, "candidates": responses}
        for number, (prompt, responses) in enumerate(zip(prompts, candidates, strict=True))
    ]
    return benchmark_items("rewardbench", rows)


ITEMS = items_of(["a", "bb"], ["c", "dd", "eee", "f"], ["g", "g"])


class Counting:
    """A model that counts the texts it is asked to score, and may stop after some."""

    def __init__(self, model: RewardModel, monkeypatch: pytest.MonkeyPatch, stop_after: int = 10**9) -> None:
        self.n, real = 0, RewardModel.score

        def counted(this: RewardModel, prompts: list, responses: list, **options: object) -> np.ndarray:
            if self.n >= stop_after:
                raise KeyboardInterrupt
            self.n += len(responses)
            return real(this, prompts, responses, **options)

        monkeypatch.setattr(RewardModel, "score", counted)


@pytest.fixture
def model(tmp_path: Path) -> RewardModel:
    return scorers.open_scorer(tiny.save_classifier(tmp_path / "c"))


def test_scoring_again_asks_the_model_nothing_and_gives_the_same_bits(
    model: RewardModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = benchmarks.score(model, ITEMS, keep=False)
    counting = Counting(model, monkeypatch)
    first = benchmarks.score(model, ITEMS)
    assert counting.n == 8
    assert benchmarks.score(model, ITEMS) == first == fresh
    assert counting.n == 8


def test_an_interrupted_scoring_goes_on_where_it_was(model: RewardModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = benchmarks.score(model, ITEMS, keep=False)
    with monkeypatch.context() as patched:
        counting = Counting(model, patched, stop_after=2)
        with pytest.raises(KeyboardInterrupt):
            benchmarks.score(model, ITEMS, items_per_call=1)
        assert counting.n == 2
    counting = Counting(model, monkeypatch)
    resumed = benchmarks.score(model, ITEMS)
    assert counting.n == 6
    for name, rewards in whole.items():
        np.testing.assert_allclose(resumed[name], rewards, atol=1e-5)


def test_a_new_text_alone_is_scored(model: RewardModel, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmarks.score(model, ITEMS)
    counting = Counting(model, monkeypatch)
    benchmarks.score(model, items_of(["a", "new"], ["c", "dd"]))
    assert counting.n == 1


@pytest.mark.parametrize("change", ["weights", "head", "template", "reading"])
def test_what_a_reward_depends_on_cannot_change_without_scoring_anew(
    model: RewardModel, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    benchmarks.score(model, ITEMS)
    with torch.no_grad():
        if change == "weights":
            next(model.backbone.parameters()).add_(0.1)
        elif change == "head":
            model.head.weight.mul_(2)
        elif change == "template":
            model.tokenizer.chat_template = tiny.TEMPLATE.replace("<|end|>", "!<|end|>")
        else:
            model.skipped = model.tokenizer.eos_token_id
    fresh = benchmarks.score(model, ITEMS, keep=False)
    counting = Counting(model, monkeypatch)
    assert benchmarks.score(model, ITEMS) == fresh
    assert counting.n == 8


def test_every_kind_of_model_keeps_its_rewards_under_a_name_of_its_own(tmp_path: Path) -> None:
    policy, reference = (tiny.save_language_model(tmp_path / name, seed=seed) for seed, name in enumerate("pr"))
    bert = tiny.save_classifier(tmp_path / "b", "bert", labels=("good", "long"))
    models = [
        scorers.open_scorer(bert, weights=[1.0, 0.0]),
        scorers.open_scorer(bert, weights=[0.0, 1.0]),
        load_implicit(policy),
        load_implicit(policy, reference),
        load_implicit(reference, policy),
        RewardModel.create(tiny.save_backbone(tmp_path / "backbone")),
    ]
    identities = [json.dumps(scorers.identity_of(model), sort_keys=True) for model in models]
    assert len(set(identities)) == len(models) and "null" not in identities
    for model in models:
        assert benchmarks.score(model, ITEMS) == benchmarks.score(model, ITEMS)
    assert len(list((paths.runs_dir() / "scores").iterdir())) == len(models)


def test_of_rulers_and_of_kept_features_nothing_is_kept_again(tmp_path: Path) -> None:
    assert benchmarks.score(Longer(), ITEMS) == {"0": [1, 2], "1": [1, 2, 3, 1], "2": [1, 1]}
    benchmarks.score(FromFeatures(RewardModel.create(tiny.save_backbone(tmp_path / "backbone"))), ITEMS)
    assert not (paths.runs_dir() / "scores").exists()


def test_texts_that_do_not_fit_are_refused_or_left_out_and_counted(
    model: RewardModel, caplog: pytest.LogCaptureFixture
) -> None:
    items = items_of(["a", "bb"], ["short", "long " * 200])
    with pytest.raises(ModelError, match="exceeds the 512 positions"):
        benchmarks.score(model, items)
    scores = benchmarks.score(model, items, skip_long=True)
    assert scores.keys() == {"0"} and len(scores["0"]) == 2
    assert scores.skipped == {"1": "a text is too long for the model"}
    assert "1 of 2 items skipped: a text is too long for the model" in caplog.text


def test_rewards_that_are_not_finite_are_never_kept_nor_taken_for_skipped_ones(model: RewardModel) -> None:
    with torch.no_grad():
        model.head.weight.fill_(float("nan"))
    for skip_long in (False, True):
        with pytest.raises(ValueError, match=r"not finite for 3 items, e\.g\. \['0', '1', '2'\]"):
            benchmarks.score(model, ITEMS, skip_long=skip_long)


# --- scorers by name --------------------------------------------------------------------------------------------------


def test_a_folder_of_ours_a_classifier_and_a_ruler_are_opened_by_name(tmp_path: Path) -> None:
    model = RewardModel.create(tiny.save_backbone(tmp_path / "b"), ("helpfulness", "verbosity"), seed=1)
    model.save(tmp_path / "ours")
    prompts, responses = [ITEMS[0]["prompt"]] * 2, ["a", "bb"]
    expected = model.score(prompts, responses) @ np.array([1.0, -0.5])
    for weights in ([1.0, -0.5], {"verbosity": -0.5, "helpfulness": 1.0}):
        opened = scorers.open_scorer(tmp_path / "ours", weights=weights)
        np.testing.assert_allclose(opened.score(prompts, responses), expected, atol=1e-6)
    with pytest.raises(ModelError, match="has the outputs helpfulness, verbosity: give each a weight"):
        scorers.open_scorer(tmp_path / "ours")
    assert scorers.open_scorer("longer").score(prompts, responses).tolist() == [1, 2]


def test_a_name_that_is_neither_is_a_named_error() -> None:
    with pytest.raises(BackboneError, match="no model 'nobody/nothing': there is no such folder; as a hub id"):
        scorers.open_scorer("nobody/nothing")
    with pytest.raises(BackboneError, match="no model 'runs/none/model': there is no such folder; it is no hub id"):
        scorers.open_scorer("runs/none/model")


def test_the_folder_of_a_run_in_place_of_its_model_is_a_named_error(tmp_path: Path) -> None:
    RewardModel.create(tiny.save_backbone(tmp_path / "b")).save(tmp_path / "run" / "model")
    with pytest.raises(BackboneError, match="run holds no model itself; did you mean .*run/model"):
        scorers.open_scorer(tmp_path / "run")
