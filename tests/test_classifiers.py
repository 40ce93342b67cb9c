"""Sequence classifiers of transformers as scorers: their rewards are those of transformers, one text at a time."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rmlib.models import ModelError, RewardModel
from rmlib.models.backbones import BackboneError
from rmlib.models.classifiers import load_classifier

USER = [{"role": "user", "content": "name a fruit"}]
TURNS = [*USER, {"role": "assistant", "content": "fig"}, {"role": "user", "content": "another"}]
PROMPTS = [USER, USER, USER, TURNS, TURNS]
RESPONSES = ["apple", "a pear, I think", "plum", "lemon", "no"]


def texts() -> list[str]:
    written = []
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        turns = [*prompt, {"role": "assistant", "content": response}]
        written.append("".join(f"<|{turn['role']}|>{turn['content']}<|end|>" for turn in turns))
    return written


def plain_logits(folder: str, ids: list[list[int]], **inputs: torch.Tensor) -> torch.Tensor:
    """What transformers gives for each text alone, without padding."""
    network = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return torch.cat([network(input_ids=torch.tensor([row]), **inputs).logits for row in ids])


@pytest.mark.parametrize(
    ("kind", "shared"),
    [("llama", True), ("qwen2", True), ("qwen3", True), ("gemma2", False), ("gpt_oss", False), ("nemotron", False)],
)
def test_a_decoder_gets_the_rewards_of_transformers_and_encodes_each_prompt_once_where_it_can(
    tmp_path: Path, kind: str, shared: bool
) -> None:
    folder = tiny.save_classifier(tmp_path / "c", kind)
    model = load_classifier(folder)
    ids = AutoTokenizer.from_pretrained(folder)(texts(), add_special_tokens=False)["input_ids"]
    expected = plain_logits(folder, ids)[:, 0].numpy()
    assert isinstance(model, RewardModel) and model.shared == shared
    np.testing.assert_allclose(model.score(PROMPTS, RESPONSES), expected, atol=1e-5)
    assert np.ptp(expected) > 0.05


def test_an_encoder_gets_the_rewards_of_transformers_for_prompt_and_response_as_segments(tmp_path: Path) -> None:
    folder = tiny.save_classifier(tmp_path / "c", "bert", template=None)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = load_classifier(folder)
    expected = []
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        first, second = (
            tokenizer(text, add_special_tokens=False)["input_ids"]
            for text in ("\n".join(turn["content"] for turn in prompt), response)
        )
        types = torch.tensor([[0] * len(first) + [1] * len(second)])
        expected.append(plain_logits(folder, [first + second], token_type_ids=types).item())
    np.testing.assert_allclose(model.score(PROMPTS, RESPONSES), expected, atol=1e-5)
    np.testing.assert_allclose(model.score(PROMPTS, RESPONSES, token_budget=1), expected, atol=1e-5)
    assert np.ptp(expected) > 0.01


def test_an_encoder_with_a_chat_template_reads_what_it_writes(tmp_path: Path) -> None:
    folder = tiny.save_classifier(tmp_path / "c", "bert")
    ids = AutoTokenizer.from_pretrained(folder)(texts(), add_special_tokens=False)["input_ids"]
    expected = plain_logits(folder, ids[:3])[:, 0].numpy()
    np.testing.assert_allclose(load_classifier(folder).score(PROMPTS[:3], RESPONSES[:3]), expected, atol=1e-5)


@pytest.mark.parametrize("weights", [{"good": 2.0, "long": -0.5}, [2.0, -0.5]])
@pytest.mark.parametrize("kind", ["llama", "bert"])
def test_several_logits_are_weighed_by_name_or_in_order(tmp_path: Path, kind: str, weights: object) -> None:
    folder = tiny.save_classifier(tmp_path / "c", kind, labels=("good", "long"))
    ids = AutoTokenizer.from_pretrained(folder)(texts()[:3], add_special_tokens=False)["input_ids"]
    logits = plain_logits(folder, ids).numpy()
    rewards = load_classifier(folder, weights=weights).score(PROMPTS[:3], RESPONSES[:3])
    np.testing.assert_allclose(rewards, 2 * logits[:, 0] - 0.5 * logits[:, 1], atol=1e-5)


def test_several_logits_without_weights_or_with_others_are_named_errors(tmp_path: Path) -> None:
    folder = tiny.save_classifier(tmp_path / "c", "llama", labels=("good", "long"))
    with pytest.raises(ModelError, match="has the outputs good, long: give each a weight"):
        load_classifier(folder)
    with pytest.raises(ModelError, match=r"weights are for \['good', 'short'\]"):
        load_classifier(folder, weights={"good": 1, "short": 1})
    with pytest.raises(ModelError, match="3 weights for the 2 outputs"):
        load_classifier(folder, weights=[1, 2, 3])


def test_where_padding_ends_a_text_the_reward_is_read_as_transformers_does_or_at_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tiny.save_classifier(tmp_path / "c", "llama", pad="<|end|>")
    ids = AutoTokenizer.from_pretrained(folder)(texts(), add_special_tokens=False)["input_ids"]
    as_transformers = plain_logits(folder, ids)[:, 0].numpy()
    np.testing.assert_allclose(load_classifier(folder).score(PROMPTS, RESPONSES), as_transformers, atol=1e-5)
    assert "pads with the token that ends a text" in caplog.text
    config = json.loads((tmp_path / "c" / "config.json").read_text())
    (tmp_path / "c" / "config.json").write_text(json.dumps(config | {"pad_token_id": None}))
    at_end = plain_logits(folder, ids)[:, 0].numpy()  # without a pad id transformers reads the last token
    (tmp_path / "c" / "config.json").write_text(json.dumps(config))
    rewards = load_classifier(folder, read_at="end").score(PROMPTS, RESPONSES)
    np.testing.assert_allclose(rewards, at_end, atol=1e-5)
    assert np.abs(at_end - as_transformers).max() > 1e-2


@pytest.mark.parametrize("pad_id", [None, 50_256])
@pytest.mark.parametrize("kind", ["llama", "gemma2", "ctrl", "bert"])
def test_a_config_without_a_usable_pad_id_is_scored_in_batches_as_one_by_one(
    tmp_path: Path, kind: str, pad_id: int | None
) -> None:
    folder = tiny.save_classifier(tmp_path / "c", kind)
    config = json.loads((tmp_path / "c" / "config.json").read_text())
    (tmp_path / "c" / "config.json").write_text(json.dumps(config | {"pad_token_id": None}))
    ids = AutoTokenizer.from_pretrained(folder)(texts()[:3], add_special_tokens=False)["input_ids"]
    expected = plain_logits(folder, ids)[:, 0].numpy()
    (tmp_path / "c" / "config.json").write_text(json.dumps(config | {"pad_token_id": pad_id}))
    rewards = load_classifier(folder).score([*PROMPTS[:3]] * 2, [*RESPONSES[:3]] * 2)  # each length twice
    np.testing.assert_allclose(rewards, [*expected] * 2, atol=1e-5)


def test_a_roberta_without_a_pad_id_counts_positions_from_that_of_its_tokenizer(tmp_path: Path) -> None:
    folder = tiny.save_classifier(tmp_path / "c", "roberta", pad="<|bos|>")
    expected = load_classifier(folder).score(PROMPTS[:3], RESPONSES[:3])
    config = json.loads((tmp_path / "c" / "config.json").read_text())
    assert config["pad_token_id"] == 1
    (tmp_path / "c" / "config.json").write_text(json.dumps(config | {"pad_token_id": None}))
    np.testing.assert_array_equal(load_classifier(folder).score(PROMPTS[:3], RESPONSES[:3]), expected)
    tiny.byte_tokenizer(pad=None).save_pretrained(folder)
    with pytest.raises(BackboneError, match="positions of roberta count from its pad id"):
        load_classifier(folder)


def test_a_template_that_writes_the_bos_gets_no_second_one(tmp_path: Path) -> None:
    folder = tiny.save_classifier(tmp_path / "c", "llama", bos=True, template="{{ bos_token }}" + tiny.TEMPLATE)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer("<|bos|>" + text, add_special_tokens=False)["input_ids"] for text in texts()]
    assert ids[0].count(tokenizer.bos_token_id) == 1
    expected = plain_logits(folder, ids)[:, 0].numpy()
    np.testing.assert_allclose(load_classifier(folder).score(PROMPTS, RESPONSES), expected, atol=1e-5)


def test_our_own_export_scores_as_our_model_up_to_its_bias(tmp_path: Path) -> None:
    model = RewardModel.create(tiny.save_backbone(tmp_path / "b"), seed=1)
    with torch.no_grad():
        model.head.weight.mul_(30)
        model.head.bias.add_(0.5)
    bias = model.export(tmp_path / "exported")
    rewards = load_classifier(tmp_path / "exported").score(PROMPTS, RESPONSES)
    np.testing.assert_allclose(rewards + bias, model.score(PROMPTS, RESPONSES), atol=1e-5)


def test_a_language_model_without_a_score_head_is_refused_rather_than_given_a_random_one(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"lacks 1 weights of LlamaFor.*, e\.g\. score\.weight"):
        load_classifier(tiny.save_backbone(tmp_path / "b"))


def test_weights_that_are_not_safetensors_are_not_read(tmp_path: Path) -> None:
    folder = Path(tiny.save_classifier(tmp_path / "c", "llama"))
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(BackboneError, match="cannot be loaded"):
        load_classifier(folder)


@pytest.mark.parametrize("change", [{"hidden_size": "wide"}, {"num_attention_heads": 0}, None])
def test_a_damaged_folder_is_a_named_error(tmp_path: Path, change: dict[str, Any] | None) -> None:
    folder = Path(tiny.save_classifier(tmp_path / "c", "llama"))
    if change is None:
        weights = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(weights[:1000])
    else:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | change))
    for load in (load_classifier, RewardModel.create):
        with pytest.raises(BackboneError, match="cannot be loaded"):
            load(str(folder))


def test_weights_that_are_left_over_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = Path(tiny.save_classifier(tmp_path / "c", "llama"))
    weights = load_file(folder / "model.safetensors")
    save_file(weights | {"gating.weight": torch.ones(2)}, folder / "model.safetensors", metadata={"format": "pt"})
    load_classifier(folder)
    assert "c: 1 weights are not read, e.g. gating.weight" in caplog.text


@pytest.mark.parametrize(("kind", "template"), [("llama", tiny.TEMPLATE), ("bert", None)])
def test_a_text_that_does_not_fit_is_refused_never_cut(tmp_path: Path, kind: str, template: str | None) -> None:
    model = load_classifier(tiny.save_classifier(tmp_path / "c", kind, template=template))
    with pytest.raises(ModelError, match="exceed"):
        model.score([USER, USER], ["fig", "long " * 200])
