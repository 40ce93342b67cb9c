"""The comparison from the shell: every arm on a frozen backbone by a grid of heads, or some arms fine-tuned beside it.

    python -m rmlib.experiments frozen --data FOLDER
    python -m rmlib.experiments finetuned --data FOLDER --arms regression,bt_scaled --seeds 3

With `--folds` whole parts of the source are held out in turn (of UKPConvArg1: debates, both sides together). Records go
where notebooks and figures look for them; `--line` gives a variant a file, and figures, of its own.
"""

from __future__ import annotations

import argparse
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rmlib import losses
from rmlib.experiments.arms import ARMS, changes
from rmlib.experiments.baselines import record_rulers, record_words
from rmlib.experiments.grid import default_grid, run_grid
from rmlib.experiments.presets import PRESETS, Preset
from rmlib.experiments.recording import record_overlap
from rmlib.experiments.run_or_reuse import TOGETHER, run_all, run_on_folds
from rmlib.records import paths
from rmlib.records.provenance import typed_command
from rmlib.sources import Splits, load_folds, load_splits
from rmlib.sources.options import ARGUMENTS, typed

INPUTS = "what frozen heads read: last (default) or layer4, with +length or +surface; several, by commas, in turn"
ON_THE_GRID = [arm for arm in ARMS if changes(arm)["loss"] != losses.RANKING_LOSS]


def main(argv: Sequence[str] | None = None) -> None:
    """Run what the command line asks for; raises what the library raises."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = parse_options(argv)
    folds = load(options)
    folders = [name for name in ("data", "backbone") if Path(paths.absolute(getattr(options, name))).is_absolute()]
    given = sys.argv[1:] if argv is None else argv
    os.environ["RMLIB_COMMAND"] = typed_command("python -m rmlib.experiments", given, folders)
    source = folds[0].source.name + (f"_{options.line}" if options.line else "")
    file = paths.results_dir() / f"{paths.line_name(source, options.backbone)}.jsonl"
    preset = PRESETS[options.how].change(backbone=paths.absolute(options.backbone))
    if options.how == "frozen":
        _frozen(options, folds, preset, file)
        return
    preset = preset.change(max_steps=options.steps) if options.steps else preset
    if options.folds:
        run_on_folds(options.arms, preset.change(**TOGETHER), folds, range(options.seeds), file)
    else:
        run_all(options.arms, preset, folds[0], range(options.seeds), results=file)


def _frozen(options: argparse.Namespace, folds: Sequence[Splits], preset: Preset, file: Path) -> None:
    """The grid of every arm, and the rulers on the same test pairs."""
    if not options.folds:
        record_overlap(folds[0], file)
    record_rulers(folds, preset, file)
    wanted = {"learning_rates": options.rates, "weight_decays": options.decays, "n_steps": options.steps}
    asked = {name: value for name, value in wanted.items() if value}
    for inputs in options.inputs:
        grid = replace(default_grid(preset, range(options.seeds)), **asked, **parse_inputs(inputs))
        result = run_grid(options.arms, folds, preset, grid, results=file)
        edge = result.selected.groupby("arm", sort=False)["at_edge"].sum()
        for arm in result.rewards:
            at_edge = f"choices at the edge of the grid: {edge.get(arm, 0)} of {len(folds)}"
            print(f"{inputs}, {arm}: {result.accuracy(arm)}; {at_edge}", flush=True)
    record_words(folds, preset, file)


def parse_inputs(text: str) -> dict[str, Any]:
    """What `last+length` or `layer4+surface` says of a grid; ValueError for anything else."""
    known = {"length": "log_length", "surface": "surface"}
    layer, *beside = text.split("+")
    if (layer != "last" and not re.fullmatch(r"layer\d+", layer)) or not set(beside) <= known.keys():
        raise ValueError(f"inputs {text!r} are unknown; write last or layer4, with +length or +surface beside it")
    named: dict[str, Any] = {} if layer == "last" else {"layer": int(layer.removeprefix("layer"))}
    return named | {known[name]: True for name in beside}


def load(options: argparse.Namespace) -> list[Splits]:
    """The splits, one for each fold that is asked for."""
    data, wanted = paths.absolute(options.data), {"subset": options.subset} if options.subset else typed(options)
    if not options.folds:
        return [load_splits(data, **wanted)]
    folds = load_folds(data, n_folds=options.folds, **wanted)
    return [folds[index] for index in options.only] if options.only else folds


def _listed(kind: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    return lambda text: tuple(kind(word) for word in text.split(","))


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m rmlib.experiments", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("how", choices=("frozen", "finetuned"), help="heads by the grid, or all weights")
    parser.add_argument("--data", required=True, help="hub, or a folder of pairs")
    parser.add_argument("--backbone", default="minilm", help="minilm (default), a hub id or a folder")
    parser.add_argument("--arms", type=_listed(str), default=ON_THE_GRID, help="separated by commas; default: all")
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0 on (default: 5)")
    parser.add_argument("--folds", type=int, default=0, help="hold out that many parts of the source in turn")
    parser.add_argument("--only", type=_listed(int), help="of the folds these")
    parser.add_argument("--steps", type=int, default=0, help="optimizer steps of each run (default: the preset's)")
    parser.add_argument("--inputs", type=_listed(str), default=("last",), help=INPUTS)
    parser.add_argument("--rates", type=_listed(float), help="learning rates of the grid (default: seven)")
    parser.add_argument("--decays", type=_listed(float), help="weight decays of the grid (default: three)")
    parser.add_argument("--subset", help="of the source, where it has subsets (UKPConvArg1: all, gold, strict)")
    for name, settings in ARGUMENTS.items():
        parser.add_argument(name, **settings)
    parser.add_argument("--line", help="name of a variant: its records and figures stand apart")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
