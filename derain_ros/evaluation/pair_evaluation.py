"""Run models over pairs of rainy and clean pictures, and measure them."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from derain_ros.bags.damage import BagError
from derain_ros.engines import Engine, create_engine
from derain_ros.engines.model_facts import ModelFacts, model_facts
from derain_ros.evaluation.gallery import Exhibit, Gallery
from derain_ros.evaluation.metrics import counted_psnr_y, ssim_y
from derain_ros.evaluation.rain_metrics import (
    TRUTH_THRESHOLD,
    ImageScore,
    count_mask,
    flicker,
    luma_error,
    moving_error,
    streak_energy,
    summarise,
)
from derain_ros.files.frame_sources import BagFrames, FrameSet, FrameSource
from derain_ros.files.pairs import BadPair
from derain_ros.files.run_files import run_head, write_run
from derain_ros.images.memory import Memory
from derain_ros.rain_gate import mask_coverage


@dataclass
class ModelScores:
    """Figures of one model on every pair, in order."""

    facts: ModelFacts
    images: list[ImageScore] = field(default_factory=list)

    @property
    def summary(self) -> dict:
        """Figures over all pairs; see :func:`derain_ros.evaluation.rain_metrics.summarise`."""
        return summarise(self.images)


@dataclass(frozen=True)
class Evaluation:
    """Results of an evaluation.

    ``source`` is what was read (:meth:`FrameSource.describe`), ``clip`` whether the pairs were
    frames of a clip; the models are in the order in which they were given, all on the same
    pairs; ``exhibits`` are the worst pictures of the first model, worst first.
    """

    source: dict
    clip: bool
    models: list[ModelScores]
    exhibits: list[Exhibit]
    failed: list[BadPair]

    def figures(self) -> dict:
        """Return everything except the pictures, for JSON."""
        return {
            **run_head('pairs'),
            'source': self.source,
            'clip': self.clip,
            'pairs': len(self.models[0].images),
            'failed': [asdict(bad) for bad in self.failed],
            'models': [{
                **asdict(model.facts), 'summary': model.summary,
                'images': [score.figures() for score in model.images],
            } for model in self.models],
        }


def evaluate(
    source: FrameSource, models: Sequence[tuple[Engine, ModelFacts]], *, clip: bool = False,
    pictures: int = 0, progress: Callable[[int], Any] = lambda count: None
) -> Evaluation:
    """Measure models on pairs of pictures; pictures are kept of the first model.

    One pair is in memory at a time. With ``clip`` the pairs are frames of a clip, of which the
    errors of the previous pair are kept too, to measure flicker. ``pictures`` is how many of the
    worst pairs to keep. ``progress`` is called with the number of pairs done since the last call.
    Raises UserError if a back end or the source fails as a whole; a pair that fails alone is noted
    in ``failed``.
    """
    scores = [ModelScores(facts) for _, facts in models]
    gallery = Gallery(pictures)
    failed: list[BadPair] = []
    # Position, errors and clean picture of the last pair.
    before: tuple[int, list[np.ndarray], np.ndarray | None] = -2, [], None
    pasts = [(Memory(), Memory()) if clip and engine.info.remembers else None
             for engine, _ in models]
    for pair in source.read():
        if isinstance(pair, BadPair):
            failed.append(pair)
        else:
            follows = clip and before[0] + 1 == pair.position
            for memory in (one for past in pasts if past and not follows for one in past):
                memory.forget()
            try:
                results, errors = _measure(pair, models, pasts, *before[1:] if follows else ([],))
            except ValueError as error:
                failed.append(BadPair(pair.name, f'{pair.name}: {error}'))
            else:
                before = pair.position, errors, pair.clean
                for model, (score, _) in zip(scores, results, strict=True):
                    model.images.append(score)
                score, derained = results[0]
                gallery.offer(
                    score, pair.rainy, derained.image[0], pair.clean, derained.rain_mask[0])
        progress(1)
    return Evaluation(source.describe(), clip, scores, gallery.worst_first, failed)


def evaluate_bag(
    bag: Path, rainy_topic: str, clean_topic: str, models: Sequence[str], engine: str,
    precision: str, output: Path
) -> tuple[list[str], list[str], str]:
    """Evaluate models on a bag, and write the results to the run file ``output``.

    Models, engine and precision are as ``derain evaluate`` takes them; the first model is the one
    in question. Returns notes for the user, why pairs failed, and the result of the first model in
    a line. Raises UserError if the bag cannot be read or has no pair, an engine fails, or the file
    cannot be written.
    """
    source = BagFrames(bag, rainy_topic, clean_topic=clean_topic, take_derained=False)
    with ExitStack() as stack:
        opened = [stack.enter_context(closing(create_engine(engine, name, precision=precision)))
                  for name in models]
        evaluation = evaluate(source, [
            (one, model_facts(name, one)) for name, one in zip(models, opened, strict=True)],
            clip=True)
    failed = [bad.reason for bad in evaluation.failed]
    if not evaluation.models[0].images:
        raise BagError(f'{bag}: no pair could be measured ({"; ".join(failed[:3])})')
    output.parent.mkdir(parents=True, exist_ok=True)
    write_run(output, evaluation.figures())
    found = evaluation.models[0].summary
    return source.notes, failed, (
        f'{found["pairs"]} pairs, PSNR {found["input_psnr"]:.2f} -> {found["psnr"]:.2f} dB, '
        f'SSIM {found["input_ssim"]:.4f} -> {found["ssim"]:.4f}')


def _measure(
    pair: FrameSet, models: Sequence[tuple[Engine, ModelFacts]],
    pasts: Sequence[tuple[Memory, Memory] | None], before: Sequence[np.ndarray],
    previous: np.ndarray | None = None,
) -> tuple[list, list[np.ndarray]]:
    """Return score and result of each model on a pair, and the errors of input and models.

    ``before`` are the errors of the previous frame, and ``previous`` is its clean picture.
    """
    rain = luma_error(pair.rainy, pair.clean)
    height, width = rain.shape
    given = {
        'name': pair.name, 'width': width, 'height': height,
        'input_psnr': counted_psnr_y(pair.rainy, pair.clean),
        'input_ssim': ssim_y(pair.rainy, pair.clean),
        'input_streak_energy': streak_energy(rain),
    }
    if before and before[0].shape == rain.shape:
        given['input_flicker'] = flicker(rain, before[0])
        moves = np.abs(luma_error(pair.clean, previous)) > TRUTH_THRESHOLD
        given['input_moving_error'] = moving_error(rain, moves)
    errors, results = [rain], []
    for number, ((engine, _), past) in enumerate(zip(models, pasts, strict=True), start=1):
        # Pictures without stamps are assumed to follow each other at 30 per second.
        seconds = pair.position / 30 if pair.stamp is None else pair.stamp / 1e9
        infer = [one.through(engine.infer, seconds) for one in past] if past else (
            [engine.infer] * 2)
        derained, dry = (one(picture[np.newaxis]) for one, picture in zip(
            infer, (pair.rainy, pair.clean), strict=True))
        image = derained.image[0]
        error = luma_error(image, pair.clean)
        errors.append(error)
        score = ImageScore(
            **given,
            psnr=counted_psnr_y(image, pair.clean),
            ssim=ssim_y(image, pair.clean),
            mask=count_mask(derained.rain_mask[0], rain),
            streak_energy=streak_energy(error),
            clean_psnr=counted_psnr_y(dry.image[0], pair.clean),
            clean_ssim=ssim_y(dry.image[0], pair.clean),
            clean_mask_coverage=mask_coverage(dry.rain_mask[0]),
            flicker=flicker(error, before[number]) if 'input_flicker' in given else None,
            moving_error=moving_error(error, moves) if 'input_flicker' in given else None)
        results.append((score, derained))
    return results, errors
