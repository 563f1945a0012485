"""The demo: plays a short rainy drive into the real node, records and scores the results."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer

from derain_ros.bags.topics import IMAGE, message_types
from derain_ros.evaluation.metrics import psnr_y, ssim_y
from derain_ros.files.image_files import write_png
from derain_ros.files.views import compose
from derain_ros.images.cdr import read_image
from derain_ros.images.codec import decode_image
from derain_ros.live.listener import CAMERA, COUNTS, Recorded
from derain_ros.live.live_run import live_run
from derain_ros.live.played import CAMERA_INFO, Played, load_frames, scan
from derain_ros.live.processes import LiveRunError

RAINY_TOPIC = '/camera/image_raw/compressed'
CLEAN_TOPIC = '/camera_clean/image_raw/compressed'
_TYPES = {'image': IMAGE, 'rain_mask': IMAGE, 'camera_info': CAMERA_INFO}
_PICTURES = 4


@dataclass(frozen=True)
class DemoReport:
    """Results of the demo: the node's counts, messages recorded per output, and table rows."""

    counts: Mapping[str, int]
    recorded: Mapping[str, int]
    rows: Mapping[str, str]

    def problems(self) -> list[str]:
        """Return the counts that are inconsistent, a sentence each; empty if none are."""
        found = []
        done = sum(self.counts[key] for key in COUNTS if key != 'received')
        if self.counts['received'] != done:
            found.append(f'the node received {self.counts["received"]} frames but accounts '
                         f'for {done}')
        return found + [
            f'{count} messages arrived on {CAMERA}/derained/{kind}, but the node counts '
            f'{self.counts["published"]} frames as published'
            for kind, count in self.recorded.items() if count != self.counts['published']]

    def table(self) -> str:
        """Return the report as text for a terminal."""
        width = max(map(len, self.rows))
        return '\n'.join(f'  {name:<{width}}  {value}' for name, value in self.rows.items())


def run_demo(bag: Path, output: Path, parameters: dict[str, str]) -> DemoReport:
    """Play the rainy clip of ``bag`` into the node, and compare the result with the clean clip.

    Writes ``bag/`` (the node's output, as mcap), ``frame_*.png`` and logs to ``output``. Raises
    LiveRunError if a process fails or nothing is published, ValueError or OSError if the bag
    is unsuitable or the output cannot be written.
    """
    rainy, clean = load_frames(bag, RAINY_TOPIC), load_frames(bag, CLEAN_TOPIC)
    if len(rainy) != len(clean):
        raise LiveRunError(f'{bag}: {len(rainy)} rainy but {len(clean)} clean frames')
    source = scan(bag, [RAINY_TOPIC])
    _clear(output)
    with live_run(output, source, parameters, outputs=_TYPES, keep=True) as run:
        played = run.play(source.period / 1e9)
        stamps = {frame.stamp for frame in played.frames[CAMERA]}
        recorded = {kind: [found for found in run.listener.recorded(f'{CAMERA}/derained/{kind}')
                           if found.stamp in stamps] for kind in _TYPES}
    if not recorded['image']:
        raise LiveRunError(
            f'no derained image arrived; the log of the node is {output / "node.log"}')
    _write_bag(output / 'bag', recorded)
    scores = _compare(rainy, clean, played, recorded, output)
    return _report(played, {kind: len(found) for kind, found in recorded.items()}, scores)


def _clear(output: Path) -> None:
    """Remove the results of an earlier demo, and nothing else."""
    there = [path for path in (output / 'bag', *output.glob('frame_*.png')) if path.exists()]
    if there and not (output / 'node.log').is_file():
        raise LiveRunError(f'{there[0]}: exists, and is not of a demo; remove it or choose '
                           'another folder with -o')
    shutil.rmtree(output / 'bag', ignore_errors=True)
    for picture in output.glob('frame_*.png'):
        picture.unlink()


def _write_bag(path: Path, recorded: Mapping[str, Sequence[Recorded]]) -> None:
    with Writer(path, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {
            f'{CAMERA}/derained/{kind}': writer.add_connection(
                f'{CAMERA}/derained/{kind}', msgtype, typestore=message_types())
            for kind, msgtype in _TYPES.items()}
        messages = [one for found in recorded.values() for one in found]
        for found in sorted(messages, key=lambda found: found.time):
            writer.write(connections[found.topic], found.time, found.data)


def _compare(
    rainy: Sequence[np.ndarray], clean: Sequence[np.ndarray], played: Played,
    recorded: Mapping[str, Sequence[Recorded]], output: Path,
) -> np.ndarray:
    """Score all derained frames, draw some; return mean PSNR, SSIM, rainy then derained."""
    images, masks = (
        {found.stamp: decode_image(read_image(found.data)) for found in recorded[kind]}
        for kind in ('image', 'rain_mask'))
    arrived = [(index, frame.stamp) for index, frame in enumerate(played.frames[CAMERA])
               if frame.stamp in images]
    drawn = set(np.linspace(0, len(arrived) - 1, _PICTURES).round().astype(int).tolist())
    scores = []
    for number, (index, stamp) in enumerate(arrived):
        before, derained, truth = rainy[index], images[stamp], clean[index]
        scores.append((psnr_y(before, truth), ssim_y(before, truth),
                       psnr_y(derained, truth), ssim_y(derained, truth)))
        if number in drawn and stamp in masks:
            write_png(output / f'frame_{index:03d}.png', np.hstack([
                compose('side-by-side', before, derained), masks[stamp]]))
    return np.array(scores).mean(axis=0)


def _report(played: Played, recorded: Mapping[str, int], scores: np.ndarray) -> DemoReport:
    counts = played.counts(CAMERA)
    arrived = played.arrived(CAMERA)
    span = (arrived[-1].arrival - arrived[0].arrival) / 1e9
    latency = np.percentile([frame.age_ms for frame in arrived], (50, 95))
    return DemoReport(counts, recorded, {
        'frames sent / received': f'{len(played.frames[CAMERA])} / {counts["received"]}',
        'published / dropped': f'{counts["published"]} / {counts["dropped"]}',
        'failed / idle': f'{counts["failed"]} / {counts["idle"]}',
        'images, masks, camera_infos recorded': ', '.join(map(str, recorded.values())),
        'rate out': f'{(len(arrived) - 1) / span if span else float("nan"):.1f} fps',
        'latency p50 / p95, stamp to image': f'{latency[0]:.0f} / {latency[1]:.0f} ms',
        'rainy against clean': f'{scores[0]:.2f} dB, SSIM {scores[1]:.4f}',
        'derained against clean': f'{scores[2]:.2f} dB, SSIM {scores[3]:.4f}'})
