"""Looking: which conditions are evaluated when, and what each action sees."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from motoko_core.engine.actions import ALL, Action, Reference
from motoko_core.engine.blame import blaming, is_conflict
from motoko_core.engine.firing import EngineSession
from motoko_core.engine.marks import WHOLE, Marks
from motoko_core.engine.sweep import Sweeps
from motoko_core.engine.watch import Registration, Watch
from motoko_core.session import MAX_ATTEMPTS, give_up, use

if TYPE_CHECKING:
    from motoko_core.engine.loop import Engine


class Lookout:
    """The watches of all registered actions, and what has changed since they were last looked at."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._workflow = engine.workflow
        self._registrations: dict[tuple[str, str], Registration] = {}
        self._changed = self._no_changes()
        self._anything = True
        self._conflicts = 0
        self.marks = Marks(self._workflow)
        self.sweeps = Sweeps(engine.clock, self.blaming)

    def _no_changes(self) -> dict[str, set[int]]:
        return {name: set() for name in self._workflow.task_managers}

    def note(self, study: str | None = None, run_ids: Iterable[int] = ()) -> None:
        """Something changed: workflow-level conditions, and these runs, are to be looked at."""
        self._anything = True
        if study is not None:
            self._changed[study].update(run_ids)

    def note_everything(self, study: str) -> None:
        """Any run of a study may have changed."""
        self._anything = True
        for registration in self._registrations.values():
            if study in registration.watches:
                registration.watches[study].complete = False
        self.sweeps.start_again(study)

    @property
    def is_behind(self) -> bool:
        """Whether there are changes that were not looked at yet."""
        return self._anything or self.sweeps.is_urgent

    @property
    def watches(self) -> list[Watch]:
        """Those of the actions that are registered now."""
        return [w for a in self._actions() if (w := self._existing(a[0], a[1])) is not None]

    def _actions(self) -> Iterator[tuple[Action, str]]:
        for by_name in list(self._workflow.actions.values()):
            for action in list(by_name.values()):
                names = list(self._workflow.task_managers) if action.task == ALL else [action.task]
                for name in names:
                    yield action, name

    def _existing(self, action: Action, study: str) -> Watch | None:
        registration = self._registrations.get((action.task, action.event_name))
        watch = registration.watches.get(study) if registration else None
        return watch if watch is not None and watch.action is action else None

    def _watch(self, action: Action, study: str) -> Watch:
        watch = self._existing(action, study)
        if watch is None:
            key = (action.task, action.event_name)
            registration = self._registrations.setdefault(key, Registration())
            if action.once_per_run:
                registration.marked |= self.marks.of(action, study)
            watch = Watch(action, self._workflow.task_managers[study], registration)
            registration.watches[study] = watch
        return watch

    def beside(self, watch: Watch) -> list[Watch]:
        """The watches of the same action, in the order of the task managers."""
        return [w for w in watch.registration.watches.values() if w.action is watch.action]

    def title(self, watch: Watch, references: Iterable[Reference] = ()) -> str:
        """What a watch is called in messages."""
        runs = ", ".join(f"{name}.{i}" for name, i in sorted(references))
        place = f" on {watch.manager.study}" + (f" with {runs}" if runs else "")
        return f"the action {watch.action.event_name!r}{place}"

    def blaming(self, watch: Watch, references: Iterable[Reference] = ()) -> Any:
        """Blame an action for the exceptions of its user code."""
        action = watch.action
        functions = (action.f, action.get_params, action.event)
        return blaming(self.title(watch, references), self._workflow.configuration.directory, *functions)

    # ------------------------------------------------------------------ looking

    def look(self, now: float, *, tick: bool, only_error_handlers: bool = False) -> list[Watch]:
        """Evaluate what may have changed; answer the watches whose condition is true as a boolean.

        Afterwards the other watches know the tasks that match.
        """
        true_now: list[Watch] = []
        changed = self._no_changes()
        try:
            changed, self._changed = self._changed, changed
            anything, self._anything = self._anything or tick, False
            with use(EngineSession("the conditions")) as session:
                for action, study in list(self._actions()):
                    if only_error_handlers and not action.is_error_handler:
                        continue
                    watch = self._watch(action, study)
                    with self.blaming(watch):
                        if action.is_run_level:
                            watch.look_at_runs(changed[study])
                            continue
                        asked = anything or (watch.has_more() and now >= watch.due)
                        if asked and watch.look_at_workflow(self._workflow):
                            true_now.append(watch)
                self._sweep(changed, now, tick=tick, only_error_handlers=only_error_handlers)
                session.commit()
        except SystemExit as leaving:
            self._engine.fail(leaving)
        except Exception as error:  # noqa: BLE001  raised by the engine, after everything stopped
            self._conflicts += 1
            if is_conflict(error) and self._conflicts < MAX_ATTEMPTS:
                self._again(changed)  # a condition that writes lost against somebody
            else:
                self._engine.fail(give_up("the conditions", error) if is_conflict(error) else error)
        else:
            self._conflicts = 0
            return true_now
        return []

    def _sweep(
        self, changed: dict[str, set[int]], now: float, *, tick: bool, only_error_handlers: bool
    ) -> None:
        for study, run_ids in changed.items():
            self.sweeps.note(study, run_ids)
        swept = (w for w in self.watches if w.is_swept)
        chosen = [w for w in swept if w.action.is_error_handler or not only_error_handlers]
        self.sweeps.go_on(chosen, now, tick=tick)

    def _again(self, changed: dict[str, set[int]]) -> None:
        for study, run_ids in changed.items():
            self.note(study, run_ids)
        self._engine.wake()

    def is_true(self, watch: Watch) -> bool:
        """Evaluate one boolean condition."""
        try:
            with use(EngineSession("a condition")) as session, self.blaming(watch):
                answer = watch.look_at_workflow(self._workflow)
                session.commit()
                return answer
        except Exception as error:
            if is_conflict(error):
                self.note()  # it is looked at again
                return False
            raise

    def has_fired_for_good(self, watch: Watch) -> bool:
        """Whether a boolean trigger that fires once has had its turn."""
        return (watch.manager.study, WHOLE) in watch.registration.marked
