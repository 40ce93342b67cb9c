"""What names say about splits: a file, a folder or a column that is named as held out is never trained on."""

import re

from rmlib.records.errors import DataError, Place, shown

HELD_OUT = (
    "dev", "devel", "development", "val", "valid", "validation", "eval", "evaluation", "heldout", "holdout", "test",
    "testing",
)  # fmt: skip
TRAIN = ("train", "training")
# Words as they stand in names: "dev-set", "testset", "validation_00001-of-00004", "HeldOut", "my.held-out.jsonl".
_WORD = r"(?:^|[^a-z])(?:{})(?:s|set|split|data)?(?:$|[^a-z])"
_HELD_OUT = re.compile(_WORD.format("|".join((*HELD_OUT, r"held[^a-z]?out", r"hold[^a-z]?out"))))
_TRAIN = re.compile(_WORD.format("|".join(TRAIN)))


def split_named(name: str, place: Place) -> str | None:
    """The split ("train" or "validation") that a name holds as a word; None where it holds none.

    Names of a file's folders count too. Raises DataError for a name that says both.
    """
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    is_held_out, is_train = bool(_HELD_OUT.search(words)), bool(_TRAIN.search(words))
    if is_held_out and is_train:
        raise DataError(place, f"{shown(name)} names both training and held-out data", "Name it as one of the two")
    return "validation" if is_held_out else "train" if is_train else None


def is_split_name(value: str) -> bool:
    """Whether a value is the name of a split and nothing more, perhaps with a number."""
    word = re.sub(r"[^a-z]", "", value.lower())
    return word in TRAIN or word in HELD_OUT
