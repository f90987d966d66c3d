"""What jobs and runs are known by."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from motoko_core.study.identity import canonical

VALUES = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES, VALUES)
def test_identity_is_equality(one: Any, other: Any) -> None:
    assert (canonical(one) == canonical(other)) == (one == other)
