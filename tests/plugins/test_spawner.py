"""The spawner's own process: what it does between jobs."""

from __future__ import annotations

from pathlib import Path

from tests.processes import run_python

#: In a process of its own: a spawner takes over the signals of the one that it is in.
PROGRAM = """
import socket, types
from motoko_plugins.generators import _spawner
from motoko_plugins.generators._spawner import Spawner

_spawner.time = types.SimpleNamespace(monotonic=lambda: 100.0)
ours, theirs = socket.socketpair()
spawner = Spawner(theirs, 1, "TAG", "here")
print(spawner._until_sending_s())
spawner._waiting.append(("a job that waits",))
spawner._tell("ended", "motoko-1", 0)
print(0 < spawner._until_sending_s() < 1)
spawner._send()
print(len(spawner._outgoing) > 0)
spawner._send_at = 0.0
print(spawner._until_sending_s())
spawner._send()
print(ours.recv(100), spawner._until_sending_s())
ours.close()
spawner._receive()
spawner._tell("ended", "motoko-2", 0)
print(spawner._until_sending_s())
"""


def test_messages_are_gathered_and_without_a_launcher_nothing_is_waited_for(tmp_path: Path) -> None:
    assert run_python(PROGRAM, cwd=tmp_path).splitlines() == [
        "None",
        "True",  # it may wait for a moment,
        "True",  # and does,
        "0.0",  # but no longer
        'b\'["ended", "motoko-1", 0]\\n\' None',
        "None",
    ]
