"""A coat that a user has written passes the suite that every generator must pass."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from motoko_core.testing import GeneratorConformance

#: In the manner of BlackDynamite's bashCoat; it lets the run go on in the background.
COAT = '''\
import os
import stat
import subprocess


def register_param(parser):
    group = parser.register_group("mineCoat")
    group.add_argument("--mine_options", type=str, nargs="*", default=[])
    group.add_argument("--queue", type=str)


def launch(run, params):
    _exec = run.getExecFile()
    head = """#!/bin/bash
#MINE --name={0}_{1}
#MINE --queue={2}
export BLACKDYNAMITE_HOST=__BLACKDYNAMITE__dbhost__
export BLACKDYNAMITE_RUN_ID=__BLACKDYNAMITE__run_id__
export BLACKDYNAMITE_USER={3}
cd __BLACKDYNAMITE__run_path__
""".format(run["run_name"], run.id, params["queue"], params["user"])
    tail = """

if [ $? != 0 ]; then
    canYouDigIt runs update --truerun "state=FAILED"
fi
"""
    _exec["file"] = run.replaceBlackDynamiteVariables(head) + _exec["file"] + tail
    run["state"] = "launched"
    run.update()

    yield

    f = open(_exec["filename"], "w")
    f.write(_exec["file"])
    f.close()
    os.chmod(_exec["filename"], stat.S_IRWXU)
    print("execute ./" + _exec["filename"])
    subprocess.call("nohup ./" + _exec["filename"] + " > mine.log 2>&1 &", shell=True)
'''


class TestCoat(GeneratorConformance):
    generator = "mineCoat"
    options: ClassVar[Mapping[str, Any]] = {
        "options": ["fast", "--queue long"],
        "poll_interval_s": 0.05,
        "lost_after_s": 0.5,
    }

    @classmethod
    def prepare(cls, directory: Path) -> None:
        (directory / "mineCoat.py").write_text(COAT)
