"""Credits of items in records: what was packed comes out again, and takes one sign an item."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmlib.benchmarks.packed import pack, unpack

SHARES = st.sampled_from([k / n for n in (1, 4, 7, 9, 12) for k in range(n + 1)])


def frame(**subsets: list[float]) -> pd.DataFrame:
    rows = [(name, credit) for name, values in subsets.items() for credit in values]
    return pd.DataFrame(rows, columns=["subset", "credit"])


def credit(packed: dict) -> dict:
    return packed["columns"]["credit"]


def test_right_and_wrong_are_one_and_zero_subset_by_subset() -> None:
    packed = pack(frame(easy=[0, 1, 1], hard=[0]))
    assert packed == {"subsets": {"easy": 3, "hard": 1}, "columns": {"credit": {"parts": 1, "values": "0110"}}}


def test_shared_credit_is_counted_in_the_fewest_parts() -> None:
    assert credit(pack(frame(best_of_4=[0, 0.25, 1 / 3, 0.5, 1]))) == {"parts": 12, "values": "0346c"}
    assert credit(pack(frame(matrix=[k / 9 for k in range(10)])))["values"] == "0123456789"


def test_items_of_a_subset_that_stand_apart_come_together_in_order() -> None:
    table = pd.DataFrame({"subset": ["b", "a", "b"], "credit": [1.0, 0.0, 0.5]})
    assert credit(pack(table))["values"] == "210" and pack(table)["subsets"] == {"b": 2, "a": 1}
    assert unpack(pack(table))["subset"].tolist() == ["b", "b", "a"]


def test_skipped_items_keep_their_place_without_a_value() -> None:
    packed = pack(frame(a=[1, np.nan, 0]))
    assert credit(packed)["values"] == "1-0"
    np.testing.assert_array_equal(unpack(packed)["credit"], [1, np.nan, 0])


def test_groups_weights_and_further_columns_are_kept() -> None:
    table = frame(ties=[1, 0, 1]).assign(margin=[np.nan, -0.123456, 0.5], weight=[1, 1, 3], group=["q7", "q7", "q8"])
    result = unpack(json.loads(json.dumps(pack(table, ("credit", "margin")))))
    assert result["group"].tolist() == [0, 0, 1] and result["weight"].tolist() == [1, 1, 3]
    np.testing.assert_array_equal(result["margin"], [np.nan, -0.1235, 0.5])


@given(st.lists(st.lists(SHARES, min_size=1), min_size=1))
def test_what_was_packed_comes_out_again(values: list[list[float]]) -> None:
    table = frame(**{f"s{i}": row for i, row in enumerate(values)})
    packed = json.loads(json.dumps(pack(table)))
    result = unpack(packed)
    assert result["subset"].tolist() == table["subset"].tolist()
    exact = 1e-9 if credit(packed)["parts"] else 5e-5
    assert result["credit"].tolist() == pytest.approx(table["credit"].tolist(), abs=exact)


def test_any_other_credits_are_kept_to_four_digits() -> None:
    assert credit(pack(frame(conflicts=[0.123456, 3 / 37]))) == {"parts": 0, "values": [0.1235, 0.0811]}
