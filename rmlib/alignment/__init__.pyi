from .estimators import (
    best_of_n_divergence as best_of_n_divergence,
)
from .estimators import (
    best_of_n_expectation as best_of_n_expectation,
)
from .estimators import (
    dpo_loss as dpo_loss,
)
from .estimators import (
    generalised_advantages as generalised_advantages,
)
from .estimators import (
    implicit_reward as implicit_reward,
)
from .estimators import (
    leave_one_out_baseline as leave_one_out_baseline,
)
from .estimators import (
    mean_absolute_divergence as mean_absolute_divergence,
)
from .estimators import (
    ppo_policy_loss as ppo_policy_loss,
)
from .estimators import (
    ppo_value_loss as ppo_value_loss,
)
from .estimators import (
    reinforce_loss as reinforce_loss,
)
