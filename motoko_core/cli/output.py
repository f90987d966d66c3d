"""All that the command line writes: words, tables, log lines, errors.

Standard output is for what was asked for; standard error for log lines and complaints.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any, TextIO

from motoko_core.errors import ActionError, ConfigError, MotokoError

#: What a file or a directory can be, that nobody but the user can change.
_SURROUNDINGS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class OutputError(MotokoError):
    """Standard output is closed, or does not take what is written."""


def say(text: str = "") -> None:
    """Write to standard output.

    :raises BrokenPipeError: nobody reads it any more.
    :raises OutputError: it was closed from the start, or the disk is full.
    """
    with _stdout() as stream:
        stream.write(text + "\n")
        stream.flush()


def emit(text: str) -> None:
    """Write a part of something long to standard output as it is; raises as :func:`say` does."""
    with _stdout() as stream:
        stream.write(text)


def emit_bytes(data: bytes) -> None:
    """Write bytes to standard output as they are; raises as :func:`say` does."""
    with _stdout() as stream:
        stream.flush()
        stream.buffer.write(data)  # type: ignore[attr-defined]
        stream.buffer.flush()  # type: ignore[attr-defined]


@contextmanager
def _stdout() -> Iterator[IO[str]]:
    if sys.stdout is None:  # what Python makes of a closed descriptor
        raise OutputError("standard output is closed")
    try:
        yield sys.stdout
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write to standard output: {error.strerror or error}") from error


def flush_stdout() -> None:
    """Write what is still in the buffer, such as what user code printed; raises as :func:`say` does."""
    with _stdout() as stream:
        stream.flush()


def complain(text: str) -> None:
    """Write to standard error, if anybody listens."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        _give_up(sys.stderr)


def is_terminal() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def size_text(count: int) -> str:
    """A number of bytes as people write it: ``1.2 MB``."""
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{count} B" if unit == "B" else f"{size:.1f} {unit}"


# ---------------------------------------------------------------------- tables


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write a table: drawn on a terminal, plain columns with two spaces between them in a pipe."""
    texts = [["" if value is None else str(value) for value in row] for row in rows]
    if is_terminal():
        import rich.box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        drawn = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False)
        for header in headers:
            drawn.add_column(header, overflow="fold")
        for row in texts:
            drawn.add_row(*map(Text, row))
        Console().print(drawn)
        return
    say("\n".join(columns([list(headers), *texts])))


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with aligned columns; a cell is one line, so that a line is one row for grep and awk."""
    flat = [[" ".join(cell.split()) or "-" for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*flat, strict=True)]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in flat]


# ---------------------------------------------------------------------- log lines


class _Lines(logging.StreamHandler):  # type: ignore[type-arg]  # a class with parameters from Python 3.11 on
    """Writes to what ``sys.stderr`` is at the moment: a live table on the terminal replaces it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr if sys.stderr is not None else _NOWHERE


class _Nowhere:
    def write(self, text: str) -> None:
        pass

    def flush(self) -> None:
        pass


_NOWHERE = _Nowhere()


#: Motoko's own, and those of the plugins that come with it.
_OURS = ("motoko", "motoko_plugins")
#: They write tracebacks of their own about what they raise as well, above all when a server goes away.
_LIBRARIES = ("txn", "ZEO", "ZODB")


@contextmanager
def log_lines(level: int) -> Iterator[None]:
    """Write Motoko's log messages from ``level`` on to standard error, as plain lines.

    The databases' libraries are only heard from ``DEBUG`` on.
    """
    ours = [logging.getLogger(name) for name in _OURS]
    quiet = [logging.getLogger(name) for name in _LIBRARIES if level > logging.DEBUG]
    levels = [library.level for library in quiet]
    for library in quiet:
        library.setLevel(logging.CRITICAL + 1)
    handler = _Lines()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    before = [(logger.level, logger.propagate) for logger in ours]
    for logger in ours:
        logger.setLevel(level)
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, (earlier, propagate) in zip(ours, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(earlier)
            logger.propagate = propagate
        for library, earlier in zip(quiet, levels, strict=True):
            library.setLevel(earlier)


# ---------------------------------------------------------------------- errors


def report(error: BaseException, *, verbose: bool) -> int:
    """Say what went wrong; answer the exit code."""
    if _is_broken_pipe(error):
        return 1
    if verbose:
        complain("".join(traceback.format_exception(error)).rstrip())
    if isinstance(error, MotokoError):
        complain(f"motoko: error: {error}")
        if isinstance(error, ActionError) and not error.hint and not verbose:
            complain("  With --verbose, the traceback is shown as well.")
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        complain("motoko: interrupted")
        return 1
    if isinstance(error, OSError) and error.errno in _SURROUNDINGS:
        complain(f"motoko: error: {error.filename or 'a file'}: {error.strerror}")
        return ConfigError.exit_code
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    complain(
        f"motoko: internal error: {text}"
        + ("" if verbose else "\n  Please run it again with --verbose, and report what it shows.")
    )
    return 1


def _is_broken_pipe(error: BaseException | None) -> bool:
    # User code that prints gets it too, and the engine blames the action.
    while error is not None:
        if isinstance(error, BrokenPipeError):
            return True
        error = error.__cause__
    return False


def occupy_closed_streams() -> None:
    """Open the standard descriptors that are closed, or the next file or socket would become one of them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def settle_stdout() -> None:
    """Write what is still in the buffer; if that cannot be, let the interpreter's last flush go nowhere."""
    try:
        flush_stdout()
    except (OSError, OutputError):
        _give_up(sys.stdout)


def _give_up(stream: TextIO) -> None:
    """Let what is still in a stream's buffer go nowhere; the interpreter's last flush would fail."""
    try:
        descriptor = stream.fileno()
    except (AttributeError, OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
