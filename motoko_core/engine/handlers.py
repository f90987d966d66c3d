"""When the error handlers are asked about a failed run, and whether they have had their say."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, MutableMapping, Sequence
from typing import TYPE_CHECKING

import attrs
from ZEO.Exceptions import ClientDisconnected

from motoko_core.engine import failures
from motoko_core.engine.blame import blaming
from motoko_core.entries import FailureIdentity
from motoko_core.interfaces import ErrorHandler
from motoko_core.states import FAILURES, is_failure
from motoko_core.study.changes import Batch

if TYPE_CHECKING:
    from motoko_core.task_manager import TaskManager
    from motoko_core.workflow import Workflow

_Decided = MutableMapping[int, FailureIdentity | None]
_Question = tuple[Sequence[ErrorHandler], "TaskManager", Sequence[int], _Decided]


@attrs.define
class _Study:
    """What is known of the failed runs of a study."""

    #: Runs that say that they failed, and of which the launcher is to say why.
    unsettled: set[int] = attrs.field(factory=set)
    #: Runs that somebody wanted to know about before the latest changes were taken in.
    asked_early: set[int] = attrs.field(factory=set)
    #: Failed runs about which every handler has had its say, and which failure that was (None: it does not
    #: matter; UNDECIDED: they were reset before a handler was asked).
    for_good: dict[int, FailureIdentity | None] = attrs.field(factory=dict)


class Handlers:
    """The error handlers of a workflow, asked in their order.

    :param fail: ends the workflow with an error.
    :param wake: tells those who wait for some runs of a study to look at them.
    :param is_behind: whether there are changes in a study that were not taken in yet.
    """

    def __init__(
        self,
        workflow: Workflow,
        handlers: Iterable[ErrorHandler],
        *,
        fail: Callable[[BaseException], None],
        wake: Callable[[TaskManager, Collection[int]], None],
        is_behind: Callable[[TaskManager], bool],
    ) -> None:
        self.in_order = list(handlers)
        self._workflow = workflow
        self._fail = fail
        self._wake = wake
        self._is_behind = is_behind
        self._studies = {manager: _Study() for manager in workflow.task_managers.values()}
        #: What could not be asked because a server fell silent: arguments of :meth:`_ask`.
        self._to_ask: list[_Question] = []

    @property
    def have_more_to_say(self) -> bool:
        """Whether there is something that they could not be asked yet."""
        return bool(self._to_ask)

    @property
    def await_reasons(self) -> bool:
        """Whether a run of this workflow says that it failed, and a launcher is still to say why."""
        name = self._workflow.run_name
        return any(
            row is not None and name in (None, row.get("run_name"))
            for manager, study in self._studies.items()
            for row in map(manager.database.index.rows.get, study.unsettled)
        )

    def is_undecided(self, manager: TaskManager, run_id: int, failure: FailureIdentity) -> bool:
        """Whether they have still to be asked about a failed run; who asks is woken afterwards."""
        if not self.in_order:
            return False
        study = self._studies[manager]
        if self._is_behind(manager):
            study.asked_early.add(run_id)
            return True
        return study.for_good.get(run_id, failures.UNDECIDED) not in (None, failure)

    # ------------------------------------------------------------------ asking

    def add(self, handler: ErrorHandler) -> None:
        """Ask one more handler, after the others, also about what has failed before."""
        self.in_order.append(handler)
        self._ask_about_earlier_failures([handler])

    def begin(self) -> None:
        """Ask about what has failed before."""
        self._ask_about_earlier_failures(self.in_order)

    def take_in(self, manager: TaskManager, batch: Batch) -> None:
        """Ask about the runs that have failed."""
        study = self._studies[manager]
        failed = self._failed(manager, batch)
        if failed:
            self._ask(self.in_order, manager, failed, study.for_good)
        early, study.asked_early = study.asked_early, set()
        self._wake(manager, early.union(failed))

    def now_and_then(self) -> None:
        """Ask about runs of which nobody is left who would say why they failed."""
        for manager, study in self._studies.items():
            if study.unsettled and not manager.has_launcher():
                failed = sorted(study.unsettled)
                study.unsettled.clear()
                self._ask(self.in_order, manager, failed, study.for_good)
                self._wake(manager, failed)

    def ask_again(self) -> None:
        """Ask what could not be asked because a server fell silent."""
        questions, self._to_ask = self._to_ask, []
        for handlers, manager, run_ids, decided in questions:
            self._ask(handlers, manager, run_ids, decided)
            self._wake(manager, run_ids)

    def _failed(self, manager: TaskManager, batch: Batch) -> list[int]:
        """Runs whose failure is to be decided about now: when the launcher has written the reason."""
        index, study = manager.database.index, self._studies[manager]
        failed = {change.run_id for change in batch if is_failure(change.after)}
        for change in batch:
            study.unsettled.discard(change.run_id)
            if change.run_id not in failed:
                study.for_good.pop(change.run_id, None)
        if batch.rescan:
            study.unsettled.clear()
            failed |= index.candidates(states=FAILURES)
        return self._settled(manager, failed)

    def _settled(self, manager: TaskManager, failed: set[int]) -> list[int]:
        """Those of some failed runs whose reason is known; the others are asked about when theirs is."""
        rows, study = manager.database.index.rows, self._studies[manager]
        study.unsettled |= {run_id for run_id in failed if manager.is_settling(rows.get(run_id, {}))}
        return sorted(failed - study.unsettled)

    def _ask_about_earlier_failures(self, handlers: Sequence[ErrorHandler]) -> None:
        for manager in self._studies:
            failed = self._settled(manager, manager.database.index.candidates(states=FAILURES))
            if failed:
                self._ask(handlers, manager, failed, {})

    def _ask(
        self,
        handlers: Sequence[ErrorHandler],
        manager: TaskManager,
        run_ids: Sequence[int],
        decided: _Decided,
    ) -> None:
        """:param decided: run id -> the failure that these handlers know already."""
        if handlers:
            functions = [handler.decide for handler in handlers]
            try:
                with blaming("an error handler", self._workflow.configuration.directory, *functions):
                    failures.handle(manager, run_ids, handlers, decided)
            except ClientDisconnected:
                self._to_ask.append((handlers, manager, run_ids, decided))
                return
            except (Exception, SystemExit) as error:  # noqa: BLE001  raised by run(), after everything stopped
                self._fail(error)
        known = self._studies[manager].for_good
        known.update({run_id: decided.get(run_id, known.get(run_id)) for run_id in run_ids})
