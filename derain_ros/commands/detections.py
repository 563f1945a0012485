r"""``derain detections``: measure whether deraining helps an object detector.

Run an object detector on rainy and on derained frames, and count what it finds: precision,
recall and mAP@0.5, by class and by size, and the frames where deraining helps or hurts most.

Frames are topics of a rosbag2, by header stamp, or folders of pictures, by file name. What is
not given derained is derained on the fly. The ground truth is --labels, or else what the detector
itself finds on the clean frames; with both, the clean frames are measured too.

The detector is any ONNX file with a short YAML description: size, colours, output, NMS. Those
of YOLOv8 and YOLO11 exports (yolov8) and of FastestDet (fastestdet) are in config/detectors;
yolov8.yaml explains every key. The ONNX files themselves do not come with this package.

examples:
  derain detections --rainy rainy --clean dry --detector yolov8 --onnx yolov8n.onnx
  derain detections --rainy rainy --derained out --labels coco.json --detector mine.yaml
  derain detections drive_rainy --rainy-topic /cam/image_raw \
      --clean-topic /cam/image_raw/dry --detector mine.yaml --classes car truck

Precision, recall, F1 and counts are those of the detections from --score on, where the
detector is operated. mAP@0.5 judges the order of all detections from score 0.05 on, as is
usual: COCO's AP50, precision made monotone and averaged at 101 recalls, mean over the classes
that occur. A detection is right if it overlaps an object of its class with an IoU of
0.5 or more that none of higher score has taken. Sizes are those of COCO: small below 32x32,
large from 96x96 pixels on. Labels: COCO JSON, or a folder of YOLO text files (an empty one
says that nothing is there; frames without labels are left out).

exit status: 0 all done, 1 some frames failed (each is named), 2 wrong arguments
"""

import argparse
from contextlib import ExitStack
from pathlib import Path

from derain_ros.commands import (
    UsageError,
    add_engine_options,
    open_engine,
    print_notes,
    progress_bar,
    refusing,
    report_failed,
)
from derain_ros.commands.arguments import share
from derain_ros.commands.frame_options import (
    add_source_options,
    check_outputs,
    check_sources,
    write_figures,
)
from derain_ros.engines.model_facts import model_facts
from derain_ros.engines.models import share_directory
from derain_ros.evaluation.detection.comparison import Comparison, compare, summarise
from derain_ros.evaluation.detection.description import Description, read_description
from derain_ros.evaluation.detection.detector import Detector
from derain_ros.evaluation.detection.labels import Labels, match_names, read_labels
from derain_ros.files.frame_sources import BagFrames, FolderFrames, FrameSource
from derain_ros.text import UserError

_SHOWN = 10
_VERSIONS = 'rainy', 'derained', 'clean'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_options(parser, *_VERSIONS)
    group = parser.add_argument_group('detector and ground truth')
    group.add_argument('--detector', required=True, metavar='YAML',
                       help='description of the detector: a file, yolov8 or fastestdet')
    group.add_argument('--onnx', type=Path, metavar='FILE',
                       help='the ONNX file, if it is not the one that the description names')
    group.add_argument('--labels', type=Path, metavar='FILE',
                       help='COCO JSON, or a folder of YOLO text files')
    group.add_argument('--classes', nargs='+', metavar='CLASS',
                       help='count only these classes (default: all in the labels)')
    group.add_argument('--score', type=share, metavar='S',
                       help='lowest score of a detection that counts, 0 to 1 (default: '
                            'score_threshold of the description)')
    add_engine_options(parser)
    parser.add_argument('--verbose', action='store_true',
                        help='print all classes and the counts of each frame')
    parser.add_argument('--json', type=Path, metavar='FILE',
                        help='write all figures to this file, including those of each frame')


def run(args: argparse.Namespace) -> int:
    source, detector, labels, classes = _open(args)
    with ExitStack() as stack:
        engine = model = None
        if not source.has('derained'):
            engine = stack.enter_context(open_engine(
                args, clips='' if args.bag else 'make them a bag'))
            model = model_facts(args.model, engine)
        bar = stack.enter_context(progress_bar(len(source), 'frame'))
        comparison = compare(
            source, detector, engine=engine, model=model, labels=labels, classes=classes,
            score=args.score, progress=bar.update)
    _report(comparison)
    figures = comparison.figures()
    for line in summarise(figures, verbose=args.verbose):
        print(line)
    write_figures(args.json, figures)
    return 1 if comparison.failed else 0


def _open(
    args: argparse.Namespace,
) -> tuple[FrameSource, Detector, Labels | None, frozenset[int] | None]:
    """Open all inputs and check the outputs before the work begins."""
    check_sources(args, _VERSIONS, ['rainy'])
    if not (args.labels or args.clean or args.clean_topic):
        other = '--clean' if args.bag is None else '--clean-topic'
        raise UsageError(
            f'the ground truth is missing: name the frames without rain with {other}, or '
            '--labels')
    check_outputs(args.json)
    with refusing():
        description = _describe(args)
        classes = _classes(args, description)
        labels = read_labels(args.labels, description.classes) if args.labels else None
        print_notes(*(labels.notes if labels else ()))
        source = FolderFrames(args.rainy, args.derained, args.clean) if args.bag is None else (
            BagFrames(args.bag, args.rainy_topic, args.derained_topic, args.clean_topic))
        print_notes(*source.notes)
        return source, Detector(description), labels, classes


def _describe(args: argparse.Namespace) -> Description:
    """Read the detector description given by its path, or by the name of a shipped one."""
    path = Path(args.detector)
    if not path.suffix and not path.exists():
        shipped = share_directory() / 'config' / 'detectors'
        names = sorted(file.stem for file in shipped.glob('*.yaml'))
        if args.detector not in names:
            raise UsageError(f'{args.detector}: no such description; name a YAML file, or one of '
                             f'{", ".join(names)}')
        path = shipped / f'{args.detector}.yaml'
    return read_description(path, args.onnx)


def _classes(args: argparse.Namespace, description: Description) -> frozenset[int] | None:
    if not args.classes:
        return None
    known = match_names(args.classes, description.classes)
    for name in args.classes:
        if name not in known:
            shown = ', '.join(description.classes[:_SHOWN])
            more = ' ...' if len(description.classes) > _SHOWN else ''
            raise UsageError(
                f'--classes {name}: the detector has no such class; it has {shown}{more}')
    return frozenset(known.values())


def _report(comparison: Comparison) -> None:
    """Report frames that were left out; raises UserError if none is left."""
    report_failed([bad.reason for bad in comparison.failed], 'frames', '; --json names them')
    unlabelled = comparison.unlabelled
    if unlabelled:
        shown = ', '.join(unlabelled[:3]) + (' ...' if len(unlabelled) > 3 else '')
        print_notes(f'{len(unlabelled)} frames are not in the labels and are left out: {shown}')
    if not comparison.frames:
        raise UserError('no frame could be measured' + (
            '; labels are matched by file name, or by stamp in a bag' if unlabelled else ''))
