"""What is read of a study from outside: records of runs and jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import attrs


@attrs.frozen
class Record:
    """A run or a job as it is stored.

    :param entries: its entries.
    :param attributes: what scripts have set on it, by names in lower case.
    """

    id: Any
    entries: Mapping[str, Any]
    attributes: Mapping[str, Any]
    _quantities: Callable[[], Mapping[str, Any]] = attrs.field(repr=False, eq=False)

    @property
    def quantities(self) -> Mapping[str, Any]:
        """Name of a quantity -> the file that its values are in; read when it is asked for."""
        return self._quantities()

    @property
    def values(self) -> dict[str, Any]:
        """All values, as constraints see them."""
        return {**self.attributes, **self.entries}


class Snapshot(Protocol):
    """All runs and jobs of a study as they were at one moment."""

    def runs(self) -> Iterator[Record]:
        """All runs, by id."""

    def job(self, job_id: Any) -> Record | None:
        """A job; None if there is none."""
