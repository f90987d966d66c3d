"""Making runs ready to be executed again, and removing them."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ZODB.POSException import StorageError

from motoko_core.entries import CANCEL, OF_AN_EXECUTION, tag_of
from motoko_core.errors import MotokoError
from motoko_core.interfaces import read_exit_record
from motoko_core.lifecycle import runs_directory
from motoko_core.session import Session, transact, use
from motoko_core.states import ACTIVE, CREATED, TOBELAUNCHED
from motoko_core.study.query import Query

if TYPE_CHECKING:
    from motoko_core.selection import Constraints
    from motoko_core.task_manager import TaskManager

#: Runs in one transaction.
_BATCH = 200
_DELETED = "DELETED"
#: How the mark begins of runs that are being cleaned. It stands where no tag of an execution looks like it.
_CLEANING = "cleaning "


def selected(
    manager: TaskManager, constraints: Constraints = None, *, run_name: str | None = None
) -> list[int]:
    """Ids of the runs that meet the constraints (None: all), of one run_name or of all.

    :raises ~motoko_core.errors.ConstraintError: the constraints do not parse, or name an unknown entry.
    """
    constraint = manager.constraint(constraints)
    with use(Session("clean")):
        return Query(manager.database, constraint, run_name).ids()


def refuse_under_way(manager: TaskManager, run_ids: Sequence[int]) -> None:
    """:raises MotokoError: a launcher or a scheduler has some of the runs in hand; all of them are named."""
    with use(Session("clean")):
        runs = manager.base._get_runs().entries
        _refuse(manager, [(run_id, runs.get(run_id)) for run_id in run_ids])


def clean(manager: TaskManager, run_ids: Sequence[int], *, delete: bool = False, force: bool = False) -> int:
    """Reset runs to CREATED, with their results and run directories removed; answer how many.

    Each batch of runs is changed in one transaction, or not at all.

    :param delete: remove the runs from the database instead. Their jobs stay.
    :param force: also runs that a launcher or a scheduler has in hand; their processes are left alone.
    :raises MotokoError: without ``force``, such a run is among them. Earlier batches are done then.
    """

    def work(batch: Sequence[int], mark: str) -> list[Path]:
        present = _present(manager, batch)
        others = [(run_id, run) for run_id, run in present if run.entries.get(CANCEL) != mark]
        # One that waits, and is not ours, may be launched while its directory is removed.
        if taken := [f"{manager.study}.{run_id}" for run_id, run in others if _waits(run.entries, force)]:
            raise MotokoError(
                f"these runs were reset meanwhile, by another `motoko clean` perhaps: {', '.join(taken)}",
                hint="Call `motoko clean` again.",
            )
        if not force:
            _refuse(manager, others)
        directories = [_directory(manager, run_id, run) for run_id, run in present]
        if not delete:
            # Before the commit: from then on a launcher may fill them again.
            _remove(directories)
        for run_id, run in present:
            if delete:
                _delete(manager, run_id, run)
            else:
                _reset(run)
        return directories

    done = 0
    for begin in range(0, len(run_ids), _BATCH):
        batch = run_ids[begin : begin + _BATCH]
        with _claimed(manager, batch, force) as mark:
            directories = transact(f"clean {manager.study}", lambda b=batch, m=mark: work(b, m))  # type: ignore[misc]
        if delete:
            # After the commit: a run that is there has its directory.
            _remove(directories)
        done += len(directories)
    return done


def _present(manager: TaskManager, run_ids: Iterable[int]) -> list[tuple[int, Any]]:
    runs = manager.base._get_runs().entries
    return [(run_id, runs[run_id]) for run_id in run_ids if run_id in runs]


@contextlib.contextmanager
def _claimed(manager: TaskManager, run_ids: Sequence[int], force: bool) -> Iterator[str]:
    """Take those of the runs that wait out of the launchers' reach; they wait again after an error.

    A launcher that takes one at this moment has changed its state as well: one of the two comes too late.
    Of one whose claim was never released (the process was killed), the next ``motoko clean`` takes it over.

    :return: the mark of the runs that are ours.
    """
    mark = f"{_CLEANING}{uuid.uuid4().hex}"

    def claim() -> None:
        for _, run in _present(manager, run_ids):
            if _waits(run.entries, force):
                run.entries.update({"state": TOBELAUNCHED, CANCEL: mark})

    def release() -> None:
        for _, run in _present(manager, run_ids):
            if run.entries.get(CANCEL) == mark:
                run.entries.pop(CANCEL)
                run.entries["state"] = CREATED

    try:
        transact(f"clean {manager.study}: claim", claim)
        yield mark
    except BaseException:
        with contextlib.suppress(StorageError):  # the next one takes them over
            transact(f"clean {manager.study}: release", release)
        raise


def _waits(entries: Mapping[str, Any], force: bool) -> bool:
    """Whether a run waits for a launcher, or for a process that cleans it."""
    return _is_claimed(entries) or (entries.get("state") == CREATED and (force or not tag_of(entries)))


def _is_claimed(entries: Mapping[str, Any]) -> bool:
    """Whether a run waits, but for a process that cleans it, or was killed at it."""
    mark = entries.get(CANCEL)
    return entries.get("state") == TOBELAUNCHED and isinstance(mark, str) and mark.startswith(_CLEANING)


def _refuse(manager: TaskManager, runs: Sequence[tuple[int, Any]]) -> None:
    busy, others = [], set()
    for run_id, run in runs:
        if run is None or _is_claimed(run.entries):
            continue
        state = run.entries.get("state")
        if state in ACTIVE and state != CREATED:
            busy.append(f"{manager.study}.{run_id} ({state})")
            others.add(f"state != {state}")
        elif _is_at_work(manager, run_id, run):
            busy.append(f"{manager.study}.{run_id} ({state}, but its job has not ended)")
            others.add(f"runs.id != {run_id}")
    if busy:
        raise MotokoError(
            f"these runs are being executed: {', '.join(busy)}",
            hint="Wait until their launcher has heard of their ends, or leave them out with "
            f"--constraints '{' and '.join(sorted(others))}'. --force cleans them all the same; their "
            "processes go on.",
        )


def _is_at_work(manager: TaskManager, run_id: int, run: Any) -> bool:
    """Whether a job of a run may go on, although its state says that it is over or waits."""
    tag = tag_of(run.entries)
    if not tag or run.entries.get("state") == CREATED:
        return bool(tag)  # a launcher executes it again as soon as the job has ended
    record = read_exit_record(_directory(manager, run_id, run), tag)
    return record is None or record.exit_code is None


def _directory(manager: TaskManager, run_id: int, run: Any) -> Path:
    return Path(run.entries.get("run_path") or runs_directory(manager) / f"run-{run_id}")


def _remove(directories: Sequence[Path]) -> None:
    for directory in directories:
        # What a process is still writing there must not keep the run from being reset.
        shutil.rmtree(directory, ignore_errors=True)


def _reset(run: Any) -> None:
    entries = run.entries
    entries["state"] = CREATED
    entries["start_time"] = None
    for name in OF_AN_EXECUTION:
        entries.pop(name, None)
    run._p_activate()  # reading __dict__ does not load a ghost
    quantities = run.__dict__.get("quantities")
    if quantities is not None:
        quantities.clear()


def _delete(manager: TaskManager, run_id: int, run: Any) -> None:
    base = manager.base
    job = base._get_jobs().entries.get(run.entries.get("job_id"))
    if job is not None:
        job._p_activate()
        of_job = job.__dict__.get("runs")
        if of_job is not None:
            of_job.entries.pop(run_id, None)
    # A launcher that takes it at this moment has changed that as well: one of the two comes too late.
    run.entries["state"] = _DELETED
    del base._get_runs().entries[run_id]
