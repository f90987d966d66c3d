"""Where a command's results go: standard output, or a file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from motoko_core.cli.output import OutputError, emit
from motoko_core.errors import ConfigError


class Target(Protocol):
    """Where text goes; a file has ``buffer`` for bytes besides."""

    def write(self, text: str, /) -> object: ...


class Stdout:
    """Standard output."""

    def write(self, text: str) -> None:
        emit(text)


@contextmanager
def destination(path: Path | None) -> Iterator[Target]:
    """A file that appears under its name when it is complete, or standard output.

    What is no plain file, such as ``/dev/null`` or a named pipe, is written as it is.
    """
    if path is None:
        yield Stdout()
        return
    if path.is_dir():
        raise ConfigError(f"{path} is a directory", where="--output", hint="Name a file in it.")
    plain = path.is_file() or not path.exists()
    if plain:
        path = path.resolve()  # of a link, the file is replaced (but /dev/stdout leads to no name)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp") if plain else path
    try:
        try:
            with draft.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
                yield file
            if plain:
                if path.exists():
                    shutil.copymode(path, draft)
                draft.replace(path)
        finally:
            if plain:
                with suppress(FileNotFoundError):
                    draft.unlink()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error
