"""Which NVIDIA GPU is there, as far as compiled engines depend on it."""

from dataclasses import dataclass

from derain_ros.engines.contract import EngineError
from derain_ros.engines.tensorrt.cuda_runtime import ask, cuda


@dataclass(frozen=True)
class GpuIdentity:
    """A GPU, or that there is none.

    Attributes
    ----------
    name
        As its driver names it; empty where there is none.
    compute_capability
        Such as ``8.7``.
    driver
        CUDA version that the driver supports, such as ``13.0``.
    missing
        Why there is none; empty where there is one.

    """

    name: str = ''
    compute_capability: str = ''
    driver: str = ''
    missing: str = ''


def find_gpu(index: int = 0) -> GpuIdentity:
    """Return the GPU with a number, asked of the CUDA runtime through ``cuda-bindings``."""
    try:
        runtime = cuda()
        count = ask(runtime.cudaGetDeviceCount())
        if index >= count:
            return GpuIdentity(missing=f'no NVIDIA GPU with number {index}; there are {count}')
        properties = ask(runtime.cudaGetDeviceProperties(index))
        driver = ask(runtime.cudaDriverGetVersion())
    except EngineError as error:
        return GpuIdentity(missing=f'no NVIDIA GPU can be used ({error})')
    return GpuIdentity(
        name=properties.name.split(b'\0')[0].decode('ascii', 'replace'),
        compute_capability=f'{properties.major}.{properties.minor}',
        driver=f'{driver // 1000}.{driver % 1000 // 10}')
