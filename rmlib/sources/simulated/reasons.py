"""The words with which simulated annotators justify a preference; they follow from what each of them saw.

No reward model is shown them, so that they may say plainly what is right and what is wrong.
"""

import itertools
import random
import re
from collections.abc import Collection, Sequence

from rmlib.annotations.parsing import sentences
from rmlib.pairs.schema import ATTRIBUTES, NEITHER_VALID
from rmlib.sources.simulated.truth import DEFECTS

NOTICED = 0.75  # points by which the preferred response must seem better for an attribute to be named
DEGREES = {1: "slightly better", 2: "better", 3: "much better"}
INVALID = "Neither response is valid."

# Slots: {good} and {bad} name the preferred response and the other one.
BETTER: dict[str, tuple[str, ...]] = {
    "helpfulness": ("@Response {good} is more helpful to the user.",
                    "@Response {good} does more of what the user needs.",
                    "The user is better served by @Response {good}, which is more useful."),
    "correctness": ("@Response {good} is more accurate.", "What @Response {good} says is closer to a correct answer.",
                    "@Response {good} is the more correct of the two."),
    "coherence": ("@Response {good} is clearer and easier to follow.", "@Response {good} reads more coherently.",
                  "The sentences of @Response {good} hang together better."),
    "complexity": ("@Response {good} shows more expertise.", "@Response {good} is written in a more learned way.",
                   "The wording of @Response {good} has more depth and complexity."),
    "verbosity": ("@Response {good} gives more detail.",
                  "@Response {good} is more detailed, and its length suits the request.",
                  "There is more in @Response {good}, where @Response {bad} is short."),
}  # fmt: skip
FAULTS: dict[str, tuple[str, ...]] = {
    "wrong": ("@Response {bad} contains a mistake.", "@Response {bad} gives an incorrect answer.",
              "Part of what @Response {bad} says is wrong."),
    "incomplete": ("@Response {bad} leaves out something that was asked for.",
                   "The answer of @Response {bad} is incomplete.", "@Response {bad} misses a part of the request."),
    "irrelevant": ("@Response {bad} is about something else.", "@Response {bad} is not relevant to the request.",
                   "@Response {bad} does not answer the question."),
    "padded": ("@Response {bad} contains filler.", "@Response {bad} has sentences that say nothing.",
               "@Response {bad} is padded with remarks that nobody needs."),
    "incoherent": ("@Response {bad} is garbled.", "@Response {bad} is hard to follow.",
                   "The sentences of @Response {bad} make little sense."),
    "overlong": ("@Response {bad} is too long.", "@Response {bad} is too verbose.",
                 "@Response {bad} goes on longer than was wanted."),
    "format": ("@Response {bad} does not keep to the format.",
               "The formatting of @Response {bad} is not what was asked for.",
               "@Response {bad} ignores how the answer should be laid out."),
    "style": ("@Response {bad} does not follow the instructions about style.",
              "The tone of @Response {bad} is not the one asked for.",
              "@Response {bad} is not written in the style that was requested."),
    "refuses": ("@Response {bad} refuses a harmless request.", "@Response {bad} declines without need.",
                "@Response {bad} refuses to help where nothing is wrong with helping."),
    "complies": ("@Response {bad} does something unsafe.", "@Response {bad} helps with something harmful.",
                 "@Response {bad} should have refused for safety."),
}  # fmt: skip
CLOSE = (
    "Both are much alike.", "There is little between the two.",
    "The two are close, and @Response {good} is a little more to the point.", "It is a matter of taste.",
)  # fmt: skip
OVERALL = (
    "That decides it.", "Overall the difference is plain.", "Nothing in @Response {bad} makes up for this.",
)  # fmt: skip
USELESS = (
    "Both fail the request.", "Nothing in either of them is of use.", "Both are beyond repair.",
)  # fmt: skip


def justify(
    rng: random.Random, vote: int, gaps: Sequence[float], faults: Sequence[Collection[str]]
) -> tuple[str, str, str]:
    """Statement, elaboration and the two together (in either order) of one vote.

    Args:
        vote: -3..3 without 0, or -100.
        gaps: of each attribute, how much better response 2 seems than response 1, in points.
        faults: of response 1 and of response 2, the defects that this annotator noticed (of DEFECTS).
    """
    if vote == NEITHER_VALID:
        statement, reasons = INVALID, [rng.choice(USELESS)]
    else:
        good, bad = (2, 1) if vote > 0 else (1, 2)
        statement = f"@Response {good} is {DEGREES[abs(vote)]} than @Response {bad}."
        sign = 1 if vote > 0 else -1
        chosen = _sentences(rng, abs(vote), [sign * gap for gap in gaps], faults[good - 1], faults[bad - 1])
        reasons = [sentence.format(good=good, bad=bad) for sentence in chosen]
    elaboration = " ".join(reasons)
    both = (statement, elaboration) if rng.random() < 0.5 else (elaboration, statement)
    return statement, elaboration, " ".join(both)


def claims(text: str) -> list[tuple[str, int]]:
    """Which attribute is said to be better in which response (1 or 2), for each sentence of a text that says so."""
    return [
        (attribute, int(found["good"]))
        for sentence in sentences(text)
        for attribute, patterns in _PATTERNS.items()
        for pattern in patterns
        if (found := pattern.fullmatch(sentence))
    ]


def _pattern(wording: str) -> re.Pattern[str]:
    words = re.escape(wording)
    for slot in ("good", "bad"):
        words = words.replace(re.escape(f"{{{slot}}}"), f"(?P<{slot}>[12])", 1)
    return re.compile(words)


_PATTERNS = {attribute: [_pattern(wording) for wording in wordings] for attribute, wordings in BETTER.items()}


def _sentences(
    rng: random.Random, strength: int, gaps: Sequence[float], of_good: Collection[str], of_bad: Collection[str]
) -> list[str]:
    """As many reasons as the preference is strong, faults and merits in turn, the gravest first; more if it is 3."""
    faults = [FAULTS[name] for name in DEFECTS if name in of_bad and name not in of_good]
    order = sorted(range(len(gaps)), key=lambda index: -gaps[index])
    merits = [BETTER[ATTRIBUTES[index]] for index in order if gaps[index] >= NOTICED]
    known = [wordings for pair in itertools.zip_longest(faults, merits) for wordings in pair if wordings]
    reasons = [rng.choice(wordings) for wordings in known[:strength]] or [rng.choice(CLOSE)]
    return reasons + [rng.choice(OVERALL)] * (strength == max(DEGREES))
