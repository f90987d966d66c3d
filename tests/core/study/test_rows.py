"""Rows give back what they were made of, and say of what they do not hold that they do not know it."""

from __future__ import annotations

import datetime
import gc
import threading
from typing import Any

import pytest
from persistent import Persistent
from ZODB.utils import u64

from motoko_core.study.plain_objects import Reference
from motoko_core.study.rows import Rows, Unknown


def rows_of(*values: dict[str, Any]) -> Rows:
    rows = Rows()
    for key, row in enumerate(values, 1):
        rows.put(key, rows.pack(b"oid%05d" % key, row.items()))
    return rows


def test_scalars_are_given_back() -> None:
    now = datetime.datetime(2026, 1, 1)
    values = {"id": 1, "x": 1.5, "state": "CREATED", "z": 1j, "done": True, "at": now, "none": None}
    rows = rows_of(values)
    assert dict(rows[1]) == values
    assert [type(value) for value in rows[1].values()] == [type(value) for value in values.values()]
    assert rows.oid(1) == b"oid00001"


def test_what_is_no_scalar_is_known_to_be_there() -> None:
    rows = rows_of({"id": 1, "y": [1], "motoko_failure": {"reason": "SIGNAL"}})
    assert dict(rows[1]) == {"id": 1}
    assert len(rows[1]) == 1
    assert rows.value(1, "y") is None
    get = rows.getter(1)
    assert get("id") == 1
    with pytest.raises(Unknown):
        get("y")
    with pytest.raises(KeyError):  # the run has no such entry: that is known
        get("z")


def test_of_two_values_with_one_name_the_later_counts() -> None:
    rows = Rows()
    rows.put(1, rows.pack(None, [("y", 1), ("x", 0), ("y", 2)]))
    assert dict(rows[1]) == {"y": 2, "x": 0}


def test_rows_that_are_not_there() -> None:
    rows = rows_of({"id": 1})
    assert rows.get(7) is None
    assert rows.value(7, "id") is None
    assert rows.value(1, "other") is None
    assert rows.oid(7) is None
    rows.drop(1)
    rows.drop(1)
    assert dict(rows) == {}


def test_tables_differ_in_rows_that_came_went_or_changed() -> None:
    one = rows_of({"id": 1, "x": 1}, {"id": 2}, {"id": 3}, {"id": 4, "y": [1], "z": {}})
    other = rows_of({"x": 1, "id": 1}, {"id": 2, "x": 1}, {"id": 3}, {"id": 4, "y": [2], "z": {}}, {"id": 5})
    assert one.differing(other) == {2, 4, 5}
    assert other.differing(one) == {2, 4, 5}
    assert one.is_other(2, one.pack(None, [("id", 2), ("x", 1)]))
    assert one.is_other(4, one.pack(None, [("id", 4), ("y", [2]), ("z", {})]))
    assert not one.is_other(4, one.pack(None, [("y", [1]), ("id", 4), ("z", {})]))
    assert not one.is_other(7, None)


class Linked(Persistent):
    def __reduce__(self) -> Any:
        raise AssertionError("it was looked into")


def test_another_object_of_the_database_is_not_looked_into() -> None:
    """It changes by itself, and all objects may hang on it."""
    one, other = Linked(), Linked()
    one._p_oid, other._p_oid = b"00000001", b"00000002"
    assert rows_of({"link": [one]}).differing(rows_of({"link": [other]})) == {1}
    assert rows_of({"link": [one]}).differing(rows_of({"link": [one]})) == set()
    in_a_file = Reference(u64(one._p_oid))
    assert rows_of({"link": [one]}).differing(rows_of({"link": [in_a_file]})) == set()


def test_what_pickle_refuses_is_no_obstacle() -> None:
    rows = rows_of({"id": 1, "mine": threading.Lock()})
    assert dict(rows[1]) == {"id": 1}


def test_a_name_with_many_values_does_not_fill_the_memory_twice() -> None:
    rows = rows_of(*({"run_path": f"/scratch/run-{i}", "state": "START"} for i in range(1000)))
    assert len(rows._strings["run_path"]) < 300
    assert rows.value(1000, "run_path") == "/scratch/run-999"


def test_rows_share_their_strings_and_are_no_business_of_the_collector() -> None:
    rows = rows_of(*({"id": i, "state": "".join(["STA", "RT"]), "y": [i]} for i in range(3)))
    gc.collect()
    assert not any(gc.is_tracked(stored) for stored in rows._stored.values())
    assert rows.value(1, "state") is rows.value(2, "state")
