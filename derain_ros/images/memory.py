"""The previous result of a camera, aligned with its current frame.

A recurrent network also uses the previous frame. Its input from there, the state, is made here:
the last result is warped by dense optical flow between downscaled images of it and of the frame,
which is cheap next to the network and follows parallax and moving objects. Little rain is left in
a downscaled frame, but it still disturbs the flow. So where one motion of the whole camera
explains the frame about as well, that is used.
"""

import functools
import math
import threading
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np

SHRINK = 4
"""Factor by which a frame is downscaled to the small image used for optical flow."""

LEAST_KNOWN, MOVED = 160, 64
"""See :data:`derain_ros.network.second_look.LEAST_KNOWN`."""

LEAST_ALIKE = 0.45, 0.12
"""Correlation of details below which two aligned images show different scenes.

The first is for images aligned by the flow of single pixels, which also makes different scenes
alike; the second for images aligned by the motion of the camera. Of 2,000 cuts between photographs
1.2 % were above one of them; what such a state shows is left to the network to distrust.
"""

LEAST_SIDE = 16
"""Shortest side of a small image, in pixels, for which motion is estimated."""

LONGEST_GAP = 1.0
"""Longest time between two frames, in seconds, for the first to be used for the second."""

REPEATED_SECONDS = 0.2
"""How long the very same frames count as copies of one, as in a stream sent at a higher rate.

After that they show a scene without noise, as of a simulator, in which things stand.
"""

LEAST_LIGHT, MOST_LIGHT, LIGHT_SPREAD, LIGHT_HALVES = 0.02, 0.5, 0.75, 0.25
"""Limits of a change of the light, as a share, to which a result is adapted.

It must also exceed the third number times the median deviation of pixels from it. Between frames
of panned clips in heavy rain it was 0.4 times that deviation in the median and 0.7 at the 90th
percentile; where all of the light changed by 8 %, 0.7 to 1.1 in the median with static and panned
cameras in rain, and 1.1 and more on the road.

The fourth is by how much the dark and the bright half of the pixels may differ, as a share of the
change: rain and its veil brighten dark pixels more. They differed by up to 0.2 where all of the
light changed, by 0.5 in the median where the rain did.
"""

LEAST_GAIN = 0.02
"""Gain of the mean log likelihood at which a motion of the camera is believed; a quarter of that
will do once it has been moving.

It was 0.01 and below with a static camera in rain, 0.09 and above in pans in moderate rain, and
0.05 in the median in heavy rain.
"""

DEFORMATION = 0.006
"""Usual rotation of a camera from one frame to the next, in radians, and zoom, as a share.

Rain disturbs these more than the shift of the whole picture.
"""

MOST_DRIFT = 0.15
"""Error that steps from frame to frame may add up to, as a share of the motion, plus twice as many
pixels of the small image. More means that the motion was not that of the camera."""

STANDING_SECONDS = 0.39
"""Seconds a scene must have been static: a moving vehicle has left it by then.

Just below 0.4, a whole number of frames at 10, 12.5, 20 and 30 Hz, so that the rounding of stamps
does not matter.
"""

MOST_CHANGED = 0.14
"""Largest share of the textured area that may have changed since then for a static camera.

It was at most 0.08 with a static camera in moderate rain, at least 0.22 on motorways and in a
side view. It is also exceeded in rain that hides the scene and where cars are most of the texture;
these are treated like a moving camera.
"""

BLOCK_SECONDS, FEWEST = 0.3, 4
"""Duration of a block of :class:`Darkest`, and the least number of frames that bound a pixel.

The latter is reached at 10 Hz.
"""

DARKER = 6
"""How much darker, of 255, a result may be than the darkest of these frames."""

MOST_COVERED = 0.1
"""Largest chance that rain covers a pixel in all of these frames for results to be published
within the bound: the mean of the rain mask to the power of the number of frames.

Above, results mostly became worse by rain that stayed. In the state, which the network may
distrust, it does no harm.
"""

_SPARE = threading.local()
"""Two images of a thread, see :func:`_turn_in_place`."""

_SMALL = np.float64([[1, 0, (1 - SHRINK) / 2], [0, 1, (1 - SHRINK) / 2], [0, 0, SHRINK]])
"""Homography from a frame to its small image."""


def shrink(bgr: np.ndarray) -> np.ndarray:
    """Return the small grey image of a frame: uint8, H×W×3 to uint8, H/4×W/4, rounded up."""
    height, width = bgr.shape[:2]
    if height % SHRINK or width % SHRINK:
        bgr = cv2.copyMakeBorder(
            bgr, 0, -height % SHRINK, 0, -width % SHRINK, cv2.BORDER_REPLICATE)
    grey = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)
    for factor in (2, SHRINK):  # by halves, in a third of the time
        grey = cv2.resize(grey, (bgr.shape[1] // factor, bgr.shape[0] // factor),
                          interpolation=cv2.INTER_AREA)
    return grey


def find_light(before: np.ndarray, now: np.ndarray) -> float:
    """Return the factor by which the light has changed between two small images, uint8, H×W.

    1 if the change is outside the limits at :data:`LEAST_LIGHT`, or if most of the first image is
    too dark or too bright to tell.
    """
    before, now = (one[::2, ::2].ravel().astype(np.float32) for one in (before, now))
    seen = (before >= 16) & (before <= 200)
    if np.count_nonzero(seen) < seen.size / 2:
        return 1.0
    before, now = before[seen], now[seen]
    ratios = now / before
    middle = np.partition(ratios, ratios.size // 2)[ratios.size // 2]
    off = np.abs(ratios - middle)
    alike = off <= 0.1 * middle
    dark = before < np.median(before)
    # The sums tell finer steps of dark pixels than their ratios do.
    light, *halves = (float(now[some].sum() / before[some].sum())
                      for some in (alike, alike & dark, alike & ~dark) if some.any())
    least = max(LEAST_LIGHT, LIGHT_SPREAD * float(np.median(off)),
                (max(halves) - min(halves)) / LIGHT_HALVES)
    return light if least < abs(light - 1) < MOST_LIGHT else 1.0


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

    ``flow``: from the later to the earlier image, pixels, x and y, float32, H×W×2: of the camera
    or 0 where that explains the later one about as well. ``turn``: homography from the later to
    the earlier one that is the motion of the camera, float64, 3×3, None if it is static or its
    motion unknown. ``camera``: the flow by that motion, where ``fits``, bool, H×W, tells that it
    explains the later image about as well. ``aligned``: the earlier image, uint8, H×W, warped by
    the flow of single pixels and by the motion of the camera.
    """

    flow: np.ndarray
    turn: np.ndarray | None
    camera: np.ndarray
    fits: np.ndarray
    aligned: tuple[np.ndarray, np.ndarray]


def find_motion(
    flow: cv2.DISOpticalFlow, before: np.ndarray, now: np.ndarray, *, turning: bool = False
) -> FrameMotion:
    """Estimate the motion between two small images, uint8, H×W, the first one derained.

    ``turning``: whether the camera has been moving.
    """
    found = flow.calc(now, before, None)
    aligned = _pull(before, found)
    # Rain disturbs the flow in untextured areas; others are better where they fit about as well.
    least, error = mean_error(aligned, now), mean_error(before, now)
    worst = 1.1 * least + 0.5
    fits = error <= worst
    turn, camera, turned = None, found, before
    if turning or least.mean() < error.mean():
        turn = find_turn(before, now, np.median(found[::4, ::4].reshape(-1, 2), 0),
                         LEAST_GAIN / 4 if turning else LEAST_GAIN)
    found[fits] = 0
    if turn is not None:
        places = _places(*now.shape)
        moved = cv2.perspectiveTransform(places, turn) - places
        pulled = _pull(before, moved)
        left = mean_error(pulled, now)
        better, worse = (np.count_nonzero(one > 1.1 * other + 0.5)
                         for one, other in ((error, left), (left, error)))
        if better <= worse:  # something large moves before a static camera
            turn = None
        else:
            camera, turned, fits = moved, pulled, left <= worst
            close = left <= 1.05 * least + 0.1
            np.copyto(found, camera, where=close[..., np.newaxis])
    return FrameMotion(found, turn, camera, fits, (aligned, turned))


def find_turn(
    before: np.ndarray, now: np.ndarray, shift: np.ndarray | None = None, least_gain: float = 0.0
) -> np.ndarray | None:
    """Return the homography, float64, 3×3, from a small image to the one before.

    ``before``, ``now``: uint8, H×W. ``shift``: motion to start from, pixels, x and y; None to look
    for one of up to a pixel. None if it gains no more than ``least_gain``, see :data:`LEAST_GAIN`.

    The images are compared themselves (Lucas and Kanade 1981; Baker and Matthews 2004), since rain
    draws the flow of single pixels towards zero. The motion is that of a plane before a camera, of
    the second order in x and y. Rain and what moves otherwise count less, as errors are taken to
    have a Cauchy distribution.
    """
    motion = np.zeros(8, np.float32)
    if shift is not None:
        halves = [cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
                  for image in (before, now)]
        motion[:2] = shift / 2
        motion = 2 * _fit_motion(*halves, motion, 2, 3)[0]
    motion, gain = _fit_motion(before, now, motion, 8, 2)
    if gain <= least_gain:
        return None
    corners = _corners(now)
    moved = corners + (_plane_terms(corners, now.shape[1]) @ motion).reshape(-1, 2)
    return cv2.getPerspectiveTransform(corners, moved)


def _fit_motion(
    before: np.ndarray, now: np.ndarray, motion: np.ndarray, order: int, passes: int
) -> tuple[np.ndarray, float]:
    """Improve the first ``order`` factors of the terms of a motion; of 8, also return the gain."""
    width = now.shape[1]
    places, terms, some = _sampled_terms(*now.shape)
    wanted = now[some].astype(np.float32).ravel()
    before = before.astype(np.float32)
    across, down = (cv2.Sobel(before, -1, x, 1 - x, ksize=3, scale=1 / 8) for x in (1, 0))
    planes = cv2.merge([before, across, down, np.ones_like(before)])  # 1 tells what lies inside

    def compare(motion: np.ndarray) -> tuple[np.ndarray, ...]:
        there = places + (terms @ motion).reshape(places.shape)
        found, *slopes, inside = cv2.remap(
            planes, there, None, cv2.INTER_LINEAR).reshape(-1, 4).T
        inside = inside > 0.99
        return (wanted - found) * inside, inside, slopes

    # The last factor is that of the light, which may change. Neighbours share a streak, so that
    # 5×5 pixels tell as much as one of them.
    spread = DEFORMATION * width / 2 * np.float32([1, 1, 1, 1, 0.5, 0.5])[:order - 2]
    spread *= (places[0, 1, 0] - places[0, 0, 0]) / 5
    terms_of_each = terms.reshape(-1, 2, 8)[..., :order].transpose(1, 2, 0)
    slopes = np.ones((order + 1, wanted.size), np.float32)
    light = 0.0
    for _ in range(passes):
        error, inside, (across, down) = compare(motion)
        noise = np.abs(error).sum() / (np.count_nonzero(inside) + 1)
        error -= light
        weighed = np.add(
            terms_of_each[0] * across, terms_of_each[1] * down, out=slopes[:order])
        weighed = slopes * (inside / (1 + np.square(error / (noise + 1))))
        stiffness = np.full(order + 1, 1e-3)
        stiffness[2:order] += np.square(max(noise, 0.5) / spread)
        change = np.linalg.solve(
            weighed @ slopes.T + np.diag(stiffness),
            weighed @ error - stiffness * np.append(motion[:order], 0))
        motion[:order] += change[:order]
        light += change[order]
    error, inside, _ = compare(motion)
    if order == 2 or not inside.any():
        return motion, 0.0
    error, unmoved = (one[inside] - light for one in (error, compare(np.zeros_like(motion))[0]))
    noise = 1.5 * np.median(np.abs(error)) + 1
    gain = np.log1p(np.square(unmoved / noise)) - np.log1p(np.square(error / noise))
    return motion, float(gain.mean())


@functools.lru_cache(maxsize=16)
def _sampled_terms(height: int, width: int) -> tuple[np.ndarray, np.ndarray, tuple[slice, slice]]:
    """Return places of an image, h×w×2, some 50 in a row, their terms, and what picks them."""
    step = max(1, min(round(width / 50), height))
    some = np.s_[step // 2::step, step // 2::step]
    places = np.ascontiguousarray(_places(height, width)[some])
    return places, _plane_terms(places, width), some


def _plane_terms(places: np.ndarray, width: int) -> np.ndarray:
    """Return the terms of the motion of a plane: ...×2 to 2N×8, float32, x and y in turn."""
    x, y = (places.reshape(-1, 2) * (2 / width) - 1).T
    one, none = np.ones_like(x), np.zeros_like(x)
    across = [one, none, x, y, none, none, x * x, x * y]
    down = [none, one, none, none, x, y, x * y, y * y]
    return np.ascontiguousarray(
        np.stack([across, down], 1).transpose(2, 1, 0).reshape(-1, 8), np.float32)


def find_standing(
    before: np.ndarray, now: np.ndarray, turn: np.ndarray | None = None
) -> np.ndarray | None:
    """Return where the scene is as it was a while ago, bool, H×W; None if too much has changed.

    ``before``, ``now``: small derained images, uint8, H×W. ``turn``: homography from ``now`` to
    ``before``, None if the camera is static.
    """
    seen = np.ones(now.shape, np.uint8)
    if turn is not None:
        before, seen = (_turned(before, turn, cv2.BORDER_REPLICATE),
                        _turned(seen, turn, cv2.BORDER_CONSTANT))
    then, present = _details(before), _details(now)
    structure, kept = (cv2.blur(then * one, (15, 15)) for one in (then, present))
    textured = (structure > 25) & (seen > 0)
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
    if turning and 2 * max(height, width) < 1 << 15:  # more is too large for OpenCV
        # Linear interpolation blurs what the frame is compared with, pixel by pixel. At twice the
        # size it comes close to cubic interpolation, in half of its time.
        state = cv2.resize(state, (2 * width, 2 * height), interpolation=cv2.INTER_CUBIC)
        # Beside streaks it undershoots their dryness, which would count as something that moved.
        cv2.max(state, (0, 0, 0, LEAST_KNOWN + MOVED), state)
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
    state[..., 3] = cv2.subtract(state[..., 3], _enlarged(moved, state))
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

    def corrected(self, now: np.ndarray) -> 'Earlier':
        """Return it with its homography compared with a small derained image, uint8, H×W."""
        left = find_turn(_turned(self.small, self.turn, cv2.BORDER_REPLICATE), now)
        if left is None:
            return self
        corners = _corners(now)[np.newaxis]
        drift, motion = (np.abs(cv2.perspectiveTransform(corners, turn) - corners).max()
                         for turn in (left, self.turn))
        return self if drift > MOST_DRIFT * (2 + motion) else self._replace(turn=self.turn @ left)


class Darkest:
    """Keeps results from being darker than the scene was in its last frames.

    Rain only brightens, and is elsewhere in the next frame: what is darker than all frames of the
    last moments has lost something bright. These are the frames of one to two blocks of time,
    which begin at multiples of :data:`BLOCK_SECONDS`, so that results do not depend on when the
    first frame came. They are moved with the camera. The present frame is among them, so that a
    wrong motion can keep rain where it is, but bring nothing back that is gone. Results are not
    bounded where that motion did not explain the last frames, as where something dark has come.
    """

    def __init__(self) -> None:
        # Number of the block, of its frames, and the darkest of them, uint8, H×W×3.
        self._blocks: list[tuple[int, int, np.ndarray]] = []
        # Frames in a row that the motion of the camera explained, uint8, H/4×W/4.
        self._fitted = np.uint8(0)

    @property
    def frames(self) -> int:
        """Number of frames in the blocks."""
        return sum(count for _, count, _ in self._blocks)

    def bound(
        self, derained: np.ndarray, frame: np.ndarray, fits: np.ndarray | None,
        turn: np.ndarray | None, time: float,
    ) -> np.ndarray:
        """Return the result for a frame within its bound, uint8, H×W×3.

        ``derained``, ``frame``: uint8, H×W×3. ``fits``: bool, H/4×W/4, where the motion of the
        camera explains the frame; None if that is unknown, which begins anew. ``turn``: that
        motion, as for :class:`FrameMotion`. ``time``: stamp in seconds.
        """
        number = math.floor(time / BLOCK_SECONDS)
        self._blocks = [block for block in self._blocks
                        if fits is not None and number - 1 <= block[0] <= number]
        if not self._blocks:
            self._blocks, self._fitted = [(number, 1, frame.copy())], np.uint8(0)
            return derained
        if turn is not None:
            full = np.linalg.inv(_SMALL) @ turn @ _SMALL
            for _, _, darkest in self._blocks:
                _turn_in_place(darkest, full)
        self._fitted = np.where(fits, np.minimum(self._fitted, 254) + 1, 0).astype(np.uint8)
        if self._blocks[0][0] == number:
            _, count, darkest = self._blocks[0]
            self._blocks[0] = number, count + 1, cv2.min(darkest, frame, darkest)
        else:
            self._blocks.insert(0, (number, 1, frame.copy()))
        if self.frames < FEWEST:
            return derained
        # In place, since fresh memory costs more than all the rest.
        bounded = cv2.min(self._blocks[0][2], self._blocks[-1][2])
        cv2.subtract(bounded, (DARKER,) * 4, bounded)
        cv2.max(derained, bounded, bounded)
        moved = np.where(self._fitted < FEWEST - 1, np.uint8(255), np.uint8(0))
        moved = _enlarged(cv2.dilate(moved, np.ones((5, 5), np.uint8)), frame)
        return cv2.copyTo(derained, moved, bounded)


class Kept(NamedTuple):
    """The last frame and its result.

    ``time``: its stamp in seconds. ``raw``, ``small``: the small images of the frame and of the
    result, uint8, H/4×W/4. ``derained``: the result within its bound, uint8, H×W×3; ``rain_mask``:
    uint8, H×W.
    """

    time: float
    raw: np.ndarray
    small: np.ndarray
    derained: np.ndarray
    rain_mask: np.ndarray


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
        self._kept: Kept | None = None
        # Time of the frame last recalled, the past as seen from it, the frame, its small image,
        # and its motion if the memory was used; None after its result.
        self._seen: tuple[
            float, list[Earlier], np.ndarray, np.ndarray, FrameMotion | None] | None = None
        # Time of the last frame, its size and checksum, and its result, if that may be repeated.
        self._last: tuple[float, tuple, Any] | None = None
        self._past: list[Earlier] = []  # the older one first
        self._darkest = Darkest()

    def recall(self, bgr: np.ndarray, time: float) -> np.ndarray | None:
        """Return the state for a frame, or None if it has to be derained as a single frame.

        ``bgr`` is uint8, H×W×3, BGR; ``time`` is its stamp in seconds. The state is uint8, H×W×4:
        B, G, R of the last result, and its dryness: 255 for dry, 224 for rain, both reduced by
        :data:`MOVED` where things move, by half of it where only the camera turns, and below
        :data:`LEAST_KNOWN` where nothing is known.
        """
        small = shrink(bgr)
        self._seen = time, [], bgr, small, None
        kept = self._kept
        if kept is None or kept.derained.shape != bgr.shape or min(small.shape) < LEAST_SIDE or (
                not 0 <= time - kept.time <= LONGEST_GAP):
            return None
        before, derained = kept.small, kept.derained
        light = find_light(kept.raw, small)
        if light != 1:
            # Else lighter would be taken for rain.
            levels = np.clip(np.arange(256) * light + 0.5, 0, 255).astype(np.uint8)
            before, derained = (cv2.LUT(one, levels) for one in (before, derained))
        turning = any(one.turn is not None for one in self._past[:1])
        motion = find_motion(self._flow, before, small, turning=turning)
        if all(alikeness(aligned, small) < least
               for aligned, least in zip(motion.aligned, LEAST_ALIKE, strict=True)):
            return None
        state = cv2.cvtColor(derained, cv2.COLOR_BGR2BGRA)  # twice as fast as cv2.merge
        cv2.insertChannel(255 - (kept.rain_mask >> 3), state, 3)
        state, past = self._moved(state, motion, time)
        self._seen = time, past, bgr, small, motion
        return state

    def keep(self, derained: np.ndarray, rain_mask: np.ndarray) -> np.ndarray:
        """Store the result of the frame last recalled: uint8, H×W×3, BGR; mask H×W, 255 = rain.

        Returns the result within the bound of :class:`Darkest`, likewise; as it came in rain so
        dense that :data:`MOST_COVERED` may be exceeded, where only the state is bounded.
        """
        time, past, frame, raw, motion = self._seen
        self._seen = None
        fits, turn = (None, None) if motion is None else (motion.fits, motion.turn)
        bounded = self._darkest.bound(derained, frame, fits, turn, time)
        cover = cv2.mean(rain_mask)[0] / 255
        small = shrink(bounded)
        if not past or time - past[-1].time >= STANDING_SECONDS:
            past = [*past[-1:], Earlier(time, small)]
        self._past = past
        self._kept = Kept(time, raw, small, bounded, rain_mask)
        return bounded if cover**self._darkest.frames <= MOST_COVERED else derained

    def _moved(
        self, state: np.ndarray, motion: FrameMotion, time: float
    ) -> tuple[np.ndarray, list[Earlier]]:
        """Move the state to the present frame, with the camera where the scene is static.

        Also returns the past as seen from there.
        """
        past = [one.before(motion.turn) for one in self._past]
        flow, standing, turning = motion.flow, None, bool(past) and past[0].turn is not None
        if past and time - past[0].time >= STANDING_SECONDS:
            # The present frame is not derained yet; the last one is, and moved to where it is now.
            now = motion.aligned[1]
            if turning:
                past[0] = past[0].corrected(now)
            standing = find_standing(past[0].small, now, past[0].turn)
        if standing is not None:
            standing &= motion.fits
            flow = np.where(standing[..., np.newaxis], motion.camera, flow)
        return move(state, flow, standing, turning=turning), past

    def through(self, infer: Callable[..., Any], time: float) -> Callable[[np.ndarray], Any]:
        """Return a function that infers one frame, of a stamp in seconds, with its state.

        Its results are those of :meth:`keep`. Once there was a state for
        :data:`STANDING_SECONDS`, frames that repeat one for up to :data:`REPEATED_SECONDS` get its
        result without inference: its rain, still there, would be taken for a thing.

        ``infer``: :meth:`derain_ros.engines.contract.Engine.infer`; its errors are passed on and
        leave the memory of the last result unchanged.
        """
        def remembering(images: np.ndarray) -> Any:
            frame = images.shape, zlib.crc32(images)
            if self._last is not None:
                then, last, result = self._last
                if frame == last and 0 <= time - then <= REPEATED_SECONDS:
                    return result
            state = self.recall(images[0], time)
            states = () if state is None else (state[np.newaxis],)
            result = infer(images, *states)
            bounded = self.keep(result.image[0], result.rain_mask[0])
            result = result._replace(image=bounded[np.newaxis])
            self._last = (time, frame, result) if len(self._past) > 1 else None
            return result

        return remembering


def _enlarged(small: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Repeat the pixels of a small image of a frame over that: h×w to H×W."""
    height, width = frame.shape[:2]
    return np.ascontiguousarray(
        small.repeat(SHRINK, 0)[:height].repeat(SHRINK, 1)[:, :width])


def _turned(image: np.ndarray, turn: np.ndarray, border: int) -> np.ndarray:
    return cv2.warpPerspective(image, turn, image.shape[::-1], borderMode=border,
                               flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def _turn_in_place(bgr: np.ndarray, turn: np.ndarray) -> None:
    """Warp an image, uint8, H×W×3; 0 comes from beyond the border.

    OpenCV warps four channels several times as fast as three. Fresh memory costs more than that.
    """
    shape = (2, *bgr.shape[:2], 4)
    if getattr(_SPARE, 'images', np.empty(0)).shape != shape:
        _SPARE.images = np.empty(shape, np.uint8)
    one, other = _SPARE.images
    cv2.cvtColor(bgr, cv2.COLOR_BGR2BGRA, one)
    cv2.warpPerspective(
        one, turn, bgr.shape[1::-1], other, cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    cv2.cvtColor(other, cv2.COLOR_BGRA2BGR, bgr)


def _pull(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    return cv2.remap(image, flow + _places(*image.shape), None, cv2.INTER_LINEAR,
                     borderMode=cv2.BORDER_REPLICATE)


def mean_error(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the mean absolute difference of two uint8 images around each pixel, float32."""
    return cv2.boxFilter(cv2.absdiff(one, other), cv2.CV_32F, (9, 9))


def alikeness(one: np.ndarray, other: np.ndarray) -> float:
    """Return the correlation of the details of two small images, uint8: 1 for the same scene.

    The light and its gradual changes do not count, and rain, which differs from frame to frame,
    lowers it only as noise does. Two plain images count as one scene.
    """
    one, other = _details(one), _details(other)
    least = 0.1 * one.size
    size = np.sqrt((np.vdot(one, one) + least) * (np.vdot(other, other) + least))
    return float((np.vdot(one, other) + least) / size)


def _details(image: np.ndarray) -> np.ndarray:
    image = image.astype(np.float32)
    return image - cv2.blur(image, (15, 15))


def _corners(image: np.ndarray) -> np.ndarray:
    height, width = image.shape
    return np.float32([[0, 0], [width, 0], [0, height], [width, height]])


@functools.lru_cache(maxsize=16)
def _places(height: int, width: int) -> np.ndarray:
    """Return the coordinates of each pixel, float32, height×width×2, x then y."""
    columns, rows = np.meshgrid(
        np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.dstack([columns, rows])
