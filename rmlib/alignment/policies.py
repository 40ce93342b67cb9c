"""A policy: a causal language model that answers prompts, and the log-probabilities of what it said.

Sampling keeps token ids, so that log-probabilities are those of the tokens that were drawn; a reward model reads the
text, in its own template and with its own tokenizer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rmlib.models import Prompt, Response, backbones, batches, templates, tokens
from rmlib.models.adapters import with_adapter
from rmlib.models.backbones import is_adapted
from rmlib.models.batches import Group
from rmlib.models.likelihood import header, targets_of, token_log_probabilities
from rmlib.models.network import hash_of_weights


@dataclass(frozen=True)
class Samples:
    """Responses to prompts, the same number for each, those of a prompt one after another.

    `ids` holds what was generated, the end token included where the response ended; `texts` leaves it out.
    """

    prompts: list[Prompt]
    n_per_prompt: int
    prompt_ids: list[np.ndarray]
    ids: list[np.ndarray]
    texts: list[str]
    ended: Bool[np.ndarray, "sample"]

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, prompts: Sequence[int]) -> list[int]:
        """Where the samples of some of the prompts stand."""
        return [index * self.n_per_prompt + number for index in prompts for number in range(self.n_per_prompt)]

    def take(self, indices: Sequence[int]) -> Samples:
        """The samples of some of the prompts."""
        rows = self.rows(indices)
        prompts, prompt_ids = [self.prompts[index] for index in indices], [self.prompt_ids[index] for index in indices]
        ids, texts = [self.ids[row] for row in rows], [self.texts[row] for row in rows]
        return Samples(prompts, self.n_per_prompt, prompt_ids, ids, texts, self.ended[rows])

    @property
    def repeated_prompts(self) -> list[Prompt]:
        """The prompt of each sample."""
        return [prompt for prompt in self.prompts for _ in range(self.n_per_prompt)]

    @property
    def n_tokens(self) -> np.ndarray:
        """Tokens of each response, the end token included."""
        return np.array([len(row) for row in self.ids])

    def counts(self) -> dict[str, int]:
        """How many responses there are, how many did not end, and how many are empty."""
        empty = sum(not text.strip() for text in self.texts)
        return {"samples": len(self), "not ended": int((~self.ended).sum()), "empty": empty}

    def groups(self) -> list[Group]:
        """One group for each prompt, which is its shared part."""
        return [
            Group(tuple(np.concatenate([prompt, self.ids[row]]) for row in self.rows([index])), len(prompt))
            for index, prompt in enumerate(self.prompt_ids)
        ]


def drawn_network(config: PreTrainedConfig, seed: int) -> PreTrainedModel:
    """A causal language model with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = AutoModelForCausalLM.from_config(config)
    backbones.prepare_attention(network)
    return network.eval()


class Policy:
    """A causal language model with its tokenizer and the two texts that stand around a response in its template."""

    def __init__(self, network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> None:
        self.network, self.tokenizer, self.name = network, tokenizer, name
        self.max_length = backbones.position_limit(network.config)
        self.shared = backbones.shares_prefix(network.base_model, self.max_length)[0]
        self.end_id = _end_id(tokenizer)

    @classmethod
    def create(cls, backbone: str) -> Self:
        """The language model of a backbone: pretrained weights in fp32, or for `embedded` some drawn from seed 0.

        Raises BackboneError for a name that cannot be loaded, and a model that lacks weights.
        """
        source = backbones.folder_of(backbone)
        if backbone == backbones.EMBEDDED:
            tokenizer = AutoTokenizer.from_pretrained(source)
            network = drawn_network(AutoConfig.from_pretrained(source), seed=0)
        else:
            network, tokenizer = backbones.read_whole(AutoModelForCausalLM, source)
            backbones.prepare_attention(network)
        backbones.prepare_tokenizer(tokenizer, backbone)
        return cls(network, tokenizer, backbone)

    @cached_property
    def identity(self) -> str:
        """A hash of the weights, which names runs: of two folders called the same each has its own."""
        return hash_of_weights(self.network)

    def copy(self) -> Policy:
        """Another policy with the same weights, adapters merged."""
        other = copy.copy(self)
        other.__dict__.pop("identity", None)  # its weights may change
        other.network = copy.deepcopy(self.network)
        if is_adapted(other.network):
            other.network = other.network.merge_and_unload()
        return other

    def adapt(self, rank: int, *, seed: int) -> None:
        """Train low-rank adapters of all linear layers from now on, in place of the weights (peft's LoRA)."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.network = with_adapter(self.network, {"r": rank, "lora_alpha": 2 * rank}).eval()

    def save(self, folder: str | Path) -> None:
        """Write weights (safetensors, adapters merged), config and tokenizer as any transformers model."""
        network = self.copy().network if is_adapted(self.network) else self.network
        network.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    @property
    def device(self) -> torch.device:
        return self.network.device

    def prompt_ids(self, prompts: Sequence[Prompt]) -> list[np.ndarray]:
        """Tokens of each prompt up to where a response begins."""
        return tokens.tokens_of(self.tokenizer, [header(self.tokenizer, prompt) for prompt in prompts])

    @torch.no_grad()
    def sample(
        self, prompts: Sequence[Prompt], n: int, *, max_new_tokens: int, seed: int, temperature: float = 1.0
    ) -> Samples:
        """`n` responses to each prompt, drawn token by token from the whole vocabulary; the caller's generators stay.

        Raises ValueError for a prompt that leaves no room for `max_new_tokens`.
        """
        rows = self.prompt_ids(prompts)
        longest = max(len(row) for row in rows)
        if longest + max_new_tokens > self.max_length:
            raise ValueError(f"a prompt of {longest} tokens and {max_new_tokens} new ones exceed {self.max_length}")
        pad = self.tokenizer.pad_token_id or 0
        aligned = partial(pad_sequence, batch_first=True, padding_side="left")
        ids = aligned([torch.from_numpy(row) for row in rows], padding_value=pad).long().to(self.device)
        mask = aligned([torch.ones(len(row), dtype=torch.long) for row in rows]).to(self.device)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            drawn = self.network.generate(
                input_ids=ids, attention_mask=mask, do_sample=True, temperature=temperature, top_k=0, top_p=1.0,
                num_return_sequences=n, max_new_tokens=max_new_tokens, eos_token_id=self.end_id, pad_token_id=pad,
            )  # fmt: skip
        return self.as_samples(prompts, rows, n, drawn[:, longest:].cpu().numpy())

    def read(self, prompts: Sequence[Prompt], n: int, texts: Sequence[Response]) -> Samples:
        """Given texts, `n` to each prompt one after another, as if the policy had said them, each with its end.

        What the template writes behind the end token is left out. Raises ValueError where the numbers do not fit.
        """
        if len(texts) != n * len(prompts):
            raise ValueError(f"{len(texts)} texts are not {n} to each of {len(prompts)} prompts")
        headers = [header(self.tokenizer, prompt) for prompt in prompts]
        rendered = [
            templates.render(self.tokenizer, prompts[index // n], text)[len(headers[index // n]) :]
            for index, text in enumerate(texts)
        ]
        found = tokens.encode_texts(self.tokenizer, rendered)
        return self.as_samples(prompts, tokens.tokens_of(self.tokenizer, headers), n, found)

    def as_samples(
        self, prompts: Sequence[Prompt], prompt_ids: list[np.ndarray], n: int, rows: Iterable[np.ndarray]
    ) -> Samples:
        """Generated tokens, `n` rows to each prompt, as samples; what stands behind an end token is left out."""
        found, texts, ended = [], [], []
        for row in rows:
            ends = np.flatnonzero(row == self.end_id)
            found.append(row[: ends[0] + 1] if len(ends) else row)
            ended.append(bool(len(ends)))
            texts.append(self.tokenizer.decode(row[: ends[0]] if len(ends) else row, skip_special_tokens=True))
        return Samples(list(prompts), n, prompt_ids, found, texts, np.array(ended))

    def log_probabilities(self, samples: Samples, *, token_budget: int = 8192) -> Float[Tensor, "sample token"]:
        """Of every token of every response, each prompt encoded once; 0 after the end (`valid_tokens`).

        Follows gradients where they are enabled; then all passes of the budget are held until `backward`.
        """
        return in_passes(samples, token_budget, self.token_logp, shared=self.shared)

    def token_logp(
        self, groups: Sequence[Group], starts: Int[np.ndarray, "response"] | None = None
    ) -> Sequence[Float[Tensor, "token"]]:
        """Log-probabilities of the tokens of each response of some groups, in one pass.

        A response begins where `starts` says, else behind what its group shares.
        """
        batch = batches.collate_shared(groups) if self.shared else batches.collate_padded(groups)
        if starts is None:
            starts = np.array([item.n_shared for item in groups for _ in item.ids])
        targets = targets_of(groups, batch, starts)
        flat = token_log_probabilities(self.network, batch.to(self.device), targets)
        return flat.split(np.bincount(targets.response).tolist())


def in_passes(
    samples: Samples, token_budget: int, read: Callable[[Sequence[Group]], Sequence[Float[Tensor, "token"]]], *,
    shared: bool,
) -> Float[Tensor, "sample token"]:  # fmt: skip
    """What `read` says of the tokens of each response, 0 after its end; it is given as many groups as fit one pass."""
    groups = samples.groups()
    parts: list[Tensor] = []
    order: list[int] = []
    for indices in batches.pack(groups, token_budget, shared=shared):
        order += samples.rows(indices)
        parts += read([groups[index] for index in indices])
    return pad_sequence([parts[index] for index in np.argsort(order)], batch_first=True)


def _end_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token with which the template ends a response."""
    prompt = [{"role": "user", "content": "?"}]
    behind = templates.render(tokenizer, prompt, "a")[len(header(tokenizer, prompt)) + 1 :]
    ids = tokenizer(behind, add_special_tokens=False)["input_ids"]
    if not ids:
        raise ValueError("the chat template writes nothing behind a response, so no response could end; give it an end")
    return int(ids[0])


def valid_tokens(samples: Samples) -> Bool[Tensor, "sample token"]:
    """Which entries of `log_probabilities` are tokens of the response."""
    lengths = torch.from_numpy(samples.n_tokens)
    return torch.arange(int(lengths.max()))[None] < lengths[:, None]
