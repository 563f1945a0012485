"""A bag of rainy and clean frames, evaluated whole by whatever process it is given to."""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from derain_ros.bags.damage import BagError
from derain_ros.engines import create_engine
from derain_ros.engines.model_facts import model_facts
from derain_ros.evaluation.pair_evaluation import evaluate
from derain_ros.files.frame_sources import BagPairs
from derain_ros.files.run_files import write_run


def evaluate_bag(
    bag: Path, rainy_topic: str, clean_topic: str, models: Sequence[str], engine: str,
    precision: str, output: Path
) -> tuple[list[str], list[str], str]:
    """Evaluate models on a bag, and write the run file of that, ``output``.

    The models, of which the first is the one in question, engine and precision are as ``derain
    evaluate`` takes them. Returns notes for the user, why pairs failed, and the result of the
    first model in a line. Raises UserError where the bag cannot be read or has no pair, an engine
    failed, or the file cannot be written.
    """
    source = BagPairs(bag, rainy_topic, clean_topic)
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
