"""What ``derain replay-bench`` does: a bag through DDS into a real node, timed.

:mod:`player` is the process that publishes, :mod:`bench` starts it and the node and listens,
:mod:`figures` makes numbers of what came, :mod:`search` looks for the highest rate.
"""
