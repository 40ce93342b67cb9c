"""Batches: that the shared layout computes what the plain one does."""

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from transformers import AutoModel, BertConfig

from rmlib.models import attention, batches, tokens
from rmlib.models.attention import SHARED_PREFIX

USER = [{"role": "user", "content": "2+2?"}]


def random_groups(seed: int, n: int = 10) -> list[batches.Group]:
    """Groups of 1 to 4 responses with prompts of 0 to 40 tokens; every response differs in its first own token."""
    rng = np.random.default_rng(seed)
    groups = []
    for _ in range(n):
        prompt = rng.integers(10, 200, rng.integers(0, 40))
        own = [rng.integers(10, 200, rng.integers(1, 60)) for _ in range(rng.integers(1, 5))]
        rows = tuple(np.concatenate([prompt, [index], ids]) for index, ids in enumerate(own))
        groups.append(batches.Group(rows, batches.common_prefix(rows)))
    return groups


# --- groups and packing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "expected"),
    [([[1, 2, 3], [1, 2, 4]], 2), ([[1, 2], [1, 2, 3]], 1), ([[5], [6]], 0), ([[1, 2, 3], [1, 2, 3]], 2)],
)
def test_the_common_prefix_leaves_every_response_a_token_of_its_own(rows: list[list[int]], expected: int) -> None:
    assert batches.common_prefix([np.array(row) for row in rows]) == expected


def test_the_shared_part_is_found_on_tokens_so_responses_with_a_common_beginning_share_it_too() -> None:
    tokenizer = tiny.byte_tokenizer()
    encoded = tokens.encode_decoder(tokenizer, [USER, USER], ["yes it is", "yes, no"])
    (item,) = batches.group(encoded, [2])
    assert tokenizer.decode(item.ids[0][: item.n_shared]).endswith("<|assistant|>yes")
    assert item.n_tokens_shared == item.n_shared + len("it is") + 2 + len(", no") + 1


@pytest.mark.parametrize("shared", [True, False])
def test_packing_keeps_every_group_once_and_stays_within_the_budget(shared: bool) -> None:
    groups = random_groups(3, 50)
    packs = list(batches.pack(groups, 300, shared=shared))
    assert sorted(index for pack in packs for index in pack) == list(range(50))
    for pack in packs:
        rows = [groups[index] for index in pack]
        padded = sum(len(item.ids) for item in rows) * max(item.longest for item in rows)
        n_tokens = sum(item.n_tokens_shared for item in rows) if shared else padded
        assert n_tokens <= 300 or len(pack) == 1


def test_a_packed_row_counts_positions_on_from_the_prompt_and_ends_at_each_last_token() -> None:
    rows = (np.array([7, 7, 1]), np.array([7, 7, 2, 3]))
    batch = batches.collate_shared([batches.Group(rows, 2), batches.Group((np.array([9]),), 0)])
    assert batch.input_ids.tolist() == [[7, 7, 1, 2, 3, 9]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 2, 3, 0]]
    assert batch.ends.tolist() == [2, 4, 5]


# --- the shared layout against the plain one --------------------------------------------------------------------------


def hidden_states(backbone: torch.nn.Module, groups: list[batches.Group], layout: str) -> torch.Tensor:
    """At the end tokens; `layout` is a way of attention over a shared row, or "padded"."""
    if layout in attention.BACKENDS:
        row = batches.collate_shared(groups, layout)
        output = backbone(
            input_ids=row.input_ids,
            position_ids=row.position_ids,
            attention_mask=torch.zeros(1, 1, 1, 1),
            segments=row.layout.everywhere,
            use_cache=False,
        )
        return output.last_hidden_state[0][row.ends]
    padded = batches.collate_padded(groups)
    output = backbone(input_ids=padded.input_ids, attention_mask=padded.attention_mask, use_cache=False)
    return output.last_hidden_state[torch.arange(len(padded.ends)), padded.ends]


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("backend", ["segments", "flash"])
def test_shared_and_plain_layouts_give_the_same_states_and_gradients(
    kind: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "CALL_OVERHEAD", 200)  # several chunks even for small groups
    torch.manual_seed(0)
    backbone = AutoModel.from_config(tiny.CONFIGS[kind](), attn_implementation=SHARED_PREFIX)
    groups = random_groups(0)
    weight = torch.randn(32, generator=torch.Generator().manual_seed(1))
    states, gradients = {}, {}
    for layout in (backend, "padded"):
        states[layout] = hidden_states(backbone, groups, layout) @ weight
        gradients[layout] = torch.autograd.grad(states[layout].square().sum(), list(backbone.parameters()))
    assert (states[backend] - states["padded"]).abs().max() < 1e-5
    for ours, plain in zip(gradients[backend], gradients["padded"], strict=True):
        assert (ours - plain).norm() <= 1e-4 * plain.norm() + 1e-7


@pytest.mark.parametrize("backend", ["segments", "flash"])
def test_no_token_of_one_group_or_response_changes_another(backend: str) -> None:
    torch.manual_seed(0)
    backbone = AutoModel.from_config(tiny.CONFIGS["llama"](), attn_implementation=SHARED_PREFIX)
    groups = random_groups(5)
    whole = hidden_states(backbone, groups, backend)
    alone = torch.cat([hidden_states(backbone, [item], backend) for item in groups])
    single = torch.cat(
        [hidden_states(backbone, [batches.Group((row,), 0)], backend) for item in groups for row in item.ids]
    )
    torch.testing.assert_close(whole, alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(whole, single, atol=1e-5, rtol=0)


def test_chunks_hold_every_token_once_and_show_each_response_its_prompt_and_itself() -> None:
    groups = random_groups(7)
    batch = batches.collate_shared(groups)
    outputs = [chunk.query.flatten() for chunk in batch.layout.everywhere.chunks]
    assert torch.equal(torch.cat(outputs)[batch.layout.everywhere.order], torch.arange(batch.input_ids.shape[1]))
    seen: dict[int, set[int]] = {}
    for chunk in batch.layout.everywhere.chunks:
        size, width = chunk.query.shape
        mask = torch.ones(width, width).tril().bool().expand(size, 1, -1, -1) if chunk.mask is None else chunk.mask
        for row in range(size):
            for column in range(width):
                seen.setdefault(int(chunk.query[row, column]), set(chunk.key[row][mask[row, 0, column]].tolist()))
    offset = 0
    for item in groups:
        prompt = list(range(offset, offset + item.n_shared))
        assert all(seen[token] == set(range(offset, token + 1)) for token in prompt)
        offset += item.n_shared
        for row in item.ids:
            own = range(offset, offset + len(row) - item.n_shared)
            assert all(seen[token] == {*prompt, *range(offset, token + 1)} for token in own)
            offset += len(own)


def test_padding_of_an_encoder_keeps_its_segment_ids_aligned() -> None:
    encoded = tokens.encode_encoder(tiny.byte_tokenizer(), [USER, USER], ["1", "123"], 64)
    batch = batches.collate_padded(batches.group(encoded, [2]))
    assert batch.attention_mask.sum(1).tolist() == [5, 7] and batch.ends.tolist() == [4, 6]
    assert batch.token_type_ids is not None and batch.token_type_ids.shape == batch.input_ids.shape


def test_a_layer_that_keeps_the_segments_from_its_attention_takes_padded_rows_and_never_a_shared_one() -> None:
    from rmlib.models.attention import SegmentsLost
    from rmlib.models.backbones import prepare_attention, shares_prefix

    backbone = AutoModel.from_config(tiny.CONFIGS["nemotron"]())
    prepare_attention(backbone)
    numbers = torch.get_rng_state()
    assert shares_prefix(backbone, 64)[1] == (
        "padded rows: layers of nemotron do not hand on to attention what they are called with"
    )
    assert torch.equal(torch.get_rng_state(), numbers)
    row = batches.collate_shared([batches.Group((np.arange(5), np.arange(4)), 3)])
    with pytest.raises(SegmentsLost, match="NemotronAttention is not given the segments"):
        backbone(**batches.inputs_of(row, backbone.config), use_cache=False)


def test_an_encoder_never_takes_the_shared_layout(tmp_path: Path) -> None:
    from rmlib.models.backbones import shares_prefix

    possible, reason = shares_prefix(AutoModel.from_config(tiny.CONFIGS["bert"]()), 64)
    assert not possible and "encoder" in reason
    assert isinstance(tiny.CONFIGS["bert"](), BertConfig)
