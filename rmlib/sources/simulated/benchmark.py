"""A simulated benchmark in the layout of RewardBench (arXiv 2403.13787): its subsets' names and rules, our own texts.

What a subset tests is imitated, so that sections differ in difficulty: in Chat Hard the rejected response is longer or
more formal, and wrong; Safety asks to refuse, and not to refuse what only looks harmful; the answers of Reasoning are
computed. The items are shifted away from the pairs: requests are worded as in no pair, and hold more items. Where a
subset is adversarial, what usually goes with good responses (detail, learned words, a polite opening) is given to the
rejected one.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rmlib.sources.simulated.responses import Policy, respond
from rmlib.sources.simulated.tasks import LANGUAGES, Task, draw_task
from rmlib.sources.simulated.truth import truth

ITEMS_PER_SUBSET = 40
LEAST_DIFFERENCE = 0.5  # points of true helpfulness by which the chosen response is better

GOOD = Policy("faultless")
STRAY, MISS, SWAP = Policy("stray", stray=1), Policy("miss", miss=1), Policy("swap", swap=0.6)
COMPLY, BALK = Policy("comply", comply=1), Policy("balk", balk=1)


@dataclass(frozen=True)
class Recipe:
    """Which tasks a subset has, what is wrong with its rejected responses, and the styles of both responses."""

    families: tuple[str, ...]
    rejected: Policy
    task_style: str | None = "free"
    chosen_style: str | None = None  # None: as the task asks
    rejected_style: str | None = None


TO_REFUSE = ("refusals-dangerous", "refusals-offensive", "xstest-should-refuse", "donotanswer")
CHAT, CODE = ("collect", "mention", "recall", "edit"), ("program",)
RECIPES: dict[str, Recipe] = {
    "alpacaeval-easy": Recipe(CHAT, STRAY, None),
    "alpacaeval-length": Recipe(CHAT, GOOD, "brief", rejected_style="detailed"),
    "alpacaeval-hard": Recipe(CHAT, MISS, None),
    "mt-bench-easy": Recipe(CHAT, Policy("stray-shuffle", stray=1, shuffle=1), None),
    "mt-bench-med": Recipe(CHAT, GOOD, "detailed", rejected_style="brief"),
    "mt-bench-hard": Recipe(CHAT, SWAP, None),
    "llmbar-natural": Recipe(CHAT, SWAP),
    "llmbar-adver-neighbor": Recipe(("collect",), STRAY, "free", "brief", "formal"),
    "llmbar-adver-GPTInst": Recipe(("mention", "recall"), STRAY, "free", "brief", "detailed"),
    "llmbar-adver-GPTOut": Recipe(CHAT, SWAP, "free", "brief", "detailed"),
    "llmbar-adver-manual": Recipe(CHAT, MISS, "free", "brief", "formal"),
    "refusals-dangerous": Recipe(("advice",), COMPLY),
    "refusals-offensive": Recipe(("insult",), COMPLY),
    "xstest-should-refuse": Recipe(("advice",), COMPLY, "free", "brief", "detailed"),
    "xstest-should-respond": Recipe(("advice", "praise"), BALK),
    "donotanswer": Recipe(("advice", "insult"), COMPLY, None),
    "math-prm": Recipe(("sum",), SWAP),
    **{f"hep-{language}": Recipe(CODE, MISS) for language in LANGUAGES},
}


def benchmark_items(n_per_subset: int = ITEMS_PER_SUBSET, seed: int = 1) -> Iterator[dict[str, Any]]:
    """Rows in the layout of allenai/reward-bench, split filtered; `id` counts from 0 over all subsets.

    Tasks and responses are drawn until the chosen response is truly better and no item occurs twice.
    """
    rng = random.Random(seed)
    seen: set[tuple[str, str, str]] = set()
    number = 0
    for subset, recipe in RECIPES.items():
        for _ in range(n_per_subset):
            task, chosen, rejected = _draw(rng, subset, recipe)
            while (texts := (task.prompt[0]["content"], chosen, rejected)) in seen or not _better(task, *texts[1:]):
                task, chosen, rejected = _draw(rng, subset, recipe)
            seen.add(texts)
            yield {
                "prompt": texts[0],
                "chosen": chosen,
                "chosen_model": f"simulated-{GOOD.name}",
                "rejected": rejected,
                "rejected_model": f"simulated-{recipe.rejected.name}",
                "subset": subset,
                "id": number,
            }
            number += 1


def _draw(rng: random.Random, subset: str, recipe: Recipe) -> tuple[Task, str, str]:
    task = None
    while task is None or not _suits(task, subset):
        task = draw_task(rng, rng.choice(recipe.families), recipe.task_style, multi_turn=0.0, shifted=True)
    chosen = respond(rng, task, GOOD, recipe.chosen_style)
    return task, chosen, respond(rng, task, recipe.rejected, recipe.rejected_style)


def _suits(task: Task, subset: str) -> bool:
    """Whether the task has what the subset is about: its programming language, or something to refuse or not."""
    if subset.startswith("hep-"):
        return task.slots["language"] == LANGUAGES[subset.removeprefix("hep-")]
    return task.refuse == (subset in TO_REFUSE)


def _better(task: Task, chosen: str, rejected: str) -> bool:
    return truth(task, chosen)["helpfulness"] >= truth(task, rejected)["helpfulness"] + LEAST_DIFFERENCE
