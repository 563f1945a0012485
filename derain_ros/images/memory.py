"""The previous result of a camera, aligned with its current frame.

A recurrent network also uses the previous frame. Its input from there, the state, is made here:
the last result is warped by dense optical flow between downscaled frames, which is cheap next
to the network and follows parallax and moving objects. Rain streaks do not last from one frame
to the next, and little of them is left in a downscaled frame.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

SHRINK = 4
"""Factor by which a frame is downscaled to the small image used for optical flow."""

LEAST_KNOWN, MOVED = 160, 64
"""See :data:`derain_ros.network.second_look.LEAST_KNOWN`."""

LEAST_ALIKE = 0.72
"""Correlation of 24×24 block means below which two aligned images show different scenes.

Over 60 cuts it was at most 0.71. In heavy rain (intensity 0.8) one frame in twenty was below the
limit, more in a downpour that hides the scene; such frames are derained as single frames.
"""

LEAST_SIDE = 16
"""Shortest side of a small image, in pixels, for which motion is estimated."""

LONGEST_GAP = 1.0
"""Longest time between two frames, in seconds, for the first to be used for the second."""

STANDING_SECONDS = 0.4
"""Seconds a camera must have been static: a moving vehicle has left the scene by then."""

MOST_CHANGED = 0.12
"""Largest share of the textured area that may have changed since then for a static camera.

It was at most 0.03 in a clip of real rain and in dry clips made of photographs, at least 0.23 on
motorways, 0.54 in a side view, and at least 0.87 in pans. It is also exceeded in rain that hides
the scene and where cars are most of the texture; these are treated like a moving camera.
"""


def shrink(bgr: np.ndarray) -> np.ndarray:
    """Return the small grey image of a frame: uint8, H×W×3 to uint8, H/4×W/4, rounded up."""
    height, width = ((side + SHRINK - 1) // SHRINK for side in bgr.shape[:2])
    small = cv2.resize(bgr, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)


def make_flow() -> cv2.DISOpticalFlow:
    """Return an optical flow estimator that is fast, and in rain as accurate as slower settings.

    In pans with rain, the last dry frame warped by its flow agreed with the next to 34–38 dB.
    """
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    flow.setFinestScale(1)
    flow.setGradientDescentIterations(12)
    return flow


def find_motion(
    flow: cv2.DISOpticalFlow, before: np.ndarray, now: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Estimate the motion between two small images, uint8, H×W.

    Returns the flow from ``now`` to ``before`` in pixels, x and y, float32, H×W×2, set to 0 where
    no motion explains ``now`` about as well; and ``before`` warped to ``now`` by the full flow.
    """
    found = flow.calc(now, before, None)
    aligned = cv2.remap(before, found + _places(*now.shape), None, cv2.INTER_LINEAR,
                        borderMode=cv2.BORDER_REPLICATE)
    # Rain disturbs the flow in untextured areas; zero is better where it fits about as well.
    found[mean_error(before, now) <= 1.1 * mean_error(aligned, now) + 0.5] = 0
    return found, aligned


def find_standing(before: np.ndarray, now: np.ndarray) -> np.ndarray | None:
    """Return where the scene is as it was a while ago, bool, H×W; None if the camera moved.

    ``before``, ``now``: small images, uint8, H×W, the first one derained.
    """
    then, present = (one - cv2.blur(one, (15, 15))
                     for one in (before.astype(np.float32), now.astype(np.float32)))
    structure, kept = (cv2.blur(then * one, (15, 15)) for one in (then, present))
    changed = (structure > 9) & (kept < 0.7 * structure)
    if np.count_nonzero(changed) > MOST_CHANGED * np.count_nonzero(structure > 9):
        return None
    return ~changed


def move(
    state: np.ndarray, flow: np.ndarray, standing: np.ndarray | None = None
) -> np.ndarray:
    """Warp a state to the next frame.

    ``state``: uint8, H×W×4. ``flow``: float32, h×w×2, of the small images, from the next one to
    this one, pixels. ``standing``: bool, h×w, from :func:`find_standing`. Returns uint8, H×W×4,
    0 for what comes from beyond the border; the fourth channel is reduced by :data:`MOVED` except
    where the scene is static and there is no motion nearby.
    """
    height, width = state.shape[:2]
    full = cv2.resize(flow, (SHRINK * flow.shape[1], SHRINK * flow.shape[0]))[:height, :width]
    full *= SHRINK
    full[..., 0] += np.arange(width, dtype=np.float32)
    full[..., 1] += np.arange(height, dtype=np.float32)[:, None]
    state = cv2.remap(state, full, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    moved = np.ones(flow.shape[:2], bool) if standing is None else flow.any(2) | ~standing
    moved = cv2.dilate(moved.astype(np.uint8) * MOVED, np.ones((5, 5), np.uint8))
    moved = moved.repeat(SHRINK, 0)[:height].repeat(SHRINK, 1)[:, :width]
    state[..., 3] = cv2.subtract(state[..., 3], moved)
    return state


class Memory:
    """Remembers the last frame of one camera; not thread-safe.

    The memory is not used if the next frame does not continue the last one: after a cut, at
    another size, if stamps go back or jump, after :meth:`forget`, or if a side is below 61 pixels.
    """

    def __init__(self) -> None:
        self._flow = make_flow()
        self.forget()

    def forget(self) -> None:
        """Treat the next frame as the first one."""
        self._kept: tuple[float, np.ndarray, np.ndarray] | None = None
        self._seen: tuple[float, np.ndarray] | None = None
        # Earlier results, as small images, the older one first.
        self._past: deque[tuple[float, np.ndarray]] = deque(maxlen=2)

    def recall(self, bgr: np.ndarray, time: float) -> np.ndarray | None:
        """Return the state for a frame, or None if it has to be derained as a single frame.

        ``bgr`` is uint8, H×W×3, BGR; ``time`` is its stamp in seconds. The state is uint8, H×W×4:
        B, G, R of the last result, and its dryness: 255 for dry, 224 for rain, both reduced by
        :data:`MOVED` where things move, and below :data:`LEAST_KNOWN` where nothing is known.
        """
        small = shrink(bgr)
        self._seen = time, small
        if self._kept is None:
            return None
        then, before, state = self._kept
        if state.shape[:2] == bgr.shape[:2] and min(small.shape) >= LEAST_SIDE and (
                0 <= time - then <= LONGEST_GAP):
            flow, aligned = find_motion(self._flow, before, small)
            if alike(aligned, small):
                return move(state, flow, self._standing(small, time))
        self._past.clear()
        return None

    def keep(self, derained: np.ndarray, rain_mask: np.ndarray) -> None:
        """Store the result of the frame last passed to :meth:`recall`.

        ``derained``: uint8, H×W×3, BGR. ``rain_mask``: uint8, H×W, 255 = rain.
        """
        if not self._past or self._seen[0] - self._past[-1][0] >= STANDING_SECONDS:
            self._past.append((self._seen[0], shrink(derained)))
        self._kept = *self._seen, cv2.merge([derained, 255 - (rain_mask >> 3)])

    def _standing(self, small: np.ndarray, time: float) -> np.ndarray | None:
        """Return the static part, see :func:`find_standing`; None while that is unknown."""
        if not self._past or time - self._past[0][0] < STANDING_SECONDS:
            return None
        return find_standing(self._past[0][1], small)

    def through(self, infer: Callable[..., Any], time: float) -> Callable[[np.ndarray], Any]:
        """Return a function that infers one frame, of a stamp in seconds, with its state.

        ``infer``: :meth:`derain_ros.engines.contract.Engine.infer`; its errors are passed on and
        leave the memory of the last result unchanged.
        """
        def remembering(images: np.ndarray) -> Any:
            state = self.recall(images[0], time)
            states = () if state is None else (state[np.newaxis],)
            derained, masks = result = infer(images, *states)
            self.keep(derained[0], masks[0])
            return result

        return remembering


def mean_error(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the mean absolute difference of two uint8 images around each pixel, float32."""
    return cv2.blur(cv2.absdiff(one, other).astype(np.float32), (9, 9))


def alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two small images, uint8, show the same scene."""
    height, width = (max(4, side // 6) for side in one.shape)
    means = (cv2.resize(picture.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
             for picture in (one, other))
    one, other = (picture - picture.mean() for picture in means)
    product = float(np.vdot(one, other))
    return product >= LEAST_ALIKE * float(np.sqrt(np.vdot(one, one) * np.vdot(other, other)))


def _places(height: int, width: int) -> np.ndarray:
    """Return the coordinates of each pixel, float32, height×width×2, x then y."""
    columns, rows = np.meshgrid(
        np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.dstack([columns, rows])
