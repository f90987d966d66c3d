"""The launchers and jobs that are at work."""

from __future__ import annotations

import psutil
import pytest

from motoko_core.launch.found import own_processes


def test_a_shell_that_ends_while_it_is_looked_for_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    """That which has started ``nohup motoko kill &``, for example; psutil.parents() raises then."""
    look, looks = psutil.Process.parents, []

    def parents(self: psutil.Process) -> list[psutil.Process]:
        looks.append(self.pid)
        if len(looks) == 1:
            raise psutil.NoSuchProcess(self.pid)
        return look(self)

    above = {process.pid for process in psutil.Process().parents()}
    monkeypatch.setattr(psutil.Process, "parents", parents)
    assert above.isdisjoint(process.pid for process in own_processes())
    assert len(looks) == 2
