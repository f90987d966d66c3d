"""The user's orchestrator: the module beside motoko.yaml, and the function in it.

The module is user code that is run: what it raises while it is imported is an
:class:`~motoko_core.errors.ActionError`. A name in motoko.yaml that leads nowhere is a
:class:`~motoko_core.errors.ConfigError`.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from motoko_core.config import WorkflowConfig
from motoko_core.errors import ActionError, ConfigError, nearest

#: Motoko 0.1 imports every orchestrator under this name; classes that were stored in a database then
#: are found again by it.
MODULE_NAME = "orchestrator"


class _FreshLoader(importlib.machinery.SourceFileLoader):
    """Compiles the source each time: the bytecode cache overlooks a change within the same second."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def load_orchestrator(config: WorkflowConfig) -> ModuleType:
    """Import the orchestrator's module, anew with every call.

    The workflow's directory becomes the first on ``sys.path``, so that the module can import its
    neighbours. In ``sys.modules`` it is ``orchestrator``, and stands under its own name as well.

    :raises ConfigError: there is no such module beside motoko.yaml.
    :raises ActionError: the module raised while it was imported, or does not compile; the message holds
        the file and the line.
    """
    name = config.orchestrator.partition(".")[0]
    path = config.directory / f"{name}.py"
    if not path.is_file():
        beside = [file.stem for file in config.directory.glob("*.py")]
        raise ConfigError(
            f"'orchestrator' names the module {name!r}, but there is no file {path}.",
            where=config.where("orchestrator"),
            hint=nearest(name, beside),
        )
    _forget_other_workflows(config)
    directory = str(config.directory)
    sys.path[:] = [directory, *(entry for entry in sys.path if entry != directory)]
    importlib.invalidate_caches()  # a neighbour may have been written a moment ago

    loader = _FreshLoader(MODULE_NAME, str(path))
    spec = importlib.util.spec_from_file_location(MODULE_NAME, path, loader=loader)
    assert spec is not None  # None is for files that no loader is known for
    module = importlib.util.module_from_spec(spec)
    names = {MODULE_NAME} if _belongs_to_others(name, path) else {MODULE_NAME, name}
    before = {key: sys.modules.get(key) for key in names}
    sys.modules.update(dict.fromkeys(names, module))
    try:
        loader.exec_module(module)
    except BaseException as exc:
        for key, previous in before.items():
            if previous is None:
                sys.modules.pop(key, None)
            else:
                sys.modules[key] = previous
        if not isinstance(exc, (Exception, SystemExit)):  # Ctrl-C is no fault of the module's
            raise
        raise _import_failed(config, path, exc) from exc
    return module


def orchestrator_function(config: WorkflowConfig, module: ModuleType) -> Callable[..., Any]:
    """Return the function that motoko.yaml names; a coroutine function, or a plain one.

    :raises ConfigError: the module has no such name, or it is nothing that can be called.
    """
    name = config.orchestrator.partition(".")[2]
    known = [
        key
        for key, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", None) == module.__name__
    ]
    if name not in vars(module):
        raise ConfigError(
            f"'orchestrator' names the function {name!r}, which is not in {module.__file__}.",
            where=config.where("orchestrator"),
            hint=nearest(name, known),
        )
    function = getattr(module, name)
    if not callable(function):
        raise ConfigError(
            f"'orchestrator' names {name!r} in {module.__file__}, which is {function!r} and no function.",
            where=config.where("orchestrator"),
            hint=f"Write 'async def {name}(workflow, **params):', or name another function. "
            + nearest(name, known),
        )
    return function  # type: ignore[no-any-return]


def _belongs_to_others(name: str, path: Path) -> bool:
    """Whether ``name`` is that of an imported module with which the workflow has nothing to do."""
    module = sys.modules.get(name)
    if module is None or module.__name__ == MODULE_NAME:
        return False
    # An orchestrator in random.py must not become everybody's 'random'.
    return getattr(module, "__file__", None) != str(path)


def _forget_other_workflows(config: WorkflowConfig) -> None:
    """Forget modules of other workflows, where this one has a module of the same name."""
    for path in config.directory.glob("*.py"):
        file = getattr(sys.modules.get(path.stem), "__file__", None)
        if file is None or Path(file).parent == config.directory:
            continue
        if (Path(file).parent / config.path.name).exists():
            del sys.modules[path.stem]


def _import_failed(config: WorkflowConfig, path: Path, exc: BaseException) -> ActionError:
    place = f"{path}:1"
    # The last line that the user wrote: what happens below it, inside a library, is in the traceback.
    for frame in traceback.extract_tb(exc.__traceback__):
        if _is_users(frame.filename, config):
            place = f"{frame.filename}:{frame.lineno}"
    if isinstance(exc, SyntaxError) and exc.filename and _is_users(exc.filename, config):
        place = f"{exc.filename}:{exc.lineno or 1}"
    hint = None
    if isinstance(exc, SystemExit):
        hint = "Do not exit while the module is imported; do it in a function, or set workflow.finished."
    elif isinstance(exc, ModuleNotFoundError):
        hint = f"Install it for {sys.executable}, or put it beside motoko.yaml."
    text = exc.msg if isinstance(exc, SyntaxError) else str(exc)
    what = f"{type(exc).__name__}: {text}" if text else type(exc).__name__
    return ActionError(f"the orchestrator {path.name} cannot be imported: {what}", where=place, hint=hint)


def _is_users(file: str, config: WorkflowConfig) -> bool:
    # A virtual environment may well stand in the workflow's directory.
    return Path(file).is_relative_to(config.directory) and "site-packages" not in file
