"""The quickstart again, written from top to bottom: `main` awaits one step after the other.

Use this style when the order is known, and actions (see the quickstart) when events decide it. Both
can live in one orchestrator.
"""


def populate_arg_parser(parser):
    parser.add_argument(
        "--inputs", type=float, nargs=2, default=[2.1, 3.2], metavar=("A", "B"), help="the two numbers"
    )


async def main(workflow, inputs, **params):
    # createTask only notes what is to be done. Create all that can run side by side, then await.
    first = workflow.mult.createTask(x=inputs[0], factors=[0.342, -2.31])
    second = workflow.mult.createTask(x=inputs[1], factors=[0.342])
    products = [*await first, *await second]

    # Awaiting commits, waits until the runs are done, and gives them back. A run that failed for good
    # raises RunFailed here.
    pending = [workflow.add.createTask(x=run.y) for run, _job in products]
    sums = [task for tasks in pending for task in await tasks]

    [(norm, _job)] = await workflow.norm.createTask(sums=[f"add.{run.id}" for run, _job in sums])
    norms = norm.getQuantity("norms").iloc[0, 1:].tolist()
    last = await workflow.mult.createTask(x=norms, factors=[0.342])

    # If the orchestrator is stopped on the way, start it again with the same run name: main runs from
    # its top, each createTask finds the task that is there already, and no work is done twice.

    print(f"{'task':<8} {'input':<12} result")
    for run, job in [*products, *last]:
        print(f"mult.{run.id:<3} {job.x:<12.6g} " + "  ".join(f"{value:.6f}" for value in run.y))

    # No action is registered, so the workflow ends with main. Say so if there are any:
    workflow.finished = True
