"""Runs and jobs as user code sees them: they refuse to work when the session that gave them is over."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import wrapt

from motoko_core.errors import StaleObjectError

if TYPE_CHECKING:
    _Proxy = wrapt.ObjectProxy[Any]
else:
    _Proxy = wrapt.ObjectProxy  # of version 1 or 2


def stale(reference: str) -> StaleObjectError:
    """The error about using what a session has handed out after its end."""
    return StaleObjectError(
        f"{reference} was handed out by a session that is over",
        hint="Keep the reference instead of the object, and get it again where it is needed: "
        f"workflow.get_runs([{reference!r}]), or a selection.",
    )


class _Ended:
    """What a handed-out object turns into when its session is over."""

    def __init__(self, reference: str) -> None:
        object.__setattr__(self, "_reference", reference)

    def _refuse(self) -> StaleObjectError:
        return stale(object.__getattribute__(self, "_reference"))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what interpreters and proxies probe for is simply not there
            raise AttributeError(name)
        raise self._refuse()

    def __setattr__(self, name: str, value: Any) -> None:
        raise self._refuse()

    def __getitem__(self, key: Any) -> Any:
        raise self._refuse()

    def __setitem__(self, key: Any, value: Any) -> None:
        raise self._refuse()

    def __contains__(self, key: Any) -> bool:
        raise self._refuse()

    def __iter__(self) -> Iterator[Any]:
        raise self._refuse()

    def __repr__(self) -> str:
        return f"<{object.__getattribute__(self, '_reference')}, of a session that is over>"


class _Nothing:
    """What a proxy wraps before it is given its object."""


_NOTHING = _Nothing()


class Handed(_Proxy):
    """A run or a job as user code sees it: the object itself, until its session ends."""

    def __init__(self, value: Any, reference: str) -> None:
        # wrapt asks what it is made with for its docstring and module, and gives it the chance to be fixed
        # up when it is replaced: each would read the run from the database.
        super().__init__(_NOTHING)
        self.__wrapped__ = value
        self._self_reference = reference

    def __wrapped_setattr_fixups__(self) -> None:
        pass

    def __repr__(self) -> str:
        return repr(self.__wrapped__)

    def _self_end(self) -> None:
        """Refuse to work from now on."""
        self.__wrapped__ = _Ended(self._self_reference)

    # ZODB stores a link from one object to another with the class of the target, here the wrapper's, unless
    # that class needs arguments to be made: then it looks the class up with the target.
    def __getnewargs__(self) -> Any:
        # Reached for a target that the database does not have yet.
        raise TypeError(
            f"{self._self_reference} is new, and cannot be linked to before it is committed: "
            "create it with commit=True"
        )

    def _refuse_copy(self, *_: Any) -> Any:
        raise TypeError(
            "a run or a job cannot be stored or copied: store its reference, such as 'add.3', "
            "and get it again with workflow.get_runs"
        )

    __reduce_ex__ = __copy__ = __deepcopy__ = _refuse_copy


def _nothing_known(name: str) -> Any:
    raise KeyError(name)


class HandedKnown(Handed):
    """The same, with values that need not be read from the database.

    :param known: gives a value, KeyError for what must be read.
    """

    def __init__(self, value: Any, reference: str, known: Callable[[str], Any]) -> None:
        super().__init__(value, reference)
        self._self_known = known

    def _self_end(self) -> None:
        super()._self_end()
        self._self_known = _nothing_known

    def __getattr__(self, name: str) -> Any:
        try:
            return self._self_known(name)
        except KeyError:
            pass  # what is raised then has nothing to do with it
        return getattr(self.__wrapped__, name)

    def __getitem__(self, key: Any) -> Any:
        try:
            return self._self_known(key)
        except KeyError:
            pass
        return self.__wrapped__[key]


class Seen(HandedKnown):
    """The same outside of sessions that end: what can be done with the object can be done with it."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.__wrapped__.__reduce_ex__(protocol)

    def __copy__(self) -> Any:
        return copy.copy(self.__wrapped__)

    def __deepcopy__(self, memo: Any) -> Any:
        return copy.deepcopy(self.__wrapped__, memo)
