"""Conversion of frames between ROS messages and uint8 arrays; needs no ROS."""
