"""Credits of items in records: what was packed comes out again, and takes one sign an item."""

import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmlib.benchmarks.packed import pack, unpack


def frame(**subsets: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        [(name, credit) for name, values in subsets.items() for credit in values], columns=["subset", "credit"]
    )


def test_right_and_wrong_are_one_and_zero_subset_by_subset() -> None:
    assert pack(frame(easy=[0, 1, 1], hard=[0])) == {"parts": 1, "subsets": {"easy": "011", "hard": "0"}}


def test_shared_credit_is_counted_in_the_fewest_parts() -> None:
    packed = pack(frame(best_of_4=[0, 0.25, 1 / 3, 0.5, 1]))
    assert packed == {"parts": 12, "subsets": {"best_of_4": "0346c"}}
    assert pack(frame(matrix=[k / 9 for k in range(10)]))["subsets"]["matrix"] == "0123456789"


def test_items_of_a_subset_that_stand_apart_come_together_in_order() -> None:
    table = pd.DataFrame({"subset": ["b", "a", "b"], "credit": [1.0, 0.0, 0.5]})
    assert pack(table)["subsets"] == {"b": "21", "a": "0"}
    assert unpack(pack(table))["subset"].tolist() == ["b", "b", "a"]


@given(
    st.lists(st.lists(st.sampled_from([k / n for n in (1, 4, 7, 9, 12) for k in range(n + 1)]), min_size=1), min_size=1)
)
def test_what_was_packed_comes_out_again(values: list[list[float]]) -> None:
    table = frame(**{f"s{i}": row for i, row in enumerate(values)})
    packed = json.loads(json.dumps(pack(table)))
    result = unpack(packed)
    assert result["subset"].tolist() == table["subset"].tolist()
    assert result["credit"].tolist() == pytest.approx(table["credit"].tolist(), abs=1e-4)
    if packed["parts"]:
        assert result["credit"].tolist() == pytest.approx(table["credit"].tolist(), abs=1e-9)


def test_any_other_credits_are_kept_to_four_digits() -> None:
    packed = pack(frame(conflicts=[0.123456, 3 / 37]))
    assert packed == {"parts": 0, "subsets": {"conflicts": [0.1235, 0.0811]}}


def test_credits_outside_0_to_1_are_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.\.1"):
        pack(frame(a=[1.5]))
    with pytest.raises(ValueError, match=r"0\.\.1"):
        pack(frame(a=[float("nan")]))
