"""Asking the error handlers what becomes of a failed run."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from motoko_core.engine.actions import accepted_arguments
from motoko_core.engine.firing import call, no_action
from motoko_core.entries import FAILURE, NOT_BEFORE, FailureIdentity, identity_of, stored_failure
from motoko_core.errors import WorkflowAborted
from motoko_core.interfaces import Abort, Decision, ErrorHandler, Failure, Ignore, Retry
from motoko_core.selection import describe_failures
from motoko_core.session import current_session, transact
from motoko_core.states import CREATED, is_failure
from motoko_core.study.points import run_entries

if TYPE_CHECKING:
    from motoko_core.task_manager import TaskManager

logger = logging.getLogger("motoko")

#: No failure of the run was decided about.
UNDECIDED: FailureIdentity = (-1, "")


def failure_of(manager: TaskManager, run: Any) -> Failure:
    """What is known about a failed run."""
    entries = run.entries
    stored = dict(stored_failure(entries))
    return Failure(
        task=f"{manager.study}.{entries['id']}",
        task_manager=manager.study,
        run_id=entries["id"],
        state=str(entries.get("state")),
        reason=stored.get("reason", "UNKNOWN"),
        exit_code=stored.get("exit_code"),
        attempt=stored.get("attempt", 1),
        stderr=stored.get("stderr", ""),
        directory=entries.get("run_path"),
    )


def decide(handlers: Sequence[ErrorHandler], failure: Failure) -> Decision:
    """Ask in order; the first answer that is not None counts."""
    for handler in handlers:
        decision = handler.decide(failure)
        if decision is not None:
            return decision
    return None


def handle(
    manager: TaskManager,
    run_ids: Sequence[int],
    handlers: Sequence[ErrorHandler],
    decided: MutableMapping[int, FailureIdentity | None],
    wall_clock: Callable[[], float] = time.time,
) -> None:
    """Decide about runs that have failed, and write the decisions down.

    :param decided: run id -> the failure that was decided about; brought up to date. A run that was retried
        or reset, and has failed again, may look as if it had been failed all the time.
    :raises WorkflowAborted: a handler said so.
    """

    def work() -> list[str]:
        aborts = []
        for run_id in run_ids:
            run = manager.base._get_runs().entries.get(run_id)
            if run is None or not is_failure(run.entries.get("state")):
                now_decided[run_id] = UNDECIDED  # reset; it may have failed again before we hear of that
                continue
            if manager.workflow.run_name not in (None, run.entries.get("run_name")):
                continue
            if stored_failure(run.entries).get("ignored"):
                continue  # decided, by an earlier orchestrator perhaps
            failure, identity = failure_of(manager, run), identity_of(run.entries)
            if decided.get(run_id) == identity:
                continue
            now_decided[run_id] = identity
            decision = decide(handlers, failure)
            if isinstance(decision, Abort):
                aborts.append(f"{failure.task} ({failure.reason}) {decision.message}".strip())
            elif decision is not None:
                _apply(manager, run, failure, decision, wall_clock())
        return aborts

    now_decided: dict[int, FailureIdentity] = {}
    aborts = transact(f"error handlers of {manager.study}", work)
    decided.update(now_decided)
    if aborts:
        raise WorkflowAborted(
            "an error handler ended the workflow because of " + "; ".join(aborts),
            hint="`motoko clean --constraints 'state = FAILED'` makes failed runs ready to be tried again.",
        )


def _apply(manager: TaskManager, run: Any, failure: Failure, decision: Retry | Ignore, now: float) -> None:
    entries = run.entries
    stored = dict(stored_failure(entries))
    if isinstance(decision, Ignore):
        logger.info("%s failed (%s): ignored", failure.task, failure.reason)
        entries[FAILURE] = {**stored, "ignored": True}
        return
    logger.info(
        "%s failed (%s), attempt %d: again in %g s",
        failure.task,
        failure.reason,
        failure.attempt,
        decision.delay_s,
    )
    entries.update(run_entries(decision.changes, manager.study_config.run, study=manager.study))
    entries[FAILURE] = {**stored, "attempt": failure.attempt + 1}
    if decision.delay_s > 0:
        entries[NOT_BEFORE] = now + decision.delay_s
    entries["state"] = CREATED


def _name(callback: Callable[..., Any]) -> str | None:
    return None if callback is no_action else getattr(callback, "__name__", repr(callback))


def aborting(callback: Callable[..., Any]) -> Callable[..., Any]:
    """Make an action's callback that calls an error handler function, and then ends the workflow."""

    async def abort(**arguments: Any) -> None:
        manager = arguments["task_manager"]
        runs = sorted((run for run, _ in arguments.get("runs") or ()), key=lambda run: run.entries["id"])
        failed = describe_failures([(manager, run) for run in runs])
        await call(callback, **accepted_arguments(callback, arguments))
        current_session().checkpoint()  # what the handler has written stays
        raise WorkflowAborted(
            "failed runs ended the workflow"
            + (f", after the error handler {name!r}" if (name := _name(callback)) else "")
            + (f": {failed}" if failed else ""),
            hint="`motoko clean --constraints 'state = FAILED'` makes failed runs ready to be tried again.",
        )

    # For messages that say where a callback stands.
    abort.__wrapped__ = callback  # type: ignore[attr-defined]
    abort.__signature__ = inspect.signature(abort, follow_wrapped=False)  # type: ignore[attr-defined]
    return abort
