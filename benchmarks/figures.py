"""What is measured, in which unit, and what DESIGN.md allows for it."""

from __future__ import annotations

from collections.abc import Callable

import attrs

#: Runs in the study beside which memory is counted: what a process needs anyway must not count.
BASELINE = 20
#: Below, what a process's memory varies by is more than what the runs take.
_LEAST_FOR_MEMORY = 1_000


@attrs.frozen
class Figure:
    """A number that is shown.

    :param source: the raw figure of a script that it is computed from: memory beside that of a study with
        :data:`BASELINE` runs, in KB per run.
    """

    name: str
    title: str
    unit: str
    growth: str = ""
    source: str = ""
    least_runs: int = 0


@attrs.frozen
class Point:
    """One process: a script of ``points``, on a study of one size.

    :param is_sized: whether it is measured for each number of runs.
    :param filled: whether the study has its runs; False: the script makes them.
    :param alone: gets a copy of the study for itself, because it adds to it.
    """

    name: str
    script: str
    figures: tuple[Figure, ...]
    is_sized: bool = True
    filled: bool = True
    alone: bool = False
    with_baseline: bool = False
    actions: int = 0

    def settings(self, runs: int | None, poll_s: float) -> list[object]:
        """What its script is told beside the number of runs.

        :param poll_s: how often the version looks for events.
        """
        if self.script == "reaction":
            return ["--pause", poll_s, "--actions", self.actions]
        return ["--list", runs] if self.name == "create_list" else []


def _memory(name: str, title: str, source: str) -> Figure:
    return Figure(name, title, "KB", "flat", source, _LEAST_FOR_MEMORY)


POINTS = (
    Point(
        "steps",
        "steps",
        (
            Figure("create_studies", "create three studies", "s"),
            Figure("chain", "a chain of three steps, two tasks each", "s"),
        ),
        is_sized=False,
        filled=False,
        alone=True,
    ),
    Point(
        "create_list",
        "creation",
        (Figure("create_list", "createTask of a list of n into an empty study, per task", "ms", "flat"),),
        filled=False,
        alone=True,
    ),
    Point(
        "create_each",
        "creation",
        (Figure("create_each", "createTask one by one into n runs, one commit, per task", "ms", "flat"),),
        alone=True,
    ),
    Point(
        "selection",
        "selection",
        (
            Figure("cold_selection", "cold: connect and select by state, new process", "s", "linear"),
            Figure("select_few", "warm: select by state, 10 matches", "ms", "flat"),
            Figure("select_half", "warm: select by state, n/2 matches", "ms", "linear"),
            Figure("count_half", "warm: len(selection), n/2 matches", "ms", "flat"),
            Figure("read_half", "warm: select n/2 and read a parameter of each", "ms", "linear"),
            _memory("index_memory", "memory after the first selection, per run", "selection_rss"),
        ),
        with_baseline=True,
    ),
    Point(
        "reaction",
        "reaction",
        (
            Figure("cold_orchestrator", "cold: execute() to the first firing", "s", "linear"),
            Figure("reaction_p50", "a run is set FINISHED -> its action starts, p50", "ms", "flat"),
            Figure("reaction_p99", "a run is set FINISHED -> its action starts, p99", "ms", "flat"),
            Figure("commit_p50", "the part of it that the writer's commit takes, p50", "ms", "flat"),
            _memory("orchestrator_memory", "memory of an orchestrator, per run", "orchestrator_rss"),
        ),
        with_baseline=True,
    ),
    Point(
        "change",
        "reaction",
        (Figure("change", "processor time of one change with 50 actions registered", "ms", "flat"),),
        actions=50,
    ),
    Point("info", "info", (Figure("info", "motoko info, the whole process", "s", "linear"),)),
)

#: Measured for engines instead of versions: it has results of its own.
THROUGHPUT = Point(
    "throughput",
    "throughput",
    (
        Figure("start", "until the engine is ready", "s"),
        Figure("throughput", "short shell tasks", "1/s"),
        Figure("throughput_created", "short shell tasks, with their creation", "1/s"),
        Figure("step", "one step of a chain of tasks", "ms"),
    ),
    is_sized=False,
    filled=False,
    alone=True,
)

FIGURES = {figure.name: figure for point in POINTS for figure in point.figures}


@attrs.frozen
class Budget:
    """What a figure may be at one size.

    :param limit: in the figure's unit; with ``is_ratio``, how many times Motoko 0.1.4's it must be at least.
    """

    figure: str
    runs: int | None
    limit: float
    text: str
    is_ratio: bool = False


def _selection_ms(matches: int) -> float:
    return 1 + 0.005 * matches


BUDGETS = (
    Budget("reaction_p50", 100_000, 10, "10 ms"),
    Budget("reaction_p99", 100_000, 50, "50 ms"),
    Budget("create_list", 100_000, 0.7, "0.7 ms"),
    Budget("create_each", 100_000, 0.7, "0.7 ms"),
    Budget("select_few", 100_000, _selection_ms(10), "1 ms + 5 us per match"),
    Budget("select_half", 100_000, _selection_ms(50_000), "1 ms + 5 us per match"),
    Budget("info", 10_000, 1, "1 s"),
    Budget("orchestrator_memory", 100_000, 2, "2 KB"),
    Budget("create_studies", None, 1.5, "1.5 s"),
    Budget("select_few", 10_000, 500, "500 times faster than 0.1.4", is_ratio=True),
    Budget("create_each", 10_000, 50, "50 times faster than 0.1.4", is_ratio=True),
    Budget("info", 10_000, 20, "20 times faster than 0.1.4", is_ratio=True),
)

#: A figure's budget at a number of runs, where it has one for every number: for the plot.
LINES: dict[str, Callable[[int], float]] = {
    "reaction_p50": lambda runs: 10,
    "reaction_p99": lambda runs: 50,
    "create_list": lambda runs: 0.7,
    "create_each": lambda runs: 0.7,
    "select_few": lambda runs: _selection_ms(10),
    "select_half": lambda runs: _selection_ms(runs // 2),
    "orchestrator_memory": lambda runs: 2,
}
