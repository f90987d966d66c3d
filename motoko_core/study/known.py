"""What the index knows of tasks that a session goes through, so that they need not be read.

A task is four objects of the database. In a connection's memory there are some thousands of them, and reading
the others costs a hundred times as much as what most code wants to know of a task: its state, a parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from BlackDynamite.job import JobZEO
from BlackDynamite.run_zeo import RunZEO

from motoko_core.study import blackdynamite as bd
from motoko_core.study.rows import Unknown
from motoko_core.study.values import is_value, prefetch

if TYPE_CHECKING:
    from motoko_core.config import StudyConfig
    from motoko_core.study.connection import SpillingConnection

Pair = tuple[Any, Any]
Get = Callable[[str], Any]


class AnsweredNames:
    """The names that objects and index give the same for: entries, which no attribute and no method hides."""

    def __init__(self, config: StudyConfig) -> None:
        self.runs = _unhidden({**bd.RUN_TYPES, **bd.MOTOKO_TYPES}, RunZEO)
        self.jobs = _unhidden({**bd.JOB_TYPES, **config.job}, JobZEO)


def _unhidden(names: Mapping[str, Any], kind: type) -> frozenset[str]:
    # (`job.key_x` is the entry x to BlackDynamite.)
    return frozenset(
        name for name in names if is_value(name) and not name.startswith("key_") and not hasattr(kind, name)
    )


class Portion:
    """Tasks that are read together, once the index does not say of one of them what somebody asks.

    :param names: what the index may answer.
    """

    def __init__(self, connection: SpillingConnection, names: AnsweredNames) -> None:
        self._connection = connection
        self._view = connection.view
        self._names = names
        # Weak, because whoever keeps one task does not keep the others.
        self._unread: tuple[WeakSet[Any], WeakSet[Any]] = WeakSet(), WeakSet()

    def add(self, pair: Pair, run: Get | None, job: Get | None) -> tuple[Get, Get]:
        """Add a task.

        :param run: looks up values of the run in the index; None if they may differ. So does ``job``.
        :returns: how to ask for values of the run and of the job; KeyError for those that must be read.
        """
        for objects, obj in zip(self._unread, pair, strict=True):
            objects.add(obj)
        return self._asking(run, self._names.runs), self._asking(job, self._names.jobs)

    def _asking(self, get: Get | None, names: frozenset[str]) -> Get:
        def ask(name: str) -> Any:
            if get is not None and name in names and self._connection.view == self._view:
                try:
                    return get(name)
                except (Unknown, KeyError):
                    pass
            self._read()
            raise KeyError(name)

        return ask

    def _read(self) -> None:
        for objects in self._unread:
            prefetch(self._connection, [*objects], "entries")
            objects.clear()
