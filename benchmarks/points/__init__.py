"""What is measured: scripts that both versions run, written with what Motoko 0.1.4 knows.

Each is a process of its own, ``python -m points.selection`` in the directory of a workflow, that writes one
line of JSON per figure as soon as it has it. ``throughput`` is run by other engines too.
"""
