"""The demo: a short rainy drive through the real node, recorded, shown and measured."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer

from derain_ros.bags.topics import message_types
from derain_ros.evaluation.metrics import psnr_y, ssim_y
from derain_ros.files.image_files import write_png
from derain_ros.images.cdr import read_image
from derain_ros.images.codec import decode_image
from derain_ros.live.listener import CAMERA, COUNTS, Recorded, output_topics
from derain_ros.live.live_run import live_run
from derain_ros.live.played import PlayedFrame
from derain_ros.live.played_bag import load_frames, scan
from derain_ros.live.processes import LiveRunError

RAINY_TOPIC = '/camera/image_raw/compressed'
CLEAN_TOPIC = '/camera_clean/image_raw/compressed'
_KINDS = ('image', 'rain_mask', 'camera_info')
_OUTPUTS = output_topics(CAMERA, _KINDS)
_IMAGE, _MASK, _INFO = _OUTPUTS
_PICTURES = 4
_CAPTION_HEIGHT = 28


@dataclass(frozen=True)
class DemoReport:
    """What the demo measured.

    Attributes
    ----------
    sent
        Frames published into the node.
    counts
        Counts of the node, from /diagnostics.
    recorded
        Images, masks and camera_infos received, in this order.
    fps
        Derained images received per second.
    latency_ms
        Median and 95th percentile from a frame's stamp to its derained image.
    rainy, derained
        PSNR (dB) and SSIM on luma against the clean clip, means over the frames received.

    """

    sent: int
    counts: dict[str, int]
    recorded: tuple[int, int, int]
    fps: float
    latency_ms: tuple[float, float]
    rainy: tuple[float, float]
    derained: tuple[float, float]

    def problems(self) -> list[str]:
        """Say what does not add up; empty if all is well."""
        found = []
        done = sum(self.counts[key] for key in COUNTS if key != 'received')
        if self.counts['received'] != done:
            found.append(f'the node received {self.counts["received"]} frames but accounts '
                         f'for {done}')
        for kind, count in zip(('images', 'masks', 'camera_infos'), self.recorded, strict=True):
            if count != self.counts['published']:
                found.append(
                    f'{count} {kind} arrived of {self.counts["published"]} published')
        return found

    def table(self) -> str:
        """Return the report for a terminal."""
        counts = self.counts
        rows = [
            ('frames sent / received', f'{self.sent} / {counts["received"]}'),
            ('published / dropped', f'{counts["published"]} / {counts["dropped"]}'),
            ('failed / idle', f'{counts["failed"]} / {counts["idle"]}'),
            ('images, masks, camera_infos recorded', ', '.join(map(str, self.recorded))),
            ('rate out', f'{self.fps:.1f} fps'),
            ('latency p50 / p95, stamp to image',
             f'{self.latency_ms[0]:.0f} / {self.latency_ms[1]:.0f} ms'),
            ('rainy against clean', f'{self.rainy[0]:.2f} dB, SSIM {self.rainy[1]:.4f}'),
            ('derained against clean', f'{self.derained[0]:.2f} dB, SSIM {self.derained[1]:.4f}'),
        ]
        width = max(len(name) for name, _ in rows)
        return '\n'.join(f'  {name:<{width}}  {value}' for name, value in rows)


def run_demo(bag: Path, output: Path, parameters: dict[str, str]) -> DemoReport:
    """Play ``bag`` through the node and leave the results in ``output``.

    Parameters
    ----------
    bag
        rosbag2 with the rainy and the clean clip.
    output
        Folder for ``bag/`` (what the node published, mcap), ``frame_*.png`` and logs.
    parameters
        Parameters of the node.

    Raises
    ------
    LiveRunError
        A process failed, or nothing came out.
    ValueError, OSError
        The bag does not fit, or the output cannot be written.

    """
    rainy, clean = load_frames(bag, RAINY_TOPIC), load_frames(bag, CLEAN_TOPIC)
    if len(rainy) != len(clean):
        raise ValueError(f'{bag}: {len(rainy)} rainy but {len(clean)} clean frames')
    source = scan(bag, [RAINY_TOPIC])
    _clear(output)
    with live_run(output, source, parameters, outputs=_KINDS, keep=True) as run:
        played = run.play(source.period / 1e9)
        sent = played.frames[CAMERA]
        stamps = {frame.stamp for frame in sent}
        recorded = [found for found in run.listener.recorded() if found.stamp in stamps]
    images = [found for found in recorded if found.topic == _IMAGE]
    if not images:
        raise LiveRunError(
            f'no derained image arrived; what the node says is in {output / "node.log"}')
    _write_bag(output / 'bag', recorded)
    scores = _compare(rainy, clean, sent, recorded, output)
    times = [found.time for found in images]
    span = (times[-1] - times[0]) / 1e9
    return DemoReport(
        sent=len(sent),
        counts=played.counts(CAMERA),
        recorded=tuple(sum(found.topic == topic for found in recorded) for topic in _OUTPUTS),
        fps=(len(times) - 1) / span if span else float('nan'),
        latency_ms=tuple(np.nanpercentile([frame.age_ms for frame in sent], (50, 95))),
        rainy=tuple(scores[:, :2].mean(axis=0)),
        derained=tuple(scores[:, 2:].mean(axis=0)),
    )


def _clear(output: Path) -> None:
    """Remove the results of an earlier demo, and nothing else."""
    if (output / 'bag' / 'metadata.yaml').is_file():
        shutil.rmtree(output / 'bag')
    if (output / 'bag').exists():
        raise ValueError(f'{output / "bag"}: exists, but is no bag; remove it or choose '
                         'another folder with -o')
    for picture in output.glob('frame_*.png'):
        picture.unlink()


def _write_bag(path: Path, recorded: list[Recorded]) -> None:
    types = message_types()
    with Writer(path, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {
            topic: writer.add_connection(topic, _type_name(kind), typestore=types)
            for topic, kind in _OUTPUTS.items()}
        for found in recorded:
            writer.write(connections[found.topic], found.time, found.data)


def _type_name(message_class: type) -> str:
    package, *_ = message_class.__module__.split('.')
    return f'{package}/msg/{message_class.__name__}'


def _compare(
    rainy: Sequence[np.ndarray], clean: Sequence[np.ndarray], sent: Sequence[PlayedFrame],
    recorded: Sequence[Recorded], output: Path,
) -> np.ndarray:
    """Score each derained frame and draw some; rows of PSNR and SSIM, rainy then derained."""
    images, masks = (
        {found.stamp: found for found in recorded if found.topic == topic}
        for topic in (_IMAGE, _MASK))
    arrived = [(index, frame.stamp) for index, frame in enumerate(sent) if frame.stamp in images]
    drawn = set(np.linspace(0, len(arrived) - 1, _PICTURES).round().astype(int).tolist())
    scores = []
    for number, (index, stamp) in enumerate(arrived):
        derained = _decode(images[stamp])
        before, truth = rainy[index], clean[index]
        scores.append((
            psnr_y(before, truth), ssim_y(before, truth),
            psnr_y(derained, truth), ssim_y(derained, truth)))
        if number in drawn and stamp in masks:
            picture = side_by_side(before, derained, _decode(masks[stamp]))
            write_png(output / f'frame_{index:03d}.png', picture)
    return np.array(scores)


def _decode(recorded: Recorded) -> np.ndarray:
    return decode_image(read_image(recorded.data))


def side_by_side(rainy: np.ndarray, derained: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Put a frame, its result and its mask side by side, each with a caption.

    Parameters
    ----------
    rainy, derained, mask
        uint8, H×W×3, BGR, of one size.

    Returns
    -------
    numpy.ndarray
        uint8, (H + caption)×3W×3, BGR.

    """
    panels = []
    for caption, image in (('rainy', rainy), ('derained', derained), ('rain mask', mask)):
        strip = np.full((_CAPTION_HEIGHT, image.shape[1], 3), 32, np.uint8)
        cv2.putText(strip, caption, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 1,
                    cv2.LINE_AA)
        panels.append(np.vstack([strip, image]))
    return np.hstack(panels)
