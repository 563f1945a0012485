"""Single-image deraining for ROS 2 cameras."""

__version__ = '0.1.0'
