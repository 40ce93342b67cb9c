from .examples import TrainingError as TrainingError
from .forward import (
    example_losses as example_losses,
)
from .forward import (
    n_valid as n_valid,
)
from .forward import (
    rewards_of as rewards_of,
)
from .initial_model import create_model as create_model
from .loop import (
    evaluate as evaluate,
)
from .loop import (
    run_folder as run_folder,
)
from .loop import (
    run_identity as run_identity,
)
from .loop import (
    train as train,
)
from .optimizer import sampling_order as sampling_order
from .runs import Run as Run
from .settings import TrainSettings as TrainSettings
