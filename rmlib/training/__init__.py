"""One loop, in one process or many: from examples to a saved run."""

from rmlib.training.loop import (
    Run,
    TrainingError,
    create_model,
    evaluate,
    example_losses,
    n_valid,
    rewards_of,
    run_folder,
    run_identity,
    sampling_order,
    train,
)

__all__ = [
    "Run",
    "TrainingError",
    "create_model",
    "evaluate",
    "example_losses",
    "n_valid",
    "rewards_of",
    "run_folder",
    "run_identity",
    "sampling_order",
    "train",
]
