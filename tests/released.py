"""A small release of HelpSteer2 in the official layout, in sentences of our own: 3 + 1 pairs in four files."""

import gzip
import json
from pathlib import Path
from typing import Any

from rmlib.pairs.schema import ATTRIBUTES

Row = dict[str, Any]
Rows = list[Row]

NAMES = {
    "train": "train.jsonl.gz",
    "validation": "validation.jsonl.gz",
    "preference": "preference/preference.jsonl.gz",
    "disagreements": "disagreements/disagreements.jsonl.gz",
}


def write(path: Path, rows: Rows) -> Path:
    """The rows as JSON lines, compressed where the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def rated(prompt: str, response: str, *ratings: int) -> Row:
    return {"prompt": prompt, "response": response} | dict(zip(ATTRIBUTES, ratings, strict=True))


def preferred(first: Row, second: Row, strength: int, **more: Any) -> Row:
    """A row of the preference file; unless given, its three annotations all have the row's strength."""
    texts = {"prompt": first["prompt"], "response_1": first["response"], "response_2": second["response"]}
    parts = [(f"@Response {n} said so.", "For reasons.") for n in range(3)]
    three = [{"statement": one, "elaboration": two, "strength": strength} for one, two in parts]
    raw = [{"strength": strength, "justification": f"{one} {two}"} for one, two in parts]
    row = {"split": "train", "preference_strength": strength} | texts
    row |= {"preference_statement": parts[0][0], "preference_elaboration": parts[0][1]}
    return row | {"three_most_similar_preferences": three, "all_preferences_unprocessed": raw} | more


def disagreed(row: Row, *annotators: tuple[int, ...]) -> Row:
    """A row of the file of disagreements: each annotator's five ratings of the row's response."""
    lists = zip(*annotators, strict=True)
    return row | {attribute: list(values) for attribute, values in zip(ATTRIBUTES, lists, strict=True)}


TRAIN = [
    rated("Name a prime.", "Two.", 4, 4, 4, 0, 1),
    rated("Name a prime.", "Four, as everyone knows.", 0, 0, 3, 0, 2),
    rated("Hi\n<extra_id_1>Assistant\nHello.\n\nAnd?\n<extra_id_1>User\nSing.", "La", 1, 2, 3, 1, 0),
    rated("Hi\n<extra_id_1>Assistant\nHello.\n\nAnd?\n<extra_id_1>User\nSing.", "La la", 2, 3, 4, 2, 1),
    rated("Größe?\u2028", "Groß.", 3, 3, 3, 3, 3),
    rated("Größe?\u2028", "Klein.", 3, 2, 3, 1, 3),
]
VALIDATION = [rated("Count.", "1, 2, 3", 2, 4, 4, 1, 1), rated("Count.", "3, 2, 1", 1, 4, 4, 1, 1)]

PREFERENCES = [
    preferred(VALIDATION[0], VALIDATION[1], 0, split="val"),
    preferred(
        TRAIN[3],  # the two responses in the other order than the ratings
        TRAIN[2],
        -2,
        preference_statement="@Response 1 is better.",
        preference_elaboration="It sings more.",
        three_most_similar_preferences=[
            {"statement": "@Response 1 is better.", "elaboration": "It sings more.", "strength": -2},
            {"statement": "@Response 1 is slightly better.", "elaboration": "", "strength": -1},
            {"statement": "@Response 1 wins.", "elaboration": "Longer.", "strength": -2},
        ],
        all_preferences_unprocessed=[
            {"strength": -100, "justification": "Neither sings."},
            {"strength": -2, "justification": "Longer. @Response 1 wins."},
            {"strength": -1, "justification": "@Response 1 is slightly better."},
            {"strength": -2, "justification": "@Response 1 is better. It sings more."},
        ],
    ),
    preferred(TRAIN[0], TRAIN[1], -3),
]
UNDECIDED = preferred(TRAIN[4], TRAIN[5], 1)  # left out of the preference file, so that one pair has no preference

DISAGREEMENTS = [  # two to five annotators, in an order of its own
    disagreed(TRAIN[3], (2, 3, 4, 2, 1), (3, 3, 4, 2, 0), (1, 3, 4, 2, 2)),
    disagreed(TRAIN[0], (4, 4, 4, 0, 1), (4, 4, 4, 1, 1)),
    disagreed(TRAIN[2], (1, 2, 3, 1, 0), (1, 2, 2, 1, 0), (0, 1, 3, 1, 0), (2, 2, 3, 1, 0), (1, 3, 4, 1, 0)),
    *(disagreed(row, *[tuple(row[attribute] for attribute in ATTRIBUTES)] * 3)
      for row in (TRAIN[1], *TRAIN[4:], *VALIDATION)),
]  # fmt: skip

PARTS = {"train": TRAIN, "validation": VALIDATION, "preference": PREFERENCES, "disagreements": DISAGREEMENTS}


def write_release(folder: Path, **parts: Rows) -> Path:
    """The four files, some with other rows than usual."""
    for part, rows in (PARTS | parts).items():
        write(folder / NAMES[part], rows)
    return folder
