"""What ``createTask`` and ``select`` give: tasks that can be looked at and awaited."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from motoko_core.entries import identity_of, stored_failure
from motoko_core.errors import RunFailed, TaskError
from motoko_core.session import Session, current_session
from motoko_core.states import is_active, is_failure
from motoko_core.study.feed import SAFETY_S, feed_of
from motoko_core.study.known import Get
from motoko_core.study.long_list import LongList
from motoko_core.study.query import Query

if TYPE_CHECKING:
    import pandas

    from motoko_core.task_manager import TaskManager

#: How many failed tasks are described one by one.
_DESCRIBED = 10

Task: TypeAlias = tuple[Any, Any]
Constraints: TypeAlias = "str | Iterable[str] | None"


def hand_out(
    task_manager: TaskManager,
    pair: Task,
    run_id: int | None = None,
    known: tuple[Get | None, Get | None] = (None, None),
) -> Task:
    """Give a run and its job to user code, bound to the current session.

    :param run_id: with it, the run need not be read from the database.
    :param known: how to ask for values of the run, and of the job, that need not be read either.
    """
    session = current_session()
    run, job = pair
    reference = f"{task_manager.study}.{run.entries['id'] if run_id is None else run_id}"
    return (
        session.hand_out(run, reference, known[0]),
        session.hand_out(job, f"the job of {reference}", known[1]),
    )


@contextmanager
def _waiting(session: Session, what: str) -> Iterator[None]:
    session.waiting.append(what)
    try:
        yield
    finally:
        session.waiting.remove(what)


def describe_failure(task_manager: TaskManager, run: Any) -> str:
    """One line on a failed run, and the end of its standard error."""
    entries = run.entries
    failure = stored_failure(entries)
    text = f"{task_manager.study}.{entries['id']} is {entries.get('state')}"
    if failure.get("reason"):
        code = failure.get("exit_code")
        text += f" ({failure['reason']}" + (f", exit code {code}" if code is not None else "") + ")"
    if entries.get("run_path"):
        text += f" in {entries['run_path']}"
    tail = (failure.get("stderr") or "").strip()
    return text + (":\n    " + "\n    ".join(tail.splitlines()[-8:]) if tail else "")


def describe_failures(failed: Sequence[tuple[TaskManager, Any]]) -> str:
    """Lines on failed runs, ten at most, and how many more there are."""
    lines = [describe_failure(manager, run) for manager, run in failed[:_DESCRIBED]]
    if len(failed) > _DESCRIBED:
        lines.append(f"and {len(failed) - _DESCRIBED} more")
    return "\n  ".join(lines)


class RunList(Sequence[Task]):
    """Tasks in a fixed order: a sequence of ``(run, job)`` pairs that can be awaited.

    Awaiting commits, waits until every run is done, begins a new transaction, and gives the list of pairs.
    Done is FINISHED, or any later state that the user's own code has set since. The pairs of a long list are
    looked up when they are asked for.

    :raises RunFailed: one of the runs has failed for good.
    """

    def __init__(self, runs: Sequence[Task], task_manager: TaskManager) -> None:
        self._runs = runs
        self._task_manager = task_manager

    @property
    def runs(self) -> list[Task]:
        """The pairs as a list."""
        return self._runs if isinstance(self._runs, list) else list(self._runs)

    @property
    def _ids(self) -> Sequence[int]:
        if isinstance(self._runs, LongList):
            return self._runs.run_ids
        return [run.entries["id"] for run, _ in self._runs]

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> list[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | list[Task]:
        return self.runs[index] if isinstance(index, slice) else self._runs[index]

    def __iter__(self) -> Iterator[Task]:
        return iter(self._runs)

    def __len__(self) -> int:
        return len(self._runs)

    def __repr__(self) -> str:
        return f"<RunList {_some(self._task_manager, self._ids)}>"

    def to_dataframe(self) -> pandas.DataFrame:
        """The tasks as a table, in the order of the list; see :meth:`TaskSelection.to_dataframe`."""
        from motoko_core.study.table import to_dataframe

        return to_dataframe(self.runs, self._task_manager.database)

    def __await__(self) -> Generator[Any, None, list[Task]]:
        return self._wait().__await__()

    async def _wait(self) -> list[Task]:
        manager = self._task_manager
        ids = self._ids
        session = current_session()
        session.checkpoint()
        with feed_of(manager.database) as feed, feed.watching(ids) as watcher:
            await feed.current()  # the index knows what was just committed
            left = look = frozenset(ids)
            while left := left - {run_id for run_id in sorted(look) if _is_done(manager, run_id)}:
                with _waiting(session, f"{_some(manager, sorted(left))} to be done"):
                    look = await watcher.changed() & left
                    await session.ready()
        session.checkpoint()
        return self.runs


def _some(manager: TaskManager, run_ids: Sequence[int]) -> str:
    first = ", ".join(f"{manager.study}.{run_id}" for run_id in run_ids[:3])
    more = f" and {len(run_ids) - 3} more" if len(run_ids) > 3 else ""
    return first + more


def _is_done(manager: TaskManager, run_id: int) -> bool:
    row = manager.database.index.rows.get(run_id)
    if row is None:
        raise TaskError(f"the run {manager.study}.{run_id} was deleted while it was awaited")
    if is_active(row.get("state")):
        return False
    if is_failure(row.get("state")):
        if manager.is_settling(row):
            return False  # why it failed will be known in a moment
        current_session().checkpoint()  # the reason may be newer than this session's snapshot
        run = manager.database.base._get_runs().entries.get(run_id)
        if run is not None and is_failure(run.entries.get("state")):
            failure = stored_failure(run.entries)
            if failure.get("ignored"):
                return True
            if manager.workflow.is_undecided(manager, run_id, identity_of(run.entries)):
                return False  # error handlers are asked in a moment
            raise RunFailed(
                [describe_failure(manager, run)],
                hint="`motoko clean --constraints 'state = FAILED'` makes failed runs ready to be launched "
                "again; error_handlers in motoko.yaml can retry by themselves.",
            )
        return False
    return True


class TaskSelectionEval:
    """A condition on tasks that can be called, combined with ``&``, and awaited until it holds."""

    def __init__(self, func: Callable[[], Any], managers: Sequence[TaskManager], text: str) -> None:
        self.func = func
        self._managers = managers
        self._text = text

    def __call__(self) -> Any:
        return self.func()

    def __and__(self, other: TaskSelectionEval | TaskSelection) -> TaskSelectionEval:
        if not isinstance(other, (TaskSelectionEval, TaskSelection)):
            return NotImplemented
        second = other._as_eval()

        def both() -> Any:
            first_found = self()
            if not first_found:
                return False
            second_found = second()
            return [*first_found, *second_found] if second_found else False

        managers = list(dict.fromkeys([*self._managers, *second._managers]))
        return TaskSelectionEval(both, managers, f"{self._text} and {second._text}")

    def _as_eval(self) -> TaskSelectionEval:
        return self

    def __await__(self) -> Generator[Any, None, list[Task]]:
        return self._wait().__await__()

    async def _wait(self) -> list[Task]:
        session = current_session()
        something = asyncio.Event()
        with ExitStack() as stack:
            feeds = [stack.enter_context(feed_of(manager.database)) for manager in self._managers]
            changes = [stack.enter_context(feed.changes(something.set)) for feed in feeds]
            stack.enter_context(_waiting(session, self._text))
            while True:
                await asyncio.sleep(0)  # who awaits in a loop lets others work
                # Whoever changes a run from here on wakes us, also between the look and the wait.
                something.clear()
                for consumer in changes:
                    consumer.take()
                session.checkpoint()
                found: list[Task] = self()
                if found:
                    return found
                await _happens(something, SAFETY_S)
                await session.ready()


async def _happens(event: asyncio.Event, timeout_s: float) -> None:
    waiting = asyncio.ensure_future(event.wait())
    try:
        # Not wait_for: in Python 3.10 and 3.11 it can lose a cancellation.
        await asyncio.wait({waiting}, timeout=timeout_s)
    finally:
        waiting.cancel()


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Make many objects that all stay: Python's collector would go through all of them again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class TaskSelection(Sequence[Task]):
    """The tasks that meet constraints, looked up anew whenever it is used.

    It can be iterated, counted, tested for truth, indexed, sliced and called. Awaiting it commits, waits
    until it is not empty, and gives the pairs.
    """

    def __init__(self, constraints: Constraints, task_manager: TaskManager) -> None:
        self.constraints = constraints
        self._task_manager = task_manager
        self._constraint = task_manager.constraint(constraints)
        self._run_name = task_manager.workflow.run_name

    def exec(self) -> list[Task]:
        """Look the tasks up now."""
        return self._list(self._query())

    def _query(self) -> Query:
        return Query(self._task_manager.database, self._constraint, self._run_name)

    def _list(self, query: Query) -> list[Task]:
        with _collector_paused():
            return list(self._hand_out(query, query.ids()))

    def _hand_out(self, query: Query, run_ids: Iterable[int]) -> Iterator[Task]:
        for run_id in run_ids:
            pair = query.pair(run_id)
            if pair is not None:
                yield hand_out(self._task_manager, pair, run_id)

    def __call__(self) -> list[Task]:
        return self.exec()

    def __iter__(self) -> Iterator[Task]:
        query = self._query()
        for run_id, pair, known in query.tasks(query.ids()):
            yield hand_out(self._task_manager, pair, run_id, known)

    def __len__(self) -> int:
        return self._query().count()

    def __bool__(self) -> bool:
        return self._query().count() > 0

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> list[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | list[Task]:
        query = self._query()
        run_ids = query.ids()
        if isinstance(index, slice):
            return list(self._hand_out(query, run_ids[index]))
        (task,) = self._hand_out(query, (run_ids[index],))
        return task

    def to_dataframe(self) -> pandas.DataFrame:
        """The tasks as a table, one row each, by run id, which is the index ``id``.

        The columns are the job parameters, the entries of the run with the attributes that its script has
        set, and the last value of each quantity (a list if it has several components; None if its file is
        gone). A name that two of these have in common becomes ``jobs.x``, ``runs.x``, ``quantities.x``.
        Whole numbers and truth values stay what they are beside gaps (``Int64``, ``boolean``).
        """
        from motoko_core.study.table import to_dataframe

        return to_dataframe(self.exec(), self._task_manager.database)

    def __repr__(self) -> str:
        return f"<TaskSelection {self._task_manager.study}: {self._constraint.text or 'all'}>"

    def _as_eval(self) -> TaskSelectionEval:
        manager = self._task_manager
        text = f"a task of {manager.study} with {self._constraint.text or 'any state'}"
        return TaskSelectionEval(self.exec, [manager], text)

    def __and__(self, other: TaskSelectionEval | TaskSelection) -> TaskSelectionEval:
        return self._as_eval() & other

    def __await__(self) -> Generator[Any, None, list[Task]]:
        return self._as_eval().__await__()

    def all(self, *constraint_sets: Constraints) -> TaskSelectionEval:
        """A condition: there are selected tasks, and all of them meet one of the constraint sets."""
        manager = self._task_manager
        sets = [manager.constraint(constraints) for constraints in constraint_sets]

        def holds() -> Any:
            query = self._query()
            ids = query.ids()
            for wanted in sets:
                if ids and all(map(Query(manager.database, wanted, None).matches, ids)):
                    return self._list(query)
            return False

        alternatives = " or ".join(wanted.text for wanted in sets)
        return TaskSelectionEval(holds, [manager], f"all tasks of {self!r} to meet {alternatives}")
