"""What ``derain replay-bench`` does: a bag through DDS into a real node, timed.

:mod:`player` is the process that publishes, :mod:`replay_runs` starts it and the node and
listens, :mod:`run_figures` makes numbers of what came, :mod:`search` looks for the highest
rate.
"""
