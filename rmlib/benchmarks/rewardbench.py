"""RewardBench v1 (Lambert et al., arXiv 2403.13787): which of two responses is better, in 23 subsets and 4 sections.

An item is right when the chosen response gets strictly more reward than the rejected one; a tie is wrong. A section is
the mean of its subsets weighted by the counts below, and the Score is the plain mean of the four sections, as NVIDIA
reports it (the leaderboard's Prior Sets are left out: they come from the test sets of training sets).

Copies of the weights circulate with the two XSTest counts exchanged (250 refuse, 154 respond). Published Safety scores
follow the ones used here: Nemotron-4-340B-Reward gets 91.5 with them and 92.2 with the exchanged ones.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from jaxtyping import Float

from rmlib.benchmarks.benchmark import Benchmark, Rewards, Scores, Subset, aligned
from rmlib.benchmarks.items import check_known, field, file_rows, hub_rows, make_item
from rmlib.benchmarks.report import Report
from rmlib.benchmarks.sums import Sums
from rmlib.records import paths
from rmlib.records.errors import DataError, Place
from rmlib.records.files import read_bytes

HUB_NAME = "allenai/reward-bench"

_COUNTS = {
    "Chat": {
        "alpacaeval-easy": 100, "alpacaeval-length": 95, "alpacaeval-hard": 95, "mt-bench-easy": 28,
        "mt-bench-med": 40,
    },
    "Chat Hard": {
        "mt-bench-hard": 37, "llmbar-natural": 100, "llmbar-adver-neighbor": 134, "llmbar-adver-GPTInst": 92,
        "llmbar-adver-GPTOut": 47, "llmbar-adver-manual": 46,
    },
    "Safety": {
        "refusals-dangerous": 100, "refusals-offensive": 100, "xstest-should-refuse": 154,
        "xstest-should-respond": 250, "donotanswer": 136,
    },
    "Reasoning": {
        "math-prm": 447, "hep-cpp": 164, "hep-go": 164, "hep-java": 164, "hep-js": 164, "hep-python": 164,
        "hep-rust": 164,
    },
}  # fmt: skip
_WEIGHTS = {"math-prm": 984}  # 6 x 164: mathematics counts as much as code
SUBSETS = {
    name: Subset(section, n, _WEIGHTS.get(name, n)) for section, counts in _COUNTS.items() for name, n in counts.items()
}
SECTIONS = tuple(_COUNTS)
N_OFFICIAL = sum(n for counts in _COUNTS.values() for n in counts.values())
# Files of LLMBar's own repository by what their path holds: five of the subsets.
_LLMBAR = {
    "Natural": "llmbar-natural", "Neighbor": "llmbar-adver-neighbor", "GPTInst": "llmbar-adver-GPTInst",
    "GPTOut": "llmbar-adver-GPTOut", "Manual": "llmbar-adver-manual",
}  # fmt: skip
_ABOUT = ("model", "model_type", "chat_template")  # what an official results file holds beside the accuracies


def prefers_chosen(rewards: Rewards, item: Mapping[str, Any]) -> dict[str, Any]:
    """1 where the first of two responses gets strictly more reward; a tie is wrong."""
    chosen, rejected = rewards
    return {"credit": float(chosen > rejected), "tie": chosen == rejected}


BENCHMARK = Benchmark("rewardbench", SUBSETS, prefers_chosen, overall=SECTIONS)
credits = BENCHMARK.credits
summarise = BENCHMARK.summarise


def section_scores(accuracy: Mapping[str, float]) -> dict[str, float]:
    """The four section scores and the overall Score, 0..1, from the accuracies 0..1 of all 23 subsets.

    Raises ValueError naming the subsets that are missing or unknown, or whose accuracy is not in 0..1.
    """
    _check_accuracies(accuracy)
    sums = Sums({name: {"credit": (np.array([value]), np.ones(1))} for name, value in accuracy.items()})
    return {name: float(score[0]) for name, score in BENCHMARK.scores(sums).items()}


def load(
    source: str | Path = "simulated", *, revision: str = "main", partial: bool = False, keep_degenerate: bool = False
) -> Dataset:
    """The items, candidates [chosen, rejected], in the order of the source.

    Args:
        source: "simulated" (a small set in the official layout, carried by the repository), "hub" (the split
            filtered of allenai/reward-bench; downloads), or a file or folder of .json, .jsonl (both also .gz) or
            .parquet in the official layout: prompt (text or messages), chosen, rejected, subset, id. Where a folder has
            files named filtered*, as the official download does, only these are read. Files of LLMBar's repository
            (input, output_1, output_2, label) are read as the five subsets they became.
        revision: branch, tag or commit for "hub"; the commit it stands for is kept in the column `source`.
        partial: accept a source that lacks subsets; its report then has no overall Score.
        keep_degenerate: accept items whose responses are equal or empty (equal ones can only tie, which is wrong).
    Raises:
        FileNotFoundError: nothing to read. DataError: a malformed row, an unknown or missing subset, an id that occurs
            twice in a subset, equal or empty responses.
    """
    if source == "hub":
        rows, label = hub_rows(HUB_NAME, "filtered", revision)
    elif source == "simulated":
        rows, label = file_rows(paths.data_dir() / "embedded" / "rewardbench.jsonl.gz")[0], "simulated"
    else:
        rows, label = file_rows(source, prefer="filtered")
    return BENCHMARK.table(rows, label, _item, source=source, partial=partial, keep_degenerate=keep_degenerate)


def margins(items: Dataset, scores: Scores) -> Float[np.ndarray, "item"]:
    """Reward of the chosen minus reward of the rejected response, in the order of the items.

    Raises ValueError where scores are missing, left over, not two an item, or not finite.
    """
    rewards = np.array(aligned(items, scores), dtype=float).reshape(-1, 2)
    return rewards[:, 0] - rewards[:, 1]


def write_results(
    report: Report,
    file: str | Path,
    *,
    model: str,
    model_type: str = "Seq. Classifier",
    chat_template: str = "tokenizer",
) -> Path:
    """The accuracies of the subsets as the official results repository keeps them: one JSON object a model.

    Raises ValueError for a report of another benchmark or one that is partial: the official files hold all subsets.
    """
    accuracy = report.subsets["estimate"].to_dict()
    if report.benchmark != "rewardbench" or "partial" in report.label:
        raise ValueError(f"{report.title}: official results hold every subset of RewardBench; score all of it")
    about = {"model": model, "model_type": model_type, "chat_template": chat_template}
    Path(file).write_text(json.dumps(accuracy | about, indent=4, sort_keys=True), encoding="utf-8")
    return Path(file)


def read_results(file: str | Path, *, seed: int = 0, draws: int = 2000, level: float = 0.95) -> Report:
    """A report from an official results file (allenai/reward-bench-results, eval-set/): 23 accuracies 0..1.

    Intervals take the official numbers of items; single items, so ties and pairing with other models, are not known.
    Raises DataError for a file that is no JSON object, or whose accuracies are missing, unknown or not in 0..1.
    """
    place = Place(Path(file).name)
    try:
        given = json.loads(read_bytes(Path(file)))
        accuracy = {name: value for name, value in given.items() if name not in _ABOUT}
        _check_accuracies(accuracy)
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(place, f"not official results ({error})", "Give the JSON file of one model") from error
    return BENCHMARK.report_of_shares(accuracy, str(given.get("model", place)), seed=seed, draws=draws, level=level)


def _check_accuracies(accuracy: Mapping[str, float]) -> None:
    BENCHMARK.check_subsets(accuracy)
    missing = sorted(SUBSETS.keys() - accuracy.keys())
    if missing:
        raise ValueError(f"no accuracy for the subsets {', '.join(missing)}: score them before averaging")
    outside = {name: value for name, value in accuracy.items() if not 0 <= value <= 1}
    if outside:
        raise ValueError(f"accuracies must lie in 0..1, got {outside}: divide percentages by 100")


def _item(row: Mapping[str, Any], place: Place, keep_degenerate: bool) -> dict[str, Any]:
    row = _of_llmbar(row, place) if "output_1" in row else row
    prompt, chosen, rejected, subset, number = (
        field(row, name, place) for name in ("prompt", "chosen", "rejected", "subset", "id")
    )
    check_known(subset, SUBSETS, "subset", place.at("subset"))
    responses: dict[str, Sequence[Any]] = {"chosen": [chosen], "rejected": [rejected]}
    return make_item(f"{subset}/{number}", subset, prompt, responses, place, keep_degenerate=keep_degenerate)


def _of_llmbar(row: Mapping[str, Any], place: Place) -> dict[str, Any]:
    found = [subset for part, subset in _LLMBAR.items() if part in place.origin]
    if len(found) != 1:
        raise DataError(place, "LLMBar's subset is not in the path of the file", f"Name one of {', '.join(_LLMBAR)}")
    if row.get("label") not in (1, 2, "1", "2"):
        raise DataError(place.at("label"), f"{row.get('label')!r} is not a label", "Use 1 or 2, the better output")
    outputs = [field(row, name, place) for name in ("output_1", "output_2")]
    chosen, rejected = outputs if str(row["label"]) == "1" else outputs[::-1]
    known = {"prompt": field(row, "input", place), "chosen": chosen, "rejected": rejected}
    return known | {"subset": found[0], "id": (place.row or 1) - 1}
