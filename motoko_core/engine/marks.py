"""Marks of actions that fire once: which tasks an action has had, in the life of a run_name.

A mark is written in the last transaction of its firing, beside the workflow variables. That database is
committed after the studies, so that a mark stands for work that is done; a firing that dies before it is
repeated from its top, which is safe, because creating a task that exists gives the existing one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from BTrees.OOBTree import OOBTree, OOTreeSet

from motoko_core.engine.actions import Action, Reference
from motoko_core.session import current_session
from motoko_core.variables import ensure_created

if TYPE_CHECKING:
    from motoko_core.workflow import Workflow

_TREE = "motoko.marks"
#: Stands for the task manager itself: the mark of a boolean trigger.
WHOLE = 0


class Marks:
    """The marks of a workflow's run_name, as the current session sees them."""

    def __init__(self, workflow: Workflow) -> None:
        self._workflow = workflow

    def of(self, action: Action, study: str) -> set[Reference]:
        """All tasks of a study that have fired an action."""
        return {(study, run_id) for run_id in self._set(action, study, create=False)}

    def among(self, action: Action, references: Iterable[Reference]) -> set[Reference]:
        """Those of the tasks that have fired an action."""
        return {(study, i) for study, i in references if i in self._set(action, study, create=False)}

    def write(self, action: Action, references: Iterable[Reference]) -> None:
        """Mark tasks in the current session's transaction."""
        for study, run_id in references:
            self._set(action, study, create=True).add(run_id)

    def _set(self, action: Action, study: str, *, create: bool) -> Any:
        database = self._workflow.vars.database
        ensure_created(database)
        root = current_session().connection(database).root()
        if _TREE not in root:
            if not create:
                return ()
            root[_TREE] = OOBTree()
        tree, key = root[_TREE], (str(self._workflow.run_name), action.task, action.event_name, study)
        if key not in tree:
            if not create:
                return ()
            tree[key] = OOTreeSet()
        return tree[key]
