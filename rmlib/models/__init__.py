"""Text to reward: backbones, batches in which a prompt is encoded once, attention, heads, saving and exporting."""

from rmlib.models.reward_model import ModelError, RewardModel, new_head, refuse_long

__all__ = ["ModelError", "RewardModel", "new_head", "refuse_long"]
