"""Runs the ONNX file of a detector with OpenVINO on the CPU."""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from derain_ros.engines.models import find_model
from derain_ros.engines.onnx_file import check_one_file
from derain_ros.evaluation.detection.boxes import Detections, areas, suppress
from derain_ros.evaluation.detection.decode import check_shape, decode
from derain_ros.evaluation.detection.description import Description, InputFormat
from derain_ros.evaluation.detection.tally import MOST_DETECTIONS
from derain_ros.text import UserError, printable


class DetectorError(UserError, RuntimeError):
    """A detector cannot be loaded or run; the message says what to do."""


@dataclass(frozen=True)
class DetectorFacts:
    """The detector that ran: names are printable, the digest hexadecimal, sides in pixels."""

    name: str
    file: str
    sha256: str
    width: int
    height: int


def place(
    image: np.ndarray, form: InputFormat
) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Convert an image, uint8, H×W×3, BGR, to the input of a detector.

    Returns float32, 1×3×H'×W' or 1×H'×W'×3 by the layout; and a function that maps boxes (N×4,
    xyxy) from pixels of the input to pixels of the image, clipped to its borders.
    """
    height, width = image.shape[:2]
    inner_width, inner_height = form.width, form.height
    if form.resize == 'letterbox':
        scale = min(form.width / width, form.height / height)
        inner_width = max(1, round(width * scale))
        inner_height = max(1, round(height * scale))
    left, top = (form.width - inner_width) // 2, (form.height - inner_height) // 2
    if (inner_width, inner_height) != (width, height):
        image = cv2.resize(image, (inner_width, inner_height), interpolation=cv2.INTER_LINEAR)
    canvas = np.full((form.height, form.width, 3), form.pad, np.uint8)
    canvas[top:top + inner_height, left:left + inner_width] = image
    if form.colour == 'rgb':
        canvas = canvas[..., ::-1]
    mean, std = (np.broadcast_to(np.float64(value), 3) for value in (form.mean, form.std))
    values = (canvas.astype(np.float32) / form.divide_by - mean) / std
    if form.layout == 'nchw':
        values = values.transpose(2, 0, 1)
    corner = np.array([left, top] * 2)
    scale = np.array([inner_width / width, inner_height / height] * 2)
    return np.ascontiguousarray(values[np.newaxis], dtype=np.float32), lambda boxes: np.clip(
        (boxes - corner) / scale, 0.0, [width, height] * 2)


class Detector:
    """A detector that finds boxes in uint8 frames; computes in float32 on any processor.

    Raises DetectorError or ModelError if the file cannot be loaded, or its inputs are not as
    described, and DecodeError if its output is not.
    """

    def __init__(self, description: Description) -> None:
        self.description = description
        import openvino

        path = description.model
        if path.suffix != '.onnx':
            raise DetectorError(f'{path}: a detector is a file that ends in .onnx')
        if not path.expanduser().exists():
            raise DetectorError(
                f"{path}: no such file; give the detector's ONNX file with --onnx")
        model = find_model(str(path))
        content = model.read(model.onnx)
        check_one_file(path, content)
        form = description.input
        self.facts = DetectorFacts(
            description.name, printable(path.name), model.sha256[model.onnx.name], form.width,
            form.height)
        core = openvino.Core()
        try:
            network = core.read_model(content)
            self._type = self._fit_input(network)
            self._output = self._find_output(network)
            compiled = core.compile_model(network, 'CPU', {
                'PERFORMANCE_HINT': 'LATENCY', 'INFERENCE_PRECISION_HINT': 'f32',
                'ENABLE_CPU_PINNING': False})
            self._request = compiled.create_infer_request()
        except DetectorError:
            raise
        except RuntimeError as error:
            reason = ' '.join(str(error).split())
            raise DetectorError(
                f'{path}: OpenVINO cannot load it: {printable(reason)[:300]}') from error

    def _fit_input(self, network) -> type:
        """Set the input to the described size, and return its type."""
        import openvino

        description, form = self.description, self.description.input
        wanted = [1, 3, form.height, form.width]
        if form.layout == 'nhwc':
            wanted = [1, form.height, form.width, 3]
        shapes = [str(port.partial_shape) for port in network.inputs]
        if len(shapes) != 1 or not network.inputs[0].partial_shape.compatible(
                openvino.PartialShape(wanted)):
            raise DetectorError(
                f'{description.model}: its inputs are {", ".join(shapes) or "none"}, but '
                f'{description.file} says {wanted}; correct `input` there, or the export')
        types = {'f32': np.float32, 'f16': np.float16}
        name = network.inputs[0].element_type.get_type_name()
        if name not in types:
            raise DetectorError(f'{description.model}: takes {name} images, expected f32 or f16; '
                                'export it with a float input')
        if network.inputs[0].partial_shape.is_dynamic:
            network.reshape(wanted)
        return types[name]

    def _find_output(self, network) -> int:
        """Return the index of the output to read."""
        description = self.description
        names = [port.any_name if port.names else f'#{number}'
                 for number, port in enumerate(network.outputs)]
        wanted = description.output.name
        if wanted is None and len(names) > 1:
            raise DetectorError(f'{description.model}: has several outputs '
                                f'({printable(", ".join(names))}); set `output: name` in '
                                f'{description.file}')
        found = [number for number, port in enumerate(network.outputs)
                 if wanted is None or wanted in port.names]
        if not found:
            raise DetectorError(printable(
                f'{description.model}: has no output {wanted!r}, only {", ".join(names)}; correct '
                f'`output: name` in {description.file}'))
        shape = network.outputs[found[0]].partial_shape
        if shape.rank.is_static:
            check_shape(tuple(
                side.get_length() if side.is_static else -1 for side in shape), description)
        return found[0]

    def detect(self, image: np.ndarray, threshold: float) -> Detections:
        """Find objects in a frame, uint8, H×W×3, BGR, with scores from ``threshold`` (0–1) on.

        Returns those left after suppression, sorted by descending score, at most
        :data:`MOST_DETECTIONS`, in pixels of the frame. Raises DetectorError if the
        back end fails, DecodeError if the output is not as described.
        """
        description = self.description
        values, to_image = place(image, description.input)
        try:
            self._request.infer([values.astype(self._type, copy=False)])
            output = np.array(self._request.get_output_tensor(self._output).data)
        except RuntimeError as error:
            raise DetectorError(f'{description.model}: OpenVINO failed: {error}') from error
        found = decode(output, description, threshold)
        found = found._replace(boxes=to_image(found.boxes))
        found = found.where(areas(found.boxes) > 0)
        return suppress(
            found, description.iou_threshold, across_classes=description.class_agnostic,
            most=MOST_DETECTIONS)
