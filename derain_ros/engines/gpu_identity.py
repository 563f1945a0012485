"""Which NVIDIA GPU is there, as far as compiled engines depend on it."""

from dataclasses import dataclass


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
        try:
            from cuda.bindings import runtime
        except ImportError:
            from cuda import cudart as runtime  # cuda-python before 12.6
    except ImportError:
        return GpuIdentity(missing='no Python module cuda.bindings; `pip install cuda-bindings`')
    try:
        count = _ask(runtime, runtime.cudaGetDeviceCount())
        if index >= count:
            return GpuIdentity(missing=f'no NVIDIA GPU with number {index}; there are {count}')
        properties = _ask(runtime, runtime.cudaGetDeviceProperties(index))
        driver = _ask(runtime, runtime.cudaDriverGetVersion())
    except RuntimeError as error:
        return GpuIdentity(missing=f'no NVIDIA GPU can be used ({error})')
    return GpuIdentity(
        name=properties.name.split(b'\0')[0].decode('ascii', 'replace'),
        compute_capability=f'{properties.major}.{properties.minor}',
        driver=f'{driver // 1000}.{driver % 1000 // 10}')


def _ask(runtime, answer: tuple):
    """Return the value of an answer of CUDA; raises RuntimeError where it is an error."""
    error, *values = answer
    if error != runtime.cudaError_t.cudaSuccess:
        raise RuntimeError(getattr(error, 'name', str(error)))
    return values[0]
