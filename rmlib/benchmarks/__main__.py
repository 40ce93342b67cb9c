"""Command line of the benchmarks: list them, score a model or ask a judge, summarise scores made elsewhere."""

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import Dataset

from rmlib import records
from rmlib.benchmarks import judging
from rmlib.benchmarks.catalogue import BENCHMARKS, load, summarise
from rmlib.benchmarks.endpoint import Endpoint
from rmlib.benchmarks.judges import ChatJudge, Instructions, Majority
from rmlib.benchmarks.report import Report
from rmlib.benchmarks.scoring import read_scores, score, write_scores
from rmlib.benchmarks.servers import RewardServer, is_url
from rmlib.records import paths
from rmlib.records.provenance import typed_command
from rmlib.sources.options import ARGUMENTS
from rmlib.sources.options import typed as options_of_pairs
from rmlib.statistics import RULERS

HIDDEN = ("source", "url", "scores", "out", "instructions")  # options that name what only one machine has
EXAMPLES = """examples:
  python -m rmlib.benchmarks score rewardbench --model runs/some-run/model --out scores.jsonl
  python -m rmlib.benchmarks score own --source pairs.jsonl --model Skywork/Skywork-Reward-V2-Qwen3-0.6B
  python -m rmlib.benchmarks score judgebench --source judgebench --policy policy --reference reference
  python -m rmlib.benchmarks score rewardbench --url http://127.0.0.1:8000/classify --served-model NAME
  python -m rmlib.benchmarks judge judgebench --source judgebench --url http://127.0.0.1:8000/v1 --judge-model NAME
  python -m rmlib.benchmarks summarise rewardbench --scores scores.jsonl
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one of the commands; 1 where something is wrong with what was given, 130 where it was stopped."""
    given = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(given)
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # one line for each request to the hub
    hidden = (*HIDDEN, "model") if is_url(getattr(options, "model", None)) else HIDDEN
    os.environ.setdefault("RMLIB_COMMAND", typed_command("python -m rmlib.benchmarks", given, hidden))
    try:
        options.run(options)
    except KeyboardInterrupt:
        print("stopped; what is scored is kept: run the same again to go on", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


# --- the commands -----------------------------------------------------------------------------------------------------


def _list(_: argparse.Namespace) -> None:
    """Name the benchmarks and what they ask."""
    for name, benchmark in BENCHMARKS.items():
        print(f"{name:<14}{benchmark.about.splitlines()[0]}")


def _score(options: argparse.Namespace) -> None:
    """Score a model or a ruler, and summarise."""
    items, start = _items(options), time.monotonic()
    model, about = _scorer(options)
    scores = score(model, items, keep=not options.no_keep, skip_long=options.skip_long)
    if options.out:
        write_scores(scores, options.out)
    _finish(options, _report(options, items, scores), about, time.monotonic() - start)


def _judge(options: argparse.Namespace) -> None:
    """Ask a language model behind an endpoint, and summarise."""
    items, start = _items(options), time.monotonic()
    instructions = Instructions.load(options.instructions) if options.instructions else Instructions()
    patience = {name: getattr(options, name) for name in ("key_variable", "timeout", "retries", "max_tokens")}
    judges = [ChatJudge(Endpoint(options.url, name, **patience), instructions) for name in options.judge_model]
    judge = judges[0] if len(judges) == 1 else Majority(tuple(judges))
    asking = {"workers": options.workers, "keep": not options.no_keep}
    credits = judging.judge_items(judge, items, mode=options.mode, seed=options.seed, **asking)
    if options.out:
        credits.to_json(options.out, orient="records", lines=True)
    found: dict[str, Any] = {"problems": judging.problems(credits)}
    print("problems:", ", ".join(f"{kind} {n}" for kind, n in found["problems"].items()) or "none")
    if options.consistency:
        both = judging.position_consistency(judge, items, **asking)
        print(f"same winner in both orders: {both.consistent}; the first shown wins: {both.first}")
        found["position_consistency"] = both._asdict()
    about = {"judge": judge.name, "mode": options.mode, "content": judge.identity()}
    _finish(options, _report(options, items, credits), about, time.monotonic() - start, **found)


def _summarise(options: argparse.Namespace) -> None:
    """Summarise scores from a file."""
    items = _items(options)
    report = _report(options, items, read_scores(options.scores, items))
    _finish(options, report, {"model": options.name or Path(options.scores).stem})


def _report(options: argparse.Namespace, items: Dataset, scores: Any) -> Report:
    return summarise(items, scores, seed=options.seed, partial=options.partial)


def _finish(
    options: argparse.Namespace, report: Report, about: dict[str, Any], seconds: float | None = None, **found: Any
) -> None:
    """Print the report, and record it with whatever else was found where that was asked for."""
    print(report)
    if not options.record:
        return
    file = paths.results_dir() / "scores" / f"{report.benchmark}.jsonl"
    asked = {"benchmark": report.benchmark, "source": report.source} | about
    outcome = report.to_records() | found
    records.append(file, kind="score", asked=asked, outcome=outcome, seconds=seconds, seed=options.seed)
    print(f"recorded in {file}")


def _items(options: argparse.Namespace) -> Dataset:
    # What is not typed is left to the benchmark: some keep equal responses by default, as the official files have.
    typed = ("partial", "keep_degenerate", "revision", "parts")
    wanted: dict[str, Any] = {name: getattr(options, name) for name in typed if getattr(options, name)}
    reading = options_of_pairs(options)
    if reading and options.benchmark != "own":
        raise ValueError(f"{', '.join(reading)} say how own pairs are read; {options.benchmark} has one layout")
    return load(options.benchmark, options.source, **wanted, **reading)


def _scorer(options: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The scorer that was asked for, and what a record says of it."""
    if options.model in RULERS:
        return RULERS[options.model], {"model": options.model}
    if options.url is not None or is_url(options.model):
        if options.skip_long:
            raise ValueError("--skip-long: a server does not say which texts fit; leave the long ones out of the file")
        patience = {name: getattr(options, name) for name in ("key_variable", "timeout", "retries")}
        server = RewardServer(Endpoint(options.url or options.model, options.served_model, **patience), options.workers)
        return server, {"model": server.name, "protocol": server.path.strip("/")}
    import torch  # late, for its weight: a ruler answers before it has loaded

    from rmlib.benchmarks import scorers

    placed = {"dtype": getattr(torch, options.dtype), "device": options.device}
    if options.model is not None:
        weights = _weights(options.weights)
        chat = {"special_tokens": options.special_tokens} if options.special_tokens else {}
        model: Any = scorers.open_scorer(options.model, weights=weights, read_at=options.read_at, chat=chat, **placed)
        about = {"model": paths.public_name(options.model), "weights": options.weights, "read_at": options.read_at}
        about |= chat
    else:
        model = scorers.open_implicit(options.policy, options.reference, beta=options.beta, **placed)
        about = {"model": model.name, "beta": options.beta}
    return model, about | {"dtype": options.dtype, "content": scorers.identity_of(model)}


def _weights(text: str | None) -> Any:
    """Weights as typed: "0.5,1" in order, or "correctness=1,verbosity=-0.5" by name. Raises ValueError."""
    if text is None:
        return None
    parts = [part.partition("=") for part in text.split(",")]
    try:
        if all(equals for _, equals, _ in parts):
            return {name.strip(): float(value) for name, _, value in parts}
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--weights {text!r} are neither numbers nor name=number, separated by commas") from None


# --- what can be typed ------------------------------------------------------------------------------------------------

YES: dict[str, Any] = {"action": "store_true"}
SHARED: dict[str, dict[str, Any]] = {
    "benchmark": {"choices": [*BENCHMARKS]},
    "--source": {"help": "hub, simulated, or a file or folder; default: the benchmark's own"},
    "--revision": {"help": "of the benchmark on the hub"},
    "--parts": {"nargs": "+", "help": "those wanted, e.g. claude of judgebench, validation of own pairs"},
    "--partial": YES | {"help": "accept and score a part of the benchmark"},
    "--keep-degenerate": YES | {"help": "accept equal and empty responses"},
    "--seed": {"type": int, "default": 0, "help": "of bootstrap and of places of answers; default: 0"},
    "--record": YES | {"help": "append the report to data/results/scores"},
}
FOR_BOTH: dict[str, dict[str, Any]] = {
    "--out": {"type": Path, "help": "write the scores, or the judges' credits, as JSON lines"},
    "--no-keep": YES | {"help": "neither read nor keep scores and verdicts below runs/scores"},
}
FOR_SCORES: dict[str, dict[str, Any]] = {
    "--reference": {"help": "the policy's reference model; without it rewards are reference-free"},
    "--beta": {"type": float, "default": 0.1, "help": "scales implicit rewards; default: %(default)s"},
    "--weights": {"help": "of several outputs: 0.5,1 or correctness=1,verbosity=-0.5"},
    "--dtype": {"default": "float32", "choices": ["float32", "bfloat16", "float16"]},
    "--device": {"help": "default: a GPU where there is one"},
    "--read-at": {"default": "transformers", "choices": ["transformers", "end"]},
    "--served-model": {"default": "", "help": "its name at the URL, where that serves several"},
    "--special-tokens": {"choices": ["text", "special"], "help": "within texts; default: as the model was made"},
    "--skip-long": YES | {"help": "leave out, and count, texts that do not fit"},
}
FOR_SERVERS: dict[str, dict[str, Any]] = {
    "--key-variable": {"help": "environment variable that holds the server's key, where one is wanted"},
    "--workers": {"type": int, "default": 4, "help": "questions at a time; default: %(default)s"},
    "--timeout": {"type": float, "default": 120.0, "help": "seconds for an answer; default: %(default)s"},
    "--retries": {"type": int, "default": 2, "help": "after a fault that may pass; default: %(default)s"},
}
FOR_JUDGES: dict[str, dict[str, Any]] = {
    "--url": {"required": True, "help": "base of an OpenAI-compatible endpoint, e.g. http://host/v1"},
    "--judge-model": {"required": True, "nargs": "+", "help": "its name there; of several the majority"},
    "--instructions": {"help": "JSON file: system, pair, choice, rating, in place of ours"},
    "--mode": {"default": "compare", "choices": judging.MODES},
    "--max-tokens": {"type": int, "default": 2048, "help": "of an answer; default: %(default)s"},
    "--consistency": YES | {"help": "judge both orders, and say how often they agree"},
}
FOR_FILES: dict[str, dict[str, Any]] = {
    "--scores": {"required": True, "help": ".jsonl, .json, .csv or .parquet: item_id and its scores"},
    "--name": {"help": "of the model, for the record; default: that of the file"},
}
COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], None], dict[str, Any]]] = {
    "list": (_list, {}),
    "score": (_score, SHARED | FOR_SCORES | FOR_SERVERS | FOR_BOTH),
    "judge": (_judge, SHARED | FOR_JUDGES | FOR_SERVERS | FOR_BOTH),
    "summarise": (_summarise, SHARED | FOR_FILES),
}


def _parser() -> argparse.ArgumentParser:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m rmlib.benchmarks", None, __doc__, EXAMPLES, formatter_class=shape)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (run, arguments) in COMMANDS.items():
        command = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
        command.set_defaults(run=run)
        for argument, settings in arguments.items():
            command.add_argument(argument, **settings)
        if arguments:
            own = command.add_argument_group("own pairs", "how files are read where they leave it open")
            for argument, settings in ARGUMENTS.items():
                own.add_argument(argument, **settings)
        if run is _score:
            who = command.add_mutually_exclusive_group(required=True)
            who.add_argument(
                "--model", help=f"{', '.join(RULERS)}; or folder or hub id of a reward model or classifier"
            )
            who.add_argument("--policy", help="a language model trained by DPO: its implicit rewards")
            who.add_argument("--url", help="of a server that gives rewards: /classify of vLLM, /predict of TEI")
    return parser


if __name__ == "__main__":
    sys.exit(main())
