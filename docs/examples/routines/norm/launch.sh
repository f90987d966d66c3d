#!/bin/bash
# Motoko executes this script in the run's own directory. Its exit code tells whether the run failed,
# so the last command is the one that does the work.
python doIt.py
