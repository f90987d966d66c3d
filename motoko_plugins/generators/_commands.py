"""Executing a scheduler's programs, which may hang."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import attrs

#: A program that hangs in the kernel does not end even by SIGKILL; nobody waits longer for it.
_KILL_S = 5.0
_SHORT = {
    *(errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT),
}


@attrs.frozen(kw_only=True)
class Outcome:
    """What a command has done.

    :param code: its exit code; negative for a signal; None: it did not end in time, or did not start.
    :param errors: its standard error, or why it did not start or end, and what it had said until then.
    :param has_started: whether there was a process.
    :param is_short: it did not start for want of memory, processes, open files or disk space: it may, later.
    """

    command: str
    code: int | None
    output: str = ""
    errors: str = ""
    has_started: bool = True
    is_short: bool = False

    @classmethod
    def not_started(cls, command: str, error: Exception, *, is_short: bool) -> Outcome:
        """Of a command that could not even be started."""
        return cls(command=command, code=None, errors=str(error), has_started=False, is_short=is_short)

    def __str__(self) -> str:
        """The command and its end, for messages."""
        end = "did not end well" if self.code is None else f"ended with exit code {self.code}"
        return f"`{self.command}` {end}: {self.errors.strip() or self.output.strip() or '(no output)'}"


@contextmanager
def script_file(text: bytes) -> Iterator[str]:
    """A file with a script, for as long as the block.

    :raises OSError: it cannot be written.
    """
    descriptor, name = tempfile.mkstemp(prefix="motoko-", suffix=".sh")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
        yield name
    finally:
        with suppress(OSError):  # somebody may have tidied up
            Path(name).unlink()


async def execute(
    command: Sequence[str], *, environment: Mapping[str, str], timeout_s: float, stdin: bytes = b""
) -> Outcome:
    """Execute a command in a process group of its own; one that hangs is killed with its children.

    Never raises for the command. It gets ``stdin`` whole, then the end of the file.
    """
    words = " ".join(command)
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        is_short = isinstance(error, OSError) and error.errno in _SHORT
        return Outcome.not_started(words, error, is_short=is_short)
    talking = asyncio.ensure_future(process.communicate(stdin))
    try:
        await asyncio.wait({talking}, timeout=timeout_s)
        if not talking.done():
            await _kill(process, talking)
            said = talking.result()[1].decode(errors="replace").strip() if _has_ended(talking) else ""
            why = f"no answer within {timeout_s:g} s" + (f"; it said: {said}" if said else "")
            return Outcome(command=words, code=None, errors=why)
        output, errors = talking.result()
    finally:
        if process.returncode is None or not talking.done():
            await _kill(process, talking)
    return Outcome(
        command=words,
        code=process.returncode,
        output=output.decode(errors="replace"),
        errors=errors.decode(errors="replace"),
    )


async def _kill(process: asyncio.subprocess.Process, talking: asyncio.Future[tuple[bytes, bytes]]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await asyncio.wait({talking}, timeout=_KILL_S)
    talking.cancel()


def _has_ended(talking: asyncio.Future[tuple[bytes, bytes]]) -> bool:
    return talking.done() and not talking.cancelled() and talking.exception() is None
