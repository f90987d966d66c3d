"""``motoko info``, the whole process."""

from __future__ import annotations

import subprocess

from .process import arguments, seconds, tell


def main() -> None:
    arguments()
    tell("info", seconds(lambda: subprocess.run(["motoko", "info"], check=True, stdout=subprocess.DEVNULL)))


main()
