from .heads import new_head as new_head
from .reward_model import (
    ModelError as ModelError,
)
from .reward_model import (
    RewardModel as RewardModel,
)
from .reward_model import (
    refuse_long as refuse_long,
)
