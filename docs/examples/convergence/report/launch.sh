#!/bin/bash
# Before the script is executed, Motoko writes the run's and the job's entries over the names below.
# So a program that knows nothing of databases can be a study: its exit code alone settles the run.
python doIt.py --n __BLACKDYNAMITE__n__ --integral __BLACKDYNAMITE__integral__ \
    --change __BLACKDYNAMITE__change__
