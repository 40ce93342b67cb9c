"""Fine-tuning language models: one loop that minimises the cross-entropy of the written tokens, and what it makes.

That is the starting policy of the embedded scale, which writes as the authors of the pairs do, and the justifier, which
writes why a response is preferred. Both are kept in `runs/` under a name made of everything that they depend on.
"""

from __future__ import annotations

import copy
import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer

from rmlib.alignment.policies import Policy, drawn_network
from rmlib.models import Prompt, Response, RewardModel, backbones, batches
from rmlib.models.batches import Group
from rmlib.models.network import hash_of_weights
from rmlib.pairs.views import only_pairs, texts_of
from rmlib.records import paths
from rmlib.records.files import write_json
from rmlib.records.hashing import fingerprint, prompt_key
from rmlib.records.kept import kept_folder
from rmlib.records.progress import progress_bar
from rmlib.sources.simulated.generation import draw_answered
from rmlib.training.loop import scheduler_for
from rmlib.training.parallel import Processes
from rmlib.training.runs import FINISHED_FILE
from rmlib.training.settings import Settings, refuse

TOKEN_BUDGET = 8_192  # of one pass
BETAS = (0.9, 0.98)  # of AdamW


def _minimise(
    policy: Policy, parts: Callable[[int], Iterable[Tensor]], how: FitSettings | FineTuning, n_steps: int
) -> list[float]:
    """Move the weights by AdamW, whose rate warms up and then falls to 0; the loss of each step.

    That is the sum of what `parts(step)` gives, one forward pass a part.
    """
    weights = [weight for weight in policy.network.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=how.learning_rate, betas=BETAS, weight_decay=how.weight_decay)
    from_nothing = isinstance(how, FitSettings)  # a justifier is trained beside others, without a bar
    scheduler = scheduler_for("cosine" if from_nothing else "linear", how.warmup_steps, optimizer, n_steps)
    losses = []
    for step in progress_bar(range(n_steps), desc=f"tuning {policy.name}", unit="step", show=from_nothing, leave=False):
        total = 0.0
        for loss in parts(step):
            loss.backward()
            total += float(loss.detach())
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(total)
    return losses


def _kept(folder: Path, make: Callable[[], tuple[Policy, dict[str, Any]]]) -> tuple[Policy, dict[str, Any]]:
    """A policy and how it came about: made once, then read from its folder."""

    def fill(temporary: Path) -> None:
        policy, outcome = make()
        policy.save(temporary)
        write_json(temporary / FINISHED_FILE, outcome)

    kept_folder(folder, fill)
    return Policy.create(str(folder)), json.loads((folder / FINISHED_FILE).read_text())


# --- the starting policy ----------------------------------------------------------------------------------------------


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
    texts: Sequence[Response]


def answers_of(pairs: Dataset) -> Answers:
    """Both responses of every pair, good and bad alike; single responses are left out."""
    pairs = only_pairs(pairs)
    return Answers(pairs["prompt"][:], texts_of(pairs)[1])


def simulated_answers(n_prompts: int, seed: int, leave_out: Iterable[Prompt]) -> Answers:
    """Answers of the simulated authors to tasks of their own, none of which has a prompt of `leave_out`."""
    excluded = {prompt_key(prompt) for prompt in leave_out}
    drawn = (one for one in draw_answered(seed) if prompt_key(one[0].prompt) not in excluded)
    some = list(itertools.islice(drawn, n_prompts))
    return Answers([task.prompt for task, _ in some], [text for _, two in some for text in two])


def starting_policy(answers: Answers, settings: FitSettings) -> Policy:
    """The policy fitted to the answers, once: what optimisation starts from where no instruct model is at hand."""
    learnt = fingerprint([prompt_key(prompt) for prompt in answers.prompts], answers.texts)
    identity = fingerprint("starting policy", asdict(settings), learnt)

    def make() -> tuple[Policy, dict[str, Any]]:
        policy = new_policy(settings)
        return policy, {"history": fit(policy, answers, settings), "settings": asdict(settings)}

    policy, _ = _kept(paths.runs_dir() / "policies" / identity, make)
    policy.name, policy.identity = "fitted to answers", identity
    return policy


def fit_history(policy: Policy) -> list[list[float]]:
    """Steps and losses (nats per token) of a policy that `starting_policy` returned."""
    return json.loads((paths.runs_dir() / "policies" / policy.identity / FINISHED_FILE).read_text())["history"]


def new_policy(settings: FitSettings) -> Policy:
    """A random decoder with the tokenizer of the embedded backbone."""
    source = backbones.folder_of(backbones.EMBEDDED)
    config = AutoConfig.from_pretrained(
        source, hidden_size=settings.hidden_size, intermediate_size=2 * settings.hidden_size,
        num_hidden_layers=settings.layers, num_attention_heads=settings.heads, num_key_value_heads=settings.heads,
        head_dim=settings.hidden_size // settings.heads,
    )  # fmt: skip
    return Policy(drawn_network(config, settings.seed), AutoTokenizer.from_pretrained(source), "embedded policy")


def fit(policy: Policy, answers: Answers, settings: FitSettings) -> list[list[float]]:
    """Maximum likelihood of the answers given their prompts; steps with their losses, nats per token."""
    groups = policy.read(answers.prompts, 2, answers.texts).groups()
    n_steps = max(1, int(settings.epochs * len(groups) / settings.prompts_per_step))
    size, rng = min(settings.prompts_per_step, len(groups)), np.random.default_rng(settings.seed)
    order = np.concatenate([rng.permutation(len(groups)) for _ in range(int(settings.epochs) + 2)])

    def parts(step: int) -> Iterator[Tensor]:
        taken = [groups[index] for index in order[step * size : (step + 1) * size]]
        yield -torch.cat(list(policy.token_logp(taken))).mean()

    losses = _minimise(policy, parts, settings, n_steps)
    return [[step, round(loss, 4)] for step, loss in enumerate(losses, start=1)]


# --- justifiers -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FineTuning(Settings):
    """How a justifier is fine-tuned; the learning rate falls linearly to 0 after the warm-up.

    With `lora_rank` adapters of all linear layers are trained, merged at the end; otherwise every weight. `precision`
    "bf16" is that of the forward pass alone, weights stay in fp32. The authors' settings are not published. Raises
    ValueError for another precision, and for sizes that are not positive.
    """

    n_steps: int
    examples_per_step: int = 16
    learning_rate: float = 2e-3
    warmup_steps: int = 20
    weight_decay: float = 0.0
    lora_rank: int = 0
    precision: str = "fp32"  # or bf16
    seed: int = 0

    def __post_init__(self) -> None:
        refuse([*self.mistakes({"precision": ("fp32", "bf16")}, ("n_steps", "examples_per_step", "learning_rate"))])


class Tuned(NamedTuple):
    """A fine-tuned policy and how it came about; `curve` holds step and mean loss (nats a written token) up to it."""

    policy: Policy
    folder: Path
    curve: list[dict[str, float]]
    n_tokens: int
    seconds: float


def on_reward_model(model: RewardModel, *, new_layers: int = 0, new_heads: int = 0, seed: int = 0) -> Policy:
    """A language model on the backbone of a reward model, which has learnt to tell responses apart.

    It may be given layers on top of its own and attention heads beside its own in every layer, which change nothing
    until they are trained, since they write 0 (function-preserving growth, arXiv 1511.05641). What is new, such as an
    untied output layer, is drawn from the seed. Raises BackboneError for an encoder, for growth of a decoder that is no
    Llama or whose heads share their keys, and for a number of heads that does not divide its width.
    """
    if model.kind != "decoder":
        raise backbones.BackboneError(f"{model.name!r} is an encoder and cannot write: name a decoder")
    if (new_layers or new_heads) and model.config.model_type != "llama":
        raise backbones.BackboneError(f"{model.name!r} is no Llama: its layers and heads cannot be added to")
    config = copy.deepcopy(model.config)
    if new_heads and config.num_key_value_heads != config.num_attention_heads:
        raise backbones.BackboneError(f"heads of {model.name!r} share their keys: none can be added")
    if config.hidden_size % (n_heads := config.num_attention_heads + new_heads):
        raise backbones.BackboneError(f"{n_heads} heads do not divide the width {config.hidden_size} of {model.name!r}")
    config.head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    config.num_hidden_layers += new_layers
    config.num_attention_heads = n_heads
    config.num_key_value_heads += new_heads
    network = drawn_network(config, seed)
    learnt, grown = model.backbone.state_dict(), network.base_model.state_dict()
    if strange := learnt.keys() - grown.keys():
        raise backbones.BackboneError(f"{model.name!r} has weights of other names than its kind, e.g. {min(strange)}")
    for name, weight in grown.items():
        if name.endswith((".o_proj.weight", ".down_proj.weight")):
            weight.zero_()
        if (known := learnt.get(name)) is not None:
            weight[tuple(slice(size) for size in known.shape)].copy_(known)
    network.tie_weights()
    return Policy(network, model.tokenizer, paths.public_name(model.name))


def drawn(rows: Dataset, settings: FineTuning) -> Dataset:
    """The examples that a fine-tuning sees, in its order: shuffled, and as many as it needs.

    Fewer than needed are gone through again. Raises ValueError where there are none.
    """
    if not len(rows):
        raise ValueError("no annotation is an example: give pairs with statements and elaborations, and decided ones")
    order: list[int] = []
    generator, n = torch.Generator().manual_seed(settings.seed), settings.n_steps * settings.examples_per_step
    while len(order) < n:
        order += torch.randperm(len(rows), generator=generator).tolist()
    return rows.select(order[:n]).select_columns(["prompt", "completion"])


def fine_tune(policy: Policy, rows: Dataset, settings: FineTuning) -> Tuned:
    """A policy fine-tuned on prompts and completions (`justifier.examples`), or the one that an earlier call finished.

    The policy given is trained in place where it has to be. A run that dies begins anew. Raises ValueError as `drawn`.
    """
    taken = drawn(rows, settings)
    start = [hash_of_weights(policy.network), policy.tokenizer.chat_template]
    name = fingerprint("justifier", start, fingerprint(taken.to_list()), asdict(settings))
    folder = paths.runs_dir() / "justifier" / name
    trained, outcome = _kept(folder, lambda: (policy, train(policy, taken, settings)))
    trained.name = policy.name
    trained.network.to(policy.device)
    return Tuned(trained, folder, **outcome)


def train(policy: Policy, rows: Dataset, settings: FineTuning) -> dict[str, Any]:
    """Train the policy in place on all rows in their order; curve, number of tokens read, seconds.

    Examples are not padded, and cut where the model's positions end; logits are computed where words are written alone:
    a fraction of the time that padded rows take (`benchmarks/fine_tuning.py`).
    """
    policy.network.to(Processes.join().device)
    if settings.lora_rank:
        policy.adapt(settings.lora_rank, seed=settings.seed)
    completions = [completion[0]["content"] for completion in rows["completion"][:]]
    groups = policy.read(rows["prompt"][:], 1, completions).groups()
    starts = np.array([group.n_shared for group in groups])
    groups = [Group((group.ids[0][: policy.max_length],), 0) for group in groups]  # of one text nothing is shared
    lengths = np.array([group.longest for group in groups])
    started = time.perf_counter()

    def parts(step: int) -> Iterator[Tensor]:
        taken = slice(step * settings.examples_per_step, (step + 1) * settings.examples_per_step)
        some, begin = groups[taken], starts[taken]
        n_written = max(1, int(np.maximum(lengths[taken] - begin, 0).sum()))
        for indices in batches.pack(some, TOKEN_BUDGET, shared=policy.shared):
            with torch.autocast(policy.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
                logp = policy.token_logp([some[index] for index in indices], begin[indices])
            yield -torch.cat(list(logp)).sum() / n_written

    policy.network.train()
    losses = np.array(_minimise(policy, parts, settings, settings.n_steps))
    policy.network.eval()
    pieces = np.array_split(np.arange(len(losses)), min(40, len(losses)))
    curve = [{"step": int(piece[-1]) + 1, "loss": float(losses[piece].mean())} for piece in pieces]
    return {"curve": curve, "n_tokens": int(lengths.sum()), "seconds": time.perf_counter() - started}
