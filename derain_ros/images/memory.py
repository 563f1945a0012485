"""What a camera showed a moment ago, moved to where things are now.

A network for streams looks at the frame before as well. What it is given of it, the state, is
made here from the last result by dense optical flow between small pictures, which costs little
beside the network and follows parallax and moving things. Rain is gone from one frame to the
next, and a small picture holds little of it.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

SHRINK = 4
"""Side of a pixel of the small picture, in pixels of the frame."""

LEAST_KNOWN, MOVED = 160, 64
"""See :data:`derain_ros.network.second_look.LEAST_KNOWN`."""

LEAST_ALIKE = 0.72
"""Correlation below which two aligned pictures, of means over 24×24 pixels, show two scenes.

It was 0.71 at most over 60 cuts; one frame in twenty was below in heavy rain (intensity 0.8), and
more in a downpour that hides the scene; these get what a single frame tells.
"""

LEAST_SIDE = 16
"""Shortest side of a small picture, in pixels, in which motion is looked for."""

LONGEST_GAP = 1.0
"""Seconds between two frames beyond which the second one stands alone."""

STANDING_SECONDS = 0.4
"""How far back a camera must have stood: a vehicle that drives has left the scene by then."""

MOST_CHANGED = 0.12
"""Share of what has structure that may have changed since then before a camera that stands.

It was 0.03 at most in a clip of real rain and in dry ones of photographs, 0.23 and more on
motorways, 0.54 in a side view, and 0.87 and more in pans. In rain that hides the scene, and where
cars are most of the structure, it is above too: these get what a moving camera gets.
"""


def shrink(bgr: np.ndarray) -> np.ndarray:
    """Return the grey small picture of a frame: uint8, H×W×3, to uint8, H/4×W/4, rounded up."""
    height, width = ((side + SHRINK - 1) // SHRINK for side in bgr.shape[:2])
    small = cv2.resize(bgr, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)


def make_flow() -> cv2.DISOpticalFlow:
    """Return an estimator of motion: fast, and as good in rain as slower settings were.

    Of a panned frame with rain the last dry one, moved, agreed to 34 to 38 dB.
    """
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    flow.setFinestScale(1)
    flow.setGradientDescentIterations(12)
    return flow


def find_motion(
    flow: cv2.DISOpticalFlow, before: np.ndarray, now: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Find how things moved between two small pictures, uint8, H×W.

    Returns where in ``before`` each pixel of ``now`` comes from, less where it is, pixels, x and
    y, float32, H×W×2, 0 where that explains ``now`` about as well; and ``before``, moved by flow.
    """
    found = flow.calc(now, before, None)
    aligned = cv2.remap(before, found + _places(*now.shape), None, cv2.INTER_LINEAR,
                        borderMode=cv2.BORDER_REPLICATE)
    # Rain makes the flow of plain things wander; none is truer where it explains as much.
    found[mean_error(before, now) <= 1.1 * mean_error(aligned, now) + 0.5] = 0
    return found, aligned


def find_standing(before: np.ndarray, now: np.ndarray) -> np.ndarray | None:
    """Find what stands where it was a while ago, or None if the camera moved.

    ``before``, ``now``: small pictures, uint8, H×W, the first one without rain. Returns bool, H×W.
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
    """Move a state to where things are in the next frame.

    ``state``: uint8, H×W×4. ``flow``: float32, h×w×2, of the small pictures, from the next one to
    this one, pixels. ``standing``: bool, h×w, as of :func:`find_standing`. Returns uint8, H×W×4,
    0 for what comes from beyond the border; the fourth channel is less by :data:`MOVED` but where
    things stand, without motion near them.
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
    """Remembers the last frame of one camera; for one thread at a time.

    It forgets where the next frame does not go on from it: after a cut, at another size, when
    stamps go back or jump, and when told to. Frames of less than 64 pixels on a side stand alone.
    """

    def __init__(self) -> None:
        self._flow = make_flow()
        self.forget()

    def forget(self) -> None:
        """Take the next frame for the first one."""
        self._kept: tuple[float, np.ndarray, np.ndarray] | None = None
        self._seen: tuple[float, np.ndarray] | None = None
        # Small results of a while ago, the older one first.
        self._past: deque[tuple[float, np.ndarray]] = deque(maxlen=2)

    def recall(self, bgr: np.ndarray, time: float) -> np.ndarray | None:
        """Return the state for a frame, or None where it has to stand alone.

        ``bgr`` is uint8, H×W×3, BGR; ``time`` that of its stamp in seconds. The state is uint8,
        H×W×4: the last result as B, G, R, and how dry it was: 255 for dry, 224 for rain, both less
        :data:`MOVED` where things move, and less than :data:`LEAST_KNOWN` where nothing is known.
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
        """Keep the result of the frame that :meth:`recall` was called with last.

        ``derained``: uint8, H×W×3, BGR. ``rain_mask``: uint8, H×W, 255 = rain.
        """
        if not self._past or self._seen[0] - self._past[-1][0] >= STANDING_SECONDS:
            self._past.append((self._seen[0], shrink(derained)))
        self._kept = *self._seen, cv2.merge([derained, 255 - (rain_mask >> 3)])

    def _standing(self, small: np.ndarray, time: float) -> np.ndarray | None:
        """Return what stands, see :func:`find_standing`; None before that can be known."""
        if not self._past or time - self._past[0][0] < STANDING_SECONDS:
            return None
        return find_standing(self._past[0][1], small)

    def through(self, infer: Callable[..., Any], time: float) -> Callable[[np.ndarray], Any]:
        """Return what infers one frame of a stamp, in seconds, with what is remembered.

        ``infer``: :meth:`derain_ros.engines.contract.Engine.infer`; its errors are let through,
        and what was remembered then stays.
        """
        def remembering(images: np.ndarray) -> Any:
            state = self.recall(images[0], time)
            states = () if state is None else (state[np.newaxis],)
            derained, masks = result = infer(images, *states)
            self.keep(derained[0], masks[0])
            return result

        return remembering


def mean_error(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the mean difference of two small pictures, uint8, about each pixel, float32."""
    return cv2.blur(cv2.absdiff(one, other).astype(np.float32), (9, 9))


def alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Tell whether two small pictures, uint8, show one scene."""
    height, width = (max(4, side // 6) for side in one.shape)
    means = (cv2.resize(picture.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
             for picture in (one, other))
    one, other = (picture - picture.mean() for picture in means)
    product = float(np.vdot(one, other))
    return product >= LEAST_ALIKE * float(np.sqrt(np.vdot(one, one) * np.vdot(other, other)))


def _places(height: int, width: int) -> np.ndarray:
    """Return the place of each pixel, float32, height×width×2, x then y."""
    columns, rows = np.meshgrid(
        np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.dstack([columns, rows])
