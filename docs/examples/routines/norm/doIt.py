"""Measure how far three sums are from a reference, in two norms."""

import math
import os

import BlackDynamite as BD
from motoko.workflow import Workflow

REFERENCE = [3.3, 2.34, 0.148]

run, job = BD.getRunFromScript()

# BlackDynamite lets the variables that led to this run win over the study that it is asked to open. Motoko
# opens studies without looking at them, so what follows works either way; but code that calls BD.Base()
# itself, and Motoko 0.1, would open this study, `norm`, whichever they want. They have done their work.
for name in [name for name in os.environ if name.startswith("BLACKDYNAMITE_")]:
    del os.environ[name]

run.start()

# A task may look at the whole workflow: every run knows the motoko.yaml that it belongs to.
workflow = Workflow(run.workflow)
sums = [add_run.getQuantity("sum").iloc[0, 1] for add_run in workflow.get_runs(job.sums)["add"]]

l1 = sum((value - reference) ** 2 for value, reference in zip(sums, REFERENCE, strict=True))
l2 = math.sqrt(l1)
run.pushQuantity([l1, l2], 0, "norms")

run.finish()
