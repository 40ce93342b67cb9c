"""Command line of the benchmarks: list them, score a model or ask a judge, summarise scores made elsewhere."""

import argparse
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from datasets import Dataset

from rmlib import benchmarks, records
from rmlib.benchmarks import judging, ready
from rmlib.benchmarks.endpoint import Endpoint
from rmlib.benchmarks.judges import ChatJudge, Instructions, Judge, Majority
from rmlib.benchmarks.report import Report
from rmlib.records import paths
from rmlib.records.provenance import typed_command
from rmlib.statistics import RULERS

HIDDEN = ("source", "url", "scores", "out", "instructions")  # options that name what only one machine has
EXAMPLES = """examples:
  python -m rmlib.benchmarks score rewardbench --model runs/some-run/model --out scores.jsonl
  python -m rmlib.benchmarks score own --source pairs.jsonl --model Skywork/Skywork-Reward-V2-Qwen3-0.6B
  python -m rmlib.benchmarks score judgebench --source judgebench --policy policy --reference reference
  python -m rmlib.benchmarks judge judgebench --source judgebench --url http://127.0.0.1:8000/v1 --judge-model NAME
  python -m rmlib.benchmarks summarise rewardbench --scores scores.jsonl
"""


def main(arguments: list[str] | None = None) -> int:
    """Run one of the commands; 1 where something is wrong with what was given, 130 where it was stopped."""
    given = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(given)
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # one line for each request to the hub
    os.environ.setdefault("RMLIB_COMMAND", typed_command("python -m rmlib.benchmarks", given, HIDDEN))
    try:
        options.run(options)
    except KeyboardInterrupt:
        print("stopped; what is scored is kept: run the same again to go on", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


# --- the commands -----------------------------------------------------------------------------------------------------


def _list(_: argparse.Namespace) -> None:
    for name, benchmark in benchmarks.BENCHMARKS.items():
        print(f"{name:<14}{benchmark.about.splitlines()[0]}")


def _score(options: argparse.Namespace) -> None:
    items, start = _items(options), time.monotonic()
    model, about = _scorer(options)
    scores = benchmarks.score(model, items, keep=not options.no_keep, skip_long=options.skip_long)
    if options.out:
        ready.write_scores(scores, options.out)
    _finish(options, benchmarks.summarise(items, scores, **_statistics(options)), about, time.monotonic() - start)


def _judge(options: argparse.Namespace) -> None:
    items, start = _items(options), time.monotonic()
    judge, asking = _judge_of(options), {"workers": options.workers, "keep": not options.no_keep}
    credits = judging.judge_items(judge, items, mode=options.mode, seed=options.seed, **asking)
    if options.out:
        credits.to_json(options.out, orient="records", lines=True)
    found: dict[str, Any] = {"problems": judging.problems(credits)}
    print("problems:", ", ".join(f"{kind} {n}" for kind, n in found["problems"].items()) or "none")
    if options.consistency:
        found["position_consistency"] = _consistency(judging.position_consistency(judge, items, **asking))
    about = {"judge": judge.name, "mode": options.mode, "content": judge.identity()}
    report = benchmarks.summarise(items, credits, **_statistics(options))
    _finish(options, report, about, time.monotonic() - start, **found)


def _judge_of(options: argparse.Namespace) -> Judge:
    """The judge that was named, or the majority of several."""
    instructions = Instructions.load(options.instructions) if options.instructions else Instructions()
    patience = {"timeout": options.timeout, "retries": options.retries, "max_tokens": options.max_tokens}
    judges = [
        ChatJudge(Endpoint(options.url, name, key_variable=options.key_variable, **patience), instructions)
        for name in options.judge_model
    ]
    return judges[0] if len(judges) == 1 else Majority(tuple(judges))


def _summarise(options: argparse.Namespace) -> None:
    items = _items(options)
    scores = ready.read_scores(options.scores, items)
    about = {"model": options.name or Path(options.scores).stem}
    _finish(options, benchmarks.summarise(items, scores, **_statistics(options)), about)


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
    print(f"recorded in {file.parent.name}/{file.name}")


def _items(options: argparse.Namespace) -> Dataset:
    # What is not typed is left to the benchmark: some keep equal responses by default, as the official files have.
    typed = ("partial", "keep_degenerate", "revision", "parts")
    wanted: dict[str, Any] = {name: getattr(options, name) for name in typed if getattr(options, name)}
    return benchmarks.load(options.benchmark, options.source, **wanted)


def _scorer(options: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The scorer that was asked for, and what a record says of it."""
    if options.model in RULERS:
        return RULERS[options.model], {"model": options.model}
    import torch  # a ruler answers before this has loaded

    from rmlib.benchmarks import scorers

    dtype, weights = getattr(torch, options.dtype), _weights(options.weights)
    if options.model is not None:
        model: Any = scorers.open_scorer(
            options.model, weights=weights, dtype=dtype, device=options.device, read_at=options.read_at
        )
        about = {"model": paths.public_name(options.model), "weights": options.weights, "read_at": options.read_at}
    else:
        model = scorers.open_implicit(
            options.policy, options.reference, beta=options.beta, dtype=dtype, device=options.device
        )
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


def _statistics(options: argparse.Namespace) -> dict[str, Any]:
    return {"seed": options.seed, "partial": options.partial}


def _consistency(found: judging.Consistency) -> dict[str, Any]:
    print(f"same winner in both orders: {found.consistent}; the first shown wins: {found.first}")
    return {"consistent": found.consistent, "first": found.first, "n_undecided": found.n_undecided}


# --- what can be typed ------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rmlib.benchmarks",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the benchmarks and what they ask").set_defaults(run=_list)
    score = _command(commands, "score", "score a model or a ruler, and summarise", _score)
    _score_options(score)
    judge = _command(commands, "judge", "ask a language model behind an endpoint, and summarise", _judge)
    _judge_options(judge)
    summarise = _command(commands, "summarise", "summarise scores from a file", _summarise)
    summarise.add_argument("--scores", required=True, help=".jsonl, .json, .csv or .parquet: item_id and its scores")
    summarise.add_argument("--name", help="of the model, for the record; default: that of the file")
    return parser


def _command(commands: Any, name: str, does: str, run: Any) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=does, description=does)
    command.set_defaults(run=run)
    command.add_argument("benchmark", choices=[*benchmarks.BENCHMARKS])
    command.add_argument("--source", help="hub, simulated, or a file or folder; default: the benchmark's own")
    command.add_argument("--revision", help="of the benchmark on the hub")
    command.add_argument("--parts", nargs="+", help="of a benchmark in parts those wanted, e.g. claude of judgebench")
    command.add_argument("--partial", action="store_true", help="accept and score a part of the benchmark")
    command.add_argument("--keep-degenerate", action="store_true", help="accept equal and empty responses")
    command.add_argument("--seed", type=int, default=0, help="of bootstrap and of places of answers; default: 0")
    command.add_argument("--record", action="store_true", help="append the report to data/results/scores")
    return command


def _score_options(command: argparse.ArgumentParser) -> None:
    who = command.add_mutually_exclusive_group(required=True)
    who.add_argument("--model", help=f"{', '.join(RULERS)}; or a folder or hub id of a reward model or classifier")
    who.add_argument("--policy", help="a language model trained by DPO: its implicit rewards")
    command.add_argument("--reference", help="the policy's reference model; without it rewards are reference-free")
    command.add_argument("--beta", type=float, default=0.1, help="scales implicit rewards; default: %(default)s")
    command.add_argument("--weights", help="of several outputs: 0.5,1 or correctness=1,verbosity=-0.5")
    command.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    command.add_argument("--device", help="default: a GPU where there is one")
    command.add_argument("--read-at", default="transformers", choices=["transformers", "end"])
    command.add_argument("--skip-long", action="store_true", help="leave out, and count, texts that do not fit")
    command.add_argument("--out", type=Path, help="write the scores as JSON lines")
    command.add_argument("--no-keep", action="store_true", help="neither read nor keep scores below runs/scores")


def _judge_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--url", required=True, help="base of an OpenAI-compatible endpoint, e.g. http://host/v1")
    command.add_argument("--judge-model", required=True, nargs="+", help="its name there; of several the majority")
    command.add_argument("--key-variable", help="environment variable that holds the key, where one is wanted")
    command.add_argument("--instructions", help="JSON file: system, pair, choice, rating, in place of ours")
    command.add_argument("--mode", default="compare", choices=judging.MODES)
    command.add_argument("--workers", type=int, default=4, help="questions at a time; default: %(default)s")
    command.add_argument("--timeout", type=float, default=120.0, help="seconds for an answer; default: %(default)s")
    command.add_argument("--retries", type=int, default=2, help="after a fault that may pass; default: %(default)s")
    command.add_argument("--max-tokens", type=int, default=2048, help="of an answer; default: %(default)s")
    command.add_argument("--consistency", action="store_true", help="judge both orders, and say how often they agree")
    command.add_argument("--out", type=Path, help="write the credits as JSON lines")
    command.add_argument("--no-keep", action="store_true", help="neither read nor keep verdicts below runs/scores")


if __name__ == "__main__":
    sys.exit(main())
