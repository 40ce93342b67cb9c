"""Reading one justification: its sentences, its statement, the responses it names, the aspects it mentions.

Everything is a stated rule on words; nothing is downloaded.
"""

import re
from functools import lru_cache

# Aspect: words and phrases that mention it, whole and in any case; a * stands for any ending, a space also for "-".
# The first five are the attributes of HelpSteer2. One word may mention several aspects.
ASPECTS: dict[str, tuple[str, ...]] = {
    "helpfulness": ("help", "helps", "helpful*", "unhelpful*", "useful*", "useless", "of use", "of more use"),
    "correctness": (
        "correct*", "incorrect*", "accura*", "inaccura*", "wrong*", "error*", "mistake*", "true", "truth*", "untrue",
        "false*", "factual*", "valid*", "invalid*", "complete*", "incomplete*", "missing", "leaves out", "hallucinat*",
    ),
    "coherence": (
        "coheren*", "incoheren*", "clear*", "unclear*", "confus*", "consisten*", "inconsisten*", "contradict*",
        "logic*", "illogic*", "organi*", "disorgani*", "rambl*", "garbled", "flows", "flow", "reads", "readab*",
        "hard to follow", "easy to follow", "easy to read", "hard to read", "makes sense", "make sense", "well written",
        "gramma*", "spelling", "understandable",
    ),
    "complexity": (
        "complex*", "simpl*", "sophisticat*", "depth", "advanced", "expert*", "technical*", "jargon", "basic",
        "superficial*", "shallow", "elementary", "vocabulary",
    ),
    "verbosity": (
        "verbos*", "concise*", "brief*", "succinct*", "long", "longer", "length", "lengthy", "short", "shorter",
        "wordy", "detail*", "elaborat*", "thorough*", "redundan*", "repetit*", "padding", "padded", "to the point",
    ),
    "formatting": (
        "format*", "bullet*", "numbered", "bold*", "markdown", "heading*", "table", "tables", "paragraph*", "layout",
        "structure*",
    ),
    "instruction_following": (
        "instruction*", "prompt", "prompt's", "request", "requested", "requests", "requirement*", "constraint*",
        "what was asked", "asked for", "as asked",
    ),
    "safety": (
        "safe", "safer", "safety", "unsafe", "harm*", "danger*", "refus*", "toxic*", "illegal*", "ethic*", "unethical*",
        "inappropriate*", "offensive*",
    ),
    "tone": (
        "tone", "polite*", "impolite*", "rude*", "friendly", "unfriendly", "formal*", "informal*", "emotion*",
        "sarcas*", "respectful*", "disrespectful*", "insult*", "aggressive*",
    ),
    "examples": (
        "example*", "evidence", "fact", "facts", "source*", "cite", "cites", "cited", "citing", "citation*",
        "statistic*", "proof*", "reference*", "data",
    ),
    "relevance": (
        "relevan*", "irrelevan*", "topic*", "off topic", "on topic", "unrelated", "related to", "address*",
        "answers the question",
    ),
}  # fmt: skip


def _pattern(words: tuple[str, ...]) -> re.Pattern[str]:
    alternatives = "|".join(re.escape(word).replace(r"\*", r"\w*").replace(r"\ ", r"[\s-]+") for word in words)
    return re.compile(rf"(?<!\w)(?:{alternatives})(?!\w)", re.IGNORECASE)


_MENTIONS = {aspect: _pattern(words) for aspect, words in ASPECTS.items()}

_END = re.compile(r"(?:[.!?]+|…)[\"'”’)\]*_]*(?=\s)")
_LIST_NUMBER = re.compile(r"(?:^|[:;]\s*)\(?(?:\d{1,3}|[a-zA-Z])\.$")
_INITIAL = re.compile(r"(?:^|\b(?!Response|Argument|Option|Answer)[A-Z][\w'’]*\.? )[A-HJ-Z]\.$")
_ABBREVIATIONS = frozenset(
    ("e.g.", "i.e.", "eg.", "ie.", "vs.", "cf.", "mr.", "mrs.", "ms.", "dr.", "prof.", "st.", "no.", "fig.", "approx.")
)
_OFTEN_LAST = frozenset(("etc.", "a.m.", "p.m.", "u.s.", "u.k.", "inc.", "ltd.", "al."))

_RESPONSE = r"[*_]*@?\bresponse\s*([12])\b[*_]*"
_STATEMENT = re.compile(
    rf"{_RESPONSE}\s+is\s+[*_]*(?:(?:(slightly|much)\s+)?better[*_]*\s+than|(about\s+the\s+same)[*_]*\s+as)\s+{_RESPONSE}",
    re.IGNORECASE,
)
_DENIED = re.compile(r"(?:(?:not|n['’]t)\s+(?:think|believe|say|feel|mean)(?:\s+that)?|whether|if)\s+$", re.IGNORECASE)
_RESTATEMENT = re.compile(
    rf"{_RESPONSE}\s+(?:is|was)\s+[*_]*(?:\w+\s+){{0,2}}?(?:better|worse|preferred|superior|inferior)[*_]*"
    r"(?:\s+(?:response|one|answer|choice))?(?=\s*[.!?,;)]|\s*$|\s+(?:than|to|over|because|since|due|overall|here)\b)",
    re.IGNORECASE,
)
_STRENGTHS = {"slightly": 1, None: 2, "much": 3}

_THING = (
    r"(?:arg\w*|arug\w*|responses?|answers?|options?|statements?|sides?|persons?|speakers?|posts?|articles?|authors?)"
)
_NAMES = {
    number: re.compile(
        rf"""@?\bresponse\s*\#?\s*{number}\b | \ba[-\#]?{number}\b | \b(?-i:A)\ {number}\b | \bnumber\s*\#?\s*{number}\b
        | \b{_THING}\s*(?:number|no\.?)?\s*\#?\s*a?(?:{number}|{word})\b | \b(?:{ordinal})\s+(?:{_THING}|one)\b""",
        re.IGNORECASE | re.VERBOSE,
    )
    for number, word, ordinal in ((1, "one", "first|1st"), (2, "two", "second|2nd"))
}
_BOTH = re.compile(
    r"""(?:^|[.!?]\s+)(?:both|neither)\b | \b(?:they|these|arguments|responses|answers|are|have)\s+both\b
    | \b(?:both|neither|each)\s+(?:of\s+)?(?:the\s+|these\s+)?(?:arg\w*|arug\w*|responses?|answers?|them|these)\b""",
    re.IGNORECASE | re.VERBOSE,
)


def sentences(text: str) -> list[str]:
    """The sentences of a text, in order, without the white space between them.

    A line break ends a sentence. So does . ! ? or an ellipsis, with closing quotes or brackets, before white space,
    except after an abbreviation, after an initial, after the number of a list ("1. ...", at the start or after a
    colon), and, where a small letter follows, after an ellipsis, a closing quote, or an abbreviation that often ends
    a sentence ("etc."). Known limit: a full stop without a space behind it ends nothing.
    """
    found = []
    for line in text.splitlines():
        start = 0
        for end in _END.finditer(line):
            if _is_end(line[start : end.end()].lstrip(), end.group(), line[end.end() :].lstrip()[:1]):
                found.append(line[start : end.end()])
                start = end.end()
        found.append(line[start:])
    return [sentence.strip() for sentence in found if sentence.strip()]


def split_statement(justification: str) -> tuple[str | None, str | None]:
    """The statement and the elaboration of a raw justification; None for what it does not have.

    The statement is the first sentence of the form "@Response X is [slightly|much] better than @Response Y [because
    ...]"; the elaboration is what remains, joined by single spaces, without other sentences that restate the
    preference. Without a statement the elaboration is the whole justification, untouched.
    """
    parts = sentences(justification)
    statement = next((part for part in parts if stated_preference(part) is not None), None)
    if statement is None:
        return None, justification.strip() or None
    rest = [part for part in parts if part != statement and not _RESTATEMENT.search(part)]
    return statement, " ".join(rest) or None


def stated_preference(statement: str) -> int | None:
    """The preference -3..3 that a statement says, positive for response 2; None where it says none.

    "slightly better" is 1, "better" 2, "much better" 3, "about the same as" 0. What is only doubted or denied ("I do
    not think ...", "whether ...") says nothing, and neither does a response compared with itself.
    """
    for match in _STATEMENT.finditer(statement):
        better, degree, same, other = match.groups()
        if better != other and not _DENIED.search(statement[: match.start()]):
            strength = 0 if same else _STRENGTHS[degree and degree.lower()]
            return strength if better == "2" else -strength
    return None


@lru_cache(maxsize=2**17)  # sentences recur, and whoever reads justifications asks more than once
def named(text: str) -> frozenset[int]:
    """Which responses a text names: {1}, {2}, both or none.

    Forms: "@Response 1", "Response 1", "A1", "argument 1", "argument one", "first argument", "number 2" and their
    like; "both" and "neither" name both where they speak of the responses. "It" and "the other" name none.
    """
    if _BOTH.search(text):
        return frozenset(_NAMES)
    return frozenset(number for number, pattern in _NAMES.items() if pattern.search(text))


def mentions(text: str) -> set[str]:
    """The aspects that a text mentions, praised or blamed."""
    return {aspect for aspect, pattern in _MENTIONS.items() if pattern.search(text)}


def without_names(text: str) -> str:
    """The text with a blank for each name that `named` finds, "both" and "neither" aside."""
    return _NAMES[1].sub(" ", _NAMES[2].sub(" ", text))


def _is_end(sentence: str, mark: str, following: str) -> bool:
    """Whether a sentence ends at this mark, before text that begins with the letter `following`."""
    if not following:
        return True
    word = sentence.rsplit(maxsplit=1)[-1].lstrip("\"'“‘([*_").lower()
    if word in _ABBREVIATIONS or _LIST_NUMBER.search(sentence) or _INITIAL.search(sentence):
        return False
    soft = mark in ("…", "...") or len(mark.rstrip("\"'”’)]*_")) < len(mark) or word in _OFTEN_LAST
    return not (soft and following.islower())
