"""Render rain into image files; results are PNG, so that nothing but rain is added."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from derain_ros.files.image_files import ImageJob, make_images
from derain_ros.rain.apply.weather import Weather


def rain_images(
    jobs: Iterable[ImageJob], output: Path, weather: Weather, *, streaks: Path | None = None
) -> Iterator[str | None]:
    """Render rain over pictures one by one, different rain over each.

    ``jobs`` have passed :func:`derain_ros.files.image_files.check_outputs`; see
    :func:`derain_ros.files.image_files.make_images`. The rainy pictures ``<stem>.png`` go to the
    folder ``output``, the true streaks (:func:`streak_picture`) to ``streaks``; both are made
    if they do not exist. For the rain see :meth:`Weather.for_picture`.
    """
    def make(job: ImageJob, dry: np.ndarray) -> Iterator[tuple[Path, np.ndarray]]:
        name = job.stem.with_name(job.stem.name + '.png')
        rainy = weather.for_picture(job.stem.as_posix()).clip().render(dry, 0)
        if streaks is not None:
            yield streaks / name, streak_picture(rainy.streaks)
        yield output / name, rainy.image

    return make_images(jobs, make)


def streak_picture(streaks: np.ndarray) -> np.ndarray:
    """Return a streak layer (float32, H×W, 0–1) as a grey picture (uint8, H×W, 255 = 1)."""
    return np.rint(streaks * 255).astype(np.uint8)
