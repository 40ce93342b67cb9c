"""How a run computes, chosen once at its start, compared with padded rows, and said."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from rmlib.models.attention import backend_for
from rmlib.models.batches import Group
from rmlib.models.network import RewardNetwork

# Largest difference of a reward from that of padded rows, times its size where that is above 1.
EXACT, HALF = 1e-4, 5e-2

logger = logging.getLogger(__name__)


def choose(model: RewardNetwork, groups: Sequence[Group], precision: str = "fp32") -> None:
    """Take the device's attention and the last layer at the end tokens alone, if they give the rewards of padded rows.

    Where a reward differs, the next plainer way is tried: attention by segments and every layer whole, at last padded
    rows; each time loudly.
    """
    if not model.shared:
        logger.info("%s: %s", model.name, model.layout)
        return
    half = precision == "bf16" or next(model.backbone.parameters()).dtype != torch.float32
    for backend in (backend_for(model.device, model.config, half=half), "segments"):
        model.attention = backend
        if not (problem := _problem(model, groups, precision, EXACT if not half else HALF)):
            ends = "the last layer at the end tokens alone" if model.ends_only else "every layer whole"
            logger.info("%s: %s; attention by %s, %s", model.name, model.layout, backend, ends)
            return
        logger.warning("%s: attention by %s is given up: %s", model.name, backend, problem)
        if model.ends_only is not None:
            model.ends_only.remove()
            model.ends_only = None
    model.shared, model.layout = False, f"padded rows: {problem}"
    logger.warning("%s: %s", model.name, model.layout)


@torch.no_grad()
def _problem(model: RewardNetwork, groups: Sequence[Group], precision: str, tolerance: float) -> str:
    """What is wrong with the shared layout on some groups; empty where nothing is."""
    was_training = model.training
    model.eval()
    try:
        with torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16"):
            shared, padded = (model(model.collate(groups, shared=layout)) for layout in (True, False))
    except RuntimeError as error:
        if model.attention == "segments":
            raise
        return f"{type(error).__name__}: {error}"  # a kernel that this GPU or this build lacks
    finally:
        model.train(was_training)
    difference, scale = float((shared - padded).abs().max()), max(1.0, float(padded.abs().max()))
    return f"sharing the prompt changed a reward by {difference:.2g}" if difference > tolerance * scale else ""
