"""How far ``motoko run`` is: a live table on a terminal, lines now and then elsewhere."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from motoko_core.cli import counts
from motoko_core.cli.output import is_terminal
from motoko_core.states import FINISHED, is_failure

if TYPE_CHECKING:
    from motoko_core.workflow import Workflow

logger = logging.getLogger("motoko.progress")

_LIVE_S = 0.2
_LINES_S = 5.0


class Progress:
    """Shows the states of a workflow run's tasks while it goes on; used inside its event loop."""

    def __init__(self, workflow: Workflow) -> None:
        self._workflow = workflow
        self._begin = time.monotonic()

    def states(self) -> dict[str, counts.Counts]:
        """Study -> state -> number of runs."""
        name = self._workflow.run_name
        return {m.study: counts.of_run_name(m, name) for m in self._workflow.task_managers.values()}

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Keep showing the states until the context ends."""
        with self._live() as live:
            updater = asyncio.ensure_future(self._keep_current(live))
            try:
                yield
            finally:
                updater.cancel()

    @contextmanager
    def _live(self) -> Iterator[Any]:
        if not is_terminal():
            yield None
            return
        from rich.live import Live

        # What user code prints, and log lines, appear above the table.
        with Live(self._table(), refresh_per_second=5, transient=True) as live:
            yield live

    async def _keep_current(self, live: Any) -> None:
        said = ""
        while True:
            if live is not None:
                live.update(self._table())
                await asyncio.sleep(_LIVE_S)
                continue
            text = "; ".join(f"{study}: {counts.in_words(c)}" for study, c in self.states().items() if c)
            if text != said:
                logger.info("%s", text)
                said = text
            await asyncio.sleep(_LINES_S)

    def _table(self) -> Any:
        import rich.box
        from rich.table import Table

        found = self.states()
        states = counts.in_order({state for c in found.values() for state in c})
        elapsed = int(time.monotonic() - self._begin)
        clock = f"{elapsed // 3600}:{elapsed // 60 % 60:02}:{elapsed % 60:02}"
        caption = f"{self._workflow.run_name}, {clock}"
        # A table of one column would break the caption into two lines.
        width = min(len(caption), shutil.get_terminal_size().columns)
        table = Table(box=rich.box.SIMPLE_HEAD, pad_edge=False, caption=caption, min_width=width)
        table.add_column("study")
        for state in states:
            style = "red" if is_failure(state) else "green" if state == FINISHED else ""
            table.add_column(state, justify="right", style=style)
        for study, c in found.items():
            table.add_row(study, *(str(c.get(state, "")) for state in states))
        return table
