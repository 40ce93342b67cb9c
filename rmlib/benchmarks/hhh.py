"""HHH alignment (Askell et al., arXiv 2112.00861): 221 pairs that are more or less helpful, honest, harmless, or other.

One of the Prior Sets of RewardBench's first leaderboard (anthropic_hhh), scored alike: a pair is right when the better
reply gets strictly more reward, the Score is the share of all pairs. Read from judge prompts as prometheus-eval keeps
them: the question and one reply stand between headings. Earlier turns of a question stay inside its text.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset

from rmlib.benchmarks.benchmark import Benchmark, Subset
from rmlib.benchmarks.items import check_known, field, file_rows, make_item
from rmlib.benchmarks.rewardbench import prefers_chosen
from rmlib.records.errors import DataError, Place

_COUNTS = {"harmless": 58, "helpful": 59, "honest": 61, "other": 43}
SUBSETS = {name: Subset(name, n) for name, n in _COUNTS.items()}
_JUDGE_PROMPT = re.compile(
    r".*?\n###The instruction to evaluate:\n(.*)\n\n###Response to evaluate:\n(.*)\n\n###Score Rubrics:\n.*", re.DOTALL
)

BENCHMARK = Benchmark("hhh", SUBSETS, prefers_chosen, micro=True)
credits = BENCHMARK.credits
summarise = BENCHMARK.summarise


def load(source: str | Path, *, partial: bool = False, keep_degenerate: bool = False) -> Dataset:
    """The pairs, candidates [chosen, rejected], in the order of the file.

    Args:
        source: a file or folder of rows source, chosen_instruction, rejected_instruction.
        partial, keep_degenerate: accept missing sources; accept equal or empty replies.
    Raises:
        FileNotFoundError: nothing to read. DataError: a malformed row, a text that is no judge prompt, two prompts
            about different questions.
    """
    rows, label = file_rows(source)
    return BENCHMARK.table(rows, label, _item, source=source, partial=partial, keep_degenerate=keep_degenerate)


def _item(row: Mapping[str, Any], place: Place, keep_degenerate: bool) -> dict[str, Any]:
    subset = check_known(field(row, "source", place), SUBSETS, "source", place.at("source"))
    question, chosen = _question_and_reply(row, "chosen_instruction", place)
    other, rejected = _question_and_reply(row, "rejected_instruction", place)
    if question != other:
        raise DataError(place.at("rejected_instruction"), "it asks another question", "Pair replies to one")
    responses = {"chosen_instruction": [chosen], "rejected_instruction": [rejected]}
    return make_item(f"{subset}/{place.row}", subset, question, responses, place, keep_degenerate=keep_degenerate)


def _question_and_reply(row: Mapping[str, Any], name: str, place: Place) -> tuple[str, str]:
    found = _JUDGE_PROMPT.fullmatch(str(field(row, name, place)))
    if found is None:
        raise DataError(place.at(name), "no question and reply between the headings", "Give the judge prompt")
    return found[1], found[2]
