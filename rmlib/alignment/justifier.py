"""The pairwise justifier: a language model that writes why one of two responses is better, then which.

Prompt and target are those of HelpSteer2-Preference (arXiv 2410.01257): the conversation, both responses, a question;
then an annotator's elaboration and, last, the statement, from which the verdict is read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset

from rmlib.alignment.policies import Policy
from rmlib.annotations.parsing import sentences, stated_preference, without_names
from rmlib.benchmarks.judges import TIE, UNPARSABLE, Verdict, question_text
from rmlib.benchmarks.judging import Question
from rmlib.models import Message
from rmlib.models.network import hash_of_weights
from rmlib.models.tokens import hash_of_tokenizer
from rmlib.pairs.schema import NEITHER_VALID
from rmlib.records.hashing import fingerprint, text_key
from rmlib.records.kept import Kept
from rmlib.records.progress import progress_bar

QUESTION = "Between @Response 1 and @Response 2, which is better?"
# Why an annotation is no example; `examples` counts them.
NO_TEXT, NO_STATEMENT, AGAINST, UNDECIDED, ONE_ORDER = (
    "no statement or no elaboration",
    "a statement that names no better response",
    "an annotator who prefers the other response",
    "a pair without a decided preference",
    "in the other order: responses named by other words than @Response 1 and 2",
)
ALMOST_ZERO = 1e-4  # temperature at which the likeliest word is taken
_NUMBERED = re.compile(r"(@?\bResponse\s*)([12])\b", re.IGNORECASE)


def instruction(prompt: Sequence[Mapping[str, str]], response_1: str, response_2: str) -> list[Message]:
    """What the justifier is asked: one user turn with the conversation, both responses and the question."""
    responses = f"@Response 1:\n{response_1}\n\n@Response 2:\n{response_2}"
    return [{"role": "user", "content": f"{question_text(prompt)}\n\n{responses}\n\n{QUESTION}"}]


def target(elaboration: str, statement: str) -> str:
    """What it learns to write: the reasons first, so that the verdict can follow from them."""
    return f"{elaboration.strip()} {statement.strip()}".strip()


def stated_verdict(text: str) -> int | None:
    """The preference -3..3 of the last sentence that states one (positive: response 2), or None: unparsable."""
    stated = [stated_preference(sentence) for sentence in sentences(text)]
    return next((value for value in reversed(stated) if value is not None), None)


@dataclass(frozen=True)
class Justifications:
    """Prompt and completion of each usable annotation, as message lists, and what was left out."""

    rows: Dataset  # columns prompt, completion, pair_id
    left_out: dict[str, int]


def examples(pairs: Dataset, *, both_orders: bool = False, reasons: bool = True) -> Justifications:
    """One example for each annotation that agrees with the preference of its pair and has statement and elaboration.

    Args:
        both_orders: show the responses of each pair in the other order too, and exchange their names in the text.
        reasons: write the elaboration before the statement; else the statement alone.

    What is left out is counted by reason, in annotations (a pair without a decided preference counts with all of its).
    """
    rows: list[dict[str, object]] = []
    left_out: Counter[str] = Counter()
    for pair in pairs:
        shown = [pair["response_1"], pair["response_2"]]
        for annotation in pair["annotations"] or []:
            reason = _unusable(annotation, pair["preference"])
            if reason:
                left_out[reason] += 1
                continue
            text = target(annotation["elaboration"] if reasons else "", annotation["statement"])
            texts = [text, exchanged(text)] if both_orders else [text]
            for order, written in zip((shown, shown[::-1]), texts, strict=False):
                if written is None:
                    left_out[ONE_ORDER] += 1
                    continue
                completion = [{"role": "assistant", "content": written}]
                asked = instruction(pair["prompt"], *order)
                rows.append({"prompt": asked, "completion": completion, "pair_id": pair["pair_id"]})
    return Justifications(Dataset.from_list(rows), dict(left_out))


def exchanged(text: str) -> str | None:
    """The justification of the same pair in the other order; None where other words than "Response 1" name a response.

    "The first one" or "A1" could be exchanged too, but not every form that people use is known.
    """
    rest = _NUMBERED.sub(" ", text)
    if without_names(rest) != rest:
        return None
    return _NUMBERED.sub(lambda found: found[1] + {"1": "2", "2": "1"}[found[2]], text)


def _unusable(annotation: Mapping[str, object], preference: int | None) -> str | None:
    if not preference:
        return UNDECIDED
    statement, elaboration = annotation["statement"], annotation["elaboration"]
    if not statement or not elaboration:
        return NO_TEXT
    stated = stated_preference(str(statement))
    if not stated or annotation["preference"] == NEITHER_VALID:
        return NO_STATEMENT
    return AGAINST if np.sign(stated) != np.sign(preference) else None


class Justifier:
    """A fine-tuned policy as a judge (`benchmarks.judges.Judge`): it writes, and its last statement is its verdict.

    It writes in batches of questions of similar length, and each text once: what was written is kept on disk under the
    policy's weights. Sampled words depend on what is in the batch, so it takes the likeliest word each time.
    """

    def __init__(self, policy: Policy, *, max_new_tokens: int = 256, batch_size: int = 128) -> None:
        self.policy, self.max_new_tokens, self.batch_size = policy, max_new_tokens, batch_size
        self._kept = Kept("justifications", self.identity())

    @property
    def name(self) -> str:
        """The policy's name."""
        return f"justifier {self.policy.name}"

    def write(self, questions: Sequence[Question], *, progress: bool = False) -> list[str]:
        """The justification of each prompt with its two responses, as far as `max_new_tokens` go.

        Raises ValueError for another number of responses, and for a question that leaves no room for an answer.
        """
        for _, responses in questions:
            if len(responses) != 2:
                raise ValueError(f"a justifier compares two responses, not {len(responses)}")
        keys = [text_key(prompt, *responses) for prompt, responses in questions]
        asked = {key: instruction(prompt, *two) for key, (prompt, two) in zip(keys, questions, strict=True)}
        rest = sorted(asked.keys() - self._kept.known.keys(), key=lambda key: (len(asked[key][0]["content"]), key))
        with progress_bar(total=len(rest), desc="judging", unit="question", show=progress, leave=False) as bar:
            for start in range(0, len(rest), self.batch_size):
                batch = rest[start : start + self.batch_size]
                prompts, n_new = [asked[key] for key in batch], self.max_new_tokens
                written = self.policy.sample(prompts, 1, max_new_tokens=n_new, seed=0, temperature=ALMOST_ZERO)
                self._kept.add(dict(zip(batch, written.texts, strict=True)))
                bar.update(len(batch))
        return [self._kept.known[key] for key in keys]

    def prepare(self, questions: Sequence[Question]) -> None:
        """Write all of them now, in batches; `compare` then finds them written."""
        self.write(questions, progress=True)

    def compare(self, prompt: Sequence[Mapping[str, str]], responses: Sequence[str]) -> Verdict:
        """The verdict on two responses in the order given. Raises ValueError for another number."""
        return verdict_of(self.write([Question(prompt, tuple(responses))])[0])

    def rate(self, prompt: Sequence[Mapping[str, str]], response: str) -> Verdict:
        """Raises ValueError: a justifier knows pairs alone."""
        raise ValueError("a justifier compares two responses and rates none: use mode='compare'")

    def identity(self) -> dict[str, str]:
        """Hashes of all that its words depend on but the question."""
        return {
            "policy": hash_of_weights(self.policy.network),
            "tokenizer": hash_of_tokenizer(self.policy.tokenizer),
            "asked": fingerprint(self.policy.tokenizer.chat_template, QUESTION, self.max_new_tokens),
        }


def verdict_of(text: str) -> Verdict:
    """A justification as a verdict: the index of the better response, a tie, or unparsable."""
    preference = stated_verdict(text)
    if preference is None:
        return Verdict(None, UNPARSABLE)
    return Verdict(float(preference > 0)) if preference else Verdict(None, TIE)
