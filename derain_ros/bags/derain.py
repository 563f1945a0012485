"""Derain a recorded rosbag2: copy the bag, adding derained images and rain masks."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from derain_ros.bags.frames import bits_of
from derain_ros.bags.making import BagSummary, make_bag
from derain_ros.bags.plan import BagPlan, plan_bag
from derain_ros.bags.pool import Pool
from derain_ros.bags.segment_work import CameraWork
from derain_ros.bags.topics import COMPRESSED_IMAGE
from derain_ros.engines import Engine, EngineInfo, create_engine
from derain_ros.engines.model_facts import model_facts
from derain_ros.engines.models import ModelError
from derain_ros.images.cdr import write_image
from derain_ros.images.memory import Memory
from derain_ros.images.pipeline import Frame
from derain_ros.rain_gate import mask_coverage, mask_response

__all__ = ['BagPlan', 'BagSummary', 'derain_bag', 'plan_bag']


def derain_bag(
    plan: BagPlan, engine: Engine, *, mask: bool = True, strength: float = 1.0,
    bits: int | None = None, pool: Pool | None = None,
    progress: Callable[[int], Any] = lambda count: None,
    resumed: Callable[[int], Any] = lambda count: None
) -> BagSummary:
    """Write the bag that ``plan`` describes; see :func:`derain_ros.bags.making.make_bag`.

    Each image that can be derained is followed, at the same bag time and with the same header, by
    ``<namespace>/image`` and, if ``mask``, ``<namespace>/rain_mask``. An image that cannot be
    derained is counted and gets neither. Worker processes of a pool create their own engines like
    ``engine``; ``strength`` is the share of the derained image in the result, 0–1.5, and ``bits``
    how many bits of 16-bit samples are used, None to call :func:`derain_ros.bags.frames.bits_of`.
    """
    if not mask:
        plan = replace(plan, cameras=tuple(
            replace(camera, rain_mask='') for camera in plan.cameras))
    info = engine.info
    with plan.open() as recording:
        used = {camera.source: bits or bits_of(recording, camera.source)
                for camera in plan.cameras}
    try:
        sha256 = model_facts(info.model, engine).sha256
    except (ModelError, OSError):
        sha256 = None
    return make_bag(
        plan, _Derainer(info, strength, used, engine), pool=pool, progress=progress,
        resumed=resumed, options={
            'model': info.model, 'sha256 of the model': sha256, 'engine': info.engine,
            'device': info.device, 'precision': info.precision, '--strength': strength,
            '--bits': used, 'rain masks': mask})


LEAD_IN = 16
"""Frames of each camera before a segment that a recurrent model processes again as warm-up."""


@dataclass(frozen=True)
class _Derainer:
    """Makes derained frames and rain masks; see :class:`derain_ros.bags.segment_work.Maker`.

    ``info`` describes the engine; each worker process creates its own from it.
    """

    fallback: ClassVar = False

    info: EngineInfo
    strength: float
    bits: Mapping[str, int]
    engine: Engine | None = field(default=None, compare=False)
    memories: defaultdict[int, Memory] = field(
        default_factory=lambda: defaultdict(Memory), compare=False)

    @property
    def lead_in(self) -> int:
        return LEAD_IN if self.info.remembers else 0

    def __reduce__(self) -> tuple:
        return _Derainer, (self.info, self.strength, self.bits)

    @contextmanager
    def opened(self) -> Iterator['_Derainer']:
        if self.engine:
            yield self
            return
        with closing(create_engine(
                self.info.engine, self.info.model, precision=self.info.precision)) as engine:
            yield replace(self, engine=engine)

    def read(self, camera: CameraWork, time: int, message: Any) -> tuple[int, float, Frame]:
        frame = Frame(
            message, compressed=camera.msgtype == COMPRESSED_IMAGE, bits=self.bits[camera.topic],
            whole=True)
        frame.decode()
        return camera.camera, time / 1e9, frame

    def make(self, item: tuple[int, float, Frame]) -> Frame:
        camera, seconds, frame = item
        infer = self.engine.infer
        if self.info.remembers:
            infer = self.memories[camera].through(infer, seconds)
        frame.derain(infer)
        return frame

    def end_segment(self) -> None:
        # The next segment must give the same result whichever process works on it.
        self.memories.clear()

    def encode(self, frame: Frame) -> tuple[list[Sequence], tuple[float, float]]:
        mask, (height, width) = frame.mask(), frame.size
        return [(write_image(
            frame.message.header, height=height, width=width, encoding=encoding,
            step=pixels.nbytes // height, data=pixels),)
            for pixels, encoding in (frame.image(self.strength), (mask, 'mono8'))
        ], (mask_response(mask), mask_coverage(mask))
