"""What a file or folder of pairs holds, before anything is trained on it: counts, lengths, and the first pair."""

import argparse
import logging
import sys
from collections.abc import Sequence

import pandas as pd
from datasets import Dataset

from rmlib.pairs import preference_view
from rmlib.pairs.descriptions import frame
from rmlib.pairs.views import CONVERSATION
from rmlib.records.errors import shown
from rmlib.sources.loading import load_described
from rmlib.sources.options import ARGUMENTS, typed


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what a source holds; 1 where it cannot be read."""
    parser = argparse.ArgumentParser("python -m rmlib.sources", description=__doc__)
    parser.add_argument("source", help="a file or folder of pairs, hub, or simulated")
    for name, settings in ARGUMENTS.items():
        parser.add_argument(name, **settings)
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    try:
        pairs, info = load_described(given.source, **typed(given))
    except (ValueError, TypeError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    print(f"{info.title}; preferences: {info.preferences}")
    print(summary(pairs).to_string())
    for row in preference_view(pairs.select(range(min(20, len(pairs))))).select(range(1)):
        for name in CONVERSATION:
            said = (" ".join([message["role"] + ":", *map(shown, [*message.values()][1:])]) for message in row[name])
            print(f"{name:<9}", " | ".join(said))
    return 0


def summary(pairs: Dataset) -> pd.DataFrame:
    """One row a split: pairs, ties, those without a preference, how often response 2 and the longer one are better."""
    table = frame(pairs)
    rows = {}
    for split, part in table.groupby("split"):
        decided = part[part["preference"].fillna(0) != 0]
        longer = (decided["chars_2"] - decided["chars_1"]) * decided["preference"]
        rows[split] = {
            "pairs": len(part),
            "ties": int((part["preference"] == 0).sum()),
            "no preference": int(part["preference"].isna().sum()),
            "response 2 better": (decided["preference"] > 0).mean(),
            "longer better": (longer[longer != 0] > 0).mean(),
            "characters of a prompt": part["prompt_chars"].median(),
            "of a response": pd.concat([part["chars_1"], part["chars_2"]]).median(),
        }
    return pd.DataFrame(rows).T.round(2)


if __name__ == "__main__":
    sys.exit(main())
