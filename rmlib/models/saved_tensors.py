"""Combining saved models on disk, tensor by tensor: the memory needed does not grow with the model.

A folder holds a model as transformers or `RewardModel.save` write it: `model.safetensors`, or shards with their index,
and beside them the head of a reward model. What is written has the layout of the last folder given.
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rmlib.models.interface import ModelError
from rmlib.models.reward_model import ADAPTER_FOLDER, CARD_FILE, HEAD_FILE, read_card
from rmlib.records.files import written_whole

Combine = Callable[[Sequence[Tensor]], Tensor]
Origin = Callable[[Sequence[str]], str]  # from the identities of models to that of their combination
Kinds = dict[str, tuple[str, tuple[int, ...]]]  # dtype and shape of each tensor

INDEX_FILE, WEIGHTS_FILE = "model.safetensors.index.json", "model.safetensors"
# Config, tokenizer, template and index; never weights in another format, which would be those of one model alone.
COPIED = (".json", ".txt", ".model", ".jinja", ".py")
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class SavedTensors:
    """Where each tensor of a saved model lies, with its dtype (as safetensors names it) and shape."""

    folder: Path
    files: dict[str, Path]
    kinds: Kinds

    @classmethod
    def read(cls, folder: Path) -> SavedTensors:
        """From headers alone. Raises ModelError for an adapter, a shard that is missing or broken, or no tensors."""
        if (folder / ADAPTER_FOLDER).is_dir() or (folder / "adapter_config.json").is_file():
            raise ModelError(f"{folder.name} holds an adapter: load the models and combine them in memory")
        index, shards = {}, [WEIGHTS_FILE]
        if (folder / INDEX_FILE).is_file():
            index = json.loads((folder / INDEX_FILE).read_text())["weight_map"]
            shards = sorted(set(index.values()))
            if missing := [name for name in shards if not (folder / name).is_file()]:
                raise ModelError(f"{folder.name} lacks {len(missing)} of {len(shards)} shards, e.g. {missing[0]}")
        paths = [folder / name for name in [*shards, HEAD_FILE] if (folder / name).is_file()]
        if not paths:
            raise ModelError(f"{folder.name} holds no safetensors: neither {WEIGHTS_FILE} nor {INDEX_FILE}")
        files: dict[str, Path] = {}
        kinds: Kinds = {}
        for path in paths:
            for name, kind in _header(path).items():
                key = f"head.{name}" if path.name == HEAD_FILE else name
                files[key], kinds[key] = path, (kind["dtype"], tuple(kind["shape"]))
        if wrong := sorted(name for name, shard in index.items() if files.get(name) != folder / shard):
            raise ModelError(f"{folder.name}: {len(wrong)} tensors are not in the shard of the index, e.g. {wrong[0]}")
        return cls(folder, files, kinds)

    def tensor(self, key: str) -> Tensor:
        with safe_open(self.files[key], framework="pt") as file:
            name = key.removeprefix("head.") if self.files[key].name == HEAD_FILE else key
            return file.get_tensor(name)


def write_combined(folders: Sequence[Path], combine: Combine, target: Path, *, origin: Origin) -> Path:
    """Write to `target` the model whose tensors are `combine` of those of the folders, in the last one's layout.

    Floating-point tensors are combined in fp32 (fp64 where stored so) and written in their dtype; others must be equal.
    `origin` gives the new identity from those of the models. The folder appears under its name when it is complete.
    Raises ModelError, before anything is written, where `target` exists or the tensors differ in name, shape or dtype.
    """
    if target.exists():
        raise ModelError(f"{target.name} exists already: name another folder, or remove that one")
    models = [SavedTensors.read(folder) for folder in folders]
    for model in models[:-1]:
        refuse_differences(model.folder.name, model.kinds, models[-1].folder.name, models[-1].kinds)
    card = _combined_card(folders, origin)
    with written_whole(target) as unfinished:
        unfinished.mkdir()
        for source in sorted(set(models[-1].files.values())):
            with (unfinished / source.name).open("wb") as out:
                _write_file(out, source, models, combine)
        for path in folders[-1].iterdir():
            if path.is_file() and path.suffix in COPIED:
                shutil.copy2(path, unfinished / path.name)
        if card:
            (unfinished / CARD_FILE).write_text(json.dumps(card, indent=1) + "\n")
    return target


def combined(tensors: Sequence[Tensor], combine: Combine, name: str) -> Tensor:
    """`combine` of a parameter's values in several models, in fp32 at least, in its own dtype.

    Raises ModelError where integers, which stand for positions or codes of a quantised weight, differ.
    """
    dtype = tensors[-1].dtype
    if dtype in FLOATS:
        return combine([tensor.to(torch.promote_types(dtype, torch.float32)) for tensor in tensors]).to(dtype)
    if all(torch.equal(tensor, tensors[-1]) for tensor in tensors):
        return tensors[-1]
    raise ModelError(f"{name} is stored as {dtype} and differs: quantised weights cannot be combined; dequantise them")


def _write_file(out: BinaryIO, source: Path, models: Sequence[SavedTensors], combine: Combine) -> None:
    """One safetensors file: names, dtypes, shapes, and so the header, are those of `source`; then value by value."""
    out.write(_header_bytes(source))
    entries = sorted(_header(source).items(), key=lambda entry: entry[1]["data_offsets"])
    for name, _ in entries:
        key = f"head.{name}" if source.name == HEAD_FILE else name
        tensor = combined([model.tensor(key) for model in models], combine, key)
        # A view of the bytes, since numpy has no bf16.
        out.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)


def _header_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        length = file.read(8)
        return length + file.read(struct.unpack("<Q", length)[0])


def _header(path: Path) -> dict[str, dict[str, Any]]:
    """Dtype, shape and offsets of each tensor; ModelError for a file that is no safetensors file or was cut short."""
    try:
        with safe_open(path, framework="pt"):  # checks that the header is sound and the data are all there
            header: dict[str, dict[str, Any]] = json.loads(_header_bytes(path)[8:])
    except SafetensorError as error:
        raise ModelError(f"{path.parent.name}/{path.name} cannot be read ({error}): fetch or write it again") from error
    header.pop("__metadata__", None)
    return header


def refuse_differences(first: str, old: Kinds, second: str, new: Kinds) -> None:
    """Raise ModelError where the tensors of two models of these names differ in name, shape or dtype."""
    names = f"{first} and {second}"
    if apart := sorted(old.keys() ^ new.keys()):
        holder = first if apart[0] in old else second
        raise ModelError(f"{names}: {len(apart)} tensors are in one alone, e.g. {apart[0]} in {holder}")
    for part, what in ((1, "shape"), (0, "dtype")):
        if differing := sorted(name for name in old if old[name][part] != new[name][part]):
            values = f"{old[differing[0]][part]} and {new[differing[0]][part]}"
            raise ModelError(f"{names}: {len(differing)} tensors differ in {what}, e.g. {differing[0]}: {values}")


def _combined_card(folders: Sequence[Path], origin: Origin) -> dict[str, Any]:
    """The card of the new model; empty where the folders hold plain transformers models, which have none."""
    found = [folder.name for folder in folders if (folder / CARD_FILE).is_file()]
    if not found:
        return {}
    if len(found) < len(folders):
        raise ModelError(f"only {found} are reward models with a {CARD_FILE}")
    cards = [read_card(folder) for folder in folders]
    if any(card["attributes"] != cards[-1]["attributes"] for card in cards):
        raise ModelError(f"attributes differ: {' and '.join(str(tuple(card['attributes'])) for card in cards)}")
    bodies = {card["body_identity"] for card in cards}
    if len(bodies) > 1 and not any((folders[-1] / name).is_file() for name in (INDEX_FILE, WEIGHTS_FILE)):
        raise ModelError(f"the folders hold heads alone, of different backbones: {sorted(bodies)}")
    identity = origin([card["identity"] for card in cards])
    body = cards[-1]["body_identity"] if len(bodies) == 1 else identity
    return cards[-1] | {"identity": identity, "body_identity": body}
