"""A reward model as a plain transformers model, for tools that know nothing of this library."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase

from rmlib.models import adapters
from rmlib.models.adapted import is_adapted
from rmlib.models.interface import ModelError
from rmlib.models.reward_model import RewardModel


def export(model: RewardModel, folder: Path) -> float:
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
    folder = Path(folder)
    body: Any = model.backbone
    if is_adapted(body) or adapters.is_quantised(model):  # a copy: this model stays as it was
        body = adapters.merged_backbone(body)
    tokenizer = _tokenizer_with_pad(model.tokenizer, folder)
    config = copy.deepcopy(body.config)
    config.num_labels, config.pad_token_id = 1, tokenizer.pad_token_id
    config.reward_bias = float(model.head.bias.item())
    config.dtype = next(body.parameters()).dtype
    plain = AutoModelForSequenceClassification.from_config(config, attn_implementation="sdpa")
    plain.base_model.load_state_dict(body.state_dict())
    if len(tokenizer) > config.vocab_size:
        plain.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    plain.score.weight.data.copy_(model.head.weight.data)
    plain.save_pretrained(folder)
    _for_transformers_4(folder)
    _check(model, folder, config.reward_bias)
    return config.reward_bias


def _for_transformers_4(folder: Path) -> None:
    """Say again what version 4 reads elsewhere: without it, it takes other rotary positions, and other rewards."""
    config = folder / "config.json"
    content = json.loads(config.read_text())
    rope = content.get("rope_parameters") or {}
    if "rope_theta" in rope:
        content["rope_theta"] = rope["rope_theta"]
        if rope.get("rope_type", "default") != "default":
            content["rope_scaling"] = {key: value for key, value in rope.items() if key != "rope_theta"}
        config.write_text(json.dumps(content, indent=2) + "\n")
    file = folder / "tokenizer_config.json"
    tokenizer = json.loads(file.read_text())
    if tokenizer.get("tokenizer_class") == "TokenizersBackend":  # the new name of the same class
        tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
        if isinstance(tokenizer.get("extra_special_tokens"), list):
            tokenizer["additional_special_tokens"] = tokenizer.pop("extra_special_tokens")
        file.write_text(json.dumps(tokenizer, indent=2) + "\n")


def _check(model: RewardModel, folder: Path, bias: float) -> None:
    """Reload the export and compare one reward; raises ModelError where transformers reads something else."""
    prompt, response = [{"role": "user", "content": "What is two and two?"}], "Four."
    plain = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    ids = torch.from_numpy(model.encode([prompt], [response]).ids[0])[None]
    with torch.no_grad():
        exported = plain(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.item() + bias
    ours = float(model.score([prompt], [response])[0])
    tolerance = 1e-3 if adapters.is_precise(model) else 5e-2  # the export computes in fp32
    if abs(exported - ours) > tolerance * max(1.0, abs(ours)):
        raise ModelError(f"the export in {folder.name} gives {exported:.6f} where this model gives {ours:.6f}")


def _tokenizer_with_pad(tokenizer: PreTrainedTokenizerBase, folder: Path) -> PreTrainedTokenizerBase:
    """Save the tokenizer with a pad token that no text contains, adding one where pad is unset or equals EOS."""
    tokenizer.save_pretrained(folder)
    copy = type(tokenizer).from_pretrained(folder)
    if copy.pad_token_id is None or copy.pad_token_id == copy.eos_token_id:
        copy.add_special_tokens({"pad_token": "<|reward_pad|>"})
        copy.save_pretrained(folder)
    return copy
