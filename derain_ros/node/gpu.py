"""Temperature and use of the first NVIDIA GPU, where its management library answers."""

import functools
from typing import Any


def gpu_values() -> dict[str, int]:
    """Return ``gpu_temperature_c`` and ``gpu_utilisation_percent``; empty without NVML."""
    nvml, device = _device()
    if nvml is None:
        return {}
    try:
        return {
            'gpu_temperature_c': nvml.nvmlDeviceGetTemperature(device, nvml.NVML_TEMPERATURE_GPU),
            'gpu_utilisation_percent': nvml.nvmlDeviceGetUtilizationRates(device).gpu,
        }
    except nvml.NVMLError:  # a Jetson's library has not all of it
        return {}


@functools.cache
def _device() -> tuple[Any, Any]:
    try:
        import pynvml
    except ImportError:
        return None, None
    try:
        pynvml.nvmlInit()
        return pynvml, pynvml.nvmlDeviceGetHandleByIndex(0)
    except pynvml.NVMLError:
        return None, None
