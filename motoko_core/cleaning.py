"""Making runs ready to be executed again, and removing them."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from ZODB.POSException import StorageError

from motoko_core.daemons import private_directory
from motoko_core.entries import CANCEL, HANDLE, OF_AN_EXECUTION, state_of, tag_of
from motoko_core.errors import MotokoError
from motoko_core.interfaces import read_exit_record
from motoko_core.lifecycle import run_directory, runs_directory, state_directory
from motoko_core.locks import taking_turns
from motoko_core.session import Session, transact, use
from motoko_core.states import ACTIVE, CREATED, TOBELAUNCHED
from motoko_core.study.query import Query

if TYPE_CHECKING:
    from motoko_core.selection import Constraints
    from motoko_core.task_manager import TaskManager

logger = logging.getLogger(__name__)

#: Runs in one transaction.
_BATCH = 200
_DELETED = "DELETED"
_CLEANING, _RESET, _DELETE = "cleaning", "reset", "delete"
#: How the names of the directories begin that run directories are moved to before they are removed.
_ASIDE = ".cleaned-"


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

    Each batch of runs is changed altogether, or not at all. What an earlier call left undone that was killed
    is done first, as that call meant it. Calls for one study wait for each other.

    :param delete: remove the runs from the database instead. Their jobs stay.
    :param force: also runs that a launcher or a scheduler has in hand; their processes are left alone.
    :raises MotokoError: without ``force``, such a run is among them. Earlier batches are done then.
    """
    place = private_directory(state_directory(manager.workflow))
    with taking_turns(place / f"clean-{manager.study}.lock"):
        _finish_interrupted(manager)
        done = 0
        for begin in range(0, len(run_ids), _BATCH):
            batch = _Batch(manager, _DELETE if delete else _RESET)
            done += batch.clean(run_ids[begin : begin + _BATCH], force)
        _remove_what_was_set_aside(manager)
    return done


def _finish_interrupted(manager: TaskManager) -> None:
    """Do what an earlier call was killed at: nobody else has the runs that it claimed."""
    manager.database.index.refresh()
    candidates = sorted(manager.database.index.candidates(states=frozenset({TOBELAUNCHED})))

    def look() -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for run_id, run in _present(manager, candidates):
            if claim := _claim_of(run.entries):
                found.setdefault(claim.action, []).append(run_id)
        return found

    for action, run_ids in transact(f"clean {manager.study}: look", look).items():
        done = _Batch(manager, action).clean(run_ids, force=True)
        logger.warning(
            "%s: did what an earlier `motoko clean` was killed at: %s %d runs", manager.study, action, done
        )


@attrs.frozen
class _Claim:
    """What is written into a run that is being cleaned, where the tag of an execution would stand.

    A launcher, an error handler or a user who takes the run at this moment changes its state as well: one of
    the two comes too late.
    """

    action: str
    name: str
    kept: str  # what the run had before in the entries that are claimed

    def __str__(self) -> str:
        return f"{_CLEANING} {self.action} {self.name} {self.kept}"


def _claim_of(entries: Mapping[str, Any]) -> _Claim | None:
    """How a run is being cleaned, or was when that was killed."""
    mark = entries.get(CANCEL)
    words = mark.split(" ", 3) if isinstance(mark, str) else []
    is_claim = len(words) == 4 and words[0] == _CLEANING and entries.get("state") == TOBELAUNCHED
    return _Claim(*words[1:]) if is_claim else None


@attrs.frozen
class _Batch:
    """Some runs of a study that are cleaned together: claimed, their directories set aside, and then changed.

    Nobody can start a run that is claimed, so its directory is in nobody's way; a claim and a directory that
    was set aside can be given back.
    """

    manager: TaskManager
    action: str
    name: str = attrs.field(factory=lambda: uuid.uuid4().hex)

    def clean(self, run_ids: Sequence[int], force: bool) -> int:
        moved: dict[int, tuple[Path, Path]] = {}
        try:
            claimed = transact(self._title("claim"), lambda: self._claim(run_ids, force))
            self._set_aside(claimed, moved)
            return transact(self._title(self.action), lambda: self._change(claimed, moved))
        except BaseException:
            with contextlib.suppress(StorageError):  # the next one does it
                self._give_back(run_ids, moved)
            raise

    def _title(self, what: str) -> str:
        return f"clean {self.manager.study}: {what}"

    def _claim(self, run_ids: Sequence[int], force: bool) -> list[int]:
        present = _present(self.manager, run_ids)
        if not force:
            _refuse(self.manager, present)
        for _, run in present:
            entries, earlier = run.entries, _claim_of(run.entries)
            kept = {name: entries[name] for name in ("state", HANDLE, CANCEL) if name in entries}
            before = earlier.kept if earlier else json.dumps(kept, default=repr)
            claim = _Claim(self.action, self.name, before)
            # Without a handle, a launcher that hears of the end of its job only now writes nothing.
            entries.pop(HANDLE, None)
            entries.update({"state": TOBELAUNCHED, CANCEL: str(claim)})
        return [run_id for run_id, _ in present]

    def _is_ours(self, run: Any) -> bool:
        claim = _claim_of(run.entries)
        return claim is not None and claim.name == self.name

    def _give_back(self, run_ids: Sequence[int], moved: Mapping[int, tuple[Path, Path]]) -> None:
        """Make those runs what they were that were not changed: nobody knows what became of a commit."""

        def look() -> list[int]:
            return [run_id for run_id, run in _present(self.manager, run_ids) if self._is_ours(run)]

        _put_back(moved, transact(self._title("look"), look))
        transact(self._title("release"), lambda: self._release(run_ids))

    def _release(self, run_ids: Sequence[int]) -> None:
        for _, run in _present(self.manager, run_ids):
            claim = _claim_of(run.entries)
            if claim is not None and claim.name == self.name:
                for name in ("state", CANCEL):
                    run.entries.pop(name)
                run.entries.update(json.loads(claim.kept))

    def _set_aside(self, run_ids: Iterable[int], moved: dict[int, tuple[Path, Path]]) -> None:
        for run_id in run_ids:
            place = run_directory(self.manager, run_id)
            if os.path.lexists(place):
                aside = place.with_name(f"{_ASIDE}{self.name}") / place.name
                aside.parent.mkdir(exist_ok=True)
                moved[run_id] = place, aside
                place.rename(aside)

    def _change(self, run_ids: Sequence[int], moved: Mapping[int, tuple[Path, Path]]) -> int:
        present = _present(self.manager, run_ids)
        if taken := [run_id for run_id, run in present if not self._is_ours(run)]:
            _put_back(moved, taken)  # they may be at work there
            names = ", ".join(f"{self.manager.study}.{run_id}" for run_id in taken)
            raise MotokoError(
                f"somebody else has changed these runs meanwhile: {names}",
                hint="Nothing was done to this batch of runs. Call `motoko clean` again.",
            )
        for run_id, run in present:
            if self.action == _DELETE:
                _delete(self.manager, run_id, run)
            else:
                _reset(run)
        return len(present)


def _put_back(moved: Mapping[int, tuple[Path, Path]], run_ids: Iterable[int]) -> None:
    for run_id in run_ids:
        if run_id in moved:
            place, aside = moved[run_id]
            with contextlib.suppress(OSError):
                aside.rename(place)


def _present(manager: TaskManager, run_ids: Iterable[int]) -> list[tuple[int, Any]]:
    runs = manager.base._get_runs().entries
    return [(run_id, runs[run_id]) for run_id in run_ids if run_id in runs]


def _remove_what_was_set_aside(manager: TaskManager) -> None:
    for aside in runs_directory(manager).glob(f"{_ASIDE}*"):
        # What a process is still writing there must not keep the others from being removed.
        shutil.rmtree(aside, ignore_errors=True)


def _refuse(manager: TaskManager, runs: Sequence[tuple[int, Any]]) -> None:
    busy, others = [], set()
    for run_id, run in runs:
        if run is None or _claim_of(run.entries):
            continue
        state = state_of(run.entries)
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
    record = read_exit_record(run_directory(manager, run_id), tag)
    return record is None or record.exit_code is None


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
