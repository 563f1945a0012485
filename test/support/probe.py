"""A camera and a listener in one process, to try a running derain node from outside.

Uses plain rclpy and nothing of the package. ``probe.py PLAN.json REPORT.json`` publishes what
the plan says (see :class:`Plan`), records what comes back and writes it down; what is right is
for the caller to judge.
"""

import json
import sys
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np


@dataclass
class Plan:
    """One stream from one camera.

    Attributes
    ----------
    camera
        Name of the camera in the node, and first part of all topics.
    encodings
        Encodings of the frames, one after the other; ``jpeg`` and ``png`` mean CompressedImage.
    frames_per_encoding
        Frames published of each.
    colour
        Blue, green, red of the uniform frames, 0–255.
    height, width, rate
        Size in pixels and frames per second.
    wait_for_answer
        Send a frame only after the image of the one before has come, at most 5 s later, so
        that a slow machine drops none.
    padding
        Bytes at the end of each row that belong to no pixel.
    reliability
        ``reliable`` or ``best_effort``, for image and camera_info.
    listen
        Subscribe to the outputs.
    parameters
        Parameters of the node (name to float, bool or string) to set before the stream.
    hostile, seed
        Number of wrong Image messages published before the frames, and their random seed.

    """

    camera: str
    encodings: list[str] = field(default_factory=lambda: ['bgr8'])
    frames_per_encoding: int = 5
    colour: tuple[int, int, int] = (40, 90, 170)
    height: int = 480
    width: int = 640
    rate: float = 10.0
    wait_for_answer: bool = False
    padding: int = 0
    reliability: str = 'reliable'
    listen: bool = True
    parameters: dict = field(default_factory=dict)
    hostile: int = 0
    seed: int = 1


def paint(encoding, height, width, colour, padding=0):
    """Return (data, step) of a uniform frame; YUV by the limited-range BT.601 equations."""
    blue, green, red = colour
    luma = 0.114 * blue + 0.587 * green + 0.299 * red
    y = round(16 + 219 / 255 * luma)
    u, v = round(128 + 112 / 255 / 0.886 * (blue - luma)), round(
        128 + 112 / 255 / 0.701 * (red - luma))
    pixels = {
        'bgr8': [[blue, green, red]], 'rgb8': [[red, green, blue]],
        'bgra8': [[blue, green, red, 77]], 'rgba8': [[red, green, blue, 77]],
        'mono8': [[round(luma)]], 'mono16': [[99, round(luma)]],
        'yuv422': [[u, y, v, y]], 'uyvy': [[u, y, v, y]],
        'yuv422_yuy2': [[y, u, y, v]], 'yuyv': [[y, u, y, v]],
    }
    if encoding in pixels:
        row_pair = [pixels[encoding], pixels[encoding]]
    elif encoding.startswith('bayer_'):
        letters = {'b': blue, 'g': green, 'r': red}
        tile = [letters[letter] for letter in encoding[6:10]]
        low = [99] if encoding.endswith('16') else []
        row_pair = [[*low, tile[0], *low, tile[1]], [*low, tile[2], *low, tile[3]]]
    elif encoding in ('nv12', 'nv21'):
        row_pair = [[y], [y]]
    else:
        raise ValueError(f'no frame of {encoding!r} can be painted')
    row_pair = np.array(row_pair, np.uint8).reshape(2, -1)
    pixels_per_tile = {'bayer': 2, 'yuv42': 2, 'uyvy': 2, 'yuyv': 2}.get(encoding[:5], 1)
    rows = np.tile(row_pair, (height // 2 + 1, width // pixels_per_tile))[:height]
    if encoding in ('nv12', 'nv21'):
        chroma = [u, v] if encoding == 'nv12' else [v, u]
        rows = np.vstack([rows, np.tile(np.uint8(chroma), (height // 2, width // 2))])
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=200)
    return rows.tobytes(), rows.shape[1]


def hostile_images(count, seed):
    """Yield Image messages, or serialized bytes of some, each wrong in some field."""
    from rclpy.serialization import serialize_message
    from sensor_msgs.msg import Image

    random = np.random.default_rng(seed)
    encodings = ['bgr8', 'rgb8', 'mono16', 'bayer_rggb16', 'yuv422', 'nv12', 'bgra8', '32FC1',
                 'yuv999', '', 'x' * 5000, 'BGR8', 'bgr8\n', '日本語', '%s%n', '\x1b[2J']
    frame_ids = ['camera', '', 'f' * 100_000, 'caméra', '\x07', '../..', 'a/b', '%d']
    sizes = [0, 1, 2, 31, 33, 480, 16_385, 65_536, 2**31 - 1, 2**31, 2**32 - 1]

    def pick(values):
        return values[random.integers(len(values))]

    for number in range(count):
        width = pick([64, 64, *sizes])
        message = Image(height=pick([64, 64, *sizes]), width=width, encoding=pick(encodings))
        message.header.frame_id = pick(frame_ids)
        message.header.stamp.sec = pick([0, number, -2**31, 2**31 - 1])
        message.header.stamp.nanosec = pick([0, number, 2**32 - 1])
        message.is_bigendian = int(random.integers(256))
        message.step = pick([0, 1, 3 * 64, width, min(3 * width, 2**32 - 1)])
        message.data = random.bytes(pick([0, 1, 64 * 64 * 3 - 1, 64 * 64 * 3 + 1, 30_000]))
        if number % 10:
            yield message
            continue
        # A publisher in C++ may send text that is not UTF-8; rclpy itself cannot.
        name = 'frame_id' if number % 20 else 'encoding'
        setattr(message.header if name == 'frame_id' else message, name, 'replaced')
        yield serialize_message(message).replace(b'replaced', b'\xff\xfe\x80\xc3\x28\xed\xa0\x80')


class Probe:
    """Publishers and subscriptions of one camera, and what was sent and received."""

    def __init__(self, node, plan):
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.qos import QoSProfile, ReliabilityPolicy
        from sensor_msgs.msg import CameraInfo, CompressedImage, Image

        self.node, self.plan = node, plan
        self.report = {name: [] for name in ('sent', 'image', 'rain_mask', 'camera_info',
                                             'diagnostics')}
        self.last_arrival = time.monotonic()
        compressed = plan.encodings[0] in ('jpeg', 'png')
        sensor = QoSProfile(depth=5, reliability=ReliabilityPolicy[plan.reliability.upper()])
        base = f'/{plan.camera}'
        self.images = node.create_publisher(
            CompressedImage if compressed else Image,
            f'{base}/image_raw/compressed' if compressed else f'{base}/image_raw', sensor)
        self.infos = node.create_publisher(CameraInfo, f'{base}/camera_info', sensor)
        self.info = CameraInfo(height=plan.height, width=plan.width, distortion_model='plumb_bob')
        self.info.k = [500.5, 0.0, 320.0, 0.0, 501.5, 240.0, 0.0, 0.0, 1.0]
        self.listeners = [
            node.create_subscription(kind, f'{base}/derained/{name}', self.keeper(name), 200)
            for name, kind in (('image', Image), ('rain_mask', Image), ('camera_info', CameraInfo))
        ] if plan.listen else []
        node.create_subscription(DiagnosticArray, '/diagnostics', self.keep_diagnostics, 50)

    def keeper(self, name):
        """Return a callback that notes a message's header, size and mean pixel."""
        def keep(message):
            note = {
                'stamp': [message.header.stamp.sec, message.header.stamp.nanosec],
                'frame_id': message.header.frame_id,
                'height': message.height, 'width': message.width,
            }
            if name == 'camera_info':
                note['k'] = [float(value) for value in message.k]
            else:
                note['encoding'], note['step'] = message.encoding, message.step
                data = np.frombuffer(message.data, np.uint8)
                note['length'] = len(data)
                if len(data) == message.step * message.height:
                    middle = data.reshape(message.height, -1)[message.height // 2]
                    pixels = middle.reshape(message.width, -1)
                    note['mean'] = [float(value) for value in pixels.mean(axis=0)]
                    note['spread'] = int(np.ptp(pixels.astype(int), axis=0).max())
            self.report[name].append(note)
            self.last_arrival = time.monotonic()
        return keep

    def keep_diagnostics(self, message):
        """Note the values of every status of the derain node."""
        self.report['diagnostics'].append({
            status.name: {item.key: item.value for item in status.values}
            for status in message.status if status.name.startswith('/derain: ')
        })

    def wait(self, what, condition, seconds):
        """Wait for a condition, or tell what did not come."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f'{what} did not happen within {seconds} s')
            time.sleep(0.02)

    def connect(self):
        """Wait until both directions are matched and the node knows the camera_info."""
        self.wait('the node subscribing to the image topic',
                  lambda: self.images.get_subscription_count() > 0, 30)
        self.wait('the node subscribing to camera_info',
                  lambda: self.infos.get_subscription_count() > 0, 10)
        self.wait('the node publishing image, rain_mask and camera_info',
                  lambda: all(self.node.count_publishers(listener.topic_name)
                              for listener in self.listeners), 10)
        time.sleep(1.0)
        self.infos.publish(self.info)
        self.wait('the first diagnostics', lambda: self.report['diagnostics'], 10)

    def set_parameters(self):
        """Set the parameters of the plan and note the node's answers."""
        from rcl_interfaces.srv import SetParameters
        from rclpy.parameter import Parameter

        client = self.node.create_client(SetParameters, '/derain/set_parameters')
        self.wait('the parameter service', client.service_is_ready, 10)
        request = SetParameters.Request(parameters=[
            Parameter(name, value=value).to_parameter_msg()
            for name, value in self.plan.parameters.items()
        ])
        future = client.call_async(request)
        self.wait('the answer to set_parameters', future.done, 10)
        self.report['parameters'] = [
            {'successful': result.successful, 'reason': result.reason}
            for result in future.result().results
        ]

    def message(self, encoding):
        """Make one frame; returns the message without its header."""
        from sensor_msgs.msg import CompressedImage, Image

        plan = self.plan
        if encoding in ('jpeg', 'png'):
            import cv2
            pixels = np.full((plan.height, plan.width, 3), plan.colour, np.uint8)
            data = cv2.imencode(f'.{encoding}', pixels)[1].tobytes()
            return CompressedImage(format=f'bgr8; {encoding} compressed bgr8', data=data)
        data, step = paint(encoding, plan.height, plan.width, plan.colour, plan.padding)
        message = Image(height=plan.height, width=plan.width, encoding=encoding, step=step)
        message.data = data
        return message

    def stream(self):
        """Publish all frames at the rate of the plan."""
        due = time.monotonic()
        for encoding in self.plan.encodings:
            message = self.message(encoding)
            for _ in range(self.plan.frames_per_encoding):
                time.sleep(max(0.0, due - time.monotonic()))
                due = max(due + 1 / self.plan.rate, time.monotonic())
                message.header.stamp = self.node.get_clock().now().to_msg()
                message.header.frame_id = f'{self.plan.camera}_optical_{len(self.report["sent"])}'
                self.info.header = message.header
                self.infos.publish(self.info)
                self.images.publish(message)
                self.report['sent'].append({
                    'stamp': [message.header.stamp.sec, message.header.stamp.nanosec],
                    'frame_id': message.header.frame_id, 'encoding': encoding,
                })
                if self.plan.wait_for_answer:
                    self.wait_for_image(self.report['sent'][-1]['stamp'])

    def wait_for_image(self, stamp):
        """Wait until the image of a frame has come, at most 5 s."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            if any(note['stamp'] == stamp for note in self.report['image']):
                return
            time.sleep(0.002)

    def attack(self):
        """Publish the hostile messages, slowly enough that most reach the node."""
        for message in hostile_images(self.plan.hostile, self.plan.seed):
            self.images.publish(message)
            time.sleep(0.002)

    def settle(self):
        """Wait until nothing arrives any more and for the diagnostics after that."""
        self.last_arrival = time.monotonic()
        self.wait('the end of the outputs',
                  lambda: time.monotonic() - self.last_arrival > 0.7, 20)
        seen = len(self.report['diagnostics'])
        self.wait('the last diagnostics', lambda: len(self.report['diagnostics']) > seen, 10)


def counters(values):
    """Return the frame counters of one diagnostic status."""
    keys = ('received', 'published', 'dropped', 'failed', 'idle')
    return {key: int(values[key]) for key in keys}


def run(plan):
    """Carry out a plan and return the report."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor

    rclpy.init()
    node = rclpy.create_node('probe')
    probe = Probe(node, plan)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    spinner = threading.Thread(target=executor.spin, daemon=True)
    spinner.start()
    try:
        probe.connect()
        if plan.parameters:
            probe.set_parameters()
        if plan.hostile:
            probe.attack()
        probe.stream()
        probe.settle()
    except TimeoutError as error:
        probe.report['error'] = str(error)
    finally:
        executor.shutdown()
        spinner.join(timeout=5)
        rclpy.try_shutdown()
    return {'plan': asdict(plan), **probe.report}


def main():
    """Run the plan in the file given first, and write the report to the second."""
    plan_path, report_path = map(Path, sys.argv[1:3])
    report = run(Plan(**json.loads(plan_path.read_text())))
    report_path.write_text(json.dumps(report))
    return 1 if 'error' in report else 0


if __name__ == '__main__':
    sys.exit(main())
