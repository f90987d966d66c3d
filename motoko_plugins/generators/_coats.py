"""Which coats there are, what motoko.yaml may say about them, and what a coat's job script executes."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from motoko_core.errors import ConfigError
from motoko_core.interfaces import EXECUTE, LaunchTask
from motoko_plugins.generators._coat_runner import SUBMITTED_FILE
from motoko_plugins.generators._job_script import quote

_LAUNCH = re.compile(r"^(@.*\n)*def launch\(", re.MULTILINE)
_SHARED = {"shared": True}


@attrs.frozen(kw_only=True)
class Known:
    """What Motoko knows of one of BlackDynamite's own coats.

    :param state: that its runs get when they are submitted.
    :param options_name: what ``<coat>_options`` are called among the coat's parameters.
    :param submit_program: without which it cannot work.
    :param job_variable: the environment variable in which the scheduler tells a job what it is called.
    """

    state: str = "launched"
    options_name: str = ""
    submit_program: str = ""
    job_variable: str = ""
    status: str = ""
    cancel: str = ""
    params: Mapping[str, Any] = attrs.field(factory=dict)


KNOWN = {
    "sge": Known(
        state="SGE submit",
        options_name="sge_option",
        submit_program="qsub",
        job_variable="JOB_ID",
        status="qstat",
        cancel="qdel {jobs}",
        params={"walltime": "48:00:00"},
    ),
}


def _strings(value: Any) -> tuple[str, ...]:
    """Accept one string as well as a list of them."""
    items = [value] if isinstance(value, str) else list(value or ())
    return tuple(str(item).strip() for item in items)


def _positive(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise ConfigError(f"{attribute.name} = {value!r} is not a number above 0")


def _whole(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{attribute.name} = {value!r} is not a positive whole number")


def _command(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not isinstance(value, str):
        raise ConfigError(f"{attribute.name} = {value!r} is not a command", hint="Write it as one text.")


@attrs.frozen(kw_only=True)
class CoatOptions:
    """``<coat>_options`` of motoko.yaml. A list has the coat's options only.

    :param options: what the coat gets as its ``--<coat>_options``; further words such as ``--queue long`` may
        follow, as on BlackDynamite's command line. For sge: directives, such as ``-q long``.
    :param module: environment modules that the job script loads first, if the coat knows ``module``.
    :param walltime: the coat's ``walltime``.
    :param params: further parameters of the coat, by name.
    :param cancel: the command that stops jobs: ``{job}`` for one, ``{jobs}`` for several at once. Without it,
        only jobs with processes on this machine are stopped, and jobs that have not begun.
    :param status: the command that lists the scheduler's jobs; those whose numbers it does not print are
        gone. Or one with ``{job}``, which succeeds as long as the job is there. Without it, a job counts
        until its run's exit record says that it has ended.
    :param poll_interval_s: how often the run directories are looked at; seconds.
    :param status_interval_s: how often ``status`` is executed; seconds.
    :param lost_after_s: how long a job must be gone without an end in its record to count as lost; seconds.
    :param at_once: runs that the coat launches side by side. A coat that executes a run itself, instead of
        submitting it, occupies a place until its end.
    """

    options: tuple[str, ...] = attrs.field(default=(), converter=_strings)
    module: tuple[str, ...] = attrs.field(default=(), converter=_strings)
    walltime: str | None = None
    params: dict[str, Any] = attrs.field(factory=dict, validator=attrs.validators.instance_of(dict))
    cancel: str | None = attrs.field(default=None, validator=_command, metadata=_SHARED)
    status: str | None = attrs.field(default=None, validator=_command, metadata=_SHARED)
    poll_interval_s: float = attrs.field(default=2.0, validator=_positive, metadata=_SHARED)
    status_interval_s: float = attrs.field(default=30.0, validator=_positive, metadata=_SHARED)
    lost_after_s: float = attrs.field(default=60.0, validator=_positive, metadata=_SHARED)
    at_once: int = attrs.field(factory=lambda: os.cpu_count() or 1, validator=_whole, metadata=_SHARED)

    @classmethod
    def from_strings(cls, strings: Sequence[str]) -> CoatOptions:
        """Make options of the list form."""
        return cls(options=strings)


def find_coat(name: str, directory: Path | None) -> Path | None:
    """The module of a coat: beside motoko.yaml, on PYTHONPATH, or BlackDynamite's own.

    :param name: with or without ``Coat``, as BlackDynamite looks for ``<name>.py``.
    """
    if not re.fullmatch(r"\w+", name):
        return None
    places = [directory] if directory else []
    places += [Path(place) for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    if (spec := importlib.util.find_spec("BlackDynamite")) is not None:
        places += [Path(place) / "coating" for place in spec.submodule_search_locations or ()]
    for place in places:
        for file in (f"{name}Coat.py", f"{name}.py"):
            with suppress(OSError):
                if _LAUNCH.search((place / file).read_text(encoding="utf-8", errors="replace")):
                    return place / file
    return None


def request(name: str, task: LaunchTask, options: CoatOptions, known: Known) -> dict[str, Any]:
    """Write the run's own script under another name; answer what the runner needs to know of the run.

    :raises OSError: the directory is not there, or the file system refuses.
    :raises ValueError: no coat can have such a directory.
    """
    if "\n" in str(task.directory):
        raise ValueError("a directory with a line end in its name cannot be written into a job script")
    script = task.directory / task.script
    own = task.directory / f".motoko-{task.script}"
    text = script.read_bytes()
    own.unlink(missing_ok=True)
    own.write_bytes(text)
    params: dict[str, Any] = {**known.params, "outpath": str(task.directory.parent)}
    if options.walltime is not None:
        params["walltime"] = options.walltime
    if options.module:
        params["module"] = list(options.module)
    words = [f"--{known.options_name or f'{name}_options'}"] if options.options else []
    if known.options_name:
        words += options.options
    else:
        words += shlex.split(" ".join(options.options))
    return {
        "tag": task.tag,
        "run_id": task.run_id,
        "run_name": task.run_name,
        "nproc": task.nproc,
        "directory": str(task.directory),
        "script": task.script,
        "options": dict(task.options),
        "exports": text.decode("utf-8", "surrogateescape"),
        "text": job_text(task, own.name, known.job_variable),
        "words": words,
        "params": {**params, **options.params},
    }


def job_text(task: LaunchTask, script: str, job_variable: str) -> str:
    """What a coat takes for the run's script: it executes the run once, and keeps its exit record.

    It is a process of its own for two reasons: the coat's head may want another shell than bash, and its
    traps come when the script has ended, as they always have. What a coat writes behind it is not executed:
    it would write a state, perhaps when the run has long been started again.

    No name in it begins a line, which could be a directive.
    """
    # As the generators' `_machine` module reads it.
    here = "$HOSTNAME/$(cat /proc/sys/kernel/random/boot_id 2> /dev/null)/:$$"
    job = f"${{{job_variable}:-{here}}}" if job_variable else here
    programs = str(Path(sys.executable).parent)
    names = [task.tag, str(task.directory), script, str(task.stdout), str(task.stderr)]
    inner = (
        f"{EXECUTE}\ntrap : HUP INT QUIT TERM USR1 USR2\n"
        f"case :$PATH: in *:{shlex.quote(programs)}:*) ;; "
        f"*) export PATH={shlex.quote(programs)}:$PATH ;; esac\n"
        f'motoko_execute {" ".join(map(quote, names))} "{job}"\n'
    )
    return f"bash -c {shlex.quote(inner)}\nexit $?\n"


def submitted_job(task: LaunchTask) -> str | None:
    """What the scheduler calls the job of this execution; empty if nobody knows, None if there is none."""
    try:
        found = json.loads((task.directory / SUBMITTED_FILE).read_text())
        return str(found["job"]) if found["tag"] == task.tag else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
