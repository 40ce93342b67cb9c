"""The starting policy of the embedded scale: a small decoder fitted to simulated answers, or to the pairs' own."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from rmlib.alignment.policies import Policy
from rmlib.models import Prompt, backbones
from rmlib.records import paths
from rmlib.records.files import write_json
from rmlib.records.hashing import fingerprint, prompt_key
from rmlib.records.progress import progress_bar
from rmlib.sources.simulated.generation import draw_answered
from rmlib.training.runs import FINISHED_FILE


@dataclass(frozen=True)
class FitSettings:
    """A decoder's size, and how it is fitted."""

    hidden_size: int = 64
    layers: int = 2
    heads: int = 1
    epochs: float = 2.2
    prompts_per_step: int = 64
    learning_rate: float = 4e-3
    warmup_steps: int = 20
    weight_decay: float = 0.05
    seed: int = 0


class Answers(NamedTuple):
    """What a policy is fitted to: prompts with two answers each, one after another."""

    prompts: Sequence[Prompt]
    texts: Sequence[str]

    @property
    def identity(self) -> str:
        return fingerprint([prompt_key([dict(message) for message in prompt]) for prompt in self.prompts], self.texts)


def answers_of(pairs: Dataset) -> Answers:
    """Both responses of every pair, good and bad alike."""
    two = zip(pairs["response_1"][:], pairs["response_2"][:], strict=True)
    return Answers(pairs["prompt"][:], [text for both in two for text in both])


def simulated_answers(n_prompts: int, seed: int, leave_out: Iterable[Prompt]) -> Answers:
    """Answers of the simulated authors to tasks of their own, none of which has a prompt of `leave_out`."""
    excluded = {prompt_key([dict(message) for message in prompt]) for prompt in leave_out}
    drawn = (one for one in draw_answered(seed) if prompt_key(one[0].prompt) not in excluded)
    some = list(itertools.islice(drawn, n_prompts))
    return Answers([task.prompt for task, _ in some], [text for _, two in some for text in two])


def starting_policy(answers: Answers, settings: FitSettings | None = None, *, progress: bool = True) -> Policy:
    """The policy fitted to the answers; fitted once, then found in runs/.

    It answers as their authors do, good and bad ones together: what optimisation starts from where no instruct model
    is at hand.
    """
    settings = settings or FitSettings()
    identity = fingerprint("starting policy", asdict(settings), answers.identity)
    folder = paths.runs_dir() / "policies" / identity
    if not (folder / FINISHED_FILE).is_file():
        policy = new_policy(settings)
        history = fit(policy, answers, settings, progress=progress)
        shutil.rmtree(folder, ignore_errors=True)
        policy.save(folder)
        write_json(folder / FINISHED_FILE, {"history": history, "settings": asdict(settings)})
    policy = Policy.create(str(folder))
    policy.name, policy.identity = "fitted to answers", identity
    return policy


def fit_history(policy: Policy) -> list[list[float]]:
    """Steps and losses (nats per token) of a policy that `starting_policy` returned."""
    return json.loads((paths.runs_dir() / "policies" / policy.identity / FINISHED_FILE).read_text())["history"]


def new_policy(settings: FitSettings) -> Policy:
    """A random decoder with the tokenizer of the embedded backbone."""
    made = Policy.create(backbones.EMBEDDED, seed=settings.seed)
    config = AutoConfig.from_pretrained(backbones.folder_of(backbones.EMBEDDED))
    config.hidden_size, config.intermediate_size = settings.hidden_size, 2 * settings.hidden_size
    config.num_hidden_layers, config.num_attention_heads = settings.layers, settings.heads
    config.num_key_value_heads, config.head_dim = settings.heads, settings.hidden_size // settings.heads
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        network = AutoModelForCausalLM.from_config(config)
    backbones.prepare_attention(network)
    return Policy(network.eval(), made.tokenizer, "embedded policy")


def fit(policy: Policy, answers: Answers, settings: FitSettings, *, progress: bool = True) -> list[list[float]]:
    """Maximum likelihood of the answers given their prompts; steps with their losses, nats per token."""
    groups = policy.read(answers.prompts, 2, answers.texts).groups()
    n_steps = max(1, int(settings.epochs * len(groups) / settings.prompts_per_step))
    optimizer = torch.optim.AdamW(
        policy.network.parameters(), lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=settings.weight_decay
    )
    from transformers import get_scheduler  # imports peft, which is slow

    scheduler = get_scheduler("cosine", optimizer, settings.warmup_steps, n_steps)
    take = _order(len(groups), settings)
    history = []
    for step in progress_bar(range(n_steps), desc="fitting the policy", unit="step", leave=False, show=progress):
        loss = -torch.cat(list(policy.token_logp([groups[index] for index in take(step)]))).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(policy.network.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        history.append([step + 1, round(float(loss.detach()), 4)])
    return history


def _order(n: int, settings: FitSettings) -> Callable[[int], list[int]]:
    size, rng = min(settings.prompts_per_step, n), np.random.default_rng(settings.seed)
    rows = np.concatenate([rng.permutation(n) for _ in range(int(settings.epochs) + 2)])
    return lambda step: rows[step * size : (step + 1) * size].tolist()
