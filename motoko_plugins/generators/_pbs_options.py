"""``pbs_options``: of motoko.yaml, of a task manager, of a run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from motoko_core.errors import ConfigError, nearest
from motoko_plugins.generators._option_values import module_names, seconds, whole

#: Options that would make qsub do something else than submit one job that Motoko can follow.
_OURS = {
    "C": "Directives begin with #PBS.",
    "I": "Nobody could talk to an interactive job.",
    "J": "Motoko submits a job for each run; several runs in one: pbs_options: {runs_per_job: 10}.",
    "N": "Motoko knows its jobs by their names.",
    "X": "Nobody could talk to an interactive job.",
    "f": "Motoko would wait for the job.",
    "t": "Motoko submits a job for each run; several runs in one: pbs_options: {runs_per_job: 10}.",
    "x": "Nobody could talk to an interactive job.",
    "z": "Motoko must know the job's id.",
}
_EXAMPLE = "Write for example -q long, -l walltime=1:00:00 or -l nodes=1:ppn=4, one option in each string."


def directive(text: object, where: str = "pbs_options") -> str:
    """Return an option as scripts have it behind ``#PBS``: ``-q long``.

    :raises ConfigError: it is no option, or one that Motoko sets itself.
    """
    option = " ".join(str(text).split(" "))  # YAML may have made a number or a mapping of it
    option = option.strip().removeprefix("#PBS").strip()
    if not re.match(r"-[A-Za-z]", option) or not option.isprintable():
        raise ConfigError(f"{text!r} is no option of qsub", where=where, hint=_EXAMPLE)
    letter, value = option[1], option[2:].strip()
    blocks = letter == "W" and re.search(r"(^|,)block=(?!f)", value)
    if letter in _OURS or blocks:
        hint = "Motoko would wait for the job." if blocks else _OURS[letter]
        raise ConfigError(f"{text!r} cannot be given", where=where, hint=hint)
    return f"-{letter} {value}".strip()


def words(option: str) -> list[str]:
    """An option as words of a command: ``-o "my file"`` -> ``-o``, ``my file``."""
    try:
        return [option[:2], *([" ".join(shlex.split(option[2:]))] if option[2:].strip() else [])]
    except ValueError:
        return [option[:2], option[2:].strip()]


def names(option: str) -> set[str]:
    """What an option sets: ``-q long`` -> ``q``; ``-l nodes=1:ppn=4,mem=1gb`` -> ``l.nodes``, ``l.mem``."""
    letter, value = option[1], option[2:].strip()
    if letter not in "lWv":
        return {letter}
    return {f"{letter}.{name}" for name in re.findall(r"(?:^|,)\s*([\w.]+)", value)} or {letter}


def merge(*layers: Iterable[str]) -> tuple[str, ...]:
    """Join options; an earlier layer's are left out if a later layer sets all that they do.

    (Of a resource that is given twice PBS takes the last.)
    """
    found: list[str] = []
    for layer in layers:
        options = list(layer)
        given = {name for option in options for name in names(option)}
        found = [option for option in found if not names(option) <= given] + options
    return tuple(found)


def run_options(value: Any, where: str) -> tuple[str, ...]:
    """The options of a run: a string, or a list of them.

    :raises ConfigError: it is something else.
    """
    if value is None:
        return ()
    if isinstance(value, str):
        return (directive(value, where),)
    if isinstance(value, Sequence):
        return tuple(directive(item, where) for item in value)
    raise ConfigError(f"pbs_options = {value!r} is neither a string nor a list", where=where, hint=_EXAMPLE)


def _options(value: Any) -> tuple[str, ...]:
    return run_options(value, "pbs_options")


_whole, _seconds = whole("pbs_options"), seconds("pbs_options")


def _walltime(value: Any) -> str | None:
    """Seconds, which YAML makes of an unquoted 1:00:00 too, or a text; ``none``: as the site has it."""
    return None if value is None or str(value).lower() == "none" else str(value)


def _time(instance: object, attribute: attrs.Attribute[Any], value: str | None) -> None:
    if value is not None and not re.fullmatch(r"\d+(:\d+){0,3}", value):
        raise ConfigError(
            f"walltime = {value!r} is no duration",
            where="pbs_options",
            hint='Write for example walltime: "12:00:00", or walltime: none.',
        )


@attrs.frozen(kw_only=True)
class PbsOptions:
    """``pbs_options`` of motoko.yaml.

    :param options: options of qsub: ``-q long`` becomes ``#PBS -q long``.
    :param module: environment modules that the job loads first.
    :param walltime: the time limit of jobs whose options give none; None: as the site has it.
    :param runs_per_job: runs that one job executes, one after another.
    :param max_jobs: jobs in the queue at once; None: no limit.
    :param poll_interval_s: how often qstat is asked, in seconds; up to twice as long while nothing happens.
    :param submit_timeout_s: how long qsub may take before it is killed and its job looked for.
    :param lost_after_s: how long PBS must not know a job before it counts as lost.
    """

    options: tuple[str, ...] = attrs.field(default=(), converter=_options)
    module: tuple[str, ...] = attrs.field(default=(), converter=module_names)
    walltime: str | None = attrs.field(default="48:00:00", converter=_walltime, validator=_time)
    runs_per_job: int = attrs.field(default=1, validator=_whole)
    max_jobs: int | None = attrs.field(default=None, validator=attrs.validators.optional(_whole))
    poll_interval_s: float = attrs.field(default=30.0, validator=_seconds)
    submit_timeout_s: float = attrs.field(default=60.0, validator=_seconds)
    lost_after_s: float = attrs.field(default=120.0, validator=_seconds)

    @property
    def max_array_size(self) -> int:
        """No arrays: the dialects write them, and tell of them, in different ways."""
        return 1

    @classmethod
    def from_strings(cls, strings: Sequence[str]) -> PbsOptions:
        """Make options of the list form, in which each string is an option of qsub.

        :raises ConfigError: a string is none; a setting of the mapping form is told from an option of qsub.
        """
        settings: Mapping[str, Any] = attrs.fields_dict(cls)
        for string in strings:
            name = re.split(r"[=\s]", str(string).strip().lstrip("-"), maxsplit=1)[0].replace("-", "_")
            if name in settings:
                raise ConfigError(
                    f"{string!r} is a setting of Motoko's, not an option of qsub",
                    where="pbs_options",
                    hint=f"Write a mapping: pbs_options: {{{name}: ..., options: [-q long]}}. "
                    f"{nearest(name, settings)}",
                )
        return cls(options=strings)
