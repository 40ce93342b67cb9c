"""Ways of attention beside each other: kernels of a GPU run there alone, what they are asked for is checked here."""

import numpy as np
import pytest
import tiny
import torch
import torch.nn.functional as F
from test_batches import random_groups
from transformers import LlamaConfig

from rmlib.models import RewardModel, attention, batches
from rmlib.models.attention import gpu


def states(n_tokens: int, seed: int = 0) -> list[torch.Tensor]:
    """Random queries of four heads, keys and values of two."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1, heads, n_tokens, 8, generator=generator) for heads in (4, 2, 2)]


def by_the_definition(query, key, value, query_bounds, key_bounds, *_, scale, window_size, enable_gqa=False):  # type: ignore[no-untyped-def]
    """Varlen attention, sequence by sequence: causal, the last query aligned with the last key."""
    assert window_size == (-1, 0)
    outputs = []
    for (q0, q1), (k0, k1) in zip(
        zip(query_bounds, query_bounds[1:], strict=False), zip(key_bounds, key_bounds[1:], strict=False), strict=True
    ):
        q, k, v = (part.transpose(0, 1)[None] for part in (query[q0:q1], key[k0:k1], value[k0:k1]))
        mask = torch.ones(q1 - q0, k1 - k0, dtype=torch.bool).tril(int((k1 - k0) - (q1 - q0)))
        outputs.append(F.scaled_dot_product_attention(q, k, v, mask, scale=scale, enable_gqa=True))
    return torch.cat([output[0].transpose(0, 1) for output in outputs])


@pytest.mark.parametrize("backend", ["flash", "varlen", "flex"])
def test_every_way_of_attention_computes_what_sdpa_by_segments_does(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "varlen_attn", by_the_definition)
    groups = random_groups(4)
    expected, other = (batches.collate_shared(groups, name).layout.everywhere for name in ("segments", backend))
    with torch.no_grad():  # FlexAttention has no backward pass on a CPU
        inputs = states(sum(item.n_tokens_shared for item in groups))
        torch.testing.assert_close(
            other.attend(*inputs, None, 0.0), expected.attend(*inputs, None, 0.0), atol=1e-5, rtol=1e-5
        )


def test_the_gradients_of_flash_attention_are_those_of_sdpa_under_the_whole_row_s_mask() -> None:
    groups = random_groups(3)
    row = batches.collate_shared(groups, "flash")
    n_tokens, start = row.input_ids.shape[1], 0
    sees = torch.zeros(n_tokens, n_tokens, dtype=torch.bool)
    for item in groups:
        prompt, start = slice(start, start + item.n_shared), start + item.n_shared
        sees[prompt, prompt] = torch.ones(item.n_shared, item.n_shared).tril().bool()
        for ids in item.ids:
            own = slice(start, start + len(ids) - item.n_shared)
            sees[own, prompt], start = True, own.stop
            sees[own, own] = torch.ones(own.stop - own.start, own.stop - own.start).tril().bool()
    inputs = [part.double().requires_grad_() for part in states(n_tokens)]
    weight = torch.randn(n_tokens, 4, 8, generator=torch.Generator().manual_seed(1)).double()
    flash = row.layout.everywhere.attend(*inputs, 0.3, 0.0)
    whole = F.scaled_dot_product_attention(*inputs, sees, scale=0.3, enable_gqa=True)[0].transpose(0, 1)
    torch.testing.assert_close(flash, whole)
    ours, expected = (torch.autograd.grad((output * weight).sum(), inputs) for output in (flash, whole))
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("backend", ["segments", "flash"])
def test_the_end_tokens_alone_attend_as_they_do_in_the_whole_row(backend: str) -> None:
    row = batches.collate_shared(random_groups(4), backend)
    inputs = states(row.input_ids.shape[1])
    whole, ends = (way.attend(*inputs, None, 0.0) for way in (row.layout.everywhere, row.layout.at_ends))
    torch.testing.assert_close(ends[row.ends], whole[row.ends], atol=1e-6, rtol=1e-5)
    assert torch.equal(row.layout.ends, row.ends) and ends.abs().sum() == ends[row.ends].abs().sum()


def test_wide_decoders_take_flash_attention_and_narrow_ones_stay_as_they_were() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    for wanted, config in (
        ("flash", LlamaConfig(hidden_size=128)),
        ("segments", LlamaConfig(hidden_size=64)),
        ("segments", LlamaConfig(hidden_size=128, attention_dropout=0.1)),
    ):
        assert attention.backend_for(cpu, config) == wanted
    assert attention.backend_for(cuda, LlamaConfig(hidden_size=32, num_attention_heads=4)) == "segments"  # 8 a head
    assert attention.backend_for(cuda, LlamaConfig(), half=True) == "varlen"
    assert attention.backend_for(cuda, LlamaConfig()) == "flex"


def test_an_unknown_way_of_attention_is_an_error() -> None:
    with pytest.raises(ValueError, match="known: segments, flash, varlen, flex"):
        attention.layout_of(np.array([[0, 3, 0, 0]]), 3, "slow")


def test_dropout_is_refused_where_the_kernel_has_none() -> None:
    groups = random_groups(4)
    for backend in ("flash", "varlen", "flex"):
        layout = batches.collate_shared(groups, backend).layout.everywhere
        with pytest.raises(NotImplementedError, match="dropout"):
            layout.attend(*states(sum(item.n_tokens_shared for item in groups)), None, 0.1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("precision", "backend", "tolerance"), [("bf16", "varlen", 5e-2), ("fp32", "flex", 1e-3)])
def test_on_a_gpu_rewards_and_gradients_are_those_of_padded_rows(
    precision: str, backend: str, tolerance: float, tmp_path
) -> None:  # type: ignore[no-untyped-def]
    model = RewardModel.create(tiny.save_backbone(tmp_path / "backbone", config={"hidden_size": 64})).cuda()
    groups = random_groups(4)
    model.check_layout(groups, precision)
    assert model.shared and model.attention == backend
    found = {}
    for shared in (True, False):
        model.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
            model(model.collate(groups, shared=shared)).square().sum().backward()
        found[shared] = torch.cat([weight.grad.flatten() for weight in model.parameters()])
    assert (found[True] - found[False]).norm() < tolerance * found[False].norm()
