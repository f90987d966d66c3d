"""What the launcher writes when an execution is over: ends, hand-backs, resets.

Like :mod:`motoko_core.launch.records`: for one transaction, over many runs, and it may be called again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from motoko_core.entries import CANCEL, FAILURE, HANDLE, state_of, stopped, stored_failure, tag_of
from motoko_core.interfaces import Ended, LaunchTask
from motoko_core.launch import workspace
from motoko_core.states import CREATED, FAILED, FINISHED, is_active, is_failure

if TYPE_CHECKING:
    from motoko_core.study.runs import Run, Runs


def hand_back(runs: Runs, tags: Mapping[int, str]) -> None:
    """Make runs that were not executed to their end ready for the next launcher."""
    for run_id, run in runs.get(tags):
        if tag_of(run.entries) != tags[run_id]:
            continue  # somebody has reset the run meanwhile
        run.entries.pop(HANDLE)
        is_marked = run.entries.pop(CANCEL, None) == tags[run_id]
        state = state_of(run.entries)
        if state == CREATED or not is_active(state):
            continue
        if is_marked:
            cancel(run)
        else:
            run.entries.update({"state": CREATED, "start_time": None})


def stopping(runs: Runs, tags: Mapping[int, str]) -> None:
    """Note that jobs are about to be stopped whose runs are to be executed again.

    Whoever stops them may be killed before it can write that they were, and a job that is told to stop may
    exit with any code.
    """
    for run_id, run in runs.get(tags):
        entries, tag = run.entries, tags[run_id]
        if tag_of(entries) == tag and entries.get(CANCEL) != tag:
            entries[CANCEL] = stopped(tag)


def reset(runs: Runs, tags: Mapping[int, str]) -> None:
    """Have runs executed again when the jobs have ended that they have now."""
    for run_id, run in runs.get(tags):
        entries = run.entries
        if tag_of(entries) != tags[run_id] or entries.get(CANCEL) == tags[run_id]:
            continue
        if is_active(state_of(entries)):
            entries.update({"state": CREATED, "start_time": None})


def cancel(run: Run) -> None:
    """Write that a run was cancelled which nobody executes."""
    forget_decision(run)
    fail(run, "", "CANCELLED", None, "")


def _is_cancelled(run: Run) -> bool:
    return is_failure(state_of(run.entries)) and stored_failure(run.entries).get("reason") == "CANCELLED"


def told(ended: Ended, task: LaunchTask) -> str:
    """What is told of a failure: the end of the run's standard error, and what the generator knows."""
    words = "" if ended.is_good else workspace.stderr_tail(task.stderr)
    if not ended.message:
        return words
    return f"{words.rstrip()}\n{ended.message}".lstrip()


def settle(
    runs: Runs, ends: Mapping[int, tuple[Ended, str]], *, has_stopped: Callable[[str], bool] = lambda _: False
) -> None:
    """Write how runs ended, unless their scripts did; those that were reset meanwhile just wait again.

    :param ends: run id -> the end, and what is told of it.
    :param has_stopped: whether the caller has stopped a job, by its tag, and knows what became of that.
    """
    for run_id, run in runs.get(ends):
        ended, stderr = ends[run_id]
        entries = run.entries
        if tag_of(entries) != ended.tag:
            continue  # as above
        mark = entries.get(CANCEL)
        was_stopped = mark == stopped(ended.tag) and not ended.is_good and not has_stopped(ended.tag)
        if ended.again or was_stopped:
            hand_back(runs, {run_id: ended.tag})  # does nothing to one whose script has named its end
        entries.pop(HANDLE, None)
        entries.pop(CANCEL, None)
        is_marked = mark == ended.tag
        if state_of(entries) == CREATED:
            continue  # it was reset while it was executed: this end says nothing of the next execution
        if is_marked and _is_cancelled(run):
            continue  # it was reset, and cancelled then: what its job did is of no interest
        if ended.is_good and is_active(state_of(entries)):
            entries["state"] = FINISHED
        if is_active(state_of(entries)) or is_failure(state_of(entries)):
            by_code = "SIGNAL" if (ended.exit_code or 0) < 0 else "EXIT_CODE"
            reason = "UNKNOWN" if ended.again else ended.reason or by_code
            # Whoever stopped it may be gone, and nobody else knows why it ended as it did.
            reason = "CANCELLED" if is_marked and not ended.is_good else reason
            fail(run, ended.tag, reason, ended.exit_code, stderr)


def fail(run: Run, tag: str, reason: str, exit_code: int | None, stderr: str) -> None:
    """Write why a run failed; a failure that its script has named stays.

    :param tag: of the execution that failed: its failure is another one than that of the next. Empty: none.
    """
    entries = run.entries
    if not is_failure(state_of(entries)):
        entries["state"] = FAILED
    known = stored_failure(entries)
    attempt = known.get("attempt", 1)
    told = {"reason": reason, "exit_code": exit_code, "attempt": attempt, "stderr": stderr}
    if tag:
        told["tag"] = tag
    # Without a launcher, error handlers decide about what a script has said before its job has ended.
    entries[FAILURE] = {**told, "ignored": True} if known.get("ignored") else told


def forget_decision(run: Run) -> None:
    """For another execution: that the failure of the last one was ignored says nothing of it."""
    known = stored_failure(run.entries)
    if "ignored" in known:
        run.entries[FAILURE] = {name: value for name, value in known.items() if name != "ignored"}
