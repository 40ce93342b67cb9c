"""RMB (Zhou et al., arXiv 2410.09893): 49 scenarios of helpfulness and harmlessness, each as pairs and as best-of-N.

A pair is right when the chosen answer gets strictly more reward; a best-of-N item when the best answer gets strictly
more than every loser. The Score is the plain mean of four numbers, {helpfulness, harmlessness} x {BoN, pairwise}.

Two things no source at hand states: the official tie rule of best-of-N (taken as strict, like that of pairs), and
whether one of the four numbers is a mean over items or over files (taken over items). Official numbers of items are
known for best-of-N alone (2,109 and 1,677); snapshots of the repository often lack three large files of pairs
(Harmlessness/S11, Brainstorming/Idea Development, Generation/Creative Writing), and are then partial.

Files: the folder RMB_dataset of the repository, or a file of it: conversation_input, category_path, and pair_uid,
chosen, reject or bon_uid, bon_best, loser_list. The data are on no hub that we know of.
"""

from collections.abc import Mapping
from typing import Any

from rmlib.benchmarks.benchmark import Benchmark, Rewards
from rmlib.benchmarks.items import Given, Row, check_known, field, texts
from rmlib.benchmarks.report import Subset
from rmlib.records.errors import DataError, Place, shown

REPOSITORY = "https://github.com/Zhou-Zoey/RMB-Reward-Model-Benchmark"
HARMLESSNESS = (*(f"S{number}" for number in range(1, 12)), "multi")
HELPFULNESS = {
    "Brainstorming": ("Idea Development", "Problem Solving"),
    "Chat": ("Casual Conversation", "Discussion", "Supportive Conversation"),
    "Classification": ("Content Categorization", "Quality and Compliance Assessment"),
    "Closed QA": ("ContextBased", "OptionBased"),
    "Code": ("Data Management", "Development and Implementation", "Documentation", "Quality and Optimization"),
    "Generation": ("Creative Writing", "Professional Content Generation"),
    "Open QA": (
        "Factual", "General Explanation", "Hypothetical Scenarios", "Interpretative Analysis",
        "Personal Opinion and Advice", "Technical and Practical Support",
    ),
    "Reasoning": (
        "Analytical Reasoning", "Critical Thinking", "Human Decision Making", "Logical Deduction",
        "Pattern Recognition",
    ),
    "Rewrite": ("Paraphrasing", "PostQuality Assessment Rewriting", "Textual ExpansionReduction", "Tone Adjustment"),
    "Role Playing": ("General Character", "Specific Character"),
    "Summarization": ("Specialized Summaries", "Standard Summaries"),
    "Translation": (
        "GeneralExcerpt Language Translation", "Literary and Cultural Translation",
        "Technical and Scientific Translation",
    ),
}  # fmt: skip
_SCENARIOS = {
    "Harmlessness": HARMLESSNESS,
    "Helpfulness": tuple(f"{task}/{name}" for task, names in HELPFULNESS.items() for name in names),
}
SUBSETS = {
    f"{folder}/{goal}/{scenario}": Subset(f"{goal} {kind}", None)
    for goal in ("Helpfulness", "Harmlessness")
    for folder, kind in (("BoN_set", "BoN"), ("Pairwise_set", "pairwise"))
    for scenario in _SCENARIOS[goal]
}
TOTALS = {"Helpfulness BoN": 2109, "Harmlessness BoN": 1677}


def _credit(rewards: Rewards, item: Mapping[str, Any]) -> dict[str, Any]:
    best, most = rewards[0], rewards[1:].max()
    return {"credit": float(best > most), "tie": best == most}


def _item(row: Row, place: Place) -> Given:
    subset = check_known(field(row, "category_path", place), SUBSETS, "scenario", place.at("category_path"))
    if subset.startswith("BoN_set"):
        number, names = field(row, "bon_uid", place), ("bon_best", "loser_list")
        answers = [[field(row, "bon_best", place)], texts(row, "loser_list", place)]
    else:
        number, names = field(row, "pair_uid", place), ("chosen", "reject")
        answers = [[field(row, name, place)] for name in names]
    named = zip(names, answers, strict=True)
    responses = {name: [_answer(one, place.at(name)) for one in given] for name, given in named}
    prompt = [_turn(turn) for turn in texts(row, "conversation_input", place)]
    return Given(f"{subset}/{number}", subset, prompt, responses)


def _turn(given: Any) -> Any:
    """A message without its language; `make_item` refuses what is none."""
    return {key: given.get(key) for key in ("role", "content")} if isinstance(given, Mapping) else given


def _answer(given: Any, place: Place) -> Any:
    if not isinstance(given, Mapping) or "answer" not in given:
        raise DataError(place, f"{shown(given)} has no answer", "Give {llm_name, answer}")
    return given["answer"]


BENCHMARK = Benchmark(
    "rmb", SUBSETS, _credit, _item, about=__doc__,
    without_hub=f"RMB is not on the hub: clone {REPOSITORY} and pass its folder RMB_dataset",
    overall=tuple(dict.fromkeys(subset.section for subset in SUBSETS.values())), totals=TOTALS,
)  # fmt: skip
