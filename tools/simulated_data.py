"""The simulated data: written, checked, described, and their annotators fitted to the published statistics.

    python -m tools.simulated_data write|check|describe|stream|calibrate

The fit draws chance once for every trial value (common random numbers), so that the misfit is a function of the
parameters alone and least squares by finite differences can follow it.
"""

import argparse
import gzip
import itertools
import json
import logging
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.optimize import least_squares

from rmlib.pairs import pair_id
from rmlib.pairs.schema import ATTRIBUTES
from rmlib.records.errors import DataError, Place
from rmlib.records.files import written_whole
from rmlib.records.progress import progress_bar
from rmlib.sources.simulated import benchmark_items, embedded, generate
from rmlib.sources.simulated.annotators import (
    HALO_CENTRE,
    HELPFULNESS,
    PARAMETERS_FILE,
    Noise,
    Parameters,
    Pool,
    annotate,
    overall_preferences,
    overall_ratings,
)
from rmlib.sources.simulated.embedded import PAIRS_FILE, REMEDY, SUMS_FILE, content_sha256, recorded
from rmlib.sources.simulated.generation import as_array, draw_texts
from rmlib.sources.simulated.published import FIRST, THEN, against_targets, beside_published, measures, targets

logger = logging.getLogger(__name__)

BENCHMARK_FILE, BACKBONE_FOLDER = "rewardbench.jsonl.gz", "backbone"

FIT_PAIRS, FIT_SEED = 12_000, 1  # the seed differs from that of the embedded data, which stay a fresh sample
URGENCY = 3.0  # how much more a misfit of FIRST counts, in tolerances
STEP = 0.04  # of the finite differences, as a share of a parameter's range: ratings are whole numbers
MAX_TRIALS = 40  # steps of the optimiser, each with one evaluation for every parameter

# What is fitted, with its limits: five values an attribute, then single ones.
_LIMITS_BY_ATTRIBUTE = {"offset": (-4.0, 4.0), "gain": (0.35, 3.0), "halo": (-0.5, 1.0), "noise": (0.05, 2.0)}
_LIMITS = {
    "misread": (0.0, 0.3), "contested": (0.0, 0.8), "misread_contested": (0.1, 1.0), "vote_noise": (0.05, 2.0),
    "better": (0.1, 2.0), "much_better": (0.75, 2.0), "found": (0.0, 1.0),
}  # fmt: skip
_START = {
    "misread": 0.05, "contested": 0.3, "misread_contested": 0.5, "vote_noise": 0.5, "better": 0.8, "much_better": 1.0,
    "found": 0.6,
}  # fmt: skip
_START_HALO = {"correctness": 0.5}
_START_NOISE = 0.5


# --- files ---


def write(folder: Path, *, n_pairs: int = embedded.N_PAIRS, seed: int = embedded.SEED) -> None:
    """Generate pairs, benchmark, tokenizer, config and their hashes, the same bytes each time."""
    from tools.embedded_backbone import write_backbone  # imports transformers, which the other commands do not need

    (folder / BACKBONE_FOLDER).mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / PAIRS_FILE, distinct(generate(n_pairs, seed)))
    write_jsonl(folder / BENCHMARK_FILE, benchmark_items())
    write_backbone(folder / BACKBONE_FOLDER, texts_of(generate(n_pairs, seed)))
    lines = [f"{digest}  {name}\n" for name, digest in sums(folder).items()]
    (folder / SUMS_FILE).write_text("".join(lines))


def stream(folder: Path, n_pairs: int, seed: int) -> Path:
    """Write `n_pairs` generated pairs, less repeats, to pairs.jsonl.gz in the folder, in constant memory."""
    path = folder / PAIRS_FILE
    with written_whole(path) as temporary:
        write_jsonl(temporary, distinct(progress_bar(generate(n_pairs, seed), total=n_pairs, unit="pairs")))
    return path


def check(folder: Path, *, n_pairs: int = embedded.N_PAIRS, seed: int = embedded.SEED) -> None:
    """Raise DataError where a file differs from its recorded hash or from what would be generated now."""
    expected = recorded(folder)
    with tempfile.TemporaryDirectory() as temporary:
        write(Path(temporary), n_pairs=n_pairs, seed=seed)
        generated = sums(Path(temporary))
    for name in sorted({*expected, *generated}):
        path = folder / name
        found = content_sha256(path) if path.is_file() else "none: there is no such file"
        for origin, digest in ((SUMS_FILE, expected.get(name)), ("the generator", generated.get(name))):
            if found != digest:
                raise DataError(Place(name), f"its content has sha256 {found}, {origin} says {digest}", REMEDY)


class Seen:
    """Which names occurred, in 16 MB however many they are: a Bloom filter (Bloom, 1970).

    A name that occurred is always found; one that did not is taken for one that did with a probability of 1e-9 after
    a million names, 0.3 % after ten million.
    """

    N_BITS, N_PLACES = 2**27, 7

    def __init__(self) -> None:
        self._bits = bytearray(self.N_BITS // 8)

    def add(self, name: str) -> bool:
        """Note a name of 16 hex digits, as `pair_id` gives; whether it had (almost surely) been noted before."""
        number = int(name, 16)
        start, step = number & 0xFFFFFFFF, number >> 32 | 1
        known = True
        for place in range(start, start + self.N_PLACES * step, step):
            byte, bit = place % self.N_BITS >> 3, 1 << (place & 7)
            known &= bool(self._bits[byte] & bit)
            self._bits[byte] |= bit
        return known


def distinct(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows without those that repeat an earlier pair (see `Seen`), which are counted."""
    seen = Seen()
    n_repeated = 0
    for row in rows:
        if seen.add(pair_id(row["prompt"], row["response_1"], row["response_2"])):
            n_repeated += 1
        else:
            yield row
    logger.info("left out %d generated pairs that repeat an earlier one", n_repeated)


def texts_of(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Every text of the rows."""
    for row in rows:
        yield from (message["content"] for message in row["prompt"])
        yield row["response_1"]
        yield row["response_2"]


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Rows as gzipped JSON lines, without the time and name that gzip would add."""
    with path.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=0) as file:
        for row in rows:
            file.write(json.dumps(row, separators=(",", ":"), ensure_ascii=False).encode() + b"\n")


def sums(folder: Path) -> dict[str, str]:
    """Content hash of every file in the folder but the list of hashes itself, by name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS_FILE)
    return {path.relative_to(folder).as_posix(): content_sha256(path) for path in files}


# --- fit ---


@dataclass(frozen=True)
class Fit:
    """The parameters found, and every statistic under them beside its target."""

    parameters: Parameters
    table: pd.DataFrame  # index: statistic; columns: published, fitted, difference, tolerance, within tolerance

    def __str__(self) -> str:
        return self.table.to_string(float_format="%.3f", na_rep="-")


@dataclass(frozen=True)
class Sample:
    """Truths from the text generator and the chance that befalls their annotation: all that a trial needs."""

    truths: Float[np.ndarray, "pair side attribute"]
    noise: Noise
    pool: Pool

    @classmethod
    def draw(cls, n_pairs: int, seed: int, *, show: bool = True) -> Self:
        """Texts are written once, and only to learn their truths."""
        texts = itertools.islice(draw_texts(seed), n_pairs)
        truths = as_array(list(progress_bar(texts, total=n_pairs, desc="texts", show=show)))
        rng = np.random.default_rng(seed)
        return cls(truths, Noise.draw(rng, n_pairs), Pool.draw(rng))

    def statistics(self, parameters: Parameters) -> dict[str, float]:
        """Every measure of the annotations that these parameters give."""
        given = annotate(self.truths, self.noise, self.pool, parameters)
        found = measures(given, overall_preferences(given), overall_ratings(given))
        return {measure.name: measure.estimate for measure in found}


def calibrate(n_pairs: int = FIT_PAIRS, seed: int = FIT_SEED, *, show: bool = True) -> Fit:
    """Draw texts and chance, and fit the annotators of these texts (`fit`); minutes, with a progress bar."""
    return fit(Sample.draw(n_pairs, seed, show=show), show=show)


def fit(sample: Sample, *, max_trials: int = MAX_TRIALS, show: bool = True) -> Fit:
    """The parameters with the least squared misfit, each misfit in units of its tolerance; FIRST counts for more."""
    low, high = _limits()
    bar = progress_bar(total=max_trials * (1 + len(low)), desc="fit", unit="trials", show=show)

    def residuals(vector: np.ndarray) -> np.ndarray:
        bar.update()
        return misfits(sample.statistics(_parameters(low + (high - low) * (vector - 1))))

    # Ranges become 1..2: steps are relative to the value, which must not be near 0.
    first = 1 + (_vector(_start(sample.truths, targets())) - low) / (high - low)
    found = least_squares(
        residuals, first.clip(1.01, 1.99), bounds=(1, 2), diff_step=STEP, ftol=1e-4, max_nfev=max_trials
    )
    bar.total = bar.n  # it stops when no step helps, mostly long before the last trial
    bar.close()
    parameters = _parameters(low + (high - low) * (found.x - 1))
    return Fit(parameters, against_targets("fitted", sample.statistics(parameters)))


def misfits(found: Mapping[str, float]) -> np.ndarray:
    """Difference to each published value in units of its tolerance, URGENCY times that for FIRST.

    A statistic without a value, because no pair is left to compute it from, counts as 100 tolerances off.
    """
    goals = targets()
    scale = {name: tolerance / URGENCY for name, tolerance in FIRST.items()} | THEN
    off = [(found[name] - goals[name]) / size for name, size in scale.items() if name in goals.index]
    return np.nan_to_num(off, nan=100.0)


def _start(truths: np.ndarray, goals: pd.Series) -> Parameters:
    """Scales that give the truths the published means and deviations, and guesses for the rest."""
    mean, sd = truths.mean(axis=(0, 1)), truths.std(axis=(0, 1))
    halo = np.array([_START_HALO.get(name, 0.0) for name in ATTRIBUTES])
    goal_mean, goal_sd = (np.array([goals[f"{name}: {what}"] for name in ATTRIBUTES]) for what in ("mean", "sd"))
    gain = (1 - halo) * goal_sd / np.maximum(sd, 0.1)
    offset = goal_mean - gain * mean - halo * (goal_mean[HELPFULNESS] - HALO_CENTRE)
    return Parameters.of(
        {"offset": offset, "gain": gain, "halo": halo, "noise": np.full(len(halo), _START_NOISE)} | _START
    )


def _limits() -> tuple[np.ndarray, np.ndarray]:
    both = []
    for end in (0, 1):
        wide = {name: np.full(len(ATTRIBUTES), limits[end]) for name, limits in _LIMITS_BY_ATTRIBUTE.items()}
        both.append(_vector(Parameters.of(wide | {name: limits[end] for name, limits in _LIMITS.items()})))
    return both[0], both[1]


def _vector(parameters: Parameters) -> np.ndarray:
    """What is fitted, in one row; the halo of helpfulness on itself is none, and left out."""
    values = {name: np.array(getattr(parameters, name)) for name in (*_LIMITS_BY_ATTRIBUTE, *_LIMITS)}
    values["halo"] = np.delete(values["halo"], HELPFULNESS)
    return np.hstack(list(values.values()))


def _parameters(vector: np.ndarray) -> Parameters:
    """The inverse of `_vector`."""
    k = len(ATTRIBUTES)
    offset, gain, halo, noise, single = np.split(vector, np.cumsum([k, k, k - 1, k]))
    wide = {"offset": offset, "gain": gain, "halo": np.insert(halo, HELPFULNESS, 0.0), "noise": noise}
    return Parameters.of(wide | dict(zip(_LIMITS, single, strict=True)))


# --- command ---


def main(arguments: list[str] | None = None) -> int:
    """Run one of the commands; 1 where `check` finds a difference."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    try:
        match options.command:
            case "write":
                write(options.folder)
            case "check":
                check(options.folder)
            case "describe":
                print(beside_published(embedded.load(options.folder)).to_string(float_format="%.3f", na_rep="-"))
            case "stream":
                print(stream(options.folder, options.pairs, options.seed))
            case "calibrate":
                found = calibrate(options.pairs, options.seed)
                found.parameters.save(options.file)
                print(found, found.parameters, sep="\n")
    except DataError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.simulated_data", description="The simulated data, as files and as statistics."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, does in {
        "write": "write pairs, benchmark, tokenizer, config and their hashes",
        "check": "compare the files with their hashes and with what would be written now",
        "describe": "print the statistics of the pairs beside the published ones",
    }.items():
        command = commands.add_parser(name, help=does)
        command.add_argument("--folder", type=Path, default=embedded.default_folder(), help="default: data/embedded")
    command = commands.add_parser("stream", help="write any number of pairs, and nothing else, in constant memory")
    command.add_argument("--folder", type=Path, required=True)
    command.add_argument("--pairs", type=_count, required=True, help="to generate; repeats are left out and counted")
    command.add_argument("--seed", type=int, required=True, help=f"the embedded data have {embedded.SEED}")
    command = commands.add_parser("calibrate", help="fit the annotators to the published statistics, and print both")
    command.add_argument("--file", type=Path, default=PARAMETERS_FILE, help="default: the values that are in use")
    command.add_argument("--pairs", type=_count, default=FIT_PAIRS, help="default: %(default)s")
    command.add_argument("--seed", type=int, default=FIT_SEED, help="default: %(default)s")
    return parser


def _count(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
