"""A reward model as a plain transformers model, for tools that know nothing of this library."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerBase

from rmlib.models import adapters
from rmlib.models.interface import ModelError, Prompt
from rmlib.models.network import RewardNetwork
from rmlib.models.tokens import STOPPED_CLOCK, render, tokens_of

PROBE: Prompt = [{"role": "user", "content": "Name three rivers of France."}]
ANSWERS = ("The Seine, the Loire and the Rhône.", "Yes.")


def export(model: RewardNetwork, folder: Path) -> float:
    """See `RewardModel.export`."""
    if len(model.attributes) != 1:
        raise ModelError(f"{len(model.attributes)} outputs are not one label; use combining.weigh_attributes first")
    if model.head_layers != 1:
        raise ModelError(
            f"a head of {model.head_layers} layers is more than the one linear layer that "
            "AutoModelForSequenceClassification has; export a model with head_layers=1"
        )
    if model.kind == "encoder":
        raise ModelError("an encoder is read by its mean token, which AutoModelForSequenceClassification cannot do")
    body = adapters.merge(model).backbone  # this model stays as it was
    tokenizer = _tokenizer_for_export(model.tokenizer, folder)
    config = copy.deepcopy(body.config)
    config.num_labels, config.pad_token_id = 1, tokenizer.pad_token_id
    config.reward_bias = float(model.output_layer.bias.item())
    config.dtype = next(body.parameters()).dtype
    plain = AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa")
    plain.base_model.load_state_dict(body.state_dict())
    if len(tokenizer) > config.vocab_size:
        plain.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    plain.score.weight.data.copy_(model.output_layer.weight.data)
    plain.save_pretrained(folder)
    _for_transformers_4(folder)
    check(model, folder, config.reward_bias)
    return config.reward_bias


def _for_transformers_4(folder: Path) -> None:
    """Say again what version 4 reads elsewhere: without it, it takes other rotary positions, and other rewards."""
    config = folder / "config.json"
    content = json.loads(config.read_text())
    rope = dict(content.get("rope_parameters") or {})
    if "rope_theta" in rope:
        content["rope_theta"] = rope.pop("rope_theta")
        if rope.get("rope_type", "default") != "default":
            content["rope_scaling"] = rope
        config.write_text(json.dumps(content, indent=2) + "\n")
    file = folder / "tokenizer_config.json"
    tokenizer = json.loads(file.read_text())
    if tokenizer.get("tokenizer_class") == "TokenizersBackend":  # the new name of the same class
        tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
        if isinstance(tokenizer.get("extra_special_tokens"), list):
            tokenizer["additional_special_tokens"] = tokenizer.pop("extra_special_tokens")
        file.write_text(json.dumps(tokenizer, indent=2) + "\n")


def check(model: RewardNetwork, folder: Path, bias: float) -> None:
    """Read an export with nothing but transformers, from texts through its template to logits, and compare rewards.

    Raises ModelError where they differ.
    """
    plain = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = [
        tokenizer.apply_chat_template([*PROBE, {"role": "assistant", "content": answer}], tokenize=False)
        for answer in ANSWERS
    ]
    batch = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = plain(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    exported, ours = logits[:, 0].numpy() + bias, model.score([PROBE] * len(ANSWERS), ANSWERS)
    quantization = getattr(model.config, "quantization_config", None)
    precise = torch.bfloat16 not in {weight.dtype for weight in model.backbone.parameters()}
    precise &= getattr(quantization, "bnb_4bit_compute_dtype", torch.float32) == torch.float32
    tolerance = 1e-4 if precise else 5e-2  # the export computes in fp32
    if not np.allclose(exported, ours, rtol=tolerance, atol=tolerance):
        raise ModelError(f"{folder.name}: transformers gives {exported.tolist()}, this model {ours.tolist()}")


def _tokenizer_for_export(tokenizer: PreTrainedTokenizerBase, folder: Path) -> PreTrainedTokenizerBase:
    """Save the tokenizer so that its template alone writes what we read: the BOS, and the date of a stopped clock.

    Its pad token is one that no text contains: where pad is unset or equals EOS, one is added.
    """
    tokenizer.save_pretrained(folder)
    copy = type(tokenizer).from_pretrained(folder)
    text = render(copy, PROBE, ANSWERS[0])
    if tokens_of(copy, [text])[0].tolist() != copy(text, add_special_tokens=False)["input_ids"]:
        copy.chat_template = "{{ bos_token }}" + copy.chat_template
    if "strftime_now" in copy.chat_template:
        copy.chat_template = STOPPED_CLOCK + copy.chat_template
    if copy.pad_token_id is None or copy.pad_token_id == copy.eos_token_id:
        copy.add_special_tokens({"pad_token": "<|reward_pad|>"})
    copy.save_pretrained(folder)
    return copy
