"""Synthetic rain for training, tests and demonstrations."""

from derain_ros.rain.camera_effects import CameraEffects, sample_camera
from derain_ros.rain.drops import DropVolume
from derain_ros.rain.renderer import CameraMotion, RainClip, RainyImage, render
from derain_ros.rain.shower import Shower, StreakLayer, sample_shower
from derain_ros.rain.streaks import draw_streaks

__all__ = [
    'CameraEffects',
    'CameraMotion',
    'DropVolume',
    'RainClip',
    'RainyImage',
    'Shower',
    'StreakLayer',
    'draw_streaks',
    'render',
    'sample_camera',
    'sample_shower',
]
