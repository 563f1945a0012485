"""How an image lies in the input of a detector, and the way back."""

from dataclasses import dataclass

import cv2
import numpy as np

from derain_ros.evaluation.detection.description import InputFormat


@dataclass(frozen=True)
class Placement:
    """Where an image of ``width`` × ``height`` pixels lies in an input.

    Attributes
    ----------
    width, height
        The image.
    left, top
        Its corner in the input, in pixels of that.
    scale_x, scale_y
        Pixels of the input per pixel of the image.

    """

    width: int
    height: int
    left: int
    top: int
    scale_x: float
    scale_y: float

    def to_image(self, boxes: np.ndarray) -> np.ndarray:
        """Turn boxes (N×4, xyxy, pixels of the input) into pixels of the image, cut off there."""
        corner = np.array([self.left, self.top] * 2)
        scale = np.array([self.scale_x, self.scale_y] * 2)
        sides = np.array([self.width, self.height] * 2)
        return np.clip((boxes - corner) / scale, 0.0, sides)


def place(image: np.ndarray, form: InputFormat) -> tuple[np.ndarray, Placement]:
    """Make the input of a detector.

    Parameters
    ----------
    image
        uint8, H×W×3, BGR, 0–255.
    form
        What the input is like.

    Returns
    -------
    tuple
        float32, 1×3×H'×W' or 1×H'×W'×3 by the layout; and where the image lies in it.

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
    placement = Placement(
        width, height, left, top, inner_width / width, inner_height / height)
    return np.ascontiguousarray(values[np.newaxis], dtype=np.float32), placement
