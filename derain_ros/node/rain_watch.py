"""Whether it rains before the cameras, told from the engine's rain masks."""

import time
from collections.abc import Iterable, Mapping

import numpy as np

from derain_ros.engines.contract import MINIMUM_SIDE
from derain_ros.node.camera import Camera
from derain_ros.node.settings import LiveSettings
from derain_ros.node.supervisor import FaultError, Supervisor
from derain_ros.rain_gate import FORGET_SECONDS, PROBE_SECONDS, PROBE_SIDE


def patch_size(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return height and width of what is looked at of a frame while it is dry."""
    return min(PROBE_SIDE[0], shape[0]), min(PROBE_SIDE[1], shape[1])


def is_wet(camera: Camera, cameras: Iterable[Camera]) -> bool:
    """Tell whether it rains before a camera or another one of its group."""
    group = camera.settings.sync_group
    if not group:
        return _may_be_wet(camera)
    return any(_may_be_wet(other) for other in cameras if other.settings.sync_group == group)


def _may_be_wet(camera: Camera) -> bool:
    # A gate that has seen no mask for so long, as no engine makes any, knows nothing.
    return camera.gate.wet or time.monotonic() - camera.mask_time > FORGET_SECONDS


class RainWatch:
    """Feeds the gates of the cameras; used by one thread.

    Parameters
    ----------
    cameras
        Cameras by name.
    supervisor
        The engine.
    logger
        For changes of the weather.

    """

    def __init__(self, cameras: Mapping[str, Camera], supervisor: Supervisor, logger):
        self._cameras = cameras
        self._supervisor = supervisor
        self._logger = logger

    def wet(self, camera: Camera) -> bool:
        """See :func:`is_wet`."""
        return is_wet(camera, self._cameras.values())

    def update(
        self, camera: Camera, mask: np.ndarray, now: float, live: LiveSettings
    ) -> None:
        """Take in a mask, uint8, H×W, of a frame or a part of it."""
        gate = camera.gate
        if gate.settings != live.gate:
            gate.settings = live.gate
        camera.mask_time = now
        before = gate.wet
        if gate.update(mask, now) != before and live.rain_gate:
            self._logger.info(f'{camera.name}: {"it rains" if gate.wet else "it is dry"}, '
                              f'rain intensity {gate.intensity:.3f}')

    def due(self, camera: Camera, now: float, live: LiveSettings) -> bool:
        """Tell whether it is time to look at a frame that nobody has derained."""
        if not (live.rain_gate and live.enabled):
            return False
        if camera.gate.wet:  # while nobody but for the rain intensity listens
            return now - camera.mask_time >= PROBE_SECONDS
        return camera.gate.probe_due(now)

    def probe(self, camera: Camera, frame: np.ndarray, live: LiveSettings) -> None:
        """Run the network on a part of a frame, uint8, H×W×3."""
        height, width = frame.shape[:2]
        if min(height, width) < MINIMUM_SIDE:
            return
        patch = np.ascontiguousarray(frame[camera.gate.next_patch(height, width)])[np.newaxis]
        try:
            # The whole frame, too, so that nothing is to be compiled when the rain comes.
            if self._supervisor.prepare([(1, *frame.shape), patch.shape]):
                result, _ = self._supervisor.infer(patch, limit=live.watchdog)
                self.update(camera, result.rain_mask[0], time.monotonic(), live)
        except FaultError:
            return  # told by the engine's status
