from .arms import (
    ARMS as ARMS,
)
from .arms import (
    PAPER_ARMS as PAPER_ARMS,
)
from .arms import (
    Arm as Arm,
)
from .comparison import (
    ArmRun as ArmRun,
)
from .comparison import (
    choose_learning_rates as choose_learning_rates,
)
from .comparison import (
    comparison_of as comparison_of,
)
from .comparison import (
    oracle_rewards as oracle_rewards,
)
from .comparison import (
    results_file as results_file,
)
from .comparison import (
    rewards_on_test as rewards_on_test,
)
from .comparison import (
    run as run,
)
from .comparison import (
    run_all as run_all,
)
from .comparison import (
    run_benchmark as run_benchmark,
)
from .comparison import (
    run_ruler as run_ruler,
)
from .comparison import (
    sweep_beside as sweep_beside,
)
from .comparison import (
    tuned as tuned,
)
from .data_records import record_overlap as record_overlap
from .data_records import record_test_pairs as record_test_pairs
from .jobs import JobFailed as JobFailed
from .scoring import (
    ATTRIBUTE_WEIGHTS_OF as ATTRIBUTE_WEIGHTS_OF,
)
from .scoring import (
    oriented_margins as oriented_margins,
)
from .scoring import (
    scalar_model as scalar_model,
)
from .scoring import (
    score_pairs as score_pairs,
)
from .scoring import (
    scorer as scorer,
)
from .sweeps import (
    COARSE_FACTORS as COARSE_FACTORS,
)
from .sweeps import (
    sweep_benchmark as sweep_benchmark,
)
from .sweeps import (
    sweep_factors as sweep_factors,
)
