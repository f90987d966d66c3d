"""Multiply a number by some factors."""

import BlackDynamite as BD

# Which run this is stands in the environment; the run and its job come from the study's database.
run, job = BD.getRunFromScript()
run.start()

# A plain attribute is stored with the run: the orchestrator reads it as `run.y`.
run.y = [factor * job.x for factor in job.factors]

run.finish()
