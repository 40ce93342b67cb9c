"""The pairwise justifier: a language model that writes why one of two responses is better, then which.

Prompt and target are those of HelpSteer2-Preference (arXiv 2410.01257): the conversation, both responses, a question;
then an annotator's elaboration and, last, the statement, from which the verdict is read.

A record of kind "pairwise_judge", one for each judge (and seed of a justifier), holds:

    asked     judge (its name), about (how it came about), source, items (a hash of them), n
    outcome   first, second: the winner when the preferred response is shown first and when it is shown second, 0 for
              the preferred one, 1 for the other, None without a verdict; problems (number of verdicts by kind),
              strength (of each pair's preference), words (mean number written), training (of a justifier)

Tables and figures of these records are in `rmlib.figures.justifier`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset

from rmlib import records
from rmlib.alignment.fine_tuning import FineTuning, Tuned, fine_tune, on_reward_model
from rmlib.alignment.policies import Policy
from rmlib.annotations.parsing import sentences, stated_preference, without_names
from rmlib.benchmarks.judges import TIE, UNPARSABLE, Judge, Verdict, question_text
from rmlib.benchmarks.judging import Question, ask, in_both_orders
from rmlib.benchmarks.scoring import score
from rmlib.experiments import arm_models
from rmlib.experiments.jobs import run_jobs
from rmlib.experiments.presets import Preset
from rmlib.models import Message, Prompt, Response, RewardModel, Scorer, backbones
from rmlib.models.network import hash_of_weights
from rmlib.models.tokens import hash_of_tokenizer
from rmlib.pairs.messages import in_words
from rmlib.pairs.schema import NEITHER_VALID
from rmlib.pairs.table import responses_of_row
from rmlib.records.hashing import fingerprint, text_key
from rmlib.records.kept import Kept
from rmlib.records.progress import progress_bar
from rmlib.sources import SourceInfo
from rmlib.sources.simulated import reasons
from rmlib.sources.splits import Splits

QUESTION = "Between @Response 1 and @Response 2, which is better?"
# Why an annotation is no example; `examples` counts them.
NO_TEXT, NO_STATEMENT, AGAINST, UNDECIDED, ONE_ORDER = (
    "no statement or no elaboration",
    "a statement that names no better response",
    "an annotator who prefers the other response",
    "a pair without a decided preference",
    "in the other order: responses named by other words than @Response 1 and 2",
)
VARIANTS = {"reasons, then statement": True, "statement alone": False}
Job = tuple[str, int]  # of VARIANTS, and a seed
ALMOST_ZERO = 1e-4  # temperature at which the likeliest word is taken
_NUMBERED = re.compile(r"(@?\bResponse\s*)([12])\b", re.IGNORECASE)


def instruction(prompt: Prompt, response_1: Response, response_2: Response) -> list[Message]:
    """What the justifier is asked: one user turn with the conversation, both responses and the question."""
    responses = f"@Response 1:\n{in_words(response_1)}\n\n@Response 2:\n{in_words(response_2)}"
    return [{"role": "user", "content": f"{question_text(prompt)}\n\n{responses}\n\n{QUESTION}"}]


def target(elaboration: str, statement: str) -> str:
    """What it learns to write: the reasons first, so that the verdict can follow from them."""
    return f"{elaboration.strip()} {statement.strip()}".strip()


def stated_verdict(text: str) -> int | None:
    """The preference -3..3 of the last sentence that states one (positive: response 2), or None: unparsable."""
    stated = [stated_preference(sentence) for sentence in sentences(text)]
    return next((value for value in reversed(stated) if value is not None), None)


class Justifications(NamedTuple):
    """Prompt and completion of each usable annotation, as message lists, and what was left out."""

    rows: Dataset  # columns prompt, completion, pair_id
    left_out: dict[str, int]


def examples(pairs: Dataset, *, with_reasons: bool = True) -> Justifications:
    """Two examples for each annotation that agrees with the preference of its pair and has statement and elaboration.

    The second shows the responses in the other order, their names in the text exchanged. `with_reasons`: the
    elaboration is written before the statement. What is left out is counted by reason, in annotations (a pair without a
    decided preference counts with all of its).
    """
    rows: list[dict[str, object]] = []
    left_out: Counter[str] = Counter()
    for pair in pairs:
        shown = responses_of_row(pair)
        for annotation in pair["annotations"] or []:
            reason = _unusable(annotation, pair["preference"])
            if reason:
                left_out[reason] += 1
                continue
            text = target(annotation["elaboration"] if with_reasons else "", annotation["statement"])
            for order, said in ((shown, text), (shown[::-1], exchanged(text))):
                if said is None:
                    left_out[ONE_ORDER] += 1
                    continue
                completion = [{"role": "assistant", "content": said}]
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

    It writes in batches of questions of similar length, each text once: it is kept on disk under the policy's weights.
    Sampled words depend on what is in the batch, so it takes the likeliest word each time.
    """

    def __init__(self, policy: Policy, *, max_new_tokens: int = 256, batch_size: int = 128) -> None:
        self.policy, self.max_new_tokens, self.batch_size = policy, max_new_tokens, batch_size
        self.name = f"justifier {policy.name}"
        self._kept = Kept("justifications", self.identity())

    def write(self, questions: Sequence[Question], *, progress: bool = False) -> list[str]:
        """The justification of each prompt with its two responses, as far as `max_new_tokens` go.

        Raises ValueError for another number of responses, and for a question that leaves no room for an answer.
        """
        if other := [len(responses) for _, responses in questions if len(responses) != 2]:
            raise ValueError(f"a justifier compares two responses, not {other[0]}")
        keys = [text_key(prompt, *responses) for prompt, responses in questions]
        asked = {key: instruction(prompt, *two) for key, (prompt, two) in zip(keys, questions, strict=True)}
        rest = sorted(asked.keys() - self._kept.known.keys(), key=lambda key: (len(asked[key][0]["content"]), key))
        starts = range(0, len(rest), self.batch_size)
        for start in progress_bar(starts, desc="judging", unit="batch", show=progress, leave=False):
            batch = rest[start : start + self.batch_size]
            prompts, n_new = [asked[key] for key in batch], self.max_new_tokens
            written = self.policy.sample(prompts, 1, max_new_tokens=n_new, seed=0, temperature=ALMOST_ZERO)
            self._kept.add(dict(zip(batch, written.texts, strict=True)))
        return [self._kept.known[key] for key in keys]

    def prepare(self, questions: Sequence[Question]) -> None:
        """Write all of them now, in batches; `compare` then finds them written."""
        self.write(questions, progress=True)

    def compare(self, prompt: Prompt, responses: Sequence[Response]) -> Verdict:
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
    if preference := stated_verdict(text):
        return Verdict(float(preference > 0))
    return Verdict(None, UNPARSABLE if preference is None else TIE)


# --- the justifiers of a comparison -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What all justifiers of a comparison share.

    The embedded decoder, which has never read a sentence, starts from the model of `reward_arm` of the same seed, grown
    by some layers and heads; any other backbone starts from its own weights.
    """

    splits: Splits
    settings: Preset
    taught: Mapping[str, Justifications]  # the examples of each variant (`teach`)
    items: Dataset  # the pairs that are judged
    tuning: FineTuning
    reward_arm: str
    new_layers: int = 1
    new_heads: int = 1
    max_new_tokens: int = 256  # of an answer; a longer one is cut

    def reward_model(self, seed: int) -> RewardModel:
        """The reward model of a seed, trained where it is not yet."""
        return arm_models.model_of(self.reward_arm, self.settings, self.splits, seed)

    def start(self, seed: int) -> Policy:
        """The policy before fine-tuning."""
        if self.settings.backbone != backbones.EMBEDDED:
            return Policy.create(self.settings.backbone)
        model = self.reward_model(seed)
        return on_reward_model(model, new_layers=self.new_layers, new_heads=self.new_heads, seed=seed)


def teach(pairs: Dataset) -> dict[str, Justifications]:
    """The examples of each variant, in both orders. Raises ValueError where no annotation is one."""
    taught = {variant: examples(pairs, with_reasons=told) for variant, told in VARIANTS.items()}
    for variant, found in taught.items():
        if not len(found.rows):
            raise ValueError(f"{variant}: no annotation is an example; left out: {found.left_out or 'there are none'}")
    return taught


def justifier_of(job: Job, plan: Plan) -> tuple[Tuned, Justifier]:
    """One justifier, trained now where it is not yet; errors as `fine_tune` and `Plan.start`."""
    variant, seed = job
    tuned = fine_tune(plan.start(seed), plan.taught[variant].rows, replace(plan.tuning, seed=seed))
    return tuned, Justifier(tuned.policy, max_new_tokens=plan.max_new_tokens)


def run_all(plan: Plan, seeds: Sequence[int], *, processes: int | None = None) -> dict[Job, tuple[Tuned, Justifier]]:
    """Every variant under every seed; what was finished before is found, text by text. Raises JobFailed."""
    jobs = [(variant, seed) for seed in seeds for variant in VARIANTS]
    for seed in seeds:
        plan.reward_model(seed)  # once, not by two processes at a time
    work, show = partial(_write, plan=plan), "{0[0]}, seed {0[1]}".format
    run_jobs(dict.fromkeys(jobs, ()), work, processes=processes, show=show)
    return {job: justifier_of(job, plan) for job in jobs}


def _write(job: Job, plan: Plan) -> None:
    written(justifier_of(job, plan)[1], plan.items)


# --- judging held-out pairs -------------------------------------------------------------------------------------------


def judged(judge: Judge, items: Dataset, *, progress: bool = True) -> dict[str, Any]:
    """Both orders of every pair, as the outcome of a record; kept verdicts are not asked for again."""
    outcome = _outcome(items, ask(judge, in_both_orders(items), progress=progress))
    if isinstance(judge, Justifier):
        outcome["words"] = float(np.mean([len(text.split()) for text in written(judge, items)]))
    return outcome


def written(judge: Justifier, items: Dataset) -> list[str]:
    """What a justifier says of every pair, the preferred response shown first, then shown second."""
    return judge.write(in_both_orders(items))


def claims(texts: Sequence[str], truths: Sequence[tuple[Mapping[str, float], Mapping[str, float]]]) -> dict[str, int]:
    """Of simulated pairs: what texts say is better about a response, held against the truth and against their verdict.

    `truths` are those of response 1 and 2 as each text was shown them. Counts: claims; true, those of which the named
    response is truly better in that attribute; equal, where the truth is the same for both; with verdict, those in
    favour of the response that the text prefers in the end (of `decided` claims, whose text has a verdict).
    """
    counted = dict.fromkeys(("claims", "true", "equal", "decided", "with verdict"), 0)
    for text, truth in zip(texts, truths, strict=True):
        verdict = verdict_of(text).value
        for attribute, good in reasons.claims(text):
            difference = truth[good - 1][attribute] - truth[2 - good][attribute]
            counted["claims"] += 1
            counted["true"] += difference > 0
            counted["equal"] += difference == 0
            counted["decided"] += verdict is not None
            counted["with verdict"] += verdict == good - 1
    return counted


def by_reward(scorer: Scorer, items: Dataset) -> dict[str, Any]:
    """The outcome of a scorer, whose larger reward wins in either order; equal rewards tie in both."""
    rewards = score(scorer, items, progress=False)
    pairs = [rewards[name] for name in items["item_id"]]
    return _outcome(items, [_of_rewards(*shown) for two in pairs for shown in (two, two[::-1])])


def _of_rewards(first: float, second: float) -> Verdict:
    return Verdict(None, TIE) if first == second else Verdict(float(second > first))


def _outcome(items: Dataset, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """What a record keeps of the verdicts on both orders of every pair."""
    first = [None if verdict.value is None else int(verdict.value) for verdict in verdicts[::2]]
    second = [None if verdict.value is None else 1 - int(verdict.value) for verdict in verdicts[1::2]]
    problems = Counter(verdict.problem for verdict in verdicts if verdict.problem)
    strength = [int(subset.rpartition(" ")[2]) for subset in items["subset"][:]]
    return {"first": first, "second": second, "problems": dict(problems), "strength": strength}


def record(
    file: Path, judge: str, outcome: Mapping[str, Any], *, items: Dataset, source: SourceInfo,
    about: Mapping[str, Any], seed: int | None = None,
) -> None:  # fmt: skip
    """Append the record of one judge on these pairs."""
    ids = items["item_id"][:]
    asked = {"judge": judge, "about": about, "source": source, "items": fingerprint(ids), "n": len(ids)}
    records.append(file, kind="pairwise_judge", asked=asked, outcome=outcome, seed=seed)
