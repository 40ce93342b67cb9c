"""Backbone, head and tokenizer as one network: from texts to batches, hidden states and rewards."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rmlib.models import backbones, batches, tokens
from rmlib.models.attention import backend_for, last_layer
from rmlib.models.batches import Batch, Group, SharedBatch
from rmlib.models.interface import Prompt, Response
from rmlib.models.tokens import Encoded
from rmlib.pairs.messages import AsGiven, conversations
from rmlib.records.hashing import prompt_key
from rmlib.records.progress import progress_bar

# Largest difference of a reward from that of padded rows, times its size where that is above 1.
EXACT, HALF = 1e-4, 5e-2

Head = nn.Linear | nn.Sequential
HEAD_LAYERS = (1, 2)

logger = logging.getLogger(__name__)


def new_head(hidden_size: int, n_attributes: int, n_layers: int = 1) -> Head:
    """A head whose last layer has bias 0 and weights so small that a Bradley-Terry loss starts at ln 2.

    Two layers are Linear(hidden, hidden), ReLU, Linear(hidden, attribute), as INF-ORM-Llama3.1-70B has them (its model
    card); the first keeps torch's default initialisation. Raises ValueError for another number of layers.
    """
    if n_layers not in HEAD_LAYERS:
        raise ValueError(f"a head has {' or '.join(map(str, HEAD_LAYERS))} layers, not {n_layers}")
    last = nn.Linear(hidden_size, n_attributes)
    nn.init.normal_(last.weight, std=1 / (hidden_size + 1))
    nn.init.zeros_(last.bias)
    return last if n_layers == 1 else nn.Sequential(nn.Linear(hidden_size, hidden_size), nn.ReLU(), last)


def draw_head(hidden_size: int, n_attributes: int, seed: int, n_layers: int = 1) -> Head:
    """The new head of a seed, without touching the caller's generators.

    On a pretrained backbone, whose weights are read and not drawn, it is the head of `RewardModel.create`.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return new_head(hidden_size, n_attributes, n_layers)


def hash_of_weights(module: nn.Module | backbones.Network) -> str:
    """16 hex digits of names, types, shapes and values of all its tensors: networks that compute the same share it."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


class RewardNetwork(nn.Module):
    """What of a reward model gives rewards; `rmlib.models.RewardModel` says how one is made, saved and exported.

    Decoders are read at the last token that the chat template emits for the assistant turn, encoders by the masked mean
    of all tokens. `attributes` names the outputs of the head in order. `identity` is a hash of how the weights came
    about and names runs; `body_identity` is that of the backbone alone, and equals the backbone's name where it is a
    pretrained one that nothing has changed; `base_identity` is that of the weights beneath an adapter.
    """

    def __init__(
        self, backbone: backbones.Backbone, head: Head, tokenizer: PreTrainedTokenizerBase, *,
        name: str, attributes: Sequence[str], fresh_head: bool,
        identity: str, body_identity: str, base_identity: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.backbone = backbone
        self.head: Head = head.float()
        self.tokenizer = tokenizer
        self.name, self.attributes, self.fresh_head = name, tuple(attributes), fresh_head
        self.identity, self.body_identity, self.base_identity = identity, body_identity, base_identity or name
        base = backbones.base_of(backbone)
        self.config = base.config
        self.kind = backbones.kind_of(self.config)
        self.max_length = backbones.position_limit(self.config)
        self.shared, self.layout = backbones.shares_prefix(base, self.max_length)
        self.chat: dict[str, Any] = {}  # what of `templates.adjust` was asked for when it was made
        self.attention = ""  # until a run has chosen, and compared, what its device does best
        self.ends_only = last_layer.cut(base, self.config) if self.shared else None
        self.eval()

    @property
    def device(self) -> torch.device:
        return self.output_layer.weight.device

    @property
    def output_layer(self) -> nn.Linear:
        """The last linear layer of the head, whose rows are the attributes."""
        layer = self.head[-1] if isinstance(self.head, nn.Sequential) else self.head
        assert isinstance(layer, nn.Linear)
        return layer

    @property
    def head_layers(self) -> int:
        """Linear layers of the head: 1 or 2."""
        return sum(isinstance(layer, nn.Linear) for layer in self.head.modules())

    def forward(self, batch: Batch | Float[Tensor, "*sequence hidden"]) -> Float[Tensor, "*sequence attribute"]:
        """Rewards of the responses in a batch (or of kept features), in fp32 whatever the backbone's precision.

        The head is outside any autocast: bf16 spacing at a reward of 8 is 0.06, which makes ties.
        """
        hidden = batch if isinstance(batch, Tensor) else self.pool(batch)
        with torch.autocast(hidden.device.type, enabled=False):
            return self.head(hidden.float())

    def pool(self, batch: Batch) -> Float[Tensor, "sequence hidden"]:
        """Final hidden state that the head reads, one per response."""
        inputs = batches.inputs_of(batch, self.config)
        if isinstance(batch, SharedBatch):
            output = self.backbone(**inputs, row_layout=batch.layout, use_cache=False)
            return output.last_hidden_state[0].index_select(0, batch.ends)
        if self.kind == "encoder":
            states = self.backbone(**inputs).last_hidden_state
            weight = batch.attention_mask.unsqueeze(-1).to(states.dtype)
            return (states * weight).sum(dim=1) / weight.sum(dim=1)
        states = self.backbone(**inputs, use_cache=False).last_hidden_state
        return states[torch.arange(len(states), device=states.device), batch.ends]

    def encode(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> Encoded:
        """Tokens of each conversation; an encoder's texts are cut to its length (and marked), a decoder's never.

        Raises ModelError for a token that the backbone does not know.
        """
        if self.kind == "encoder":
            encoded = tokens.encode_encoder(self.tokenizer, prompts, responses, self.max_length)
        else:
            encoded = tokens.encode_decoder(self.tokenizer, prompts, responses)
        encoded.refuse_unknown(self.config, self.name)
        return encoded

    def collate(self, groups: Sequence[Group], *, shared: bool | None = None) -> Batch:
        """Groups as one batch on the model's device, in the shared layout where the backbone allows it."""
        if self.shared if shared is None else shared:
            safe = "segments" if self.device.type == "cuda" else backend_for(self.device, self.config)
            return batches.collate_shared(groups, self.attention or safe).to(self.device)
        return batches.collate_padded(groups).to(self.device)

    def score(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], *, token_budget: int | None = None
    ) -> Float[np.ndarray, "response *attribute"]:
        """Rewards, `[n]` for one attribute and `[n, attribute]` for several.

        `prompts` and `responses` are flat lists of equal length; equal prompts in a row are encoded once. A prompt is a
        list of messages, or a text, which is one turn of the user; a response a text or a message. A reward does
        not depend on what it is batched with (1e-5 in fp32; in bf16, on items of five real sets, at most 0.04 of the
        rewards' standard deviation, and no margin above 0.003 of it changed its sign: `benchmarks.invariance`).
        `token_budget` is that of one forward pass (default: 4,096 on a CPU, 16,384 elsewhere). Raises ModelError for a
        decoder's text over `max_length` and for a conversation that its chat template refuses, DataError for what is no
        conversation, and for an answer that is empty (unless the responses are `interface.AsGiven`).
        """
        rewards = self._in_batches(self, *conversations(prompts, responses), len(self.attributes), token_budget)
        return rewards[:, 0] if len(self.attributes) == 1 else rewards

    def features(
        self, prompts: Sequence[Prompt], responses: Sequence[Response], *, progress: bool = False
    ) -> Float[np.ndarray, "response hidden"]:
        """What the head reads, in fp32, of empty answers too; errors as for `score`."""
        texts = conversations(prompts, AsGiven(responses))
        return self._in_batches(self.pool, *texts, self.config.hidden_size, progress=progress)

    @torch.no_grad()
    def _in_batches(
        self, function: Callable[[Batch], Tensor], prompts: Sequence[Prompt], responses: Sequence[Response], width: int,
        token_budget: int | None = None, progress: bool = False,
    ) -> Float[np.ndarray, "response width"]:  # fmt: skip
        # Rows longer than this are no faster on a CPU, whose caches they leave, and cost memory.
        budget = token_budget or (4_096 if self.device.type == "cpu" else 16_384)
        groups = self.groups(prompts, responses)
        result = np.empty((len(responses), width), dtype=np.float32)
        was_training = self.training
        self.eval()
        with progress_bar(total=len(responses), unit="response", show=progress, leave=False) as bar:
            for some, rows in batches.packed(groups, budget, shared=self.shared):
                result[rows] = function(self.collate(some)).float().cpu().numpy()
                bar.update(len(rows))
        self.train(was_training)
        return result

    def groups(self, prompts: Sequence[Prompt], responses: Sequence[Response]) -> list[Group]:
        """Encoded texts, those of equal prompts in a row together; arguments and errors as for `score`."""
        encoded = self.encode(prompts, responses)
        encoded.refuse_long(self.max_length, self.name)
        if encoded.cut.any():
            logger.warning("%d of %d texts were cut to %d tokens", encoded.cut.sum(), len(encoded.cut), self.max_length)
        return batches.group(encoded, [len(list(run)) for _, run in groupby(prompts, key=prompt_key)])

    def check_layout(self, groups: Sequence[Group], precision: str = "fp32") -> None:
        """Choose how a run computes, compare it with padded rows on some groups, and say what was chosen.

        That is the device's attention, and the last layer at the end tokens alone. Where a reward differs, the next
        plainer way is tried: attention by segments and every layer whole, at last padded rows; each time loudly.
        """
        if not self.shared:
            logger.info("%s: %s", self.name, self.layout)
            return
        half = precision == "bf16" or next(self.backbone.parameters()).dtype != torch.float32
        for backend in (backend_for(self.device, self.config, half=half), "segments"):
            self.attention = backend
            if not (problem := self._problem(groups, precision, EXACT if not half else HALF)):
                ends = "the last layer at the end tokens alone" if self.ends_only else "every layer whole"
                logger.info("%s: %s; attention by %s, %s", self.name, self.layout, backend, ends)
                return
            logger.warning("%s: attention by %s is given up: %s", self.name, backend, problem)
            if self.ends_only is not None:
                self.ends_only.remove()
                self.ends_only = None
        self.shared, self.layout = False, f"padded rows: {problem}"
        logger.warning("%s: %s", self.name, self.layout)

    @torch.no_grad()
    def _problem(self, groups: Sequence[Group], precision: str, tolerance: float) -> str:
        """What is wrong with the shared layout on some groups; empty where nothing is."""
        was_training = self.training
        self.eval()
        try:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=precision == "bf16"):
                shared, padded = (self(self.collate(groups, shared=layout)) for layout in (True, False))
        except RuntimeError as error:
            if self.attention == "segments":
                raise
            return f"{type(error).__name__}: {error}"  # a kernel that this GPU or this build lacks
        finally:
            self.train(was_training)
        difference, scale = float((shared - padded).abs().max()), max(1.0, float(padded.abs().max()))
        return f"sharing the prompt changed a reward by {difference:.2g}" if difference > tolerance * scale else ""
