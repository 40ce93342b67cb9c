"""Optimizer, schedule, and the order in which pairs are drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from rmlib.models import RewardModel
from rmlib.training.settings import TrainSettings


def optimizer_for(model: RewardModel, settings: TrainSettings) -> torch.optim.Optimizer:
    """AdamW over the weights that are trained, decay for matrices alone; bitsandbytes' where 8 bits or pages are asked.

    bitsandbytes keeps tensors of fewer than 4,096 numbers in 32 bits; without a GPU its paged optimizers are not paged.
    """
    groups = _decay_groups(model, settings.weight_decay)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, fused=True)
    from bitsandbytes import optim  # slow to import, which most runs do without

    kinds = {
        "adamw_8bit": optim.AdamW8bit,
        "paged_adamw_8bit": optim.PagedAdamW8bit,
        "paged_adamw_32bit": optim.PagedAdamW32bit,
    }
    return kinds[settings.optimizer](groups, lr=settings.learning_rate, betas=settings.betas)


def _decay_groups(model: RewardModel, weight_decay: float) -> list[dict[str, Any]]:
    """Decay for matrices only, as in Megatron: shrinking a norm or a bias is no regularisation."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    return [
        {"params": [weight for weight in trained if weight.ndim > 1], "weight_decay": weight_decay},
        {"params": [weight for weight in trained if weight.ndim <= 1], "weight_decay": 0.0},
    ]


def scheduler_for(schedule: str, warmup_steps: int, optimizer: torch.optim.Optimizer, n_steps: int) -> Any:
    """Warm-up and schedule ("constant", or as transformers names it) of the learning rate over `n_steps` steps."""
    from transformers import get_scheduler  # imports peft, which takes seconds that drawing a figure can do without

    name = "constant_with_warmup" if schedule == "constant" else schedule
    return get_scheduler(name, optimizer, num_warmup_steps=warmup_steps, num_training_steps=n_steps)


def sampling_order(n_pairs: int, n_draws: int, settings: TrainSettings) -> np.ndarray:
    """Which pair each draw takes: whole epochs end to end, each shuffled from the seed unless `shuffle` is off."""
    rng = np.random.default_rng(settings.seed)
    n_epochs = -(-n_draws // n_pairs)
    epochs = [rng.permutation(n_pairs) if settings.shuffle else np.arange(n_pairs) for _ in range(n_epochs)]
    return np.concatenate(epochs)[:n_draws]
