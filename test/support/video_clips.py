"""Small video files for tests, and how they are read back by another library."""

from fractions import Fraction

import av
import cv2
import numpy as np
from bag_files import picture

from derain_ros.files.clip_sources import VideoFacts
from derain_ros.files.video_files import new_video

RATE, HEIGHT, WIDTH = Fraction(25, 2), 48, 64


def write_video(path, frames=7, *, rate=RATE, size=(HEIGHT, WIDTH), times=None, **facts):
    """Write a video of numbered pictures, and return its path; ``times`` in seconds."""
    height, width = size
    times = times or [number / rate for number in range(frames)]
    with new_video(path, VideoFacts(width, height, rate, 0, **facts)) as video:
        for number, time in enumerate(times):
            video.write(picture(number, height, width), Fraction(time))
    return path


def write_with_sound(path, frames=20, codec='aac', container=None):
    """Write a 10 Hz video with a tone, and return its path."""
    with av.open(str(path), 'w', format=container) as output:
        video = output.add_stream('libx264', rate=10)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, 'yuv420p'
        sound = output.add_stream(codec, rate=48000, layout='mono')
        tone = 8000 * np.sin(np.arange(4800 * frames) * 2 * np.pi * 440 / 48000)
        wave = av.AudioFrame.from_ndarray(tone[np.newaxis].astype(np.int16), 's16', 'mono')
        wave.sample_rate, wave.pts = 48000, 0
        output.mux(sound.encode(wave))
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number, HEIGHT, WIDTH), format='bgr24')
            frame.pts, frame.time_base = number, Fraction(1, 10)
            output.mux(video.encode(frame))
        for stream in (sound, video):
            output.mux(stream.encode())
    return path


def turn(path, matrix):
    """Set the display matrix of a written .mp4: a, b, c, d of x' = ax + cy, y' = bx + dy."""
    content = path.read_bytes()
    at = content.index(b'tkhd') + 44
    a, b, c, d = matrix
    rows = np.array([a, b, 0, c, d, 0, 0, 0, 1]) * 65536
    rows[8] = 1 << 30
    path.write_bytes(content[:at] + rows.astype('>i4').tobytes() + content[at + 36:])
    return path


def read_video(path):
    """Return the frames, uint8, H×W×3, BGR, and the frames a second, as OpenCV reads them."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        done, frame = capture.read()
        if not done:
            return frames, capture.get(cv2.CAP_PROP_FPS)
        frames.append(frame)


def read_times(path):
    """Return the seconds at which frames are shown."""
    with av.open(str(path)) as container:
        return [round(frame.time, 3) for frame in container.decode(video=0)]


def read_sound(path):
    """Return the packets of the sound: seconds and content."""
    with av.open(str(path)) as container:
        return [(float(packet.pts * packet.time_base), bytes(packet))
                for packet in container.demux(audio=0) if packet.size]
