"""Masks and gates that the tests of the rain gate share."""

import numpy as np

from derain_ros.rain_gate import PROBE_SECONDS, GateSettings, RainGate

SETTINGS = GateSettings(wet_above=0.2, dry_below=0.1, dry_after=5.0)


def rain(share):
    """Return a mask of 10,000 pixels of which a share is rain."""
    mask = np.zeros(10_000, np.uint8)
    mask[:round(share * mask.size)] = 255
    return mask.reshape(100, 100)


def dry_gate(settings=SETTINGS):
    """Return a gate that has just become dry, and the time."""
    gate = RainGate(settings)
    now = 100.0
    while gate.update(rain(0), now):
        now += 0.1
    return gate, now


def opened_at(gate, now, share, interval=PROBE_SECONDS, limit=100):
    """Return how many masks, the first after one interval, it takes until the gate is wet."""
    for count in range(1, limit):
        if gate.update(rain(share), now + count * interval):
            return count
    return None
