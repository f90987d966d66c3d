"""An sbatch that submits and then fails or hangs, at random."""

from __future__ import annotations

import os
from pathlib import Path

from motoko_core.workflow import Workflow
from motoko_plugins.generators.slurm import SlurmGenerator, SlurmOptions
from tests.clusters.slurm import SlurmCluster
from tests.conftest import create_tasks, set_state
from tests.launching import launching, settled
from tests.slurm.conftest import Executions

#: How often it has to go wrong; 100 were tried by hand.
TROUBLES = int(os.environ.get("MOTOKO_RANDOM_SUBMISSIONS", "3"))
#: Two of three calls go wrong. (The wrapper has bash's RANDOM.)
WRAPPER = """\
case $((RANDOM % 3)) in
0) "$real" "$@" > /dev/null; echo fails >> {log}; exit 1 ;;
1) "$real" "$@" > /dev/null; echo hangs >> {log}; exec sleep 600 ;;
esac
"""


async def test_each_run_is_executed_once_whatever_becomes_of_its_submission(
    slurm_cluster: SlurmCluster, scripts: Workflow, executions: Executions, tmp_path: Path
) -> None:
    log = tmp_path / "troubles"
    log.touch()
    slurm_cluster.wrap("sbatch", before=WRAPPER.format(log=log))
    options = SlurmOptions(poll_interval_s=0.3, lost_after_s=5, submit_timeout_s=1.0)
    done = 0
    async with launching(scripts, generator=SlurmGenerator(options)):
        while len(log.read_text().splitlines()) < TROUBLES:
            runs = create_tasks(scripts, x=[float(done + n) for n in range(6)], label=executions.note)
            for number, run in enumerate(runs):  # a submission for each
                set_state(scripts, run, "CREATED", slurm_options=[f"comment=run{number}"])
            ends = await settled(scripts, *runs, timeout_s=90)
            assert [entries["state"] for entries in ends] == ["FINISHED"] * 6
            done += 6
    assert executions.counted() == [1] * done
