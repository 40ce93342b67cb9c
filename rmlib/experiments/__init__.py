"""Arms of the comparison: each is its parent plus one change; run or reuse, and what is recorded."""

from rmlib.experiments.comparison import (
    ARMS,
    ATTRIBUTE_WEIGHTS_OF,
    COARSE_FACTORS,
    PAPER_ARMS,
    Arm,
    ArmRun,
    JobFailed,
    Splits,
    choose_learning_rates,
    comparison_of,
    load_splits,
    oracle_rewards,
    oriented_margins,
    record_overlap,
    record_test_pairs,
    results_file,
    rewards_on_test,
    run,
    run_all,
    run_benchmark,
    run_ruler,
    scalar_model,
    score_pairs,
    scorer,
    sweep_benchmark,
    sweep_beside,
    sweep_factors,
    tuned,
)

__all__ = ['ARMS', 'ATTRIBUTE_WEIGHTS_OF', 'Arm', 'ArmRun', 'COARSE_FACTORS', 'JobFailed', 'PAPER_ARMS', 'Splits', 'choose_learning_rates', 'comparison_of', 'load_splits', 'oracle_rewards', 'oriented_margins', 'record_overlap', 'record_test_pairs', 'results_file', 'rewards_on_test', 'run', 'run_all', 'run_benchmark', 'run_ruler', 'scalar_model', 'score_pairs', 'scorer', 'sweep_benchmark', 'sweep_beside', 'sweep_factors', 'tuned']
