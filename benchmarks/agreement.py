"""Time and peak memory of agreement with bootstrap intervals, beside the libraries asked once a draw.

    python -m benchmarks.agreement [folder of UKPConvArg1]

Without a folder the votes are a stand-in of the same size: 16,927 items of five votes, each a1, a2 or equal.
"""

import argparse
import gzip
import json
from pathlib import Path

import krippendorff
import numpy as np
import pandas as pd
from sklearn.metrics import cohen_kappa_score

from benchmarks.measure import measure, record
from rmlib.annotations import agreement

VALUES = {"a1": -1, "equal": 0, "a2": 1}
N_ITEMS, N_VOTES = 16_927, 5
Items = list[list[int]]


def read_votes(folder: Path) -> Items:
    """The votes of each pair, -1, 0 or 1, from pairs.jsonl.gz."""
    with gzip.open(folder / "pairs.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [[VALUES[vote["value"]] for vote in json.loads(line)["votes"]] for line in lines]


def stand_in(seed: int = 0) -> Items:
    """Votes on items whose truth is uncertain to a different degree: agreement as weak as among real ones."""
    rng = np.random.default_rng(seed)
    seen = rng.normal(rng.normal(size=(N_ITEMS, 1)), 1, (N_ITEMS, N_VOTES))
    return np.clip(np.round(seen), -1, 1).astype(int).tolist()


def ours(items: Items, draws: int) -> pd.DataFrame:
    """Five measures with intervals."""
    return agreement.agreement(items, seed=0, draws=draws)


def libraries(items: Items, draws: int) -> pd.DataFrame:
    """Both kappas by scikit-learn and both alphas by krippendorff, for each draw from its items."""
    votes, rng, rows = pd.DataFrame(items).to_numpy(float), np.random.default_rng(0), []  # NaN where votes are missing
    first, second = np.nonzero(~np.eye(votes.shape[1], dtype=bool))
    for _ in range(draws):
        drawn = votes[rng.integers(len(votes), size=len(votes))]
        couples = np.stack([drawn[:, first].ravel(), drawn[:, second].ravel()])
        couples = couples[:, ~np.isnan(couples).any(axis=0)].astype(int)
        kappas = [cohen_kappa_score(*couples, weights=weights) for weights in ("quadratic", "linear")]
        alphas = [krippendorff.alpha(drawn.T, level_of_measurement=level) for level in ("interval", "ordinal")]
        rows.append(kappas + alphas)
    return pd.DataFrame(rows).quantile([0.025, 0.975])


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="holds pairs.jsonl.gz")
    parser.add_argument("--draws", type=int, default=1000, help="of the bootstrap (default: 1000)")
    parser.add_argument("--library-draws", type=int, default=20, help="draws to ask the libraries for (default: 20)")
    options = parser.parse_args()
    items = read_votes(options.folder) if options.folder else stand_in()
    runs = {"rmlib": (ours, options.draws), "scikit-learn and krippendorff": (libraries, options.library_draws)}
    measured = {name: measure(function, items, draws) for name, (function, draws) in runs.items()}
    rows = {
        name: {"draws": runs[name][1], "seconds": m.seconds, "ms a draw": 1000 * m.seconds / runs[name][1]}
        | {"peak MB": m.peak_mb}
        for name, m in measured.items()
    }
    print(measured["rmlib"].result.round(4), pd.DataFrame(rows).T.round(2), sep="\n\n")
    asked = {"items": len(items), "votes": "ukpconvarg1" if options.folder else "stand-in", "draws": options.draws}
    outcome = {"runs": rows, "agreement": measured["rmlib"].result.to_dict(orient="index")}
    record("agreement", asked, outcome, measured["rmlib"].seconds)


if __name__ == "__main__":
    main()
