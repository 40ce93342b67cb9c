"""Combining saved models on disk: equal to combining them in memory, in any sharding and dtype, or a named error."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from rmlib.combining import PAPER_FACTOR, extrapolate
from rmlib.models import ModelError, RewardModel
from rmlib.models.saved_tensors import INDEX_FILE

PROMPTS, RESPONSES = [[{"role": "user", "content": "q"}]] * 3, ["one", "two", "three"]


def made(folder: Path, seed: int, **options: object) -> tuple[RewardModel, Path]:
    """A reward model with a backbone of its own, and the folder that it is saved in."""
    model = RewardModel.create(tiny.save_backbone(folder / f"backbone-{seed}", seed=seed), seed=seed, **options)
    model.body_identity = f"trained-{seed}"  # what training does: the weights are no longer the published ones
    model.save(folder / f"model-{seed}")
    return model, folder / f"model-{seed}"


def shard(folder: Path, n_shards: int) -> None:
    """Spread the backbone's file over shards with an index, as transformers does with a large model."""
    tensors = load_file(folder / "model.safetensors")
    weight_map = {}
    for number in range(n_shards):
        file = f"model-{number + 1:05d}-of-{n_shards:05d}.safetensors"
        names = sorted(tensors)[number::n_shards]
        save_file({name: tensors[name] for name in names}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
    (folder / "model.safetensors").unlink()
    (folder / INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@pytest.mark.parametrize("shards", [(1, 1), (3, 3), (3, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_folders_extrapolate_to_the_bits_of_the_models_in_memory(
    tmp_path: Path, shards: tuple[int, int], dtype: torch.dtype
) -> None:
    (weak, one), (strong, two) = (made(tmp_path, seed, dtype=dtype) for seed in (0, 1))
    for folder, n_shards in zip((one, two), shards, strict=True):
        if n_shards > 1:
            shard(folder, n_shards)
    target = extrapolate(one, two, PAPER_FACTOR, tmp_path / "far")
    assert {file.name for file in target.iterdir()} == {file.name for file in two.iterdir()}
    expected = extrapolate(weak, strong, PAPER_FACTOR)
    stored = {name: tensor for file in target.glob("model*.safetensors") for name, tensor in load_file(file).items()}
    for name, value in expected.backbone.state_dict().items():
        assert stored[name].dtype == dtype and torch.equal(stored[name], value), name
    found = RewardModel.load(target)
    assert (found.identity, found.body_identity) == (expected.identity, expected.body_identity)
    assert torch.equal(found.head.weight, expected.head.weight) and torch.equal(found.head.bias, expected.head.bias)
    if dtype == torch.float32:
        np.testing.assert_array_equal(found.score(PROMPTS, RESPONSES), expected.score(PROMPTS, RESPONSES))


def test_half_precision_weights_are_combined_in_fp32_and_rounded_once(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    weak, strong = (torch.randn(1000, generator=generator).to(torch.bfloat16) for _ in range(2))
    for name, weights in {"weak": weak, "strong": strong}.items():
        (tmp_path / name).mkdir()
        save_file({"w": weights}, tmp_path / name / "model.safetensors")
    target = extrapolate(tmp_path / "weak", tmp_path / "strong", 1.52, tmp_path / "far")
    found = load_file(target / "model.safetensors")["w"]
    exact = weak.double() + 1.52 * (strong.double() - weak.double())
    assert torch.equal(found, exact.to(torch.bfloat16))
    in_halves = weak + 1.52 * (strong - weak)  # what arithmetic in bf16 would have given
    assert (in_halves != found).float().mean() > 0.1


def test_an_interrupted_write_leaves_nothing_under_the_final_name_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (_, weak), (_, strong) = (made(tmp_path, seed) for seed in (0, 1))
    seen = []

    def dies(file: object, source: Path, *arguments: object) -> None:
        seen.append(source)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("rmlib.models.saved_tensors._write_file", dies)
        with pytest.raises(KeyboardInterrupt):
            extrapolate(weak, strong, 1.5, tmp_path / "far")
    assert not (tmp_path / "far").exists()
    RewardModel.load(extrapolate(weak, strong, 1.5, tmp_path / "far"))
    assert not list(tmp_path.glob(".*"))


def test_a_folder_that_exists_is_never_written_to(tmp_path: Path) -> None:
    (_, weak), (_, strong) = (made(tmp_path, seed) for seed in (0, 1))
    with pytest.raises(ModelError, match="model-1 exists already"):
        extrapolate(weak, strong, 1.5, strong)


@pytest.fixture
def plain(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders with the same few tensors and nothing else."""
    for name in ("weak", "strong"):
        (tmp_path / name).mkdir()
        save_file({"a": torch.ones(2, 3), "b": torch.zeros(4)}, tmp_path / name / "model.safetensors")
    return tmp_path / "weak", tmp_path / "strong"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a": torch.ones(2, 3)}, "1 tensors are in one alone, e.g. b in strong"),
        ({"a": torch.ones(2, 3), "b": torch.zeros(4), "c": torch.ones(1)}, "e.g. c in weak"),
        ({"a": torch.ones(3, 2), "b": torch.zeros(4)}, r"differ in shape, e.g. a: \(3, 2\) and \(2, 3\)"),
        ({"a": torch.ones(2, 3).half(), "b": torch.zeros(4)}, "differ in dtype, e.g. a: F16 and F32"),
    ],
)
def test_tensors_that_do_not_fit_are_named_and_nothing_is_written(
    plain: tuple[Path, Path], tensors: dict[str, torch.Tensor], message: str
) -> None:
    weak, strong = plain
    save_file(tensors, weak / "model.safetensors")
    with pytest.raises(ModelError, match=message):
        extrapolate(weak, strong, 1.5, weak.parent / "far")
    assert sorted(path.name for path in weak.parent.iterdir()) == ["strong", "weak"]


def test_equal_integers_are_kept_and_codes_of_quantised_weights_are_refused(plain: tuple[Path, Path]) -> None:
    weak, strong = plain
    for folder, codes in ((weak, [1, 2]), (strong, [1, 2])):
        save_file({"codes": torch.tensor(codes, dtype=torch.uint8)}, folder / "model.safetensors")
    target = extrapolate(weak, strong, 1.5, weak.parent / "kept")
    assert load_file(target / "model.safetensors")["codes"].tolist() == [1, 2]
    save_file({"codes": torch.tensor([9, 2], dtype=torch.uint8)}, weak / "model.safetensors")
    with pytest.raises(ModelError, match="codes is stored as torch.uint8 and differs: quantised"):
        extrapolate(weak, strong, 1.5, weak.parent / "far")
    assert not (weak.parent / "far").exists()


def test_a_missing_shard_a_broken_file_an_adapter_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    (_, weak), (_, strong) = (made(tmp_path, seed) for seed in (0, 1))
    shard(weak, 3)
    second = weak / "model-00002-of-00003.safetensors"
    content = second.read_bytes()
    second.write_bytes(content[:-10])
    with pytest.raises(ModelError, match=r"model-00002-of-00003.safetensors cannot be read"):
        extrapolate(weak, strong, 1.5, tmp_path / "far")
    second.unlink()
    with pytest.raises(ModelError, match="lacks 1 of 3 shards, e.g. model-00002-of-00003.safetensors"):
        extrapolate(weak, strong, 1.5, tmp_path / "far")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="empty holds no safetensors"):
        extrapolate(tmp_path / "empty", strong, 1.5, tmp_path / "far")
    (strong / "adapter").mkdir()
    with pytest.raises(ModelError, match="holds an adapter"):
        extrapolate(strong, strong, 1.5, tmp_path / "far")


def test_a_tensor_outside_the_shard_that_the_index_names_is_refused(tmp_path: Path) -> None:
    (_, weak), (_, strong) = (made(tmp_path, seed) for seed in (0, 1))
    shard(weak, 2)
    index = json.loads((weak / INDEX_FILE).read_text())
    name = next(iter(index["weight_map"]))
    index["weight_map"]["gone." + name] = index["weight_map"][name]
    (weak / INDEX_FILE).write_text(json.dumps(index))
    with pytest.raises(ModelError, match=f"1 tensors are not in the shard of the index, e.g. gone.{name}"):
        extrapolate(weak, strong, 1.5, tmp_path / "far")


def test_heads_on_the_same_published_backbone_need_no_backbone_file_and_other_backbones_are_refused(
    tmp_path: Path,
) -> None:
    backbone = tiny.save_backbone(tmp_path / "published")
    models = [RewardModel.create(backbone, seed=seed) for seed in (0, 1)]
    for seed, model in enumerate(models):
        model.save(tmp_path / str(seed))
    target = extrapolate(tmp_path / "0", tmp_path / "1", 1.5, tmp_path / "far")
    expected = extrapolate(models[0], models[1], 1.5)
    found = RewardModel.load(target)
    assert found.body_identity == backbone and torch.equal(found.head.weight, expected.head.weight)
    RewardModel.create(tiny.save_backbone(tmp_path / "other", seed=1)).save(tmp_path / "2")
    with pytest.raises(ModelError, match="heads alone, of different backbones"):
        extrapolate(tmp_path / "0", tmp_path / "2", 1.5, tmp_path / "again")


def test_written_files_are_sound_for_safetensors_with_the_metadata_that_transformers_reads(tmp_path: Path) -> None:
    (_, weak), (_, strong) = (made(tmp_path, seed) for seed in (0, 1))
    target = extrapolate(weak, strong, 1.5, tmp_path / "far")
    with (
        safe_open(target / "model.safetensors", "pt") as new,
        safe_open(strong / "model.safetensors", "pt") as old,
    ):
        assert new.metadata() == old.metadata() and set(new.keys()) == set(old.keys())
