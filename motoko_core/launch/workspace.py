"""The run directory: its files, its script, and the variables in them.

Nothing here knows a database or a generator; the launcher brings the values.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from motoko_core.errors import ConfigError, TaskError

_PREFIX = "__BLACKDYNAMITE__"


def has_variables(text: str) -> bool:
    """Whether there may be something to replace."""
    return _PREFIX in text


def replace_variables(
    text: str, *, job: Mapping[str, Any], run: Mapping[str, Any], host: str, study: str, run_id: int
) -> str:
    """Return ``text`` with each ``__BLACKDYNAMITE__<name>__`` replaced by its value.

    The name is looked up in ``job``, then in ``run``, then among ``dbhost``, ``study`` and ``run_id``; it
    is compared as it is written (BlackDynamite's entries are lower-case). A variable that nobody knows
    stays as it is, and a value is never searched for further variables.

    :param study: the schema's name, such as ``jane_add``.
    :raises TaskError: a variable that ``text`` uses has the value None.
    """
    if not has_variables(text):
        return text
    values = {"dbhost": host, "study": study, "run_id": run_id, **run, **job}
    # Longest first: with `x` and `x__y` among the names, `__BLACKDYNAMITE__x__y__` means the second.
    names = "|".join(re.escape(name) for name in sorted(values, key=lambda name: (-len(name), name)))

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if values[name] is None:
            kind = "job" if name in job else "run"
            raise TaskError(
                f"the {kind} parameter {name!r} is not set, but {match[0]} is used",
                where=f"{study}, run {run_id}",
                hint=f"Give {name!r} a value in createTask or bd.yaml, or take the variable out of the file.",
            )
        return str(values[name])

    return re.sub(f"{_PREFIX}({names})__", value, text)


def exec_script(content: str, *, host: str, study: str, run_id: int, user: str) -> str:
    """Return the script of a run: what BlackDynamite reads from the environment, then ``content``.

    :param content: the user's script, variables replaced; always executed by bash.
    :param study: the schema's name; BlackDynamite reads it under two names.
    """
    return f"{_exports(host, study, user)}export BLACKDYNAMITE_RUN_ID={run_id}\n{content}"


@lru_cache(maxsize=100)
def _exports(host: str, study: str, user: str) -> str:
    """How all scripts of a study begin."""
    environment = {
        "BLACKDYNAMITE_HOST": host,
        "BLACKDYNAMITE_STUDY": study,
        "BLACKDYNAMITE_SCHEMA": study,
        "BLACKDYNAMITE_USER": user,
    }
    exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items())
    return f"#!/bin/bash\n{exports}"


def prepare(directory: Path, *, files: Mapping[str, str], script_name: str, script: str) -> None:
    """Create the run directory, or refresh it for another attempt.

    Every file is made anew, never written into: a process of an earlier attempt keeps what it has open,
    and a link that a user put in the place of a file does not lead the text elsewhere.

    :param files: name -> text of the configuration files; the script wins over one of the same name.
    :param script_name: the name under which ``script`` is written, executable.
    :raises ConfigError: a name leads out of the directory.
    :raises OSError: the file system refuses.
    """
    texts = {**files, script_name: script}
    for name in texts:
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise ConfigError(
                f"{name!r} is not the name of a file in the run directory",
                where=str(directory),
                hint="Use a name without '/': configuration files are all written beside the script.",
            )
    # No methods of Path here: for the many, they take as long as the files.
    place = str(directory)
    try:
        os.mkdir(place)  # noqa: PTH102
    except FileNotFoundError:
        directory.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        if not directory.is_dir():
            raise
    for name, text in texts.items():
        _write_new(f"{place}/{name}", text, mode=0o777 if name == script_name else 0o666)


def _write_new(path: str, text: str, *, mode: int) -> None:
    # Bytes: the text comes out as it went into the database, line ends and undecodable bytes included.
    data = text.encode("utf-8", "surrogateescape")
    try:
        _write(path, data, mode)
    except FileExistsError:
        os.unlink(path)  # noqa: PTH108
        _write(path, data, mode)


def _write(path: str, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
    finally:
        os.close(descriptor)


def stderr_tail(path: Path, *, limit_bytes: int = 2000) -> str:
    """Return the end of a file, at most ``limit_bytes`` bytes and whole lines if there are any.

    A file that does not exist or cannot be read has an empty end: the reason of a failure must not be
    hidden by a second failure.
    """
    with suppress(OSError, ValueError), path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - limit_bytes))
        tail = file.read(limit_bytes)
        if size > limit_bytes:
            _, line_end, rest = tail.partition(b"\n")
            tail = rest if line_end and rest else tail
        return tail.decode("utf-8", "replace")
    return ""
