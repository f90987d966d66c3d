"""What the launcher writes into a study: single transactions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from motoko_core import lifecycle
from motoko_core.entries import handle_of, tag_of
from motoko_core.interfaces import Ended
from motoko_core.launch import endings, records, recovery
from motoko_core.launch.service import Service
from motoko_core.session import transact
from motoko_core.study.direct_runs import DirectRuns
from motoko_core.study.runs import Runs, SessionRuns
from motoko_core.workflow import Workflow
from motoko_plugins.generators.bash import BashGenerator
from tests.conftest import create_tasks, set_state
from tests.launching import entries_of, failure_of


def run_id(reference: str) -> int:
    return int(reference.rpartition(".")[2])


Write = Callable[[Callable[[Runs], Any]], Any]


@pytest.fixture(params=["in a session", "directly"])
def write(request: pytest.FixtureRequest, scripts: Workflow) -> Write:
    """Does something with the runs of the study ``mult``, in a transaction, in each way that there is."""
    study = scripts.mult.database

    def in_session(work: Callable[[Runs], Any]) -> Any:
        return transact("the test", lambda: work(SessionRuns(study)))

    in_session(lambda runs: runs.add_file("requirements.txt", records._requirements()))
    direct = DirectRuns(study)

    def directly(work: Callable[[Runs], Any]) -> Any:
        study.index.refresh()
        direct.begin()
        answer = work(direct)
        direct.commit("the test")
        return answer

    return in_session if request.param == "in a session" else directly


def launch(
    scripts: Workflow, tags: Mapping[int, str]
) -> Callable[[Runs], tuple[list[records.Launch], dict[int, str]]]:
    service = Service(generator=BashGenerator(), name="bash")
    return lambda runs: records.launch(scripts.mult, runs, tags, service)


NOTHING: tuple[list[records.Launch], dict[int, str]] = ([], {})


@pytest.fixture
def launched(scripts: Workflow, write: Write) -> tuple[str, str]:
    """A run that is launched, and its tag."""
    (run,) = create_tasks(scripts, label="true")
    tags = records.new_tags(scripts.mult, [run_id(run)])
    found, _ = write(launch(scripts, tags))
    assert [launch.task.tag for launch in found] == list(tags.values())
    assert entries_of(scripts, run)["state"] == "launched"
    return run, tags[run_id(run)]


def test_tags_are_new_for_each_execution(scripts: Workflow) -> None:
    tags = [records.new_tags(scripts.mult, [3])[3] for _ in range(2)]
    assert tags[0] != tags[1]
    assert all(tag.startswith("motoko-mult-3-") for tag in tags)


def test_only_one_launcher_gets_a_run(scripts: Workflow, write: Write, launched: tuple[str, str]) -> None:
    run, tag = launched
    other = records.new_tags(scripts.mult, [run_id(run)])
    assert write(launch(scripts, other)) == NOTHING
    assert entries_of(scripts, run)["motoko_handle"]["tag"] == tag


def test_a_run_with_an_earlier_execution_is_not_launched(
    scripts: Workflow, write: Write, launched: tuple[str, str]
) -> None:
    run, tag = launched
    set_state(scripts, run, "CREATED")  # reset while its job is at work
    assert write(launch(scripts, records.new_tags(scripts.mult, [run_id(run)]))) == NOTHING
    assert entries_of(scripts, run)["motoko_handle"]["tag"] == tag


def test_a_run_that_is_reset_before_a_generator_gets_it_is_launched(
    scripts: Workflow, write: Write, launched: tuple[str, str]
) -> None:
    run, tag = launched
    set_state(scripts, run, "CREATED")  # and nobody knows what became of the commit
    found, _ = write(launch(scripts, {run_id(run): tag}))
    assert [launch.task.tag for launch in found] == [tag]
    assert entries_of(scripts, run)["state"] == "launched"


def test_a_run_that_was_deleted_is_not_launched(scripts: Workflow) -> None:
    study = scripts.mult.database
    found = transact("the test", lambda: launch(scripts, {10**6: "motoko-x"})(SessionRuns(study)))
    assert found == NOTHING


# A connection that is lost while a commit is under way leaves open what became of it.
def test_each_step_may_be_done_twice(scripts: Workflow, write: Write, launched: tuple[str, str]) -> None:
    run, tag = launched
    tags = {run_id(run): tag}
    assert [again.task.run_id for again in write(launch(scripts, tags))[0]] == [run_id(run)]
    for _ in range(2):
        write(lambda runs: records.submitted(runs, {run_id(run): (tag, {"pid": 5})}))
    assert entries_of(scripts, run)["motoko_handle"] == {"tag": tag, "generator": "bash", "data": {"pid": 5}}
    end = Ended(tag=tag, exit_code=3)
    for _ in range(2):
        write(lambda runs: endings.settle(runs, {run_id(run): (end, "oh")}))
    assert entries_of(scripts, run)["state"] == "FAILED"
    for _ in range(2):
        write(lambda runs: endings.hand_back(runs, tags))
    assert entries_of(scripts, run)["state"] == "FAILED"


def test_a_cancellation_that_comes_before_the_launch_is_known_to_have_happened_counts(
    scripts: Workflow, write: Write, launched: tuple[str, str]
) -> None:
    run, tag = launched
    set_state(scripts, run, "launched", motoko_cancel=tag)
    assert write(launch(scripts, {run_id(run): tag})) == NOTHING
    entries = entries_of(scripts, run)
    assert (entries["state"], entries["motoko_failure"]["reason"]) == ("FAILED", "CANCELLED")
    assert not {"motoko_handle", "motoko_cancel"} & entries.keys()


def test_what_was_written_under_another_tag_is_not_touched(
    scripts: Workflow, write: Write, launched: tuple[str, str]
) -> None:
    run, tag = launched
    number, old = run_id(run), "an earlier execution"
    before = entries_of(scripts, run)
    assert write(launch(scripts, {number: old})) == NOTHING
    write(lambda runs: records.submitted(runs, {number: (old, {"pid": 5})}))
    write(lambda runs: endings.settle(runs, {number: (Ended(tag=old, exit_code=1), "")}))
    write(lambda runs: endings.hand_back(runs, {number: old}))
    assert entries_of(scripts, run) == before
    assert before["motoko_handle"]["tag"] == tag


def test_an_end_that_says_nothing_of_the_run_lets_it_wait_again(
    scripts: Workflow, write: Write, launched: tuple[str, str]
) -> None:
    run, tag = launched
    before = dict(entries_of(scripts, run))
    ended = Ended(tag=tag, exit_code=None, again=True)
    write(lambda runs: endings.settle(runs, {run_id(run): (ended, "")}))
    entries = entries_of(scripts, run)
    assert (before["state"], entries["state"]) == ("launched", "CREATED")
    assert not {"motoko_handle", "motoko_failure"} & entries.keys()


def test_an_end_that_says_nothing_of_a_run_cancels_it_if_that_was_wanted(
    scripts: Workflow, write: Write, launched: tuple[str, str]
) -> None:
    run, tag = launched
    set_state(scripts, run, "launched", motoko_cancel=tag)
    ended = Ended(tag=tag, exit_code=None, again=True)
    write(lambda runs: endings.settle(runs, {run_id(run): (ended, "")}))
    entries = entries_of(scripts, run)
    assert (entries["state"], entries["motoko_failure"]["reason"]) == ("FAILED", "CANCELLED")


def test_an_end_that_says_nothing_leaves_a_failure_that_the_script_has_named(
    scripts: Workflow, write: Write, launched: tuple[str, str]
) -> None:
    run, tag = launched
    set_state(scripts, run, "FAILED")
    ended = Ended(tag=tag, exit_code=None, again=True)
    write(lambda runs: endings.settle(runs, {run_id(run): (ended, "")}))
    entries = entries_of(scripts, run)
    assert (entries["state"], entries["motoko_failure"]["reason"]) == ("FAILED", "UNKNOWN")
    assert "motoko_handle" not in entries


def test_a_run_whose_state_moved_on_is_not_launched(scripts: Workflow, write: Write) -> None:
    (run,) = create_tasks(scripts, label="true")
    set_state(scripts, run, "GIVEN UP")
    assert write(launch(scripts, {run_id(run): "motoko-x"})) == NOTHING


def test_a_run_that_cannot_be_launched_fails_with_the_reason_and_the_others_do_not(
    scripts: Workflow, write: Write
) -> None:
    bad, good = create_tasks(scripts, label=["true", "echo"])
    set_state(scripts, bad, "CREATED", nproc="many")
    tags = records.new_tags(scripts.mult, map(run_id, (bad, good)))
    found, refused = write(launch(scripts, tags))
    assert [launch.task.task for launch in found] == [good]
    assert refused == {run_id(bad): f"nproc of {bad} is 'many', not a whole number above 0"}
    entries = entries_of(scripts, bad)
    assert (entries["state"], entries["motoko_failure"]["reason"]) == ("FAILED", "SUBMIT")
    assert entries["motoko_failure"]["stderr"] == refused[run_id(bad)]
    assert "motoko_handle" not in entries


def test_a_run_that_ended_by_itself_is_not_handed_back(
    scripts: Workflow, write: Write, launched: tuple[str, str]
) -> None:
    run, tag = launched
    set_state(scripts, run, "FINISHED")
    write(lambda runs: endings.hand_back(runs, {run_id(run): tag}))
    assert entries_of(scripts, run)["state"] == "FINISHED"
    assert "motoko_handle" not in entries_of(scripts, run)


@pytest.mark.parametrize("exit_code", [0, 1])
def test_the_end_of_a_job_says_nothing_of_a_run_that_was_reset_meanwhile(
    scripts: Workflow, write: Write, launched: tuple[str, str], exit_code: int
) -> None:
    run, tag = launched
    set_state(scripts, run, "CREATED", motoko_cancel=tag, motoko_failure={"reason": "LOST", "attempt": 2})
    write(lambda runs: endings.settle(runs, {run_id(run): (Ended(tag=tag, exit_code=exit_code), "oh")}))
    entries = entries_of(scripts, run)
    assert (entries["state"], entries["motoko_failure"]) == ("CREATED", {"reason": "LOST", "attempt": 2})
    assert not {"motoko_handle", "motoko_cancel"} & entries.keys()


def test_a_run_that_was_reset_while_it_was_executed_is_handed_back_as_it_is(
    scripts: Workflow, write: Write, launched: tuple[str, str]
) -> None:
    run, tag = launched
    set_state(scripts, run, "CREATED", motoko_cancel=tag)  # cancelled first, and reset then
    write(lambda runs: endings.hand_back(runs, {run_id(run): tag}))
    entries = entries_of(scripts, run)
    assert entries["state"] == "CREATED"
    assert not {"motoko_handle", "motoko_cancel"} & entries.keys()


def test_a_run_is_reset_and_keeps_the_handle_of_a_job_that_has_not_ended(
    scripts: Workflow, write: Write, launched: tuple[str, str]
) -> None:
    run, tag = launched
    write(lambda runs: endings.reset(runs, {run_id(run): tag}))
    entries = entries_of(scripts, run)
    assert (entries["state"], entries["motoko_handle"]["tag"]) == ("CREATED", tag)


@pytest.mark.parametrize(("state", "cancel"), [("FINISHED", False), ("launched", True)])
def test_a_run_that_is_over_or_cancelled_is_not_reset(
    scripts: Workflow, write: Write, launched: tuple[str, str], state: str, cancel: bool
) -> None:
    run, tag = launched
    set_state(scripts, run, state, motoko_cancel=tag if cancel else None)
    before = entries_of(scripts, run)
    write(lambda runs: endings.reset(runs, {run_id(run): tag}))
    assert entries_of(scripts, run) == before


@pytest.mark.parametrize("exit_code", [0, 1])
def test_a_run_that_was_reset_and_cancelled_stays_cancelled_however_its_job_ends(
    scripts: Workflow, write: Write, launched: tuple[str, str], exit_code: int
) -> None:
    run, tag = launched
    failure = {"reason": "CANCELLED", "exit_code": None, "attempt": 1, "stderr": ""}
    set_state(scripts, run, "FAILED", motoko_cancel=tag, motoko_failure=failure)
    write(lambda runs: endings.settle(runs, {run_id(run): (Ended(tag=tag, exit_code=exit_code), "oh")}))
    entries = entries_of(scripts, run)
    assert (entries["state"], entries["motoko_failure"]) == ("FAILED", failure)


def test_a_cancelled_run_is_cancelled_however_its_job_ends(
    scripts: Workflow, write: Write, launched: tuple[str, str]
) -> None:
    """Whoever has stopped it may be gone, and scripts tidy up and exit as they like."""
    run, tag = launched
    set_state(scripts, run, "launched", motoko_cancel=tag)
    write(lambda runs: endings.settle(runs, {run_id(run): (Ended(tag=tag, exit_code=3), "tidied up")}))
    entries = entries_of(scripts, run)
    failure = {"reason": "CANCELLED", "exit_code": 3, "attempt": 1, "stderr": "tidied up"}
    assert (entries["state"], failure_of(entries)) == ("FAILED", failure)


@pytest.mark.parametrize(("exit_code", "state"), [(0, "FINISHED"), (3, "CREATED")])
def test_a_run_whose_job_is_stopped_waits_again_unless_it_has_finished(
    scripts: Workflow, write: Write, launched: tuple[str, str], exit_code: int, state: str
) -> None:
    """Also if whoever has stopped it was killed before it could say so."""
    run, tag = launched
    write(lambda runs: endings.stopping(runs, {run_id(run): tag}))
    assert entries_of(scripts, run)["state"] == "launched"
    write(lambda runs: endings.settle(runs, {run_id(run): (Ended(tag=tag, exit_code=exit_code), "")}))
    entries = entries_of(scripts, run)
    assert entries["state"] == state
    assert not {"motoko_handle", "motoko_cancel", "motoko_failure"} & entries.keys()


@pytest.mark.parametrize("known", [False, True])
def test_why_a_run_failed_that_its_script_calls_failed_is_written_although_its_job_is_stopped(
    scripts: Workflow, write: Write, launched: tuple[str, str], known: bool
) -> None:
    run, tag = launched
    write(lambda runs: endings.stopping(runs, {run_id(run): tag}))
    set_state(scripts, run, "FAILED")
    ends = {run_id(run): (Ended(tag=tag, exit_code=3), "oh")}
    write(lambda runs: endings.settle(runs, ends, has_stopped=lambda _: known))
    failure = {"reason": "EXIT_CODE", "exit_code": 3, "attempt": 1, "stderr": "oh"}
    assert failure_of(entries_of(scripts, run)) == failure


def test_who_has_stopped_a_job_knows_that_it_ended_by_itself(
    scripts: Workflow, write: Write, launched: tuple[str, str]
) -> None:
    run, tag = launched
    write(lambda runs: endings.stopping(runs, {run_id(run): tag}))
    ends = {run_id(run): (Ended(tag=tag, exit_code=3), "oh")}
    write(lambda runs: endings.settle(runs, ends, has_stopped={tag}.__contains__))
    entries = entries_of(scripts, run)
    assert (entries["state"], entries["motoko_failure"]["exit_code"]) == ("FAILED", 3)


def test_a_run_that_is_cancelled_is_not_ignored_because_its_last_failure_was(scripts: Workflow) -> None:
    (run,) = create_tasks(scripts, label="true")
    set_state(scripts, run, "CREATED", motoko_failure={"reason": "LOST", "ignored": True})

    def cancel() -> None:
        ((_, found),) = SessionRuns(scripts.mult.database).get([run_id(run)])
        endings.cancel(found)

    transact("the test", cancel)
    assert failure_of(entries_of(scripts, run)) == {
        "reason": "CANCELLED",
        "exit_code": None,
        "attempt": 1,
        "stderr": "",
    }


def test_a_run_that_the_user_has_cancelled_stays_cancelled_when_its_job_is_stopped(
    scripts: Workflow, write: Write, launched: tuple[str, str]
) -> None:
    run, tag = launched
    set_state(scripts, run, "launched", motoko_cancel=tag)
    write(lambda runs: endings.stopping(runs, {run_id(run): tag}))
    write(lambda runs: endings.settle(runs, {run_id(run): (Ended(tag=tag, exit_code=3), "")}))
    assert entries_of(scripts, run)["motoko_failure"]["reason"] == "CANCELLED"


def test_that_a_failure_is_ignored_holds_for_its_execution_only(
    scripts: Workflow, write: Write, launched: tuple[str, str]
) -> None:
    """Without a launcher, error handlers decide about what a script says before it exits."""
    run, tag = launched
    set_state(scripts, run, "FAILED", motoko_failure={"ignored": True})
    write(lambda runs: endings.settle(runs, {run_id(run): (Ended(tag=tag, exit_code=3), "")}))
    assert entries_of(scripts, run)["motoko_failure"]["ignored"]
    set_state(scripts, run, "CREATED")
    write(launch(scripts, {run_id(run): "motoko-again"}))
    assert "ignored" not in entries_of(scripts, run)["motoko_failure"]


# --------------------------------------------------------------------------- entries that anybody may write


@pytest.mark.parametrize(
    "text",
    [
        *("ductile", "[1]", "{}", '{"tag": 5}', '{"tag": "motoko-x", "generator": []}'),
        *('{"tag": "motoko-x", "data": [1]}', "[" * 100_000, 5, {"tag": "motoko-x"}),
    ],
)
def test_a_handle_that_no_launcher_has_written_is_none(text: object) -> None:
    assert handle_of({"motoko_handle": text}) == {}
    assert tag_of({"motoko_handle": text}) == ""


ODD: list[tuple[dict[str, object], str]] = [
    ({"motoko_handle": "ductile"}, "an entry 'motoko_handle' that no launcher has written"),
    ({"exec": ["a"]}, "TypeError: "),
    ({"nproc": 0}, "0, not a whole number above 0"),
    ({"nproc": -5}, "-5, not a whole number above 0"),
    ({"run_name": "a\0b"}, "'a\\x00b', which no file can have in its name"),
    ({"run_name": "a\ud800"}, "'a\\ud800', which no file can have in its name"),
    ({"motoko_failure": "ductile", "nproc": "many"}, "'many'"),
]


@pytest.mark.parametrize(("entries", "words"), ODD)
def test_a_run_with_odd_entries_fails_and_the_others_do_not(
    scripts: Workflow, write: Write, entries: dict[str, object], words: str
) -> None:
    bad, good = create_tasks(scripts, label=["true", "echo"])
    set_state(scripts, bad, "CREATED", **entries)
    found, refused = write(launch(scripts, records.new_tags(scripts.mult, map(run_id, (bad, good)))))
    assert [launch.task.task for launch in found] == [good]
    assert words in refused[run_id(bad)]
    failed = stored_entries(scripts, bad)
    assert (failed["state"], failed["motoko_failure"]["reason"]) == ("FAILED", "SUBMIT")
    assert failed.get("motoko_handle") == entries.get("motoko_handle")  # what is the user's stays


def stored_entries(workflow: Workflow, reference: str) -> dict[str, Any]:
    """As they are; ``entries_of`` reads a handle."""

    def look() -> dict[str, Any]:
        return dict(workflow.mult.base._get_runs().entries[run_id(reference)].entries)

    return transact("the test", look)


@pytest.mark.parametrize("entries", [{"exec": ["a"]}, {"nproc": "many", "run_path": 5}, {"run_name": "a\0"}])
def test_a_job_is_followed_whatever_has_become_of_its_run_since(
    scripts: Workflow, write: Write, launched: tuple[str, str], entries: dict[str, object]
) -> None:
    run, tag = launched
    set_state(scripts, run, "launched", **entries)
    tasks = write(lambda runs: recovery.look(scripts.mult, [run_id(run)], runs))
    assert [(task.tag, task.run_id) for task in tasks] == [(tag, run_id(run))]
    assert tasks[0].directory == lifecycle.run_directory(scripts.mult, run_id(run))


@pytest.mark.parametrize("entries", [{"motoko_failure": "ductile"}, {"state": ["odd"]}])
def test_the_end_of_a_run_with_odd_entries_is_written(
    scripts: Workflow, write: Write, launched: tuple[str, str], entries: dict[str, Any]
) -> None:
    run, tag = launched
    set_state(scripts, run, **{"state": "launched", **entries})
    write(lambda runs: endings.settle(runs, {run_id(run): (Ended(tag=tag, exit_code=3), "oh")}))
    after = stored_entries(scripts, run)
    assert "motoko_handle" not in after
    if "motoko_failure" in entries:
        assert (after["state"], after["motoko_failure"]["exit_code"]) == ("FAILED", 3)
    else:
        assert after["state"] == entries["state"]
        set_state(scripts, run, "RETIRED")
