from __future__ import annotations

from tests.launching import fifo, launch_directory, no_safety_look, scripts

__all__ = ["fifo", "launch_directory", "no_safety_look", "scripts"]
