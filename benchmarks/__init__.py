"""Motoko beside Motoko 0.1.4 and other engines in one run on one machine: ``make bench``.

``points`` holds what is measured, scripts that either version runs in an environment of its own; the modules
here start them, one process per point, and show what they found.
"""
