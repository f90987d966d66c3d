"""What the launcher writes into a study: claims, launches, hand-backs, ends.

Each function here is one piece of work for :func:`motoko_core.session.transact`, over many runs at once: a
commit costs a disk write, whatever the number of runs in it.
"""

from __future__ import annotations

import getpass
import importlib.metadata
import json
import socket
import uuid
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import BlackDynamite

from motoko_core.errors import TaskError
from motoko_core.interfaces import Ended, LaunchTask
from motoko_core.launch import workspace
from motoko_core.lifecycle import runs_directory
from motoko_core.states import CREATED, FAILED, FINISHED, TOBELAUNCHED, is_active, is_failure
from motoko_core.study.blackdynamite import new_file
from motoko_core.study.values import prefetch, values_of

if TYPE_CHECKING:
    from motoko_core.task_manager import TaskManager

#: A text, not a mapping: when a script and the launcher change a run at the same time, the database merges
#: the changes only if all values of the run can be ordered.
HANDLE = "handle"
#: Set on a run that a launcher has in hand: it is to be cancelled. The tag of the execution that is meant.
CANCEL = "cancel"


def machine_names() -> frozenset[str]:
    """Values of ``machine_name`` that a launcher on this machine serves."""
    return frozenset({"localhost", socket.gethostname()})


@lru_cache(maxsize=1)
def _requirements() -> str:
    """The installed distributions, which ``canYouDigIt runs info --run_id`` shows for a run."""
    found = {f"{d.metadata['Name']}=={d.version}" for d in importlib.metadata.distributions()}
    return "\n".join(sorted(found))


@lru_cache(maxsize=1)
def _user() -> str:
    return getpass.getuser()


def _runs(manager: TaskManager, run_ids: Iterable[int]) -> Iterable[tuple[int, Any]]:
    runs = manager.base._get_runs().entries
    for run_id in run_ids:
        run = runs.get(run_id)
        if run is not None:
            yield run_id, run


def run_directory(manager: TaskManager, run_id: int) -> Path:
    return runs_directory(manager) / f"run-{run_id}"


def new_tags(manager: TaskManager, run_ids: Iterable[int]) -> dict[int, str]:
    """Names for one execution of each run, unique in the world."""
    return {run_id: f"motoko-{manager.study}-{run_id}-{uuid.uuid4().hex[:12]}" for run_id in run_ids}


def handle_of(entries: Mapping[str, Any]) -> dict[str, Any]:
    """``tag``, ``generator`` (its name) and ``data`` that it has given; empty if no launcher has the run."""
    text = entries.get(HANDLE)
    return dict(json.loads(text)) if text else {}


def _with_data(run: Any, data: Mapping[str, Any]) -> str:
    return json.dumps({**handle_of(run.entries), "data": dict(data)})


def _tag(run: Any) -> str:
    return str(handle_of(run.entries).get("tag", ""))


# Each of the following can be called again after a commit of which nobody knows whether it happened (the
# connection was lost meanwhile): what was written under the same tag counts as ours.


def claim(manager: TaskManager, tags: Mapping[int, str], generator: str = "") -> list[int]:
    """Take runs that wait: CREATED -> TOBELAUNCHED. Answers those that nobody else has taken meanwhile.

    :param generator: the name of the generator that will get them.
    """
    # A file of its own for each study: an object belongs to one database.
    requirements = new_file("requirements.txt", _requirements())
    files = manager.base.configfiles
    if requirements.id not in files:
        files[requirements.id] = requirements
    claimed = []
    for run_id, run in _runs(manager, tags):
        state = run.entries.get("state")
        if state == TOBELAUNCHED and _tag(run) == tags[run_id]:
            claimed.append(run_id)
        if state != CREATED:
            continue
        run.entries.update(
            {
                "state": TOBELAUNCHED,
                "run_path": str(run_directory(manager, run_id)),
                "blackdynamite_version": BlackDynamite.__version__,
                "python_requirements": requirements.id,
                HANDLE: json.dumps({"tag": tags[run_id], "generator": generator}),
            }
        )
        run.entries.pop("not_before", None)
        run.entries.pop(CANCEL, None)
        claimed.append(run_id)
    return claimed


def fetch(manager: TaskManager, run_ids: Iterable[int], *, jobs: bool = False) -> None:
    """Have the server send these runs together, and their jobs; one by one each takes a round trip."""
    base = manager.base
    runs = [run for _, run in _runs(manager, run_ids)]
    connection = base._get_runs()._p_jar
    prefetch(connection, runs, "entries", "configfiles")
    if jobs:
        entries = base._get_jobs().entries
        found = [entries.get(run.entries.get("job_id")) for run in runs]
        prefetch(connection, [job for job in found if job is not None], "entries")


def task_of(manager: TaskManager, run_id: int, settings: Any = None) -> LaunchTask:
    """What the generator needs to know of a claimed run.

    :param settings: the generator's options for this task manager.

    :raises ~motoko_core.errors.TaskError: the run lacks something, or is gone.
    """
    reference, base = f"{manager.study}.{run_id}", manager.base
    run = base._get_runs().entries.get(run_id)
    if run is None:
        raise TaskError(f"{reference} was deleted")
    entries = run.entries
    file = base.configfiles.get(entries.get("exec"))
    if file is None:
        raise TaskError(
            f"{reference} has no script to execute", hint="BlackDynamite sets it with run.setExecFile."
        )
    nproc = entries.get("nproc") or 1
    if not isinstance(nproc, int):
        raise TaskError(f"nproc of {reference} is {nproc!r}, not a whole number")
    return LaunchTask(
        tag=_tag(run),
        task=reference,
        run_id=run_id,
        run_name=str(entries.get("run_name")),
        directory=Path(entries.get("run_path") or run_directory(manager, run_id)),
        script=file.filename,
        nproc=nproc,
        options=dict(values_of(run)),
        settings=settings,
    )


def in_hand(manager: TaskManager, run_ids: Iterable[int]) -> dict[int, str]:
    """Tags of those runs that a launcher of Motoko has in hand."""
    return {run_id: tag for run_id, run in _runs(manager, run_ids) if (tag := _tag(run))}


def prepare(manager: TaskManager, task: LaunchTask) -> None:
    """Write the run directory.

    :raises ~motoko_core.errors.MotokoError: a variable without a value, a file with an impossible name.
    :raises OSError: the file system refuses.
    """
    base = manager.base
    run = base._get_runs().entries[task.run_id]
    job = base._get_jobs().entries.get(run.entries.get("job_id"))
    if job is None:
        raise TaskError(f"{task.task} belongs to no job (job_id = {run.entries.get('job_id')!r})")
    values: Mapping[str, Any] = {
        "job": dict(values_of(job)),
        "run": task.options,
        "host": manager.host,
        "study": base.schema,
        "run_id": task.run_id,
    }
    texts = {}
    for file_id in [*run.configfiles, run.entries["exec"]]:
        file = base.configfiles.get(file_id)
        if file is None:
            raise TaskError(f"a configuration file of {task.task} is not in the study (id {file_id!r})")
        texts[file.filename] = workspace.replace_variables(file.file, **values)
    script = workspace.exec_script(
        texts.pop(task.script),
        host=manager.host,
        study=base.schema,
        run_id=task.run_id,
        user=_user(),
    )
    workspace.prepare(task.directory, files=texts, script_name=task.script, script=script)


def launched(
    manager: TaskManager, intents: Mapping[int, tuple[str, Mapping[str, Any]]], state: str
) -> list[int]:
    """Say that runs are about to be submitted; a script may start from now on. Answers those still ours.

    One that is to be cancelled is, and is not ours any more.

    :param intents: run id -> tag, and what finds the job if nobody lives to write its handle down.
    """
    ours = []
    for run_id, run in _runs(manager, intents):
        tag, intent = intents[run_id]
        if _tag(run) != tag or run.entries.get("state") not in (TOBELAUNCHED, state):
            continue
        if run.entries.get(CANCEL) == tag:  # no generator could be told: none has got it
            run.entries.pop(HANDLE)
            run.entries.pop(CANCEL)
            cancel(run)
        else:
            run.entries.update({"state": state, HANDLE: _with_data(run, intent)})
            ours.append(run_id)
    return ours


def submitted(manager: TaskManager, handles: Mapping[int, tuple[str, Mapping[str, Any]]]) -> None:
    """Write down how to find the jobs again. ``handles``: run id -> tag and handle."""
    for run_id, run in _runs(manager, handles):
        tag, handle = handles[run_id]
        if _tag(run) == tag:
            run.entries[HANDLE] = _with_data(run, handle)


def hand_back(manager: TaskManager, tags: Mapping[int, str]) -> None:
    """Make runs that were not executed to their end ready for the next launcher."""
    for run_id, run in _runs(manager, tags):
        if _tag(run) != tags[run_id]:
            continue  # somebody has reset the run meanwhile
        run.entries.pop(HANDLE)
        if not is_active(run.entries.get("state")):
            continue
        if run.entries.pop(CANCEL, None) == tags[run_id]:
            cancel(run)
        else:
            run.entries.update({"state": CREATED, "start_time": None})


def cancel(run: Any) -> None:
    """Write that a run was cancelled which nobody executes."""
    attempt = (run.entries.get("failure") or {}).get("attempt", 1)
    failure = {"reason": "CANCELLED", "exit_code": None, "attempt": attempt, "stderr": ""}
    run.entries.update({"state": FAILED, "failure": failure})


def told(ended: Ended, task: LaunchTask) -> str:
    """What is told of a failure: the end of the run's standard error, and what the generator knows."""
    good = ended.exit_code == 0 and ended.reason is None
    words = "" if good else workspace.stderr_tail(task.stderr)
    if not ended.message:
        return words
    return f"{words.rstrip()}\n{ended.message}".lstrip()


def settle(manager: TaskManager, ends: Mapping[int, tuple[Ended, str]]) -> None:
    """Write how runs ended, unless their scripts did. ``ends``: run id -> the end, and its stderr's end."""
    for run_id, run in _runs(manager, ends):
        ended, stderr = ends[run_id]
        entries = run.entries
        if _tag(run) != ended.tag:
            continue  # as above
        entries.pop(HANDLE)
        entries.pop(CANCEL, None)
        good = ended.exit_code == 0 and ended.reason is None
        if is_active(entries.get("state")):
            entries["state"] = FINISHED if good else FAILED
        if is_failure(entries.get("state")):
            earlier = entries.get("failure") or {}
            entries["failure"] = {
                "reason": ended.reason or ("SIGNAL" if (ended.exit_code or 0) < 0 else "EXIT_CODE"),
                "exit_code": ended.exit_code,
                "attempt": earlier.get("attempt", 1),
                "stderr": stderr,
            }
