"""Objects read without ZODB: what is kept of them, and what is understood."""

from __future__ import annotations

import io
import pickle

import pytest

from motoko_core.study.plain_objects import RUN, Reference, Unexpected, _kept_record, plain_record, unpickled

#: How a run begins, as it is stored: its class.
HEAD = b"\x80\x03c" + "\n".join(RUN).encode() + b"\nq\x00."


def record(**attributes: object) -> bytes:
    """A run with attributes, as it is stored."""
    return HEAD + pickle.dumps(attributes, 3)


def test_a_run_that_scripts_have_made_large_is_not_kept() -> None:
    before = _kept_record.cache_info().currsize
    assert len(plain_record(record(field="x" * 100_000)).attributes["field"]) == 100_000
    assert _kept_record.cache_info().currsize == before
    small = record(mark=1)
    assert plain_record(small) is plain_record(small)


class Link:
    def __init__(self, link: object) -> None:
        self.link = link


class Pickler(pickle.Pickler):
    def persistent_id(self, obj: object) -> object:
        return obj.link if isinstance(obj, Link) else None


def with_link(link: object) -> bytes:
    """A run that consists of a link to another object."""
    stream = io.BytesIO()
    Pickler(stream, 3).dump([Link(link)])
    return HEAD + stream.getvalue()


def test_a_link_is_understood_with_and_without_the_class_of_the_other_object() -> None:
    oid = (7).to_bytes(8, "big")
    for link in (oid, (oid, RUN)):
        _, (found,), links = unpickled(with_link(link))
        assert isinstance(found, Reference)
        assert (found.oid, links) == (7, 1)
    with pytest.raises(Unexpected, match="the link"):
        unpickled(with_link(["w", (oid,)]))
