"""Processes that drive a node and listen to it: demo, replay, ``derain top``."""
