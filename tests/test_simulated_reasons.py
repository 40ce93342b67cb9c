"""Justifications of simulated annotators: they say what was voted, and name what is there."""

import random
from typing import Any

import numpy as np
import pytest

from rmlib.pairs import ATTRIBUTES
from rmlib.pairs.schema import NEITHER_VALID
from rmlib.sources import simulated
from rmlib.sources.simulated import reasons
from rmlib.sources.simulated.truth import DEFECTS


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return list(simulated.generate(2_000, seed=7))


NOTHING: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())


@pytest.mark.parametrize(
    ("vote", "statement"),
    [
        (-3, "@Response 1 is much better than @Response 2."),
        (-1, "@Response 1 is slightly better than @Response 2."),
        (2, "@Response 2 is better than @Response 1."),
        (NEITHER_VALID, "Neither response is valid."),
    ],
)
def test_the_statement_says_what_was_voted(vote: int, statement: str) -> None:
    said = reasons.justify(random.Random(0), vote, [0.0] * 5, NOTHING)
    assert said[0] == statement
    assert said[2] in (f"{said[0]} {said[1]}", f"{said[1]} {said[0]}")


def spoken_of(elaboration: str, known: dict[str, tuple[str, ...]], good: int) -> set[str]:
    """The keys whose wordings occur in the elaboration."""
    return {
        name
        for name, wordings in known.items()
        if any(wording.format(good=good, bad=3 - good) in elaboration for wording in wordings)
    }


def test_the_elaboration_names_what_is_better_and_what_is_wrong_with_the_other() -> None:
    """Response 2 preferred: better in correctness and a little in coherence; only the other's own faults count."""
    rng = random.Random(0)
    faults = (frozenset({"wrong", "padded", "style"}), frozenset({"padded"}))
    for _ in range(30):
        _, elaboration, _ = reasons.justify(rng, 3, [0.1, 2.0, 0.2, -3.0, 0.0], faults)
        assert spoken_of(elaboration, reasons.FAULTS, good=2) == {"wrong", "style"}
        assert spoken_of(elaboration, reasons.BETTER, good=2) == {"correctness"}


def test_a_preference_for_response_1_turns_differences_round() -> None:
    _, elaboration, _ = reasons.justify(random.Random(0), -2, [-1.0, 2.0, 0.0, 0.0, -2.0], NOTHING)
    assert spoken_of(elaboration, reasons.BETTER, good=1) == {"verbosity", "helpfulness"}


def test_every_defect_and_attribute_has_wordings_of_its_own() -> None:
    assert set(reasons.FAULTS) == set(DEFECTS) and set(reasons.BETTER) == set(ATTRIBUTES)
    every = [w for known in (reasons.FAULTS, reasons.BETTER) for wordings in known.values() for w in wordings]
    assert len(set(every)) == len(every) == 3 * (len(DEFECTS) + len(ATTRIBUTES))


def test_stronger_preferences_are_explained_at_greater_length(rows: list[dict[str, Any]]) -> None:
    every = [annotation for row in rows for annotation in row["annotations"]]
    words = {s: [len(a["elaboration"].split()) for a in every if abs(a["preference"]) == s] for s in (1, 2, 3)}
    assert np.mean(words[1]) + 2 < np.mean(words[2]) < np.mean(words[3]) - 2


def test_what_reasons_name_is_true_more_often_than_not(rows: list[dict[str, Any]]) -> None:
    """Of the responses said to be better in an attribute, most are, though annotators may err."""
    for name in ("correctness", "coherence", "complexity", "verbosity"):
        gaps = []
        for row in rows:
            for annotation in row["annotations"]:
                good = 2 if annotation["preference"] > 0 else 1
                if name in spoken_of(annotation["elaboration"], {name: reasons.BETTER[name]}, good):
                    gaps.append(row[f"truth_{good}"][name] - row[f"truth_{3 - good}"][name])
        assert len(gaps) > 100 and np.mean(gaps) > 0.2, name


def test_faults_that_are_named_are_there() -> None:
    """The incoherent response of a pair is said to be so, and the coherent one never is."""
    named: dict[bool, int] = {True: 0, False: 0}
    for row in simulated.generate(600, seed=9):
        for annotation in row["annotations"]:
            bad = 1 if annotation["preference"] > 0 else 2
            if spoken_of(annotation["elaboration"], {"incoherent": reasons.FAULTS["incoherent"]}, 3 - bad):
                named[row[f"truth_{bad}"]["coherence"] < 4] += 1
    assert named[True] > 20 and named[False] == 0
