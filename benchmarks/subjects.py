"""The two versions that are measured, each in an environment of its own."""

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
import importlib.metadata, json, platform
names = ("motoko", "BlackDynamite", "ZODB", "ZEO", "persistent", "BTrees")
versions = {name: importlib.metadata.version(name) for name in names}
print(json.dumps({"Python": platform.python_version(), **versions}))
"""


@attrs.frozen
class Subject:
    """A version of Motoko.

    :param limit_s: a figure that takes longer is given up.
    :param poll_s: how long an event waits for it at most by design: it looks so often.
    """

    name: str
    python: Path
    limit_s: float
    poll_s: float

    @property
    def environment(self) -> dict[str, str]:
        """With its interpreter's programs first on the PATH, and ``points`` to be imported."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("BLACKDYNAMITE")}
        env["PATH"] = os.pathsep.join([str(self.python.parent), env.get("PATH", os.defpath)])
        env["PYTHONPATH"] = str(HERE)
        return env

    def versions(self) -> dict[str, str]:
        """The versions of Python and of the packages that matter."""
        command = [str(self.python), "-c", _VERSIONS]
        done = subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True)
        found: dict[str, str] = json.loads(done.stdout)
        return found


def own() -> Subject:
    """The version in this interpreter's environment."""
    return Subject(OWN, Path(sys.executable), _OWN_LIMIT_S, 0.02)


def peer(limit_s: float) -> Subject:
    """Motoko 0.1.4, installed at the first call, with the same BlackDynamite."""
    directory = STATE / f"motoko-{PEER}"
    python = directory / "bin" / "python"
    if not (directory / "bin" / "motoko").exists():
        print(f"installing the peer, Motoko {PEER}", file=sys.stderr)
        venv.create(directory, with_pip=True, clear=True)
        packages = [f"motoko=={PEER}", f"BlackDynamite=={importlib.metadata.version('BlackDynamite')}"]
        subprocess.run([python, "-m", "pip", "install", "-qq", *packages], check=True)
    return Subject(PEER, python, limit_s, 2.0)
