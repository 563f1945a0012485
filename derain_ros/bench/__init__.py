"""The scenarios of ``derain bench``.

Node, publisher and subscriber are separate processes that communicate over DDS; the figures come
from the messages received and from /diagnostics.
"""

SCENARIOS = {
    'engine': 'the engines alone, frames in memory',
    'vga': '640x480 rain at 30 Hz: rate and age',
    'overhead': '1920x1080: what the node adds to the inference, beside a plain rclpy node',
    'overload': '1920x1080 at 60 Hz: age, its growth, and the counts',
    'cameras': 'four cameras, 640x480 at 10 Hz each: how evenly they are served',
    'dry': 'the rain gate closed: CPU time, and frames bit by bit',
    'onset': 'the rain gate when rain begins',
    'stages': 'every stage at three sizes, with fast_path and without',
    'bag': 'derain bag beside the engine alone, 10000 frames; only if requested',
}
"""Descriptions of the scenarios by name, in the order in which they run."""

MODULES = {
    'engine': 'engine_scenario', 'bag': 'bag_scenario',
    **dict.fromkeys(('vga', 'overload', 'cameras', 'dry', 'onset'), 'stream_scenarios'),
    **dict.fromkeys(('overhead', 'stages'), 'turn_scenarios')}
"""The module of each scenario; it has a function of the same name, called with the Setting."""

WITHOUT_ROS = frozenset({'engine', 'bag'})
"""Scenarios that need neither ROS nor a clip."""
