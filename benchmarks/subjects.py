"""The two versions that are measured, and other engines, each in an environment of its own."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import attrs

HERE = Path(__file__).resolve().parent
STATE = HERE.parent / ".bench"

PEER = "0.1.4"
OWN = "now"
#: Against a benchmark that hangs; what is slow shall be seen.
_OWN_LIMIT_S = 900.0

_VERSIONS = """\
import importlib.metadata, json, platform, sys
versions = {name: importlib.metadata.version(name) for name in sys.argv[1:]}
print(json.dumps({"Python": platform.python_version(), **versions}))
"""
MOTOKO = ("motoko", "BlackDynamite", "ZODB", "ZEO", "persistent", "BTrees")


@attrs.frozen
class Subject:
    """A version of Motoko, or another engine.

    :param limit_s: a figure that takes longer is given up.
    :param poll_s: how long an event waits for it at most by design: it looks so often.
    :param packages: those whose versions matter.
    :param settings: what each script is told for it.
    """

    name: str
    python: Path
    limit_s: float
    poll_s: float = 0.0
    packages: tuple[str, ...] = MOTOKO
    settings: tuple[object, ...] = ()

    @property
    def environment(self) -> dict[str, str]:
        """With its interpreter's programs first on the PATH, and ``points`` to be imported."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("BLACKDYNAMITE")}
        env["PATH"] = os.pathsep.join([str(self.python.parent), env.get("PATH", os.defpath)])
        env["PYTHONPATH"] = str(HERE)
        return env

    def versions(self) -> dict[str, str]:
        """The versions of Python and of the packages that matter."""
        command = [str(self.python), "-c", _VERSIONS, *self.packages]
        done = subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True)
        found: dict[str, str] = json.loads(done.stdout)
        return found


def own() -> Subject:
    """The version in this interpreter's environment."""
    return Subject(OWN, Path(sys.executable), _OWN_LIMIT_S, 0.02)


def peer(limit_s: float) -> Subject:
    """Motoko 0.1.4, installed at the first call, with the same BlackDynamite."""
    packages = f"motoko=={PEER}", f"BlackDynamite=={importlib.metadata.version('BlackDynamite')}"
    return Subject(PEER, installed(f"motoko-{PEER}", *packages), limit_s, 2.0)


def installed(name: str, *packages: str) -> Path:
    """The interpreter of an environment with these packages, which is made at the first call.

    :raises subprocess.CalledProcessError: a package cannot be installed; standard error says why.
    """
    directory = STATE / name
    python, done = directory / "bin" / "python", directory / ".installed"
    if not done.exists() or done.read_text() != "\n".join(packages):
        print(f"installing {', '.join(packages)}", file=sys.stderr)
        venv.create(directory, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "-qq", *packages], check=True)
        done.write_text("\n".join(packages))
    return python
