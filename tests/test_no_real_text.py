"""Real annotations stay outside: no committed file holds eight words in a row of the real data.

Eight: shorter runs of ordinary English recur in unrelated texts (GPT-3's search for benchmark texts in training data
goes no lower for this reason; arXiv 2005.14165, appendix C), longer ones would miss what a table cut to 50 characters
shows of a sentence. Runs of numbers, of single letters and of repeated words say nothing and do not count.
"""

import contextlib
import csv
import gzip
import html
import io
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rmlib.pairs.shingles import Shingled, words_of

ROOT = Path(__file__).resolve().parents[1]
N_WORDS, N_DIFFERENT = 8, 6
DATA_SETS = ("helpsteer2", "ukpconvarg1", "llmbar", "judgebench", "rm_bench", "hhh_alignment", "xstest")
DATA_SUFFIXES = (".jsonl", ".json", ".csv", ".xml")
BINARY = {".png", ".pdf"}
IMAGES = re.compile(r"image/|application/pdf")
TAG = re.compile(r"<[^<>]{1,300}>")


def unpacked(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def strings(value: Any) -> Iterator[str]:
    """Every text inside a JSON value but encoded images; lines of a notebook's cell are one text."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and value and all(isinstance(entry, str) for entry in value):
        yield "\n".join(value)
    elif isinstance(value, list):
        for entry in value:
            yield from strings(entry)
    elif isinstance(value, dict):
        for key, entry in value.items():
            if not IMAGES.match(key):
                yield from strings(entry)


def texts_of(path: Path) -> list[str]:
    """The texts of a file as a reader sees them: JSON unescaped, HTML without tags; anything else whole."""
    content, name = unpacked(path), path.name.removesuffix(".gz")
    if path.suffix in BINARY or b"\0" in content:
        return []
    text = content.decode()
    if name.endswith(".jsonl"):
        found = [part for line in text.splitlines() for part in strings(json.loads(line))]
    elif name.endswith((".json", ".ipynb")):
        found = list(strings(json.loads(text)))
    elif name.endswith(".csv"):
        found = [cell for row in csv.reader(io.StringIO(text)) for cell in row]
    else:
        found = [text]
    # A blank for each tag, so that what was in two cells stays apart, and a second reading with the tags left in:
    # in a source "a < b" and "c > d" are no tag.
    return found + [html.unescape(TAG.sub(" ", part)) for part in found if "<" in part or "&" in part]


def real_texts(folder: Path) -> list[str]:
    files = [path for path in sorted(folder.rglob("*")) if path.name.removesuffix(".gz").endswith(DATA_SUFFIXES)]
    return [text for path in files for text in texts_of(path)]


def committed_files(root: Path) -> list[Path]:
    """What git knows or would add; every file where there is no git."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    names = listed.stdout.split("\0") if listed.returncode == 0 else []
    paths = [root / name for name in names if name] or sorted(root.rglob("*"))
    return [path for path in paths if path.is_file()]


def leaks(root: Path, real: list[str]) -> dict[str, str]:
    """By file, the first run of words that is also in a real text."""
    files = [(path, text) for path in committed_files(root) for text in texts_of(path)]
    ids, owner = Shingled.of(real + [text for _, text in files]).ngrams(N_WORDS)
    of_real = np.zeros(int(ids.max(initial=-1)) + 1, bool)
    of_real[ids[owner < len(real)]] = True
    ours = owner >= len(real)
    ids, owner = ids[ours], owner[ours] - len(real)
    found: dict[str, str] = {}
    for hit in np.flatnonzero(of_real[ids]):
        path, text = files[owner[hit]]
        start = hit - np.searchsorted(owner, owner[hit])
        run = words_of(text)[start : start + N_WORDS]
        if len({word for word in run if len(word) > 1 and word.isalpha()}) >= N_DIFFERENT:
            found.setdefault(path.relative_to(root).as_posix(), " ".join(run))
    return found


@pytest.fixture(scope="module")
def every_real_text(shared_data: Callable[[str], Path]) -> list[str]:
    """Of the data sets that are at hand; skips where there is none."""
    found: dict[str, None] = {}
    for name in DATA_SETS:
        with contextlib.suppress(pytest.skip.Exception):
            found |= dict.fromkeys(real_texts(shared_data(name)))
    if not found:
        pytest.skip(
            f"none of the real data {', '.join(DATA_SETS)}: set RMLIB_SHARED_DATA to the folder that holds them"
        )
    return list(found)


def test_no_committed_file_holds_text_of_real_annotations(every_real_text: list[str]) -> None:
    assert leaks(ROOT, every_real_text) == {}


SENTENCE = "The quiet heron counted seven boats before it wouldn't fly over the harbour & home."
OTHER = "No boats were counted before the heron flew home over seven quiet harbours."


def notebook(*outputs: dict[str, Any]) -> str:
    cell = {"cell_type": "code", "source": ["heron\n", "harbour"], "outputs": [{"data": data} for data in outputs]}
    return json.dumps({"cells": [cell]})


def planted(text: str) -> dict[str, str]:
    """File name and content, for each kind of file that could hold a text, and each way it could be written there."""
    rows = "".join(f"<td>{html.escape(word)}</td>" for word in text.split())
    return {
        "README.md": f"# Heron\n\nAs it says: {text.upper()}",
        "test_heron.py": f'HERON = (\n    "{text[:30]}"\n    "{text[30:]}"\n)',
        "record.jsonl": json.dumps({"outcome": [1, {"worst": [{"text": text}]}]}) + "\n",
        "table.csv": f'n,text\n1,"{text[:-3]}..."\n',
        "outputs.ipynb": notebook({"text/plain": ["0   ", f"{text}\n"]}),
        "html.ipynb": notebook({"text/html": [f"<b>1</b>{rows}"]}),
        "late.ipynb": notebook({"text/plain": ["heron " * 5000, text]}),
    }


@pytest.mark.parametrize("name", planted(SENTENCE))
def test_a_planted_sentence_is_found_in_every_kind_of_file(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(planted(SENTENCE)[name])
    (found,) = leaks(tmp_path, [OTHER, f"Before. {SENTENCE}"]).items()
    assert found[0] == name and found[1] in " ".join(words_of(SENTENCE))
    assert leaks(tmp_path, [OTHER]) == {}


def test_a_planted_sentence_is_found_in_a_packed_file_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "pairs.jsonl.gz").write_bytes(gzip.compress(json.dumps({"prompt": SENTENCE}).encode()))
    assert list(leaks(tmp_path, [SENTENCE])) == ["data/pairs.jsonl.gz"]


def test_only_what_git_knows_or_would_add_is_searched(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / ".gitignore").write_text("runs/\n")
    (tmp_path / "runs").mkdir()
    for name in ("runs/log.txt", "new.txt"):
        (tmp_path / name).write_text(SENTENCE)
    assert list(leaks(tmp_path, [SENTENCE])) == ["new.txt"]


def test_numbers_repeated_words_letters_and_encoded_images_are_no_text(tmp_path: Path) -> None:
    numbers, same, letters = " ".join(map(str, range(100))), "very " * 100, " ".join("abcdefghijklm")
    (tmp_path / "numbers.txt").write_text(numbers + same + letters)
    (tmp_path / "image.ipynb").write_text(notebook({"image/png": SENTENCE}))
    assert leaks(tmp_path, [numbers, same, letters, SENTENCE]) == {}


def test_texts_planted_from_the_real_data_are_found(every_real_text: list[str], tmp_path: Path) -> None:
    long = [text for text in every_real_text if len({word for word in words_of(text) if word.isalpha()}) > 3 * N_WORDS]
    chosen = np.random.default_rng(0).choice(len(long), size=5, replace=False)
    for number, index in enumerate(chosen):
        (tmp_path / f"record-{number}.jsonl").write_text(json.dumps({"shown": " ".join(long[index].split()[:12])}))
    assert len(leaks(tmp_path, [long[index] for index in chosen])) == len(chosen)
