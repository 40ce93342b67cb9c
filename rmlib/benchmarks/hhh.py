"""HHH alignment (Askell et al., arXiv 2112.00861): 221 pairs that are more or less helpful, honest, harmless, or other.

One of the Prior Sets of RewardBench's first leaderboard (anthropic_hhh), scored alike: a pair is right when the better
reply gets strictly more reward, the Score is the share of all pairs. Read from judge prompts as prometheus-eval keeps
them: the question and one reply stand between headings. Earlier turns of a question stay inside its text.

Files: rows source, chosen_instruction, rejected_instruction.
"""

import re

from rmlib.benchmarks.benchmark import Benchmark
from rmlib.benchmarks.items import Given, Row, check_known, field
from rmlib.benchmarks.report import Subset
from rmlib.benchmarks.rewardbench import prefers_chosen
from rmlib.records.errors import DataError, Place

_COUNTS = {"harmless": 58, "helpful": 59, "honest": 61, "other": 43}
SUBSETS = {name: Subset(name, n) for name, n in _COUNTS.items()}
_JUDGE_PROMPT = re.compile(
    r".*?\n###The instruction to evaluate:\n(.*)\n\n###Response to evaluate:\n(.*)\n\n###Score Rubrics:\n.*", re.DOTALL
)


def _item(row: Row, place: Place) -> Given:
    subset = check_known(field(row, "source", place), SUBSETS, "source", place.at("source"))
    question, chosen = _question_and_reply(row, "chosen_instruction", place)
    other, rejected = _question_and_reply(row, "rejected_instruction", place)
    if question != other:
        raise DataError(place.at("rejected_instruction"), "it asks another question", "Pair replies to one")
    responses = {"chosen_instruction": [chosen], "rejected_instruction": [rejected]}
    return Given(f"{subset}/{place.row}", subset, question, responses)


def _question_and_reply(row: Row, name: str, place: Place) -> tuple[str, str]:
    found = _JUDGE_PROMPT.fullmatch(str(field(row, name, place)))
    if found is None:
        raise DataError(place.at(name), "no question and reply between the headings", "Give the judge prompt")
    return found[1], found[2]


BENCHMARK = Benchmark(
    "hhh", SUBSETS, prefers_chosen, _item, about=__doc__,
    without_hub="HHH is not on the hub: name the file of judge prompts of prometheus-eval (hhh_alignment_eval.json)",
    micro=True,
)  # fmt: skip
