"""What one action sees of one study, and when that makes it fire."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from motoko_core.engine.actions import Action, Reference
from motoko_core.entries import stored_failure
from motoko_core.errors import MotokoError
from motoko_core.interfaces import RunCondition, WorkflowCondition
from motoko_core.selection import Task, TaskSelectionEval, hand_out
from motoko_core.states import is_failure
from motoko_core.study.query import Query

if TYPE_CHECKING:
    from motoko_core.study.constraints import Constraint
    from motoko_core.task_manager import TaskManager
    from motoko_core.workflow import Workflow


@attrs.define(eq=False)
class Registration:
    """What is known of an action's name on its task manager: it outlives an action that is replaced."""

    watches: dict[str, Watch] = attrs.field(factory=dict)
    in_firing: set[Reference] = attrs.field(factory=set)
    #: Tasks that have fired an action that fires once.
    marked: set[Reference] = attrs.field(factory=set)
    #: Whether a firing on a boolean trigger is under way.
    boolean_at_work: bool = False


class Watch:
    """An action on one task manager: the tasks that match, those in a firing, and when it may fire next.

    What a change costs must not grow with the number of tasks that match, so the sets are kept up to date
    instead of being made anew.
    """

    def __init__(self, action: Action, manager: TaskManager, registration: Registration) -> None:
        self.action = action
        self.manager = manager
        self.registration = registration
        self.matching: set[Reference] = set()
        #: Those of ``matching`` that are neither in a firing nor marked.
        self.waiting: set[Reference] = set()
        #: Tasks that came into ``matching`` since the last firing: they fire at once.
        self.gained: set[Reference] = set()
        #: While the condition stays true, it fires again from this time on.
        self.due = 0.0
        #: Whether a boolean condition was true when it was last looked at.
        self.held = False
        #: Whether a run-level condition was evaluated for all runs.
        self.complete = False

    # ------------------------------------------------------------------ firing

    def ready(self, now: float) -> set[Reference]:
        """The tasks to fire with now; none while there is nothing new and the action is not due."""
        return set(self.waiting) if now >= self.due or self.has_gained() else set()

    def has_gained(self) -> bool:
        """Whether there are tasks to fire with that were not there at the last firing."""
        return not self.gained.isdisjoint(self.waiting)

    def has_more(self) -> bool:
        """Whether it will fire again when it is due, although nothing changes."""
        return self.held or bool(self.waiting)

    def begin_firing(self, references: set[Reference], due: float) -> None:
        self.gained -= references
        self.waiting -= references
        self.registration.in_firing |= references
        self.due = due

    def end_firing(self, references: set[Reference]) -> None:
        self.registration.in_firing -= references
        for watch in self.registration.watches.values():  # this one may have been replaced
            for reference in references:
                if reference in watch.matching and reference not in self.registration.marked:
                    watch.waiting.add(reference)

    def _put(self, reference: Reference, matches: bool) -> None:
        if not matches:
            for kind in (self.matching, self.waiting, self.gained):
                kind.discard(reference)
        elif reference not in self.matching:
            self.matching.add(reference)
            if reference not in self.registration.marked:
                self.gained.add(reference)
                if reference not in self.registration.in_firing:
                    self.waiting.add(reference)

    def _put_all(self, references: set[Reference]) -> None:
        for reference in self.matching - references:
            self._put(reference, False)
        for reference in references - self.matching:
            self._put(reference, True)

    def trigger(self, workflow: Workflow) -> bool | list[tuple[Any, Any]]:
        """Evaluate the condition in the current session, whatever fired before."""
        if self.action.is_run_level:
            self.fill()
        elif self.look_at_workflow(workflow):
            return True
        return list(self.tasks(workflow, sorted(self.matching)).values())

    def tasks(self, workflow: Workflow, references: Iterable[Reference]) -> dict[Reference, Task]:
        """Those of some tasks that meet the condition in the current session, handed out."""
        found: dict[Reference, Task] = {}
        queries: dict[str, Query] = {}
        for study, run_id in references:
            manager = workflow.task_managers[study]
            query = queries.get(study)
            if query is None:
                query = queries[study] = self.query(manager)
            pair = query.pair(run_id) if self.matches(query, run_id) else None
            if pair is not None:
                found[study, run_id] = hand_out(manager, pair, run_id)
        return found

    # ------------------------------------------------------------------ run-level conditions

    @property
    def is_swept(self) -> bool:
        """Whether the condition is a run filter: what it looks at may change without being announced."""
        return isinstance(self.action.condition, RunCondition) and self.action.condition.filter is not None

    def look_at_runs(self, changed: Iterable[int]) -> None:
        """Evaluate a run-level condition for the runs that changed; at first, a constraint for all runs."""
        if not self.complete and not self.is_swept:
            self.fill()
            return
        query = None
        for run_id in changed:
            query = query or self.query()
            # A run that left and came back between two looks is a new match, but cannot be told from one
            # that merely changed: it counts as still matching, and fires when the action is due again.
            self._put((self.manager.study, run_id), self.matches(query, run_id))

    def fill(self) -> None:
        """Evaluate a run-level condition for all runs."""
        query = self.query()
        run_ids = query.ids()
        if self._looks_at_objects:
            run_ids = [run_id for run_id, task in self._tasks(query, run_ids) if self._filter(task)]
        self._put_all({(self.manager.study, run_id) for run_id in run_ids})
        self.complete = True

    def look_up(self, run_ids: Sequence[int]) -> Iterator[tuple[int, Task]]:
        """Runs of the study with their jobs, by their ids."""
        return self._tasks(self.query(), run_ids)

    def _tasks(self, query: Query, run_ids: Sequence[int]) -> Iterator[tuple[int, Task]]:
        for run_id, pair, known in query.tasks(run_ids):
            yield run_id, hand_out(self.manager, pair, run_id, known)

    def among(self, tasks: Iterable[tuple[int, Task]]) -> set[Reference]:
        """Those of some tasks, from :meth:`look_up`, that meet a run-level condition."""
        query = self.query()
        study = self.manager.study
        return {(study, run_id) for run_id, task in tasks if query.matches(run_id) and self._filter(task)}

    def end_sweep(self, found: set[Reference], changed: set[int]) -> None:
        """Take in what a sweep has found, but not for runs that have changed since it began."""
        known = {reference for reference in self.matching if reference[1] in changed}
        self._put_all(known.union(reference for reference in found if reference[1] not in changed))
        self.complete = True

    @property
    def _looks_at_objects(self) -> bool:
        return self.is_swept or self.action.is_error_handler

    def _filter(self, task: Task) -> bool:
        condition = self.action.condition
        assert isinstance(condition, RunCondition)
        if self.action.is_error_handler and not self._is_heard_of(task[0].entries):
            return False
        return condition.filter is None or bool(condition.filter(*task))

    def _is_heard_of(self, entries: Mapping[str, Any]) -> bool:
        """Whether error handlers that are functions are to hear of a run now, after those that are asked."""
        if is_failure(entries.get("state")) and self.manager.is_settling(entries):
            return False
        return not stored_failure(entries).get("ignored")

    @property
    def constraint(self) -> Constraint:
        """What the condition asks of the runs of the study; all meet it if it has no constraint."""
        return self._constraint(self.manager)

    def _constraint(self, manager: TaskManager) -> Constraint:
        return self.action.constraints.get(manager.study) or manager.constraint(None)

    def query(self, manager: TaskManager | None = None) -> Query:
        """The runs of a study that meet the condition's constraint, in the current session."""
        manager = manager or self.manager
        return Query(manager.database, self._constraint(manager), manager.workflow.run_name)

    def matches(self, query: Query, run_id: int) -> bool:
        """Whether a run is there, and meets the condition if that is a run-level one.

        :param query: from :meth:`query`.
        """
        if not query.matches(run_id):
            return False
        if not self.action.is_run_level or not self._looks_at_objects:
            return True
        pair = query.pair(run_id)
        return pair is not None and self._filter(hand_out(self.manager, pair, run_id))

    # ------------------------------------------------------------------ workflow-level conditions

    def look_at_workflow(self, workflow: Workflow) -> bool:
        """Evaluate a workflow-level condition; answer whether it is true as a boolean.

        A selection goes into ``matching`` instead.
        """
        condition = self.action.condition
        assert isinstance(condition, WorkflowCondition)
        found = condition.evaluate(workflow, self.manager)
        if inspect.iscoroutine(found):
            found.close()
            raise MotokoError(
                "the condition gave a coroutine, which is always true",
                hint="Conditions are plain functions: await in the action's callback.",
            )
        if isinstance(found, TaskSelectionEval):
            found = found()
        if isinstance(found, Sequence) and not isinstance(found, (str, bytes)):
            # With `__all__`, the condition may give the same tasks for each task manager: the first has them.
            others = [w for w in self.registration.watches.values() if w is not self]
            mine = {r for r in self._references(found) if not any(r in w.matching for w in others)}
            self._put_all(mine)
            self.held = False
            return False
        self._put_all(set())
        self.held = self.held and bool(found)
        return bool(found)

    def _references(self, found: Sequence[Any]) -> Iterable[Reference]:
        for item in found:
            try:
                run, _job = item
                yield run._p_jar.motoko_base.study.name, run.entries["id"]
            except (TypeError, ValueError, AttributeError, KeyError):
                raise MotokoError(
                    f"the condition gave a list with {item!r} in it",
                    hint="Give True or False, a selection, or a list of its (run, job) pairs.",
                ) from None
