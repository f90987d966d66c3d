"""Lets one of BlackDynamite's coats submit runs. Executed as a file, in a process of its own.

A coat is a module with a function ``launch(run, params)``. It expects the run's directory for the working
directory, and does as it likes: it writes the job script and calls a program that submits it, or executes the
script and waits. So each run gets a process of its own, forked from one that has imported the coat.

It reads lines of JSON: what all have in common, then a task each. It answers for each task with one line of
JSON: ``tag``, and ``job`` (what the scheduler calls it, perhaps empty) or ``error``.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

#: Holds, in the run directory, the tag of what was submitted from there and what the scheduler calls it.
SUBMITTED_FILE = ".motoko-submitted"

_EXPORT = re.compile(r"^export (BLACKDYNAMITE_\w+)=(.*)$", re.MULTILINE)
#: The coats' traps call a program that does not exist (BlackDynamite 1.3.9).
_TRAP = re.compile(r'^updateRuns\.py --updates "state = (.*?)" --truerun$', re.MULTILINE)
#: How schedulers say what a job is called, the surest first; warnings may stand around it.
_JOB_WORDS = (
    re.compile(r"\b(?:job|job-array|<)\s*<?(\d[\w.-]*)>?.*\bsubmitted\b", re.IGNORECASE),
    re.compile(r"\bsubmitted batch job (\d+)", re.IGNORECASE),
    re.compile(r"^(\d+(?:\[\])?(?:\.[\w.-]+)?)(?:;\w+)?$", re.MULTILINE),
)
_PR_SET_PDEATHSIG = 1


class Run:
    """What a coat wants of BlackDynamite's run; there is no database here."""

    def __init__(self, task: dict[str, Any]) -> None:
        self.id: int = task["run_id"]
        name = re.sub(r"[^\w.:+=@,-]", "_", task["run_name"])  # it goes into directives as it is
        self.entries: dict[str, Any] = {**task["options"], "nproc": task["nproc"], "run_name": name}
        self._file = {"filename": task["script"], "file": task["text"]}
        exported = {name: shlex.split(value)[0] for name, value in _EXPORT.findall(task["exports"])}
        self.values = {
            **{key: str(value) for key, value in self.entries.items()},
            "dbhost": exported.get("BLACKDYNAMITE_HOST", ""),
            "study": exported.get("BLACKDYNAMITE_STUDY", ""),
            "run_id": str(self.id),
            "run_path": shlex.quote(task["directory"]),
        }

    def __getitem__(self, name: str) -> Any:
        return self.entries[name.lower()]

    def __setitem__(self, name: str, value: Any) -> None:
        """Keep it here: the launcher has written the state."""
        self.entries[name.lower()] = value

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["entries"][name.lower()]
        except KeyError:
            raise AttributeError(name) from None

    def update(self, **_: Any) -> None:
        """Write nothing."""

    def getExecFile(self) -> dict[str, str]:
        """The job script; the coat puts its head before it."""
        return self._file

    def getConfigFiles(self) -> list[Any]:
        """None: they are in the run directory already."""
        return []

    def replaceBlackDynamiteVariables(self, text: str) -> str:
        """Replace what occurs in the heads that coats write."""
        text = _TRAP.sub(r'canYouDigIt runs update --truerun "state=\1"', text)
        for name, value in self.values.items():
            text = text.replace(f"__BLACKDYNAMITE__{name}__", value)
        return text


class _Commands:
    """The commands that a coat executes: how the last one ended, and what it printed."""

    def __init__(self) -> None:
        self._offset = 0
        self._captured = ""
        self._last: subprocess.Popen[Any] | int = 0
        watcher, popen = self, subprocess.Popen

        class Watched(popen):  # type: ignore[misc, valid-type]
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                watcher.begin()
                super().__init__(*args, **kwargs)
                watcher._last = self

            def communicate(self, *args: Any, **kwargs: Any) -> Any:
                answer = super().communicate(*args, **kwargs)
                out = answer[0] or ""
                watcher._captured = out.decode(errors="replace") if isinstance(out, bytes) else out
                return answer

        subprocess.Popen = Watched  # type: ignore[misc]
        system = os.system

        def watched(command: Any) -> int:
            self.begin()
            code = system(command)
            self._last = os.waitstatus_to_exitcode(code)
            return code

        os.system = watched

    def begin(self) -> None:
        sys.stdout.flush()
        self._offset, self._captured = os.lseek(1, 0, os.SEEK_END), ""

    @property
    def code(self) -> int:
        """Of the last command; 0 if it goes on."""
        return self._last if isinstance(self._last, int) else self._last.poll() or 0

    @property
    def output(self) -> str:
        """Of the last command."""
        return self._captured or printed(self._offset)


def printed(offset: int = 0) -> str:
    """What was printed since then."""
    sys.stdout.flush()
    text = os.pread(1, 1 << 16, offset)
    return text.decode(errors="replace").strip()


def load(path: str) -> ModuleType:
    """Import a coat."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None
    assert spec.loader is not None
    coat = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(coat)
    return coat


class _Parser:
    """What a coat's ``register_param`` gets."""

    def __init__(self) -> None:
        self.parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        self.completer = None

    def register_group(self, title: str) -> Any:
        return self.parser.add_argument_group(title)


def parameters(coat: ModuleType, job: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    """The coat's ``params``: its own defaults, what motoko.yaml says, and what BlackDynamite adds.

    :raises ValueError: the coat knows no such option.
    """
    words = list(task["words"])
    params: dict[str, Any] = {"cwd": True, "current_cwd": False, "quiet": True, "generator": coat}
    params.update(job["params"])
    params.update(getattr(coat, "default_params", {}))
    if hasattr(coat, "register_param"):
        parser = _Parser()
        coat.register_param(parser)
        namespace, unknown = parser.parser.parse_known_args(words)
        if unknown:
            raise ValueError(f"the coat has no option {shlex.join(unknown)}")
        params.update({key: value for key, value in vars(namespace).items() if value is not None})
    elif words:
        params[words[0].removeprefix("--")] = words[1:]
    params.update(task["params"])
    return params


def submit(coat: ModuleType, job: dict[str, Any], task: dict[str, Any]) -> dict[str, Any]:
    """Have the coat launch one run; answer with ``job`` or ``error``."""
    os.chdir(task["directory"])
    commands = _Commands()
    try:
        steps = coat.launch(Run(task), parameters(coat, job, task))
        if hasattr(steps, "__next__"):
            for _ in steps:
                pass
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a coat may do
        return {"error": f"{type(error).__name__}: {error}\n{printed()}".strip()}
    if commands.code:
        return {"error": f"its command ended with exit code {commands.code}: {commands.output}".rstrip(": ")}
    return {"job": job_in(commands.output)}


def job_in(text: str) -> str:
    """What the scheduler calls the job, by what its program has printed; empty if it does not say."""
    found = [match[1] for words in _JOB_WORDS for match in words.finditer(text)]
    if not found:  # a number in the last line
        found = re.findall(r"\d+(?:\.[\w.-]+)?", text.strip().rpartition("\n")[2])
    return str(found[0]).rstrip(".") if found else ""


def die_with(parent: int) -> None:
    """Have the system end this process when its parent ends (Linux only)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def child(coat: ModuleType, job: dict[str, Any], task: dict[str, Any], answers: int) -> None:
    """Submit one run, in a process of its own."""
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDONLY)
    with tempfile.TemporaryFile() as output:
        for source, target in ((nowhere, 0), (output.fileno(), 1), (output.fileno(), 2)):
            os.dup2(source, target)
        answer = {"tag": task["tag"], **submit(coat, job, task)}
        if "job" in answer:
            note(Path(task["directory"]), answer)
        if "error" in answer:
            answer["error"] = answer["error"][-2000:]
        os.write(answers, json.dumps(answer).encode() + b"\n")


def note(directory: Path, answer: dict[str, Any]) -> None:
    """Write down what was submitted, for whoever asks when the launcher is gone."""
    new = directory / f"{SUBMITTED_FILE}.new"
    with contextlib.suppress(OSError):
        new.write_text(json.dumps(answer))
        new.replace(directory / SUBMITTED_FILE)


def places(at_once: int) -> Iterator[set[int]]:
    """The processes that work, over and over, with room for one more."""
    working: set[int] = set()
    while True:
        while len(working) >= at_once:
            working.discard(os.wait()[0])
        yield working


def main() -> None:
    """Read the job and its tasks, submit them, and wait until all is done."""
    job, *tasks = map(json.loads, sys.stdin)
    die_with(job["parent"])
    answers = os.dup(1)
    os.set_inheritable(answers, False)
    sys.path[:] = [*job["sys_path"], str(Path(job["coat"]).parent)]
    try:
        coat = load(job["coat"])
    except (Exception, SystemExit) as error:  # noqa: BLE001 - as above
        line = traceback.format_exception_only(type(error), error)[-1].strip()
        for task in tasks:
            text = f"cannot import {job['coat']}: {line}"
            os.write(answers, json.dumps({"tag": task["tag"], "error": text}).encode() + b"\n")
        return
    runner = os.getpid()
    for task, working in zip(tasks, places(job["at_once"]), strict=False):
        pid = os.fork()
        if not pid:
            die_with(runner)
            code = 1
            try:
                child(coat, job, task, answers)
                code = 0
            finally:
                os._exit(code)
        working.add(pid)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


if __name__ == "__main__":
    main()
