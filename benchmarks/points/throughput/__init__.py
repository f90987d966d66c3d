"""Short shell tasks, two at a time: ``python -m points.throughput --engine MODULE:VARIANT``.

Every engine executes the same command for every task, in an environment of its own. A module here has a
function ``engine(variant)``, a context manager that yields a :class:`~points.throughput.tasks.Engine` which
is ready.
"""
