"""Generators made of BlackDynamite's coats: ``slurm``, ``pbs`` and ``sge``.

The coat writes the job script and names the command that submits it; Motoko executes that command itself,
so that one that fails is seen. How such a run ends is known from its state only, which its script sets:
nothing asks the scheduler, so a job that the scheduler kills without telling its script stays as it is.
(A native SLURM generator, which polls the queue, takes the place of ``slurm`` later.)
"""

from __future__ import annotations

import asyncio
import getpass
import importlib.util
import logging
import re
import shlex
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import attrs

from motoko_core.errors import ConfigError
from motoko_core.hookspecs import hookimpl
from motoko_core.interfaces import Ended, JobGenerator, LaunchTask, Submitted
from motoko_plugins.generators._environment import job_environment

log = logging.getLogger(__name__)

#: Holds the tag of the job that was about to be submitted from this run directory.
SUBMITTED_FILE = ".motoko-submitted"

_EXPORT = re.compile(r"^export (BLACKDYNAMITE_\w+)=(.*)$", re.MULTILINE)
#: The coats' traps call a program that does not exist (BlackDynamite 1.3.9).
_TRAP = re.compile(r'^updateRuns\.py --updates "state = (.*?)" --truerun$', re.MULTILINE)


def _strings(value: Any) -> tuple[str, ...]:
    """Accept one string as well as a list of them; ``--time=1:00`` is the same as ``time=1:00``."""
    items = [value] if isinstance(value, str) else list(value or ())
    return tuple(str(item).strip().removeprefix("--") for item in items)


@attrs.frozen(kw_only=True)
class CoatOptions:
    """``slurm_options``, ``pbs_options`` and ``sge_options`` of motoko.yaml.

    :param options: directives of the job script: ``time=1:00:00`` becomes ``#SBATCH --time=1:00:00``; for
        PBS and SGE they are written as on the command line, such as ``-q long``.
    :param module: environment modules that the script loads first.
    :param walltime: for PBS and SGE; SLURM has ``time=`` among its options.
    """

    options: tuple[str, ...] = attrs.field(default=(), converter=_strings)
    module: tuple[str, ...] = attrs.field(default=(), converter=_strings)
    walltime: str = "48:00:00"

    @classmethod
    def from_strings(cls, strings: Sequence[str]) -> CoatOptions:
        """Make options of the list form."""
        return cls(options=strings)


class CoatGenerator(JobGenerator):
    """Submits runs with one of BlackDynamite's coats.

    :raises ConfigError: the scheduler's program is not on the PATH.
    """

    Options = CoatOptions
    #: The coat's module, what the scheduler calls its options there, and the scheduler's programs.
    coat: ClassVar[str]
    options_name: ClassVar[str]
    submit_program: ClassVar[str]
    cancel_program: ClassVar[str]

    def __init__(self, options: CoatOptions | None = None) -> None:
        super().__init__(options or CoatOptions())
        self._environment = job_environment()
        if shutil.which(self.submit_program, path=self._environment["PATH"]) is None:
            raise ConfigError(
                f"the program {self.submit_program!r}, which submits jobs, is not on the PATH",
                hint="Start Motoko where jobs are submitted (a login node; `module load` may be needed), or "
                "choose another generator: `generator: bash` in motoko.yaml, or --generator bash.",
            )
        self._job_ids: dict[str, str] = {}

    async def submit(self, batch: Sequence[LaunchTask]) -> Sequence[Submitted]:
        """Submit one job after the other; a command that fails is the answer's error."""
        return [await self._submit(task) for task in batch]

    async def _submit(self, task: LaunchTask) -> Submitted:
        try:
            command = write_script(self, task)
            (task.directory / SUBMITTED_FILE).write_text(task.tag)
            code, output, errors = await self._execute(command, task.directory)
        except (OSError, ValueError) as error:
            return Submitted(tag=task.tag, error=f"cannot submit {task.task}: {error}")
        if code:
            return Submitted(
                tag=task.tag, error=f"`{command}` ended with exit code {code}: {errors or output}"
            )
        # `Submitted batch job 7`, `7.server`, `Your job 7 ("name") has been submitted`
        number = re.search(r"\d+(\.[\w.-]+)?", (output.splitlines() or [""])[-1])
        job_id = self._job_ids[task.tag] = number[0].rstrip(".") if number else ""
        return Submitted(tag=task.tag, handle={"job": job_id})

    async def _execute(self, command: str, directory: Path | None = None) -> tuple[int, str, str]:
        process = await asyncio.create_subprocess_shell(
            command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            stdin=asyncio.subprocess.DEVNULL,
            cwd=directory,
            env=self._environment,
        )
        output, errors = [text.decode(errors="replace").strip() for text in await process.communicate()]
        return process.returncode or 0, output, errors

    async def adopt(self, batch: Sequence[tuple[LaunchTask, Mapping[str, Any] | None]]) -> set[str]:
        """Take every job for alive that was submitted, or may have been."""
        return {task.tag for task, handle in batch if self._adopt(task, handle)}

    def _adopt(self, task: LaunchTask, handle: Mapping[str, Any] | None) -> bool:
        if not handle:
            try:
                return (task.directory / SUBMITTED_FILE).read_text() == task.tag
            except OSError:
                return False
        self._job_ids[task.tag] = str(handle.get("job") or "")
        return True

    async def ended(self) -> AsyncIterator[Ended]:
        """Yield nothing: the state that the script sets is all that is known."""
        await asyncio.Event().wait()
        yield Ended(tag="", exit_code=None)  # never reached; makes this a generator

    async def cancel(self, tags: Sequence[str], *, grace_s: float = 5.0) -> None:
        """Ask the scheduler to stop the jobs; it does so in its own time."""
        job_ids = [job_id for tag in tags if (job_id := self._job_ids.pop(tag, ""))]
        if job_ids:
            command = f"{self.cancel_program} {shlex.join(job_ids)}"
            code, _, errors = await self._execute(command)
            if code:
                log.warning("`%s` ended with exit code %d: %s", command, code, errors)


class _Run(SimpleNamespace):
    """What a coat wants of BlackDynamite's run; there is no database here."""

    def __init__(self, task: LaunchTask, text: str) -> None:
        entries = {"nproc": task.nproc, "run_name": task.run_name}
        super().__init__(id=task.run_id, entries=entries)
        self.file: dict[str, str] = {"filename": task.script, "file": text}
        if task.options.get("slurm_options"):
            self.slurm_options = list(_strings(task.options["slurm_options"]))
        values = {name: shlex.split(value)[0] for name, value in _EXPORT.findall(text)}
        self.values = {
            "dbhost": values.get("BLACKDYNAMITE_HOST", ""),
            "study": values.get("BLACKDYNAMITE_STUDY", ""),
            "run_id": str(task.run_id),
            "run_path": str(task.directory),
        }

    def __getitem__(self, name: str) -> Any:
        return self.entries[name]

    def __setitem__(self, name: str, value: Any) -> None:
        """Ignore the state: the launcher has written it."""

    def update(self) -> None:
        """Write nothing."""

    def getExecFile(self) -> dict[str, str]:
        """The job script; the coat puts its head before it."""
        file: dict[str, str] = self.file
        return file

    def replaceBlackDynamiteVariables(self, text: str) -> str:
        """Replace what occurs in the heads that coats write."""
        text = _TRAP.sub(r'canYouDigIt runs update --truerun "state=\1"', text)
        for name, value in self.values.items():
            text = text.replace(f"__BLACKDYNAMITE__{name}__", value)
        return text


def write_script(generator: CoatGenerator, task: LaunchTask) -> str:
    """Have the coat write the job script; answer the command that submits it."""
    commands: list[str] = []
    # A copy of the module of its own, in which nothing is executed and no directory changed.
    spec = importlib.util.find_spec(f"BlackDynamite.coating.{generator.coat}")
    assert spec is not None
    assert spec.loader is not None
    coat: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(coat)
    coat.subprocess = SimpleNamespace(call=lambda command, **_: commands.append(command) or 0)  # type: ignore[func-returns-value]
    coat.open = lambda name, mode: (task.directory / name).open(mode, errors="surrogateescape")
    coat.print = log.debug
    options: CoatOptions = generator.options
    params: dict[str, Any] = {"user": getpass.getuser(), "current_cwd": False, "cwd": True}
    params["walltime"] = options.walltime
    params[generator.options_name] = list(options.options)
    if options.module:
        params["module"] = list(options.module)
    text = (task.directory / task.script).read_text(errors="surrogateescape")
    steps = coat.launch(_Run(task, text), params)
    if hasattr(steps, "__next__"):
        for _ in steps:
            pass
    return commands[-1]


def _make(name: str, submit: str, cancel: str) -> type[CoatGenerator]:
    """The class for ``<name>Coat``."""
    attributes = {
        "coat": f"{name}Coat",
        "options_name": "slurm_options" if name == "slurm" else f"{name}_option",
        "launched_state": f"{name.upper()} submit",
        "submit_program": submit,
        "cancel_program": cancel,
    }
    return type(f"{name.capitalize()}CoatGenerator", (CoatGenerator,), attributes)


@hookimpl
def motoko_generators() -> Mapping[str, type[JobGenerator]]:
    """Provide ``pbs`` and ``sge``."""
    return {
        "pbs": _make("pbs", "qsub", "qdel"),
        "sge": _make("sge", "qsub", "qdel"),
    }
