"""What a text looks like from outside: length, punctuation, words; features to stand beside a backbone's.

Counts are taken as log(1 + count), so that a feature is a ratio between two responses; shares lie in 0..1.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

_WORD, _NUMBER = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*"), re.compile(r"\d+")
_SENTENCE_END = re.compile(r"[.!?]+")
LONG_WORD = 7  # letters

Measure = Callable[[str, list[str]], float]  # of a text and its words


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


COUNTS: dict[str, Measure] = {
    "characters": lambda text, words: len(text),
    "words": lambda text, words: len(words),
    "different words": lambda text, words: len({word.lower() for word in words}),
    "sentence ends": lambda text, words: len(_SENTENCE_END.findall(text)),
    "commas": lambda text, words: text.count(","),
    "exclamation marks": lambda text, words: text.count("!"),
    "question marks": lambda text, words: text.count("?"),
    "quotation marks": lambda text, words: sum(text.count(mark) for mark in '"“”'),
    "numbers": lambda text, words: len(_NUMBER.findall(text)),
    "line ends": lambda text, words: text.count("\n"),
    "letters a word": lambda text, words: _share(sum(map(len, words)), len(words)),
    "words a sentence": lambda text, words: _share(len(words), len(_SENTENCE_END.findall(text)) or 1),
}
SHARES: dict[str, Measure] = {
    "different words": lambda text, words: _share(len({word.lower() for word in words}), len(words)),
    "long words": lambda text, words: _share(sum(len(word) >= LONG_WORD for word in words), len(words)),
    "capitals": lambda text, words: _share(sum(map(str.isupper, text)), len(text)),
    "letters": lambda text, words: _share(sum(map(str.isalpha, text)), len(text)),
    "starts with a capital": lambda text, words: float(text[:1].isupper()),
    "ends a sentence": lambda text, words: float(text.rstrip()[-1:] in (".", "!", "?")),
}
N_FEATURES = len(COUNTS) + len(SHARES)


def surface_features(texts: Sequence[str]) -> Float[Tensor, "text feature"]:
    """The features of each text: COUNTS as logarithms, the characters first, then SHARES."""
    rows = []
    for text in texts:
        words = _WORD.findall(text)
        counts = torch.tensor([measure(text, words) for measure in COUNTS.values()], dtype=torch.float64)
        shares = torch.tensor([measure(text, words) for measure in SHARES.values()], dtype=torch.float64)
        rows.append(torch.cat([counts.log1p(), shares]).float())
    return torch.stack(rows)
