"""The generator ``sge``, made of BlackDynamite's coat of that name.

The coat writes the job script and names the command that submits it; Motoko executes that command itself,
so that one that fails is seen. How such a run ends is known from its state only, which its script sets:
nothing asks the scheduler, so a job that the scheduler kills without telling its script stays as it is.
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
    """Accept one string as well as a list of them."""
    items = [value] if isinstance(value, str) else list(value or ())
    return tuple(str(item).strip() for item in items)


@attrs.frozen(kw_only=True)
class CoatOptions:
    """``sge_options`` of motoko.yaml.

    :param options: directives of the job script, as on the command line: ``-q long``.
    :param module: environment modules that the script loads first.
    :param walltime: the time limit.
    """

    options: tuple[str, ...] = attrs.field(default=(), converter=_strings)
    module: tuple[str, ...] = attrs.field(default=(), converter=_strings)
    walltime: str = "48:00:00"

    @classmethod
    def from_strings(cls, strings: Sequence[str]) -> CoatOptions:
        """Make options of the list form."""
        return cls(options=strings)


class SgeGenerator(JobGenerator):
    """Submits runs with BlackDynamite's coat.

    :raises ConfigError: ``qsub`` is not on the PATH.
    """

    launched_state: ClassVar[str] = "SGE submit"
    Options = CoatOptions

    def __init__(self, options: CoatOptions | None = None) -> None:
        super().__init__(options or CoatOptions())
        self._environment = job_environment()
        if shutil.which("qsub", path=self._environment["PATH"]) is None:
            raise ConfigError(
                "the program 'qsub', which submits jobs, is not on the PATH",
                hint="Start Motoko where jobs are submitted (a login node; `module load` may be needed), or "
                "choose another generator: `generator: bash` in motoko.yaml, or --generator bash.",
            )
        self._job_ids: dict[str, str] = {}

    async def submit(self, batch: Sequence[LaunchTask]) -> Sequence[Submitted]:
        """Submit one job after the other; a command that fails is the answer's error."""
        return [await self._submit(task) for task in batch]

    async def _submit(self, task: LaunchTask) -> Submitted:
        try:
            command = write_script(self.options, task)
            (task.directory / SUBMITTED_FILE).write_text(task.tag)
            code, output, errors = await self._execute(command, task.directory)
        except (OSError, ValueError) as error:
            return Submitted(tag=task.tag, error=f"cannot submit {task.task}: {error}")
        if code:
            return Submitted(
                tag=task.tag, error=f"`{command}` ended with exit code {code}: {errors or output}"
            )
        # `Your job 7 ("name") has been submitted`
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
            command = f"qdel {shlex.join(job_ids)}"
            code, _, errors = await self._execute(command)
            if code:
                log.warning("`%s` ended with exit code %d: %s", command, code, errors)


class _Run(SimpleNamespace):
    """What a coat wants of BlackDynamite's run; there is no database here."""

    def __init__(self, task: LaunchTask, text: str) -> None:
        entries = {"nproc": task.nproc, "run_name": task.run_name}
        super().__init__(id=task.run_id, entries=entries)
        self.file: dict[str, str] = {"filename": task.script, "file": text}
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


def write_script(options: CoatOptions, task: LaunchTask) -> str:
    """Have the coat write the job script; answer the command that submits it."""
    commands: list[str] = []
    # A copy of the module of its own, in which nothing is executed and no directory changed.
    spec = importlib.util.find_spec("BlackDynamite.coating.sgeCoat")
    assert spec is not None
    assert spec.loader is not None
    coat: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(coat)
    coat.subprocess = SimpleNamespace(call=lambda command, **_: commands.append(command) or 0)  # type: ignore[func-returns-value]
    coat.open = lambda name, mode: (task.directory / name).open(mode, errors="surrogateescape")
    coat.print = log.debug
    params: dict[str, Any] = {"user": getpass.getuser(), "current_cwd": False, "cwd": True}
    params["walltime"] = options.walltime
    params["sge_option"] = list(options.options)
    if options.module:
        params["module"] = list(options.module)
    text = (task.directory / task.script).read_text(errors="surrogateescape")
    steps = coat.launch(_Run(task, text), params)
    if hasattr(steps, "__next__"):
        for _ in steps:
            pass
    return commands[-1]


@hookimpl
def motoko_generators() -> Mapping[str, type[JobGenerator]]:
    """Provide ``sge``."""
    return {"sge": SgeGenerator}
