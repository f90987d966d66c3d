"""The built-in error handlers: what they answer, and which settings they refuse."""

from __future__ import annotations

import typing
from typing import Any

import pytest

from motoko_core.errors import ConfigError
from motoko_core.interfaces import Abort, ErrorHandler, Failure, Ignore, Retry
from motoko_plugins.error_handlers import abort, escalate, ignore, retry
from motoko_plugins.error_handlers._settings import REASONS

PLUGINS = {"abort": abort, "retry": retry, "escalate": escalate, "ignore": ignore}


def handler(name: str, **settings: Any) -> ErrorHandler:
    (made,) = (make for key, make in PLUGINS[name].motoko_error_handlers().items() if key == name)
    return typing.cast(Any, made)(**settings)  # type: ignore[no-any-return]


def failure(attempt: int = 1, reason: str = "EXIT_CODE") -> Failure:
    return Failure(
        task="add.3",
        task_manager="add",
        run_id=3,
        state="FAILED",
        reason=reason,
        exit_code=2,
        attempt=attempt,
    )


def test_every_reason_of_the_interface_is_known() -> None:
    assert Failure.__doc__ is not None
    assert {reason for reason in REASONS if reason not in Failure.__doc__} == set()


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_abort_ends_the_workflow_at_any_failure(reason: str) -> None:
    answer = handler("abort").decide(failure(attempt=2, reason=reason))
    assert answer == Abort(f"add.3 failed: {reason}, exit code 2 (attempt 2)")


def test_abort_without_an_exit_code() -> None:
    lost = Failure(task="add.3", task_manager="add", run_id=3, state="FAILED", reason="LOST")
    assert handler("abort").decide(lost) == Abort("add.3 failed: LOST (attempt 1)")


def test_retry_until_the_attempts_are_used_up() -> None:
    answers = [handler("retry").decide(failure(attempt)) for attempt in (1, 2, 3, 4)]
    assert answers == [Retry(), Retry(), None, None]
    assert handler("retry", max_attempts=1).decide(failure()) is None


def test_retry_waits_longer_each_time() -> None:
    retries = handler("retry", max_attempts=5, delay_s=1.5, backoff=2)
    delays = [answer.delay_s for n in (1, 2, 3) if isinstance(answer := retries.decide(failure(n)), Retry)]
    assert delays == [1.5, 3.0, 6.0]


def test_retry_for_some_reasons() -> None:
    retries = handler("retry", reasons=["NODE_FAIL", "LOST"])
    assert retries.decide(failure(reason="LOST")) == Retry()
    assert retries.decide(failure(reason="EXIT_CODE")) is None


@pytest.mark.parametrize(("name", "settings"), [("retry", {}), ("escalate", {"steps": [{"nproc": 2}]})])
def test_what_was_cancelled_is_executed_again_only_by_name(name: str, settings: dict[str, Any]) -> None:
    cancelled = failure(reason="CANCELLED")
    assert handler(name, reasons=None, **settings).decide(cancelled) is None
    assert handler(name, reasons=["LOST"], **settings).decide(cancelled) is None
    assert isinstance(handler(name, reasons=["CANCELLED"], **settings).decide(cancelled), Retry)


def test_escalate_takes_one_step_per_failed_attempt() -> None:
    steps: list[dict[str, Any]] = [{"nproc": 2}, {"nproc": 4, "slurm_options": ["mem=8G"]}]
    escalates = handler("escalate", steps=steps)
    answers = [escalates.decide(failure(attempt, "TIMEOUT")) for attempt in (1, 2, 3)]
    assert answers == [Retry(changes=steps[0]), Retry(changes=steps[1]), None]


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_escalate_is_for_memory_and_time_unless_told_otherwise(reason: str) -> None:
    answer = Retry(changes={"nproc": 2})
    default = handler("escalate", steps=[{"nproc": 2}])
    assert default.decide(failure(reason=reason)) == (
        answer if reason in {"OUT_OF_MEMORY", "TIMEOUT"} else None
    )
    any_reason = handler("escalate", steps=[{"nproc": 2}], reasons=None)
    assert any_reason.decide(failure(reason=reason)) == (None if reason == "CANCELLED" else answer)
    chosen = handler("escalate", steps=[{"nproc": 2}], reasons=("SIGNAL",))
    assert chosen.decide(failure(reason=reason)) == (answer if reason == "SIGNAL" else None)


def test_escalate_hands_out_copies_of_its_steps() -> None:
    escalates = handler("escalate", steps=[{"nproc": 2}], reasons=None)
    answer = escalates.decide(failure())
    assert isinstance(answer, Retry)
    typing.cast(Any, answer.changes)["nproc"] = 99
    assert escalates.decide(failure()) == Retry(changes={"nproc": 2})


def test_ignore() -> None:
    assert handler("ignore").decide(failure()) == Ignore()
    some = handler("ignore", reasons=["CANCELLED"])
    assert some.decide(failure(reason="CANCELLED")) == Ignore()
    assert some.decide(failure(reason="TIMEOUT")) is None


STEPS = [{"nproc": 2}]
NOT_STEPS: list[Any] = [[], None, {"nproc": 2}, "nproc", 3]
NOT_A_STEP: list[Any] = [{}, None, "nproc", {1: 2}, [("a", 1)]]
NOT_A_REASON_LIST: list[Any] = ["TIMEOUT", [], 3, {"TIMEOUT": 1}, True]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        *[("retry", {"max_attempts": x}, "max_attempts") for x in (0, -1, 2.0, "3", None, True)],
        *[("retry", {"delay_s": x}, "delay_s") for x in (-1, "3", None, True, float("nan"), float("inf"))],
        *[("retry", {"backoff": x}, "backoff") for x in (0, 0.5, "2", None, False)],
        *[("retry", {"reasons": x}, "list of reasons") for x in NOT_A_REASON_LIST],
        *[("ignore", {"reasons": x}, "list of reasons") for x in NOT_A_REASON_LIST],
        *[("escalate", {"steps": STEPS, "reasons": x}, "list of reasons") for x in NOT_A_REASON_LIST],
        *[("retry", {"reasons": [x]}, "is not a reason") for x in ("TIMEOUTS", 3, ["TIMEOUT"], None)],
        *[("escalate", {"steps": x}, "steps") for x in NOT_STEPS],
        *[("escalate", {"steps": [*STEPS, x]}, "step 2 is") for x in NOT_A_STEP],
    ],
)
def test_wrong_settings_are_refused(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        handler(name, **settings)
    assert message in str(caught.value)
    assert caught.value.hint


def test_a_wrong_reason_shows_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'OUT_OF_MEMORY'"):
        handler("ignore", reasons=["out of memory"])


def test_a_wrong_number_shows_what_would_be_right() -> None:
    with pytest.raises(ConfigError) as caught:
        handler("retry", max_attempts="3")
    assert "max_attempts = '3' is not a whole number of at least 1" in str(caught.value)
    assert "max_attempts is 3" in str(caught.value)
