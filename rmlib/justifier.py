"""The pairwise justifier: a language model that writes why one of two responses is better, then which.

Prompt and target are those of HelpSteer2-Preference (arXiv 2410.01257): the conversation, both responses, a question;
then an annotator's elaboration and, last, the statement, from which the verdict is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from datasets import Dataset

from rmlib.alignment.policies import Policy
from rmlib.batches import Message
from rmlib.benchmarks.judges import TIE, UNPARSABLE, Verdict, question_text
from rmlib.reading import sentences, stated_preference
from rmlib.schema import NEITHER_VALID

QUESTION = "Between @Response 1 and @Response 2, which is better?"
# Why an annotation is no example; `examples` counts them.
NO_TEXT, NO_STATEMENT, AGAINST, UNDECIDED = (
    "no statement or no elaboration",
    "a statement that names no better response",
    "an annotator who prefers the other response",
    "a pair without a decided preference",
)


def instruction(prompt: Sequence[Mapping[str, str]], response_1: str, response_2: str) -> list[Message]:
    """What the justifier is asked: one user turn with the conversation, both responses and the question."""
    responses = f"@Response 1:\n{response_1}\n\n@Response 2:\n{response_2}"
    return [{"role": "user", "content": f"{question_text(prompt)}\n\n{responses}\n\n{QUESTION}"}]


def target(elaboration: str, statement: str) -> str:
    """What it learns to write: the reasons first, so that the verdict can follow from them."""
    return f"{elaboration.strip()} {statement.strip()}"


def stated_verdict(text: str) -> int | None:
    """The preference -3..3 of the last sentence that states one (positive: response 2), or None: unparsable."""
    stated = [stated_preference(sentence) for sentence in sentences(text)]
    return next((value for value in reversed(stated) if value is not None), None)


@dataclass(frozen=True)
class Justifications:
    """Prompt and completion of each usable annotation, as message lists that TRL takes, and what was left out."""

    rows: Dataset  # columns prompt, completion, pair_id
    left_out: dict[str, int]


def examples(pairs: Dataset) -> Justifications:
    """One example for each annotation that agrees with the preference of its pair and has statement and elaboration.

    What is left out is counted by reason, in annotations (a pair without a decided preference counts with all of its).
    """
    rows: list[dict[str, object]] = []
    left_out: Counter[str] = Counter()
    for pair in pairs:
        for annotation in pair["annotations"] or []:
            reason = _unusable(annotation, pair["preference"])
            if reason:
                left_out[reason] += 1
                continue
            text = target(annotation["elaboration"], annotation["statement"])
            asked = instruction(pair["prompt"], pair["response_1"], pair["response_2"])
            completion = [{"role": "assistant", "content": text}]
            rows.append({"prompt": asked, "completion": completion, "pair_id": pair["pair_id"]})
    return Justifications(Dataset.from_list(rows), dict(left_out))


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


@dataclass(frozen=True)
class Justifier:
    """A fine-tuned policy as a judge (`benchmarks.judges.Judge`): it writes, and its last statement is its verdict."""

    policy: Policy
    max_new_tokens: int = 256
    seed: int = 0
    temperature: float = 1.0

    @property
    def name(self) -> str:
        """The policy's name."""
        return f"justifier {self.policy.name}"

    def write(self, questions: Sequence[tuple[Sequence[Mapping[str, str]], str, str]]) -> list[str]:
        """The justification of each (prompt, response 1, response 2), all in one batch."""
        asked = [instruction(*question) for question in questions]
        samples = self.policy.sample(
            asked, 1, max_new_tokens=self.max_new_tokens, seed=self.seed, temperature=self.temperature
        )
        return samples.texts

    def compare(self, prompt: Sequence[Mapping[str, str]], responses: Sequence[str]) -> Verdict:
        """The verdict on two responses in the order given. Raises ValueError for another number."""
        if len(responses) != 2:
            raise ValueError(f"a justifier compares two responses, not {len(responses)}")
        return verdict_of(self.write([(prompt, responses[0], responses[1])])[0])

    def rate(self, prompt: Sequence[Mapping[str, str]], response: str) -> Verdict:
        """Raises ValueError: a justifier knows pairs alone."""
        raise ValueError("a justifier compares two responses and rates none: use mode='compare'")

    def identity(self) -> dict[str, str] | None:
        """None: its verdicts are not kept, since nothing names its weights."""
        return None

    def greedy(self) -> Justifier:
        """The same, almost without chance: sampled at a temperature near 0."""
        return replace(self, temperature=1e-4)


def verdict_of(text: str) -> Verdict:
    """A justification as a verdict: the index of the better response, a tie, or unparsable."""
    preference = stated_verdict(text)
    if preference is None:
        return Verdict(None, UNPARSABLE)
    return Verdict(float(preference > 0)) if preference else Verdict(None, TIE)
