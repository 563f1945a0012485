"""A process that counts, and keeps as much memory as it is asked to."""

import numpy as np


def count_and_keep(pipe):
    """Count in a thread of its own pace, and keep as many MiB as asked for."""
    kept, count = [], 0
    while True:
        count += 1
        if pipe.poll(0.001):
            megabytes = pipe.recv()
            if megabytes is None:
                return
            kept.append(np.ones(megabytes << 20, np.uint8))
            pipe.send(count)
