"""An export is read by plain transformers as our model is, or refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from rmlib.models import AsGiven, ModelError, RewardModel
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


FULL = {"vocab_size": len(tiny.SPECIAL) + 256}  # one row for each token of the tokenizer, as Llama 3.1 and SmolLM2 have
NO_END = "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}{% endfor %}"
USER = [{"role": "user", "content": "name <|end|> a fruit"}]
MEANT = {"special_tokens": "special"}  # within texts, as plain transformers reads them
TEXTS = ["fig", "a pear, I think, or two", "", "plum<|end|>", "plum<|pad|>", "plum<|bos|><|pad|><|pad|>"]


@pytest.mark.parametrize(
    ("tokenizer", "config", "rows"),
    [
        ({"pad": None}, FULL, 263),
        ({"pad": "<|end|>"}, FULL, 263),
        ({"pad": "<|bos|>"}, FULL, 262),
        ({"pad": "[PAD]"}, FULL, 263),  # a name that the vocabulary lacks: the tokenizer has more tokens than rows
        ({"pad": None}, FULL | {"tie_word_embeddings": True}, 263),
        ({"pad": None}, {"vocab_size": 320}, 320),
        ({"template": NO_END}, FULL, 263),  # a response may end in the pad token, and no other token follows
        ({"template": NO_END + "<|pad|>"}, FULL, 263),
    ],
)
def test_any_padding_of_any_table_exports_to_equal_rewards_of_padded_batches(
    tmp_path: Path, tokenizer: dict, config: dict, rows: int
) -> None:
    model = RewardModel.create(
        tiny.save_backbone(tmp_path / "backbone", config=config, **tokenizer), seed=1, chat=MEANT
    )
    assert_transformers_agrees(model, tmp_path / "out", rows)


def assert_transformers_agrees(model: RewardModel, folder: Path, rows: int | None = None) -> None:
    with torch.no_grad():
        model.output_layer.weight.mul_(30)
    bias, expected = model.export(folder), model.score([USER] * len(TEXTS), AsGiven(TEXTS))
    plain, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    conversations = [[*USER, {"role": "assistant", "content": text}] for text in TEXTS]
    written = tokenizer.apply_chat_template(conversations, tokenize=False)
    batch = tokenizer(written, padding=True, add_special_tokens=False, return_tensors="pt")
    with torch.no_grad():
        logits = plain(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, 0].numpy()
    np.testing.assert_allclose(logits + bias, expected, atol=1e-4)
    assert np.ptp(expected) > 0.05
    assert rows is None or plain.get_input_embeddings().weight.shape[0] == plain.config.vocab_size == rows


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_of_half_precision_exports_as_such(tmp_path: Path, dtype: torch.dtype) -> None:
    model = RewardModel.create(tiny.save_backbone(tmp_path / "backbone", pad="<|end|>"), dtype=dtype, seed=1)
    model.export(tmp_path / "out")  # it compares rewards by itself
    assert load_file(tmp_path / "out" / "model.safetensors")["score.weight"].dtype == dtype


def test_a_tokenizer_that_pads_on_the_left_pads_its_export_on_the_right(tmp_path: Path) -> None:
    model = RewardModel.create(tiny.save_backbone(tmp_path / "backbone", "gpt2", pad="<|end|>"), seed=1, chat=MEANT)
    model.tokenizer.padding_side = "left"  # by which positions that are learnt would be others
    assert_transformers_agrees(model, tmp_path / "out")


def test_an_adapter_of_the_embeddings_and_soft_capped_attention_export(tmp_path: Path) -> None:
    lora = {"r": 4, "init_lora_weights": False, "target_modules": ["q_proj", "embed_tokens"]}
    name = tiny.save_backbone(tmp_path / "backbone", "gemma2", pad="<|end|>", config=FULL)
    assert_transformers_agrees(RewardModel.create(name, lora=lora, seed=1, chat=MEANT), tmp_path / "out")


def test_a_pad_id_that_the_table_lacks_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = Path(tiny.save_backbone(tmp_path / "backbone", config=FULL))
    expected = RewardModel.create(str(folder), chat=MEANT).score([USER] * len(TEXTS), AsGiven(TEXTS))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"pad_token_id": 50_256}))
    model = RewardModel.create(str(folder), chat=MEANT)
    assert "pad_token_id 50256 is none of its 262 tokens" in caplog.text
    np.testing.assert_array_equal(model.score([USER] * len(TEXTS), AsGiven(TEXTS)), expected)
    assert_transformers_agrees(model, tmp_path / "out")


def test_an_export_of_a_backbone_with_several_labels_has_one_that_servers_leave_as_it_is(tmp_path: Path) -> None:
    model = model_of(tmp_path / "backbone")
    model.config.num_labels, model.config.problem_type = 5, "multi_label_classification"
    model.export(tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["id2label"] == {"0": "LABEL_0"} and config["problem_type"] == "regression"


def test_a_model_without_such_a_classifier_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="CTRLForSequenceClassification does not end in one linear layer"):
        RewardModel.create(tiny.save_backbone(tmp_path / "backbone", "ctrl")).export(tmp_path / "out")
