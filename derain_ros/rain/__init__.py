"""Synthetic rain for training, tests and demonstrations."""

from derain_ros.rain.renderer import RainyImage, add_rain
from derain_ros.rain.streaks import StreakLayer, draw_streaks

__all__ = ['RainyImage', 'StreakLayer', 'add_rain', 'draw_streaks']
