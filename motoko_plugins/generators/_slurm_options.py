"""``slurm_options``: of motoko.yaml, of a task manager, of a run."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from motoko_core.errors import ConfigError, nearest
from motoko_plugins.generators._option_values import module_names, seconds, whole

_LONG_NAMES = {
    **{"A": "account", "a": "array", "b": "begin", "B": "extra-node-info", "c": "cpus-per-task"},
    **{"C": "constraint", "d": "dependency", "D": "chdir", "e": "error", "F": "nodefile", "G": "gpus"},
    **{"H": "hold", "i": "input", "J": "job-name", "k": "no-kill", "L": "licenses", "m": "distribution"},
    **{"M": "clusters", "n": "ntasks", "N": "nodes", "o": "output", "O": "overcommit", "p": "partition"},
    **{"q": "qos", "Q": "quiet", "s": "oversubscribe", "S": "core-spec", "t": "time", "w": "nodelist"},
    **{"W": "wait", "x": "exclude", "cluster": "clusters", "workdir": "chdir", "share": "oversubscribe"},
}
#: Options by which Motoko knows its jobs, or that would make sbatch do something else than submit one.
_OURS = {
    "array": "Motoko makes the arrays itself, of the runs that are ready.",
    "wrap": "Motoko writes the job script itself.",
    "wait": "Motoko follows its jobs itself.",
    "test-only": "Nothing would be submitted.",
    "help": "Nothing would be submitted.",
    "usage": "Nothing would be submitted.",
    "version": "Nothing would be submitted.",
    "parsable": "Motoko asks for it itself.",
    "clusters": "Motoko follows the jobs of one cluster. Start it where that cluster is the default.",
}


def directive(text: object, where: str = "slurm_options") -> str:
    """Return an option as sbatch reads it: ``--time=1:00`` of ``time=1:00``; ``-p debug`` as it is.

    :raises ConfigError: it is no option, or one that Motoko sets itself.
    """
    option = str(text).strip()  # YAML may have made a number or a mapping of it
    if not option.startswith("-"):
        option = f"--{option}"
    # (The coat wrote `--` before everything: `--p debug` does not exist in sbatch.)
    option = re.sub(r"^(--[\w-]+)\s+(?=\S)", r"\1=", option)
    if not re.match(r"-[A-Za-z]|--[A-Za-z]", option) or not option.isprintable():
        raise ConfigError(
            f"{text!r} is no option of sbatch",
            where=where,
            hint="Write for example time=1:00:00, --time=1:00:00 or -t 1:00:00, one option in each string.",
        )
    name = option_name(option)
    if name in _OURS:
        raise ConfigError(f"{text!r} cannot be given", where=where, hint=_OURS[name])
    return option


def option_name(option: str) -> str:
    """The long name of an option as :func:`directive` returns it: ``-pdebug`` -> ``partition``."""
    if option.startswith("--"):
        name = option[2:].partition("=")[0].strip()
        return _LONG_NAMES.get(name, name)
    return _LONG_NAMES.get(option[1], option[1])


def merge(*layers: Iterable[str]) -> tuple[str, ...]:
    """Join options; of those of one name the last one holds. A job's name is Motoko's own affair."""
    found: dict[str, str] = {}
    for option in itertools.chain(*layers):
        name = option_name(option)
        found.pop(name, None)
        found[name] = option
    found.pop("job-name", None)
    return tuple(found.values())


def run_options(value: Any, where: str) -> tuple[str, ...]:
    """The options of a run: strings, or a mapping ``{time: "1:00:00", exclusive: true}``.

    :raises ConfigError: it is something else.
    """
    if value is None:
        return ()
    if isinstance(value, str):
        return (directive(value, where),)
    if isinstance(value, Mapping):
        pairs = ((name, content) for name, content in value.items() if content is not False)
        return tuple(
            directive(name if content in (None, True) else f"{name}={content}", where)
            for name, content in pairs
        )
    if isinstance(value, Sequence):
        return tuple(directive(item, where) for item in value)
    raise ConfigError(f"slurm_options = {value!r} is neither a list of strings nor a mapping", where=where)


def _options(value: Any) -> tuple[str, ...]:
    return run_options(value, "slurm_options")


_whole, _seconds = whole("slurm_options"), seconds("slurm_options")


def _boolean(instance: object, attribute: attrs.Attribute[bool], value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{attribute.name} = {value!r} is neither true nor false", where="slurm_options")


def _signal(value: Any) -> str | None:
    return None if value is None or value is False or str(value).lower() == "none" else str(value)


def _warning(instance: object, attribute: attrs.Attribute[Any], value: str | None) -> None:
    if value is not None and not re.fullmatch(r"[A-Z0-9]+@[0-9]+", value):
        raise ConfigError(
            f"signal = {value!r} is not a signal and a time",
            where="slurm_options",
            hint="Write for example signal: USR1@120 (two minutes before the limit), or signal: none.",
        )


@attrs.frozen(kw_only=True)
class SlurmOptions:
    """``slurm_options`` of motoko.yaml.

    :param options: options of sbatch: ``time=1:00:00`` becomes ``#SBATCH --time=1:00:00``.
    :param module: environment modules that the job loads first.
    :param runs_per_job: runs that one job executes, one after another.
    :param max_jobs: jobs in the queue at once; an array counts with its elements. None: no limit.
    :param poll_interval_s: how often squeue is asked, in seconds; up to twice as long while nothing happens.
    :param submit_timeout_s: how long sbatch may take before it is killed and its job looked for.
    :param lost_after_s: how long SLURM must not know a job before it counts as lost.
    :param signal: what warns a run before its time limit, and how many seconds before; None: nothing does.
    :param requeue: whether SLURM may start a job again that a node's failure or preemption has ended.
    :param max_array_size: elements in one array; None: as the cluster says.
    """

    options: tuple[str, ...] = attrs.field(default=(), converter=_options)
    module: tuple[str, ...] = attrs.field(default=(), converter=module_names)
    runs_per_job: int = attrs.field(default=1, validator=_whole)
    max_jobs: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(_whole), metadata={"shared": True}
    )
    poll_interval_s: float = attrs.field(default=30.0, validator=_seconds, metadata={"shared": True})
    submit_timeout_s: float = attrs.field(default=60.0, validator=_seconds, metadata={"shared": True})
    lost_after_s: float = attrs.field(default=120.0, validator=_seconds, metadata={"shared": True})
    signal: str | None = attrs.field(default="USR1@60", converter=_signal, validator=_warning)
    requeue: bool = attrs.field(default=False, validator=_boolean)
    max_array_size: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(_whole), metadata={"shared": True}
    )

    @classmethod
    def from_strings(cls, strings: Sequence[str]) -> SlurmOptions:
        """Make options of the list form, in which each string is an option of sbatch.

        :raises ConfigError: a string is none; a setting of the mapping form is told from an option of sbatch.
        """
        settings = attrs.fields_dict(cls).keys() - {"signal", "requeue"}  # sbatch has these two as well
        for string in strings:
            name = str(string).strip().lstrip("-").partition("=")[0].strip()
            if name.replace("-", "_") in settings:
                raise ConfigError(
                    f"{string!r} is a setting of Motoko's, not an option of sbatch",
                    where="slurm_options",
                    hint=f"Write a mapping: slurm_options: {{{name}: ..., options: [time=1:00:00]}}. "
                    f"{nearest(name, settings)}",
                )
        return cls(options=strings)
