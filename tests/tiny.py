"""Tiny things made on the spot: a byte-level tokenizer, random decoders or encoders, and pairs that can be learnt."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    CTRLConfig,
    Gemma2Config,
    GPT2Config,
    GptOssConfig,
    LlamaConfig,
    NemotronConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
)

from rmlib.pairs import ATTRIBUTES

TEMPLATE = "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
SPECIAL = ["<|pad|>", "<|bos|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
SHAPE = {"vocab_size": 270, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
DECODER = SHAPE | {"intermediate_size": 64, "num_key_value_heads": 2, "max_position_embeddings": 512}
CONFIGS = {
    "llama": lambda **changes: LlamaConfig(**DECODER | changes),
    "qwen2": lambda **changes: Qwen2Config(**DECODER | changes),
    "qwen3": lambda **changes: Qwen3Config(**DECODER | {"head_dim": 8} | changes),
    "bert": lambda **changes: BertConfig(**SHAPE | {"intermediate_size": 64, "max_position_embeddings": 64} | changes),
    "roberta": lambda **changes: RobertaConfig(**SHAPE | {"intermediate_size": 64, "pad_token_id": 1} | changes),
    "gemma2": lambda **changes: Gemma2Config(**DECODER | {"head_dim": 8} | changes),
    "gpt_oss": lambda **changes: GptOssConfig(**DECODER | {"head_dim": 8, "num_local_experts": 4} | changes),
    "nemotron": lambda **changes: NemotronConfig(**DECODER | changes),
    "gpt2": lambda **changes: GPT2Config(**{"vocab_size": 270, "n_embd": 32, "n_layer": 2, "n_head": 4} | changes),
    "ctrl": lambda **changes: CTRLConfig(vocab_size=270, n_embd=32, n_layer=2, n_head=4, dff=64, n_positions=512),
}


def byte_tokenizer(
    *, template: str | None = TEMPLATE, pad: str | None = "<|pad|>", bos: bool = False
) -> PreTrainedTokenizerFast:
    """One token per byte, so that lengths can be counted by hand; with `bos`, encoding prepends one BOS."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate([*SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|bos|> $A", pair="<|bos|> $A $B", special_tokens=[("<|bos|>", vocab["<|bos|>"])]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|end|>", pad_token=pad, bos_token="<|bos|>" if bos else None
    )
    fast.model_input_names = ["input_ids", "attention_mask"]
    fast.chat_template = template
    return fast


def save_backbone(
    folder: Path, kind: str = "llama", *, seed: int = 0, config: dict[str, object] | None = None, **tokenizer: Any
) -> str:
    """A random backbone of a kind, with changes of its config, and its tokenizer; returns the folder as its name."""
    torch.manual_seed(seed)
    made = CONFIGS[kind](**config or {})
    return _save(AutoModel.from_config(made), folder, kind, byte_tokenizer(**tokenizer))


def save_classifier(
    folder: Path, kind: str = "llama", *, labels: tuple[str, ...] = ("reward",), seed: int = 0, **tokenizer: Any
) -> str:
    """A random sequence classifier with one logit a label, which pads as its tokenizer does; returns the folder."""
    torch.manual_seed(seed)
    config, made = CONFIGS[kind](), byte_tokenizer(**tokenizer)
    config.id2label, config.label2id = dict(enumerate(labels)), {name: index for index, name in enumerate(labels)}
    config.pad_token_id = made.pad_token_id
    return _save(AutoModelForSequenceClassification.from_config(config), folder, kind, made)


def save_language_model(folder: Path, kind: str = "llama", *, seed: int = 0, **tokenizer: Any) -> str:
    """A random causal language model with its tokenizer; returns the folder."""
    torch.manual_seed(seed)
    return _save(AutoModelForCausalLM.from_config(CONFIGS[kind]()), folder, kind, byte_tokenizer(**tokenizer))


def _save(network: PreTrainedModel, folder: Path, kind: str, tokenizer: PreTrainedTokenizerFast) -> str:
    # Random weights of the usual small scale make all rewards alike; larger ones make differences visible.
    for weight in network.parameters():
        if weight.ndim > 1:
            weight.data.mul_(5)
    network.save_pretrained(folder)
    if kind == "bert":
        tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A:0", pair="$A:0 $B:1")
    tokenizer.save_pretrained(folder)
    return str(folder)


def write_source(folder: Path) -> Path:
    """40 + 16 pairs in HelpSteer2's layout, where more good words mean a higher rating; returns the folder."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for split, n in (("train", 40), ("validation", 16)):
        lines = []
        for index in range(n):
            for good in rng.permutation(5)[:2]:
                words = " ".join("good" if word < good else "bad" for word in rng.permutation(4))
                row = {"prompt": f"{split} question {index}", "response": f"{words} {rng.integers(1000)}"}
                lines.append(json.dumps(row | dict.fromkeys(ATTRIBUTES, int(good))))
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return folder
