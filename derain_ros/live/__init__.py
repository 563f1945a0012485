"""Processes that feed a node and listen to its output: demo, replay, ``derain top``."""
