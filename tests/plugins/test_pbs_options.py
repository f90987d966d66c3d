from __future__ import annotations

from typing import Any

import pytest

from motoko_core.errors import ConfigError
from motoko_plugins.generators._pbs_options import PbsOptions, directive, merge, names, run_options, words


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("-q long", "-q long"),
        ("-qlong", "-q long"),
        (" #PBS -l  walltime=1:00:00 ", "-l walltime=1:00:00"),
        ("-V", "-V"),
        ('-W depend="afterok:1"', '-W depend="afterok:1"'),
        ("-W block=false", "-W block=false"),
    ],
)
def test_options_are_directives(given: str, written: str) -> None:
    assert directive(given) == written


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("long", "'long' is no option of qsub"),
        ("", "'' is no option of qsub"),
        ("-q long\nrm -r .", "is no option of qsub"),
        (3, "3 is no option of qsub"),
        ("-N name", "'-N name' cannot be given"),
        ("-t 1-10", "'-t 1-10' cannot be given"),
        ("-J 1-10", "runs_per_job"),
        ("-I", "interactive"),
        ("-W block=true", "Motoko would wait for the job"),
    ],
)
def test_what_is_no_option_or_motokos_own_is_refused(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        directive(given, "pbs_options of add.3")
    assert "pbs_options of add.3" in str(raised.value)


def test_a_later_layer_replaces_what_it_sets_itself() -> None:
    assert names("-l nodes=1:ppn=4,walltime=60") == {"l.nodes", "l.walltime"}
    assert names("-q long") == {"q"}
    assert names("-W umask=077,depend=afterok:1") == {"W.umask", "W.depend"}
    earlier = ["-q short", "-l walltime=60", "-l nodes=1,mem=1gb", "-m n"]
    later = ["-q long", "-l walltime=120", "-l nodes=2"]
    assert merge(earlier, later) == ("-l nodes=1,mem=1gb", "-m n", *later)


def test_a_run_has_one_option_or_several() -> None:
    assert run_options(None, "") == ()
    assert run_options("-q long", "") == ("-q long",)
    assert run_options(("-q long", "-V"), "") == ("-q long", "-V")
    with pytest.raises(ConfigError, match="neither a string nor a list"):
        run_options(7, "pbs_options of add.3")


def test_options_are_words_of_a_command() -> None:
    assert words('-o "my file"') == ["-o", "my file"]
    assert words("-o it's") == ["-o", "it's"]
    assert words("-V") == ["-V"]


def test_pbs_options_are_a_list_or_a_mapping() -> None:
    assert PbsOptions.from_strings(["-q long", "-l nodes=2"]).options == ("-q long", "-l nodes=2")
    options = PbsOptions(options="-q long", module="gcc mpi", walltime=3600, runs_per_job=5)  # type: ignore[arg-type]
    assert (options.options, options.module, options.walltime) == (("-q long",), ("gcc", "mpi"), "3600")
    assert PbsOptions(walltime="none").walltime is None
    with pytest.raises(ConfigError, match=r"'runs_per_job=5' is a setting of Motoko's.*") as raised:
        PbsOptions.from_strings(["runs_per_job=5"])
    assert "pbs_options: {runs_per_job: ..." in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"walltime": "an hour"}, "walltime = 'an hour' is no duration"),
        ({"runs_per_job": 0}, "runs_per_job = 0 is not a positive whole number"),
        ({"max_jobs": True}, "max_jobs = True"),
        ({"poll_interval_s": -1}, "poll_interval_s = -1 is not a positive number of seconds"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PbsOptions(**settings)
