"""The action registry: which callback fires on which condition."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import attrs

from motoko_core.errors import ConfigError
from motoko_core.interfaces import Condition, RunCondition
from motoko_core.study.constraints import Constraint

ALL = "__all__"

#: A task: task manager and run id.
Reference: TypeAlias = tuple[str, int]

EventCallback: TypeAlias = Callable[..., Any]
EventCondition: TypeAlias = "Callable[..., Any] | str | list[str] | Condition | None"


@attrs.frozen(kw_only=True, eq=False)
class Action:
    """A registration of ``add_action``. Unpacks to ``event, f, get_params`` as in Motoko 0.1.

    :param task: the task manager that is watched, or ``__all__``.
    :param constraints: for a :class:`RunCondition`, by task manager: its constraints, read.
    :param place: where it was registered, ``file:line``.
    :param is_error_handler: registered by ``add_error_handler``: ends the workflow, and is not called for
        failures that another handler has decided to ignore.
    """

    event_name: str
    task: str
    event: Any
    f: EventCallback
    get_params: Any = None
    once_per_run: bool = False
    condition: Condition
    constraints: Mapping[str, Constraint] = attrs.field(factory=dict)
    place: str | None = None
    is_error_handler: bool = False

    def __iter__(self) -> Iterator[Any]:
        return iter((self.event, self.f, self.get_params))

    @property
    def is_run_level(self) -> bool:
        return isinstance(self.condition, RunCondition)


ActionRegistry: TypeAlias = dict[str, dict[str, Action]]


def check_callback(f: Any, event_name: str, place: str | None) -> EventCallback:
    """:raises ConfigError: ``f`` cannot be called as an action."""
    if not callable(f):
        raise ConfigError(
            f"the action {event_name!r} has no callback: f={f!r}",
            where=place,
            hint="Pass f=<function>: async def f(runs=None, workflow=None, **params).",
        )
    plain = inspect.unwrap(f)  # below decorators such as @event
    if inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain):
        raise ConfigError(
            f"the callback of action {event_name!r} is a generator: {f!r}",
            where=place,
            hint="Write a plain or an async function without `yield`; `await` what takes time.",
        )
    return f  # type: ignore[no-any-return]


def accepted_arguments(f: EventCallback, available: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the available arguments that the signature of ``f`` takes; all of them for ``**kwargs``."""
    try:
        parameters = inspect.signature(f).parameters
    except (TypeError, ValueError):  # some callables written in C
        return dict(available)
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return dict(available)
    named = {name for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return {name: value for name, value in available.items() if name in named}


def first_parameter(f: EventCallback) -> str | None:
    """The name of the first parameter, which ``main`` gets the workflow as, whatever it is called."""
    try:
        return next(iter(inspect.signature(f).parameters), None)
    except (TypeError, ValueError):
        return None
