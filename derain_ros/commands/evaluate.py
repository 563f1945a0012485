"""``derain evaluate``: measure models on pictures or bags with known truth.

Measure a model on pairs of rainy and clean pictures: two folders with the same file names
(or the same names with other suffixes), or two topics of a rosbag2 with the same stamps.

PSNR and SSIM are those of the deraining literature (luma of MATLAB's YCbCr). Beside them:
precision and recall of the rain mask, the energy of streaks that is left, what the model
does to the clean pictures, and of clips the flicker and the error where the scene moves, where
ghosts of the frame before would show. The report explains each of them.

examples:
  derain evaluate --rainy rainy --clean clean
  derain evaluate --rainy rainy --clean clean --html report.html --against other.onnx
  derain evaluate --rainy frames --clean truth --clip --json figures.json
  derain evaluate --clean dry --sweep speed --against base
  derain evaluate drive --rainy-topic /camera/image_raw --clean-topic /camera/image_raw/dry
  derain evaluate drives -o runs --rainy-topic /cam/image_raw --clean-topic /cam/image_raw/dry

Of a folder with bags in it, every bag becomes a run file of the same name below -o, which `derain
report` reads. A bag whose run file is there is passed over, one that fails is named and the others
are done: after an interruption the same command does what is left.

exit status: 0 all done, 1 some pairs failed (each is named), 2 wrong arguments
"""

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from derain_ros.bags.fleet import bags_below, is_bag
from derain_ros.bags.pool import Pool
from derain_ros.commands import (
    UsageError,
    add_engine_options,
    open_engine,
    print_notes,
    printable,
    progress_bar,
    refusing,
    report_failed,
)
from derain_ros.commands.arguments import count_or_none
from derain_ros.commands.bag_pool import add_pool_options, work_on_bags
from derain_ros.commands.frame_options import (
    add_source_options,
    check_outputs,
    check_sources,
    write_figures,
)
from derain_ros.engines.model_facts import model_facts
from derain_ros.evaluation.pair_evaluation import Evaluation, ModelScores, evaluate, evaluate_bag
from derain_ros.evaluation.sweep import SWEEPS, conclude, sweep
from derain_ros.files import check_folder
from derain_ros.files.frame_sources import BagFrames, FolderFrames, FrameSet
from derain_ros.files.pairs import BadPair
from derain_ros.replacing import replace_file
from derain_ros.text import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_options(parser, 'rainy', 'clean')
    parser.add_argument('-o', '--output', type=Path, metavar='RUNS',
                        help='if BAG is a folder of bags: folder for one run file per bag')
    add_pool_options(parser)
    parser.add_argument('--sweep', choices=SWEEPS,
                        help='render rain over the pictures of --clean, in every direction, at '
                             'every speed or rate, and report where deraining stops helping')
    parser.add_argument('--clip', action='store_true',
                        help='the pictures are the frames of a clip, ordered by name, 30 a '
                             'second: measure flicker (always done for a bag, by its stamps)')
    add_engine_options(parser)
    parser.add_argument('--against', nargs='+', default=[], metavar='MODEL',
                        help='models to compare with, names or .onnx files')
    parser.add_argument('--verbose', action='store_true', help='print the figures of each picture')
    parser.add_argument('--json', type=Path, metavar='FILE',
                        help='write all figures to this file, including those of each picture')
    parser.add_argument('--html', type=Path, metavar='FILE',
                        help='write a report: one HTML file with tables, plots and pictures')
    parser.add_argument('--pictures', type=count_or_none, default=24, metavar='N',
                        help='most pairs shown in the report, the worst ones (default: 24)')


def run(args: argparse.Namespace) -> int:
    if args.output:
        return _evaluate_bags(args)
    if args.workers or args.scheduler:
        raise UsageError('--workers and --scheduler are for a folder of bags, with -o')
    if args.sweep:
        return _sweep(args)
    check_sources(args, ('rainy', 'clean'), ('rainy', 'clean'))
    _check_outputs(args)
    with refusing():
        source = FolderFrames(args.rainy, clean=args.clean) if args.bag is None else BagFrames(
            args.bag, args.rainy_topic, clean_topic=args.clean_topic, take_derained=False)
    print_notes(*source.notes)
    names = list(dict.fromkeys([args.model, *args.against]))
    clip = args.clip or args.bag is not None
    with ExitStack() as stack:
        models = []
        for name in names:
            engine = stack.enter_context(open_engine(
                args, name, clips='' if clip else 'give --clip'))
            models.append((engine, model_facts(name, engine)))
        with progress_bar(len(source), 'pair') as bar:
            evaluation = evaluate(
                source, models, clip=clip,
                pictures=args.pictures if args.html else 0, progress=bar.update)
    status = report_failed([bad.reason for bad in evaluation.failed], 'pairs',
                           '; --json and --html name them')
    if not evaluation.models[0].images:
        raise UserError('no pair could be measured')
    for model in evaluation.models:
        _print_model(model, evaluation.clip, args.verbose)
    figures = evaluation.figures()
    _write_outputs(args, figures, lambda: _page(figures, evaluation))
    return status


def _evaluate_bags(args: argparse.Namespace) -> int:
    """Evaluate every bag of a folder, in one or several processes; return the exit status."""
    if args.bag is None or args.json or args.html or args.sweep:
        raise UsageError('-o is for a folder of bags, whose run files go there; --json, --html '
                         'and --sweep are for one evaluation')
    with refusing():
        check_folder(args.output)
        # One bag leaves its run file in that folder, too.
        below = args.output / (args.bag.absolute().name if is_bag(args.bag) else '')
        jobs = [(bag, out.with_name(f'{out.name}.json'))
                for bag, out in bags_below(args.bag, below)]
    check_sources(argparse.Namespace(**{**vars(args), 'bag': jobs[0][0]}), ('rainy', 'clean'),
                  ('rainy', 'clean'))
    models = tuple(dict.fromkeys([args.model, *args.against]))

    def work(bag: Path, out: Path, pool: Pool | None) -> int:
        task = (evaluate_bag, bag.absolute(), args.rainy_topic, args.clean_topic, models,
                args.engine, args.precision, out.absolute())
        notes, failed, found = pool.call(*task) if pool else task[0](*task[1:])
        print_notes(*(f'{printable(bag)}: {note}' for note in notes))
        print(f'{printable(bag)}: {found}')
        return report_failed([f'{bag}: {reason}' for reason in failed], 'pairs',
                             f'; {out} names them')

    return work_on_bags(args, jobs, work, None, 'evaluated', whole=True)


def _sweep(args: argparse.Namespace) -> int:
    """Evaluate models on dry pictures with rendered rain, varying one rain parameter."""
    if args.clean is None or args.rainy or args.bag:
        raise UsageError('--sweep renders rain itself: give dry pictures with --clean, and '
                         'neither --rainy nor a bag')
    if args.clip:
        raise UsageError('--sweep renders single pictures; leave --clip out')
    _check_outputs(args)
    with refusing():
        frames = FolderFrames(args.clean)
    bad: dict[str, str] = {}

    def readable() -> Iterator[FrameSet]:
        for frame in frames.read():
            if isinstance(frame, BadPair):
                bad[frame.name] = frame.reason
            else:
                yield frame

    axis, runs = SWEEPS[args.sweep], {}
    for name in dict.fromkeys([args.model, *args.against]):
        with open_engine(
            args, name, clips='give --rainy, --clean and --clip'
        ) as engine, progress_bar(len(frames) * len(axis.values), 'picture') as bar:
            pictures = (frame.rainy for frame in readable())
            points = sweep(args.sweep, pictures, engine, bar.update)
        if not points:
            report_failed(list(bad.values()), 'pictures')
            raise UsageError(f'{args.clean}: no readable picture')
        runs[name] = points
        count = len(frames) - len(bad)
        print(f'{name}: {axis.title}, {axis.unit}; means over {count} pictures')
        print(f'  {axis.unit:>6}  {"rainy, dB":>9}  {"derained":>8}  {"gain":>5}  {"mask F1":>7}')
        for point in points:
            print(f'  {point.value:>6g}  {point.rainy:>9.2f}  {point.derained:>8.2f}  '
                  f'{point.derained - point.rainy:>5.2f}  {_share(point.f1):>7}')
        print(f'  {conclude(axis, points)}')

    def page() -> str:
        from derain_ros.report.page import make_sweep_page

        return make_sweep_page(axis, runs, count)

    _write_outputs(args, {
        'kind': 'sweep', 'sweep': args.sweep, 'pictures': count, 'runs': [
            {'model': name, 'points': [asdict(point) for point in points]}
            for name, points in runs.items()]}, page)
    return report_failed(list(bad.values()), 'pictures')


def _check_outputs(args: argparse.Namespace) -> None:
    """Check, before the work begins, that its results can be written."""
    check_outputs(args.json, args.html)
    if args.json and args.html and args.json.absolute() == args.html.absolute():
        raise UsageError(f'--json and --html both name {args.json}; give two names')
    if args.html:
        from derain_ros.report import page, plots  # noqa: F401

        plots.require()


def _print_model(model: ModelScores, clip: bool, verbose: bool) -> None:
    facts, found = model.facts, model.summary
    flops = facts.flops_per_pixel
    cost = f'{flops / 1e3:.1f} kFLOP/px' if flops else 'cost unknown'
    print(f'{facts.model} on {facts.engine}, {facts.precision}, {cost}: {found["pairs"]} pairs')
    if verbose:
        width = max(len(score.name) for score in model.images)
        print(f'  {"":<{width}}  {"PSNR, dB":>15}  {"SSIM":>16}  {"mask F1":>7}  '
              f'{"streaks left":>12}')
        for score in model.images:
            print(f'  {score.name:<{width}}  {score.input_psnr:6.2f} -> {score.psnr:5.2f}  '
                  f'{score.input_ssim:.4f} -> {score.ssim:.4f}  '
                  f'{_share(score.mask.f1):>7}  {_percent(score.streak_energy_left):>12}')
    print(f'  {"":<14} {"input":>8} {"restored":>9} {"worst":>8}')
    print(f'  {"PSNR (Y), dB":<14} {found["input_psnr"]:>8.2f} {found["psnr"]:>9.2f} '
          f'{found["worst_psnr"]:>8.2f}  {found["worst_psnr_image"]}')
    print(f'  {"SSIM (Y)":<14} {found["input_ssim"]:>8.4f} {found["ssim"]:>9.4f} '
          f'{found["worst_ssim"]:>8.4f}  {found["worst_ssim_image"]}')
    if clip and found['flicker_steps']:
        print(f'  {"flicker of 255":<14} {found["input_flicker"]:>8.2f} '
              f'{found["flicker"]:>9.2f}')
    if found['moving_error'] is not None:
        print(f'  {"moving, of 255":<14} {found["input_moving_error"]:>8.2f} '
              f'{found["moving_error"]:>9.2f}')
    lines = [
        ('made worse', f'{found["made_worse"]} of {found["pairs"]}'),
        ('streaks left', _percent(found['streak_energy_left'])),
        ('mask', ', '.join(
            f'{label} {_share(found[f"mask_{key}"])}' for label, key in (
                ('precision', 'precision'), ('recall', 'recall'), ('F1', 'f1'), ('IoU', 'iou')))),
        ('dry pictures', f'{found["clean_psnr"]:.2f} dB, SSIM {found["clean_ssim"]:.4f}, worst '
                         f'{found["worst_clean_psnr"]:.2f} dB ({found["worst_clean_psnr_image"]}),'
                         f' mask covers {_percent(found["clean_mask_coverage"])}'),
    ]
    for label, text in lines:
        print(f'  {label:<14} {text}')


def _write_outputs(args: argparse.Namespace, figures: dict, page: Callable[[], str]) -> None:
    write_figures(args.json, figures)
    if args.html:
        replace_file(args.html, page())
        print(f'{printable(args.html)} written')


def _page(figures: dict, evaluation: Evaluation) -> str:
    """Return the HTML page of an evaluation, with its worst pictures."""
    import msgspec

    from derain_ros.report.page import make_page
    from derain_ros.report.runs import make_entries
    from derain_ros.report.schemas import SCHEMAS

    run = msgspec.json.decode(json.dumps(figures), type=SCHEMAS['pairs'])
    pairs = len(evaluation.models[0].images)
    return make_page(
        make_entries([(Path(), '', run)]),
        title=f'{figures["models"][0]["model"]} on {pairs} pair{"" if pairs == 1 else "s"}',
        exhibits=evaluation.exhibits)[0]


def _share(value: float | None) -> str:
    return '-' if value is None else f'{value:.3f}'


def _percent(value: float | None) -> str:
    return '-' if value is None else f'{100 * value:.2f} %'
