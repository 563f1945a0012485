"""The previous result of a camera, aligned with its current frame.

A recurrent network also uses the previous frame. Its input from there, the state, is made here:
the last result is warped by dense optical flow between downscaled frames, which is cheap next
to the network and follows parallax and moving objects. Rain streaks do not last from one frame
to the next, and little of them is left in a downscaled frame.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

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

STILL = 0.06
"""Motion of a camera, in pixels of the small image, below which it counts as static."""

LEAST_GAIN, ENOUGH = 0.92, 1.0
"""Mean error, as a share of that without motion, at which a motion of the camera is believed, at
first and once it has been moving.

It was 0.8 and below in pans and with a shaken camera, 0.95 to 1.04 with a static camera in heavy
rain and before swaying trees.
"""

STANDING_SECONDS = 0.39
"""Seconds a scene must have been static: a moving vehicle has left it by then.

Just below 0.4, a whole number of frames at 10, 12.5, 20 and 30 Hz, so that the rounding of stamps
does not matter.
"""

MOST_CHANGED = 0.12
"""Largest share of the textured area that may have changed since then for a static camera.

It was at most 0.03 in a clip of real rain and in dry clips made of photographs, at least 0.23 on
motorways and 0.54 in a side view. It is also exceeded in rain that hides the scene and where cars
are most of the texture; these are treated like a moving camera.
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


class FrameMotion(NamedTuple):
    """Motion between two small images, H×W.

    ``flow``: from the later to the earlier image, pixels, x and y, float32, H×W×2, 0 where that
    explains the later one about as well; ``aligned``: the earlier one, warped by the flow before
    that, uint8, H×W. ``turn``: homography from the later to the earlier one that is the motion of
    the camera, float64, 3×3, None if it is static or its motion unknown. ``camera``: the flow by
    that motion, where ``fits``, bool, H×W, tells that it explains the later image about as well.
    """

    flow: np.ndarray
    aligned: np.ndarray
    turn: np.ndarray | None
    camera: np.ndarray
    fits: np.ndarray


def find_motion(
    flow: cv2.DISOpticalFlow, before: np.ndarray, now: np.ndarray, *, turning: bool = False
) -> FrameMotion:
    """Estimate the motion between two small images, uint8, H×W.

    ``turning``: whether the camera has been moving.
    """
    found = flow.calc(now, before, None)
    aligned = _pull(before, found)
    # Rain disturbs the flow in untextured areas; others are better where they fit about as well.
    least, error = mean_error(aligned, now), mean_error(before, now)
    worst = 1.1 * least + 0.5
    fits = error <= worst
    turn, camera = None, found
    if turning or least.mean() < error.mean():
        turn = find_turn(found, now)
    found[fits] = 0
    if turn is not None:
        places = _places(*now.shape)
        turned = cv2.perspectiveTransform(places, turn) - places
        left = mean_error(_pull(before, turned), now)
        if left.mean() <= (ENOUGH if turning else LEAST_GAIN) * error.mean():
            camera, fits = turned, left <= worst
        else:
            turn = None
    return FrameMotion(found, aligned, turn, camera, fits)


def find_turn(flow: np.ndarray, now: np.ndarray) -> np.ndarray | None:
    """Return the homography, float64, 3×3, that explains most of a flow; None without such motion.

    ``flow``: float32, H×W×2, pixels, from the small image ``now``, uint8, H×W, to the one before.
    The motion is that of a plane before a camera, of the first or second order in x and y, or a
    constant where that fits about as well: least squares, in which textured areas count more and
    what moves otherwise counts less. Motion below :data:`STILL` everywhere is none.
    """
    height, width = now.shape
    step = max(2, width // 40)
    some = np.s_[step // 2::step, step // 2::step]
    texture = cv2.blur(cv2.absdiff(now, cv2.blur(now, (5, 5))), (5, 5))[some]
    texture = np.repeat(np.minimum(texture, 8).astype(np.float64).ravel(), 2)
    wanted = flow[some].reshape(-1).astype(np.float64)
    terms = _plane_terms(_places(height, width)[some].reshape(-1, 2), width)

    def fit(order: int) -> tuple[np.ndarray, np.ndarray]:
        weighed = terms[:, :order] * weight[:, np.newaxis]
        found = np.linalg.lstsq(
            weighed.T @ terms[:, :order], weighed.T @ wanted, rcond=None)[0]
        return found, np.square(wanted - terms[:, :order] @ found)

    weight = texture
    for _ in range(5):
        _, error = fit(8)
        weight = texture / (1 + error / 0.15**2)
    if texture @ (error > 0.25**2) > 0.5 * texture.sum():
        return None
    for order in (2, 6, 8):
        found, error_of_order = fit(order)
        if weight @ error_of_order <= 1.03 * (weight @ error):
            break
    corners = np.float64([[0, 0], [width, 0], [0, height], [width, height]])
    motion = (_plane_terms(corners, width)[:, :order] @ found).reshape(-1, 2)
    if np.abs(motion).max() < STILL:
        return None
    return cv2.getPerspectiveTransform(*np.float32([corners, corners + motion]))


def _plane_terms(places: np.ndarray, width: int) -> np.ndarray:
    """Return the terms of the motion of a plane: N×2 to 2N×8, x and y in turn."""
    x, y = (places.astype(np.float64) * (2 / width) - 1).T
    one, none = np.ones_like(x), np.zeros_like(x)
    across = [one, none, x, y, none, none, x * x, x * y]
    down = [none, one, none, none, x, y, x * y, y * y]
    return np.stack([across, down], 1).transpose(2, 1, 0).reshape(-1, 8)


def find_standing(
    before: np.ndarray, now: np.ndarray, turn: np.ndarray | None = None
) -> np.ndarray | None:
    """Return where the scene is as it was a while ago, bool, H×W; None if too much has changed.

    ``before``, ``now``: small images, uint8, H×W, the first one derained. ``turn``: homography
    from ``now`` to ``before``, None if the camera is static.
    """
    seen = np.ones(now.shape, np.uint8)
    if turn is not None:
        before, seen = (cv2.warpPerspective(
            image, turn, now.shape[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=border) for image, border in (
                (before, cv2.BORDER_REPLICATE), (seen, cv2.BORDER_CONSTANT)))
    then, present = (one - cv2.blur(one, (15, 15))
                     for one in (before.astype(np.float32), now.astype(np.float32)))
    structure, kept = (cv2.blur(then * one, (15, 15)) for one in (then, present))
    textured = (structure > 9) & (seen > 0)
    changed = textured & (kept < 0.7 * structure)
    if np.count_nonzero(changed) > MOST_CHANGED * np.count_nonzero(textured):
        return None
    return (seen > 0) & ~changed


def move(
    state: np.ndarray, flow: np.ndarray, standing: np.ndarray | None = None, *,
    turning: bool = False,
) -> np.ndarray:
    """Warp a state to the next frame.

    ``state``: uint8, H×W×4. ``flow``: float32, h×w×2, of the small images, from the next one to
    this one, pixels. ``standing``: bool, h×w, where the flow is that of a static scene, None for
    nowhere; ``turning``: whether the camera moves before it. Returns uint8, H×W×4, 0 for what
    comes from beyond the border; the fourth channel is reduced by :data:`MOVED` where the scene is
    not static and near such places, elsewhere by half of it if the camera turns.
    """
    height, width = state.shape[:2]
    scale = SHRINK
    if turning:
        # Linear interpolation blurs what the frame is compared with, pixel by pixel. At twice the
        # size it comes close to cubic interpolation, in half of its time.
        state = cv2.resize(state, (2 * width, 2 * height), interpolation=cv2.INTER_CUBIC)
        scale *= 2
    # Places are enlarged, not the flow: that spares passes over the full size. A row and a column
    # more on each side keep them exact up to the border.
    rows, columns = (side + 2 for side in flow.shape[:2])
    places = cv2.copyMakeBorder(flow, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    places = (places + _places(rows, columns) - 1) * scale + (scale - 1) / 2
    full = cv2.resize(places.astype(np.float32), (SHRINK * columns, SHRINK * rows))
    full = full[SHRINK : SHRINK + height, SHRINK : SHRINK + width]
    state = cv2.remap(state, full, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    moved = np.full(flow.shape[:2], MOVED, np.uint8)
    if standing is not None:
        moved[standing] = MOVED // 2 if turning else 0
    moved = cv2.dilate(moved, np.ones((5, 5), np.uint8))
    moved = moved.repeat(SHRINK, 0)[:height].repeat(SHRINK, 1)[:, :width]
    state[..., 3] = cv2.subtract(state[..., 3], moved)
    return state


class Earlier(NamedTuple):
    """An earlier result: its time in seconds, its small image, and the homography to it.

    ``turn`` leads there from the small image of a later frame, float64, 3×3; None if the camera
    was static.
    """

    time: float
    small: np.ndarray
    turn: np.ndarray | None = None

    def before(self, turn: np.ndarray | None) -> 'Earlier':
        """Return it as seen from the frame that ``turn`` leads from."""
        if turn is not None and self.turn is not None:
            turn = self.turn @ turn
        return self if turn is None else self._replace(turn=turn)


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
        # Time and small image of the frame last recalled, and the past as seen from it.
        self._seen: tuple[float, np.ndarray, list[Earlier]] | None = None
        self._past: list[Earlier] = []  # the older one first

    def recall(self, bgr: np.ndarray, time: float) -> np.ndarray | None:
        """Return the state for a frame, or None if it has to be derained as a single frame.

        ``bgr`` is uint8, H×W×3, BGR; ``time`` is its stamp in seconds. The state is uint8, H×W×4:
        B, G, R of the last result, and its dryness: 255 for dry, 224 for rain, both reduced by
        :data:`MOVED` where things move, by half of it where only the camera turns, and below
        :data:`LEAST_KNOWN` where nothing is known.
        """
        small = shrink(bgr)
        self._seen = time, small, []
        if self._kept is None:
            return None
        then, before, state = self._kept
        if state.shape[:2] == bgr.shape[:2] and min(small.shape) >= LEAST_SIDE and (
                0 <= time - then <= LONGEST_GAP):
            turning = any(one.turn is not None for one in self._past[:1])
            motion = find_motion(self._flow, before, small, turning=turning)
            if alike(motion.aligned, small):
                return self._moved(state, motion, small, time)
        return None

    def keep(self, derained: np.ndarray, rain_mask: np.ndarray) -> None:
        """Store the result of the frame last recalled: uint8, H×W×3, BGR; mask H×W, 255 = rain."""
        time, small, past = self._seen
        if not past or time - past[-1].time >= STANDING_SECONDS:
            past = [*past[-1:], Earlier(time, shrink(derained))]
        self._past = past
        self._kept = time, small, cv2.merge([derained, 255 - (rain_mask >> 3)])

    def _moved(
        self, state: np.ndarray, motion: FrameMotion, small: np.ndarray, time: float
    ) -> np.ndarray:
        """Move the state to the present frame, with the camera where the scene is static."""
        past = [one.before(motion.turn) for one in self._past]
        self._seen = time, small, past
        flow, standing, turn = motion.flow, None, past[0].turn if past else None
        if past and time - past[0].time >= STANDING_SECONDS:
            standing = find_standing(past[0].small, small, turn)
        if standing is not None:
            standing &= motion.fits
            flow = np.where(standing[..., np.newaxis], motion.camera, flow)
        return move(state, flow, standing, turning=turn is not None)

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


def _pull(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    return cv2.remap(image, flow + _places(*image.shape), None, cv2.INTER_LINEAR,
                     borderMode=cv2.BORDER_REPLICATE)


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
