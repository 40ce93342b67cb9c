"""A reward model as a plain transformers model, for tools that know nothing of this library."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from rmlib.models import adapters, templates
from rmlib.models.backbones import base_of
from rmlib.models.interface import ModelError, Prompt
from rmlib.models.network import RewardNetwork
from rmlib.models.templates import STOPPED_CLOCK, render
from rmlib.models.tokens import tokens_of

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
    # As a regression: servers and pipelines would else put a sigmoid or a softmax on the one logit.
    config.num_labels, config.problem_type = 1, "regression"
    config.reward_bias = float(model.output_layer.bias.item())
    config.dtype = next(body.parameters()).dtype
    config.pad_token_id = None  # the table may not have its row yet
    plain = _classifier_of(config)
    plain.base_model.load_state_dict(body.state_dict())
    n_rows = plain.get_input_embeddings().weight.shape[0]
    if tokenizer.pad_token_id >= n_rows:
        plain.resize_token_embeddings(tokenizer.pad_token_id + 1, mean_resizing=False)
        plain.get_input_embeddings().weight.data[n_rows:] = 0  # no text reads these rows
    plain.config.pad_token_id = tokenizer.pad_token_id
    plain.score.weight.data.copy_(model.output_layer.weight.data)
    plain.save_pretrained(folder)
    _for_transformers_4(folder)
    check(model, folder, config.reward_bias)
    return config.reward_bias


def _classifier_of(config: PreTrainedConfig) -> Any:
    """The sequence classifier of a config, its weights not yet those of the model. Raises ModelError."""
    try:
        plain = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
    except ValueError as error:
        raise ModelError(f"transformers has no sequence classifier of the kind {config.model_type}") from error
    if not isinstance(getattr(plain, "score", None), torch.nn.Linear):
        raise ModelError(f"{type(plain).__name__} does not end in one linear layer `score`, as a reward model does")
    return plain


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

    The texts are padded to one length, and one ends in the tokens that once padded or ended texts. Raises ModelError
    where rewards differ.
    """
    plain = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    n_rows = base_of(model.backbone).get_input_embeddings().weight.shape[0]
    ends = [token for token in (model.tokenizer.eos_token, model.tokenizer.pad_token) if token is not None]
    ends = [token for token in ends if model.tokenizer.convert_tokens_to_ids(token) < n_rows]
    answers = [*ANSWERS, ANSWERS[1] + "".join(ends)]
    texts = [
        tokenizer.apply_chat_template([*PROBE, {"role": "assistant", "content": answer}], tokenize=False)
        for answer in answers
    ]
    batch = tokenizer(texts, add_special_tokens=False, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = plain(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    with templates.special_tokens_meant(model.tokenizer):  # as plain transformers reads them
        exported, ours = logits[:, 0].numpy() + bias, model.score([PROBE] * len(answers), answers)
    quantization = getattr(model.config, "quantization_config", None)
    precise = not {torch.bfloat16, torch.float16} & {weight.dtype for weight in model.backbone.parameters()}
    precise &= getattr(quantization, "bnb_4bit_compute_dtype", torch.float32) == torch.float32
    tolerance = 1e-4 if precise else 5e-2  # the export computes in fp32
    if not np.allclose(exported, ours, rtol=tolerance, atol=tolerance):
        raise ModelError(f"{folder.name}: transformers gives {exported.tolist()}, this model {ours.tolist()}")


def _may_end_in_pad(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the pad token ends a text: its template closes with it, or with the response, which may end in it."""
    with templates.special_tokens_meant(tokenizer):
        texts = [render(tokenizer, PROBE, answer) for answer in (ANSWERS[0], ANSWERS[0] + str(tokenizer.pad_token))]
        return any(row[-1] == tokenizer.pad_token_id for row in tokens_of(tokenizer, texts))


def _tokenizer_for_export(tokenizer: PreTrainedTokenizerBase, folder: Path) -> PreTrainedTokenizerBase:
    """Save the tokenizer so that its template alone writes what we read: the BOS, and the date of a stopped clock.

    Its pad token is one at which no text ends: where pad is unset, equals EOS, or ends a text, one is added.
    """
    tokenizer.save_pretrained(folder)
    copy = type(tokenizer).from_pretrained(folder)
    text = render(copy, PROBE, ANSWERS[0])
    if tokens_of(copy, [text])[0].tolist() != copy(text, add_special_tokens=False)["input_ids"]:
        copy.chat_template = "{{ bos_token }}" + copy.chat_template
    if "strftime_now" in copy.chat_template:
        copy.chat_template = STOPPED_CLOCK + copy.chat_template
    if copy.pad_token_id in (None, copy.eos_token_id) or _may_end_in_pad(copy):
        copy.add_special_tokens({"pad_token": "<|reward_pad|>"})
    copy.padding_side = "right"  # as our rows are; on the left, positions that are learnt would be others
    copy.save_pretrained(folder)
    return copy
