"""Guessing whether a function looks at the clock, at files, or at anything else beyond the workflow.

A workflow in which nothing can happen any more is ended, unless a condition waits for the outside world. A
function does not say which it is, so its code is searched for names that lead there: modules such as ``time``
or ``os``, ``open``, objects of unknown types. Where in doubt, it does: waiting too long does less harm than
ending a workflow that only waited for tomorrow.
"""

from __future__ import annotations

import builtins
import dis
import functools
import types
from collections.abc import Iterable, Iterator
from typing import Any

_UNSEEN = object()

#: Packages whose functions and objects compute from what they are given, or belong to the workflow.
_INSIDE = frozenset(
    {
        *("builtins", "math", "cmath", "statistics", "fractions", "decimal", "numbers", "operator"),
        *("itertools", "functools", "collections", "re", "string", "json", "copy", "enum", "types"),
        *("typing", "typing_extensions", "dataclasses", "attr", "attrs", "abc", "__future__", "logging"),
        *("numpy", "pandas", "scipy", "motoko", "motoko_core", "motoko_plugins", "BlackDynamite"),
    }
)
_OUTSIDE_BUILTINS = frozenset({"open", "input", "exec", "eval", "__import__"})


def looks_outside(function: Any) -> bool:
    """Whether a function may depend on something beyond the workflow's own databases."""
    return _leads_outside(function, set())


def _leads_outside(value: Any, seen: set[int]) -> bool:
    if id(value) in seen:
        return False
    seen.add(id(value))
    if isinstance(value, types.ModuleType):
        return not _is_inside(value.__name__)
    if isinstance(value, types.BuiltinFunctionType):
        return value.__name__ in _OUTSIDE_BUILTINS or not _is_inside(value.__module__ or "builtins")
    if isinstance(value, functools.partial):
        return any(_leads_outside(part, seen) for part in (value.func, *value.args, *value.keywords.values()))
    if isinstance(value, types.MethodType):
        return _leads_outside(value.__func__, seen) or _leads_outside(value.__self__, seen)
    if isinstance(value, types.FunctionType):
        if _is_inside(value.__module__ or ""):
            return False
        return any(_leads_outside(part, seen) for part in _used_by(value))
    kind = value if isinstance(value, type) else type(value)
    return not _is_inside(kind.__module__)


def _used_by(function: types.FunctionType) -> Iterator[Any]:
    """What a function reaches by name: globals, modules that it imports, closures, defaults."""
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a name that is not bound yet
            continue
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    for code in _codes(function.__code__):
        for instruction in dis.get_instructions(code):
            name = instruction.argval
            if instruction.opname == "IMPORT_NAME":
                yield types.ModuleType(str(name) or ".")
            elif instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                found = function.__globals__.get(name, getattr(builtins, str(name), _UNSEEN))
                if found is not _UNSEEN:
                    yield found


def _codes(code: types.CodeType) -> Iterable[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _is_inside(module: str) -> bool:
    return module.partition(".")[0] in _INSIDE
