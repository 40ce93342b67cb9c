"""Random Llama-shaped decoders with a tokenizer trained on the spot: what the benchmarks compute on, without a hub."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModel, LlamaConfig, PreTrainedTokenizerFast

from rmlib.models import RewardModel

TEMPLATE = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
SPECIAL = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"]


def write(folder: Path, texts: Iterable[str], vocabulary: int, shape: dict[str, Any], seed: int) -> None:
    """A decoder (`backbone`), as our reward model (`ours`) and as transformers' classifier of equal rewards."""
    write_backbone(folder, texts, vocabulary, shape, seed)
    model = RewardModel.create(str(folder / "backbone"), seed=seed)
    model.save(folder / "ours")
    model.export(folder / "classifier")


def write_backbone(
    folder: Path, texts: Iterable[str], vocabulary: int, shape: dict[str, Any], seed: int, dtype: Any = torch.float32
) -> None:
    """The decoder alone."""
    tokenizer = byte_pair_tokenizer(texts, vocabulary)
    tokenizer.save_pretrained(folder / "backbone")
    torch.manual_seed(seed)
    body = AutoModel.from_config(LlamaConfig(vocab_size=len(tokenizer), **shape), dtype=dtype)
    body.save_pretrained(folder / "backbone")


def byte_pair_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of some texts with the roles of a chat."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<|pad|>", eos_token="<|end|>")
    tokenizer.model_input_names, tokenizer.chat_template = ["input_ids", "attention_mask"], TEMPLATE
    return tokenizer
