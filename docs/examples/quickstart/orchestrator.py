"""Two numbers go through mult -> add -> norm -> mult, one event after the other.

Each step is a callback, and each callback waits for a condition. Nothing here says in which order the
callbacks run: that follows from the results.
"""

from motoko.workflow import event

FIRST, LAST = 1, 2  # the study mult is used twice: its job entry `stage` tells the two apart


def populate_arg_parser(parser):
    """Add this workflow's own arguments to `motoko run` and `motoko orchestrator start`."""
    parser.add_argument(
        "--inputs", type=float, nargs=2, default=[2.1, 3.2], metavar=("A", "B"), help="the two numbers"
    )


# --------------------------------------------------------------------------- callbacks

# A callback receives what its signature asks for: `workflow`, `runs` (the tasks that met the condition),
# and the command line's arguments. All that one call creates and changes is committed together.


@event
async def add_to_products(workflow, runs, **kwargs):
    for run, _job in runs:
        # `x` is a float: a list of values makes a task of each, so the result decides how many follow.
        created = workflow.add.createTask(x=run.y)
        run.dependencies = [f"add.{add_run.id}" for add_run, _ in created]
        # A state of our own: the condition "state = FINISHED" does not select this run again.
        run.state = "FORWARDED"


@event
async def mention_negative(runs, **kwargs):
    for run, job in runs:
        print(f"add.{run.id} started from a negative product: {job.x:g}")


@event
async def compare(workflow, **kwargs):
    products = sorted(workflow.mult.select(f"stage = {FIRST}"), key=lambda pair: pair[0].id)
    workflow.norm.createTask(sums=[name for run, _job in products for name in run.dependencies])


@event
async def multiply_norms(workflow, runs, **kwargs):
    for run, _job in runs:
        norms = run.getQuantity("norms").iloc[0, 1:].tolist()
        workflow.mult.createTask(x=norms, factors=[0.342], stage=LAST)
        run.state = "FORWARDED"


@event
async def finish(workflow, **kwargs):
    print_results(workflow)
    workflow.finished = True


# --------------------------------------------------------------------------- conditions


def is_negative(run, job):
    """A condition on one task: true for those that it selects."""
    return run.state == "FINISHED" and job.x < 0


def sums_are_ready(workflow, task_manager):
    """A condition on the workflow: true when every product was forwarded and every sum is there."""
    if workflow.norm.select() or not workflow.add.select():
        return False
    waiting = workflow.mult.select([f"stage = {FIRST}", "state != FORWARDED"])
    return not waiting and not workflow.add.select("state != FINISHED")


def last_products_are_ready(workflow, task_manager):
    last = workflow.mult.select(f"stage = {LAST}")
    return bool(last) and all(run.state == "FINISHED" for run, _job in last)


# --------------------------------------------------------------------------- main


async def main(workflow, inputs, **params):
    # The first run that fails ends the workflow with an error, and with the reason.
    workflow.add_error_handler()

    # What starts everything. If the workflow is started again under the same run name, main runs again:
    # a task that is there already is not created twice.
    first, second = inputs
    workflow.mult.createTask(x=first, factors=[0.342, -2.31], stage=FIRST)
    workflow.mult.createTask(x=second, factors=[0.342], stage=FIRST)

    # A list of constraints: all must hold.
    workflow.add_action(
        "multiplied", task="mult", event=[f"stage = {FIRST}", "state = FINISHED"], f=add_to_products
    )

    # A function of a run and its job. The condition stays true, so say that one firing per run is enough.
    workflow.add_action("negative", task="add", event=is_negative, f=mention_negative, once_per_run=True)

    # A function of the workflow and a task manager.
    workflow.add_action("added", task="add", event=sums_are_ready, f=compare)

    # One constraint.
    workflow.add_action("compared", task="norm", event="state = FINISHED", f=multiply_norms)

    workflow.add_action("done", task="mult", event=last_products_are_ready, f=finish)


def print_results(workflow):
    rows = [(f"mult.{run.id}", job.x, run.y) for run, job in workflow.mult.select()]
    rows += [
        (f"add.{run.id}", job.x, [run.getQuantity("sum").iloc[0, 1]]) for run, job in workflow.add.select()
    ]
    rows += [
        (f"norm.{run.id}", ", ".join(job.sums), run.getQuantity("norms").iloc[0, 1:].tolist())
        for run, job in workflow.norm.select()
    ]
    print(f"{'task':<8} {'input':<22} result")
    for task, given, result in rows:
        given = given if isinstance(given, str) else f"{given:.6g}"
        print(f"{task:<8} {given:<22} " + "  ".join(f"{value:.6f}" for value in result))
