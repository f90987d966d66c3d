"""What the launcher writes into a study when it launches runs; how they end is in :mod:`.endings`.

Each function here is one piece of work for one transaction, over many runs at once: a commit costs a disk
write, whatever the number of runs in it. It may be called again, after a conflict or a lost connection.
"""

from __future__ import annotations

import getpass
import importlib.metadata
import json
import os
import secrets
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import attrs
import BlackDynamite
from ZODB.POSException import POSError

from motoko_core.entries import CANCEL, HANDLE, NOT_BEFORE, handle_of, state_of, tag_of
from motoko_core.errors import MotokoError, TaskError
from motoko_core.interfaces import LaunchTask
from motoko_core.launch import endings, workspace
from motoko_core.lifecycle import run_directory
from motoko_core.states import CREATED
from motoko_core.study.plain_objects import Unexpected

if TYPE_CHECKING:
    from motoko_core.launch.service import Service
    from motoko_core.study.runs import Run, Runs
    from motoko_core.task_manager import TaskManager


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


def new_tags(manager: TaskManager, run_ids: Iterable[int]) -> dict[int, str]:
    """Names for one execution of each run, unique in the world."""
    return {run_id: f"motoko-{manager.study}-{run_id}-{secrets.token_hex(6)}" for run_id in run_ids}


def _with_data(run: Run, data: Mapping[str, Any]) -> str:
    return json.dumps({**handle_of(run.entries), "data": dict(data)})


def _values(run: Run) -> dict[str, Any]:
    return {**run.attributes, **run.entries}


# Each of the following can be called again after a commit of which nobody knows whether it happened (the
# connection was lost meanwhile): what was written under the same tag counts as ours.


@attrs.frozen
class Launch:
    """A run that is about to be submitted.

    :param intent: what is written down of it, to find its job again.
    :param files: name -> text of what its directory is to hold beside the script.
    """

    task: LaunchTask
    intent: Mapping[str, Any]
    files: Mapping[str, str]
    script: str


def launch(
    manager: TaskManager, runs: Runs, tags: Mapping[int, str], service: Service
) -> tuple[list[Launch], dict[int, str]]:
    """Take runs that wait: CREATED -> the generator's launched state. A script may start from now on.

    One that has an earlier execution is left alone: both would share one directory.

    :param tags: run id -> the name of its execution.
    :return: those that are ours; and run id -> why it cannot be executed, which is written down already.
    """
    generator = service.generator
    requirements = runs.add_file("requirements.txt", _requirements())
    found, refused = [], dict[int, str]()
    for run_id, run in runs.get(tags):
        tag, entries = tags[run_id], run.entries
        if state_of(entries) == CREATED:
            if tag_of(entries) == tag:  # it was ours already, and was reset before a generator got it
                entries.pop(HANDLE)
            if tag_of(entries):
                continue
            entries.pop(CANCEL, None)  # of an earlier execution
        elif state_of(entries) != generator.launched_state or tag_of(entries) != tag:
            continue  # somebody else has taken it, or it was cancelled
        elif entries.get(CANCEL) == tag:  # it is ours already, and no generator has got it
            entries.pop(HANDLE)
            entries.pop(CANCEL)
            endings.cancel(run)
            continue
        entries.pop(NOT_BEFORE, None)
        endings.forget_decision(run)
        entries.update(
            {
                "run_path": str(run_directory(manager, run_id)),
                "blackdynamite_version": BlackDynamite.__version__,
                "python_requirements": requirements,
            }
        )
        with apart(run_id, refused):
            if entries.get(HANDLE) and not tag_of(entries):
                raise TaskError(
                    f"{manager.study}.{run_id} has an entry {HANDLE!r} that no launcher has written",
                    hint="Motoko keeps there what finds the run's job. Give a parameter another name.",
                )
            task = task_of(manager, runs, run_id, run, tag, service.settings)
            found.append((run, task, *_files_of(manager, runs, task, run.configfiles)))
        if run_id in refused:
            if tag_of(entries):
                entries.pop(HANDLE)  # ours: this is done again
            endings.fail(run, tag, "SUBMIT", None, refused[run_id])
    intents = generator.intents([task for _, task, _, _ in found])
    launched = []
    for (run, task, files, script), intent in zip(found, intents, strict=True):
        handle = {"tag": task.tag, "generator": service.name, "data": dict(intent)}
        run.entries.update({"state": generator.launched_state, HANDLE: json.dumps(handle)})
        launched.append(Launch(task, intent, files, script))
    return launched, refused


@contextmanager
def apart(run_id: int, odd: dict[int, str]) -> Iterator[None]:
    """Whatever is odd about one run concerns that run alone; trouble with the database concerns all.

    :param odd: gets what is wrong with the run.
    """
    try:
        yield
    except (POSError, Unexpected, OSError):
        raise
    except MotokoError as error:
        odd[run_id] = str(error)
    except Exception as error:  # noqa: BLE001 - scripts and users may store anything
        odd[run_id] = f"{type(error).__name__}: {error}"


def waiting(runs: Runs, run_ids: Iterable[int]) -> list[int]:
    """Those of some runs that are to be executed, now or when their earlier execution has ended."""
    return [run_id for run_id, run in runs.get(run_ids) if state_of(run.entries) == CREATED]


def task_of(
    manager: TaskManager, runs: Runs, run_id: int, run: Run, tag: str, settings: Any = None
) -> LaunchTask:
    """What the generator needs to know of a run.

    :param settings: the generator's options for this task manager.

    :raises ~motoko_core.errors.TaskError: the run lacks something.
    """
    reference, entries = f"{manager.study}.{run_id}", run.entries
    file = runs.file(entries.get("exec"))
    if file is None:
        raise TaskError(
            f"{reference} has no script to execute", hint="BlackDynamite sets it with run.setExecFile."
        )
    nproc = 1 if entries.get("nproc") is None else entries["nproc"]
    if not isinstance(nproc, int) or nproc < 1:
        raise TaskError(f"nproc of {reference} is {nproc!r}, not a whole number above 0")
    run_name = str(entries.get("run_name"))
    if not _can_be_in_a_file_name(run_name):
        raise TaskError(f"run_name of {reference} is {run_name!r}, which no file can have in its name")
    return LaunchTask(
        tag=tag,
        task=reference,
        run_id=run_id,
        run_name=run_name,
        directory=run_directory(manager, run_id),
        script=file.name,
        nproc=nproc,
        options=_values(run),
        settings=settings,
    )


def _can_be_in_a_file_name(text: str) -> bool:
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def task_in_hand(manager: TaskManager, runs: Runs, run_id: int, run: Run, tag: str) -> LaunchTask:
    """What follows and stops the job of a run, also if the run's entries have become odd since it began."""
    odd: dict[int, str] = {}
    with apart(run_id, odd):
        return task_of(manager, runs, run_id, run, tag)
    return LaunchTask(
        tag=tag,
        task=f"{manager.study}.{run_id}",
        run_id=run_id,
        run_name=str(run_id),
        directory=run_directory(manager, run_id),
        script="",
        options=_values(run),
    )


def in_hand(runs: Runs, run_ids: Iterable[int]) -> list[tuple[int, Run, str]]:
    """Those of some runs that a launcher of Motoko has in hand: id, run, and tag."""
    return [(run_id, run, tag) for run_id, run in runs.get(run_ids) if (tag := tag_of(run.entries))]


def _files_of(
    manager: TaskManager, runs: Runs, task: LaunchTask, file_ids: Iterable[str]
) -> tuple[Mapping[str, str], str]:
    """The configuration files of a run, and its script, as they belong into its directory.

    :raises ~motoko_core.errors.MotokoError: a variable without a value, a file that is not there.
    """
    job_id, study = task.options.get("job_id"), manager.database.schema
    if not runs.has_job(job_id):
        raise TaskError(f"{task.task} belongs to no job (job_id = {job_id!r})")
    texts = {}
    for file_id in [*file_ids, task.options["exec"]]:
        file = runs.file(file_id)
        if file is None:
            raise TaskError(f"a configuration file of {task.task} is not in the study (id {file_id!r})")
        texts[file.name] = file.content
    if any(workspace.has_variables(text) for text in texts.values()):
        job, host, run_id = runs.job(job_id) or {}, manager.host, task.run_id
        for name, text in texts.items():
            texts[name] = workspace.replace_variables(
                text, job=job, run=task.options, host=host, study=study, run_id=run_id
            )
    script = workspace.exec_script(
        texts.pop(task.script), host=manager.host, study=study, run_id=task.run_id, user=_user()
    )
    return texts, script


def prepare(launch: Launch) -> None:
    """Write the run directory.

    :raises ~motoko_core.errors.ConfigError: a file with an impossible name.
    :raises OSError: the file system refuses.
    """
    task = launch.task
    workspace.prepare(task.directory, files=launch.files, script_name=task.script, script=launch.script)


def submitted(runs: Runs, handles: Mapping[int, tuple[str, Mapping[str, Any]]]) -> None:
    """Write down how to find the jobs again. ``handles``: run id -> tag and handle."""
    for run_id, run in runs.get(handles):
        tag, handle = handles[run_id]
        if tag_of(run.entries) == tag:
            run.entries[HANDLE] = _with_data(run, handle)
