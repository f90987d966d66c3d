"""Add a constant to a number."""

import BlackDynamite as BD

run, job = BD.getRunFromScript()
run.start()

# A quantity is a named series over steps, kept in the run's directory. Here it has one step, number 0.
run.pushQuantity(job.x + 0.56, 0, "sum")

run.finish()
