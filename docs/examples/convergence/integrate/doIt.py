"""Integrate 4 / (1 + x^2) from 0 to 1 by the midpoint rule with n intervals; the exact value is pi."""

import BlackDynamite as BD

run, job = BD.getRunFromScript()
run.start()

h = 1.0 / job.n
run.integral = h * sum(4.0 / (1.0 + ((i + 0.5) * h) ** 2) for i in range(job.n))

run.finish()
