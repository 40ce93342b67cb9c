"""Credits of items in records: what was packed comes out again, item by item."""

import json

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from rmlib.benchmarks.recording import pack, unpack


def frame(**subsets: list[float]) -> pd.DataFrame:
    rows = [(name, credit) for name, values in subsets.items() for credit in values]
    return pd.DataFrame(rows, columns=["subset", "credit"])


def test_right_and_wrong_are_one_and_zero_subset_by_subset() -> None:
    packed = pack(frame(easy=[0, 1, 1], hard=[0]))
    assert json.dumps(packed) == '{"subsets": {"easy": 3, "hard": 1}, "columns": {"credit": [0, 1, 1, 0]}}'


def test_items_of_a_subset_that_stand_apart_come_together_in_order() -> None:
    table = pd.DataFrame({"subset": ["b", "a", "b"], "credit": [1.0, 0.0, 0.5]})
    assert pack(table) == {"subsets": {"b": 2, "a": 1}, "columns": {"credit": [1, 0.5, 0]}}
    assert unpack(pack(table))["subset"].tolist() == ["b", "b", "a"]


def test_skipped_items_keep_their_place_without_a_value() -> None:
    packed = pack(frame(a=[1, np.nan, 0]))
    assert packed["columns"]["credit"] == [1, None, 0]
    np.testing.assert_array_equal(unpack(packed)["credit"], [1, np.nan, 0])


def test_groups_weights_and_further_columns_are_kept() -> None:
    table = frame(ties=[1, 0, 1]).assign(margin=[np.nan, -0.123456, 0.5], weight=[1, 1, 3], group=["q7", "q7", "q8"])
    result = unpack(json.loads(json.dumps(pack(table, ("credit", "margin")))))
    assert result["group"].tolist() == [0, 0, 1] and result["weight"].tolist() == [1, 1, 3]
    np.testing.assert_array_equal(result["margin"], [np.nan, -0.123456, 0.5])


@given(st.lists(st.lists(st.floats(0, 1), min_size=1), min_size=1))
def test_what_was_packed_comes_out_again_to_the_bit(values: list[list[float]]) -> None:
    table = frame(**{f"s{i}": row for i, row in enumerate(values)})
    result = unpack(json.loads(json.dumps(pack(table))))
    pd.testing.assert_frame_equal(result, table, check_exact=True, check_dtype=False)
