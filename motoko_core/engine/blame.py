"""Saying whose fault an exception is: which action, which runs, and which line of the user's code."""

from __future__ import annotations

import contextlib
import functools
import inspect
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ZEO.Exceptions import ClientDisconnected
from ZODB.POSException import ConflictError

from motoko_core.errors import (
    ActionError,
    ConflictRetriesExceeded,
    MotokoError,
    RunFailed,
    WorkflowAborted,
    WorkflowStalled,
)

#: What undoes a transaction without anybody's fault. A lost connection is one of them: whether the commit has
#: happened or not, doing the work again from its top is safe.
UNDOING = (ConflictError, ClientDisconnected)


def is_conflict(error: BaseException | None) -> bool:
    """Whether an exception is a conflict, or was raised because of one, and another attempt may help."""
    chain = list(_chain(error))
    if any(isinstance(e, ConflictRetriesExceeded) for e in chain):
        return False
    return any(isinstance(e, UNDOING) for e in chain)


def is_about_failed_runs(error: BaseException | None) -> bool:
    """Whether an exception stands for the failure of runs, not for a fault in the user's code."""
    return any(isinstance(e, (RunFailed, WorkflowAborted)) for e in _chain(error))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, those that it comes from, and the members of groups."""
    todo, seen = [error], set()
    while todo:
        error = todo.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        yield error
        todo.append(error.__cause__ or (None if error.__suppress_context__ else error.__context__))
        todo.extend(getattr(error, "exceptions", ()))  # an ExceptionGroup, of Python 3.11


@contextlib.contextmanager
def blaming(what: str, directory: Path, *functions: Any) -> Iterator[None]:
    """Turn an exception of user code into an :class:`ActionError` that says where it came from.

    :param directory: the workflow's; files in it are the user's.
    :param functions: what is called; the files in which they are defined are the user's, too.
    """
    try:
        yield
    except (WorkflowAborted, WorkflowStalled, ActionError, ConflictRetriesExceeded):
        raise
    except Exception as error:
        if is_conflict(error):
            raise
        place = _place(error, directory, functions)
        if isinstance(error, MotokoError):
            wrapped = ActionError(f"{what}: {error.message}", where=error.where or place, hint=error.hint)
            wrapped.exit_code = error.exit_code
        else:
            wrapped = ActionError(f"{what} raised {type(error).__name__}: {error}", where=place)
        raise wrapped from error


def _place(error: BaseException, directory: Path, functions: tuple[Any, ...]) -> str | None:
    """The innermost line of the user's code in a traceback.

    If there is none, because a call did not even begin: where the function is defined.
    """
    codes = [code for code in map(_code, functions) if code is not None]
    files = {code.co_filename for code in codes}
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename in files or _is_within(f.filename, directory)]
    if own:
        return f"{own[-1].filename}:{own[-1].lineno}"
    if codes:
        return f"{codes[0].co_filename}:{codes[0].co_firstlineno}"
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None


def _is_within(file: str, directory: Path) -> bool:
    # A virtual environment may well stand in the workflow's directory.
    path = Path(file)
    return path.is_absolute() and path.is_relative_to(directory) and "site-packages" not in file


def _code(f: Any) -> Any:
    """The code of the function below decorators, partials and objects that can be called."""
    while isinstance(f, functools.partial):
        f = f.func
    if not callable(f):
        return None
    f = inspect.unwrap(f)
    if not inspect.isroutine(f):
        f = type(f).__call__
    function: Callable[..., Any] = getattr(f, "__func__", f)
    return getattr(function, "__code__", None)
