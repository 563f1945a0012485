"""The fields of each kind of run file that the report needs; other fields are ignored."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, defstruct

# Bounds that keep sums and squares finite, and times in ns within 64 bits.
_Number = Annotated[float, Meta(ge=-1e19, le=1e19)]
_Whole = Annotated[int, Meta(ge=-2**63, le=2**63 - 1)]
_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Figure = _Number | None
PERCENTILES = ('p50', 'p90', 'p95', 'p99', 'max')
COUNTS = ('received', 'published', 'dropped', 'failed', 'idle', 'derained', 'bypassed',
          'passed_through')
_FACTS = ('model', 'file', 'sha256', 'engine', 'device', 'precision')


class _Columns(Struct):
    """Lists of equal length."""

    def __post_init__(self):
        lengths = {name: len(getattr(self, name)) for name in self.__struct_fields__}
        if len(set(lengths.values())) > 1:
            told = ', '.join(f'{name} {length}' for name, length in lengths.items())
            raise ValueError(f'the columns are of unequal length ({told})')


def _record(name: str, /, *bases: type, **fields: Any) -> type[Struct]:
    """Create a Struct class with these fields: types, or tuples of type and default."""
    return defstruct(
        name, [(field, *(kind if isinstance(kind, tuple) else (kind,)))
               for field, kind in fields.items()], bases=bases or None, kw_only=True)


def _figures(*names: str) -> dict[str, Any]:
    return dict.fromkeys(names, _Figure)


_Run = _record(
    'Run',
    versions=_record('Versions', derain_ros=str | None, openvino=(str | None, None),
                     torch=(str | None, None)),
    host=_record('Host', processor=str | None, cores=_Count | None, system=str | None,
                 machine=str | None))
Facts = _record('Facts', **dict.fromkeys(_FACTS, (str | None, None)))
"""A model and the engine that ran it, as far as known."""

_KnownFacts = _record('KnownFacts', Facts, **dict.fromkeys(_FACTS, str))
_Failures = list[_record('Failure', name=str, reason=str)]
_Bag = _record('Bag', path=str, sha256=str, files=list[
    _record('BagFile', name=str, bytes=_Count, sha256=str)])
_Source = _record(
    'Source', kind=str, failed=(_Failures, []), **dict.fromkeys(
        ('bag', 'rainy_topic', 'derained_topic', 'clean_topic', 'rainy', 'derained', 'clean'),
        (str | None, None)),
    **dict.fromkeys(('unpaired_rainy', 'unpaired_clean', 'repeated_rainy', 'repeated_clean'),
                    (_Count, 0)))

_BagRun = _record(
    'BagRun', _Run, model=_KnownFacts, strength=_Number,
    source=_record('SourceBag', _Bag, damages=list[_record(
        'Damage', file=str, offset=_Count | None, reason=str, lost=_Count | None)]),
    output=_record('WrittenBag', _Bag, messages=_Count),
    every=_Count, workers=_Count, **_figures('start_s', 'duration_s', 'frames_per_second'),
    cameras=list[_record(
        'BagCamera', source=str, image=str, rain_mask=str | None, derained=_Count, failed=_Count,
        failures=list[_record('FailedFrame', time=_Whole, reason=str)],
        frames=_record('BagFrames', _Columns, time=list[_Whole], stamp=list[_Whole],
                       rain_intensity=list[_Number], mask_coverage=list[_Number]))])

_PairsRun = _record(
    'PairsRun', _Run, source=_Source, failed=_Failures,
    models=Annotated[list[_record(
        'PairModel', _KnownFacts,
        flops_per_pixel=(Annotated[float, Meta(ge=0, le=1e19)] | None, None),
        summary=_record(
            'PairSummary', pairs=_Count, made_worse=_Count,
            worst_psnr_image=str, worst_ssim_image=str, worst_clean_psnr_image=(str, ''),
            worst_clean_psnr=(_Figure, None), moving_error=(_Figure, None), **_figures(
                'input_psnr', 'psnr', 'worst_psnr', 'input_ssim', 'ssim', 'worst_ssim',
                'streak_energy_left', 'mask_precision', 'mask_recall', 'mask_f1', 'mask_iou',
                'clean_psnr', 'clean_mask_coverage', 'input_flicker', 'flicker')),
        images=list[_record(
            'PairImage', name=str, input_psnr=_Number, psnr=_Number, input_ssim=_Number,
            ssim=_Number, mask_f1=_Figure, streak_energy_left=(_Figure, None),
            clean_psnr=(_Figure, None), clean_mask_coverage=(_Figure, None))],
    )], Meta(min_length=1)])

_Spread = _record('Spread', **_figures(*PERCENTILES))
_Counts = _record('Counts', **dict.fromkeys(COUNTS, (_Count | None, None)))
_Pacing = _record('Pacing', kept=bool)
_ReplayRun = _record(
    'ReplayRun', _Run, model=Facts, bag=_Bag,
    runs=Annotated[list[_record(
        'Replay', factor=_Number, sent=_Count, received=_Count, pacing=(_Pacing | None, None),
        **_figures('loss', 'fps', 'cpu_percent', 'cpu_ms_per_frame'),
        rss_mib=_record('Memory', **_figures('median', 'max')),
        samples=_record('Samples', _Columns, time_s=list[_Number],
                        cpu_percent=list[_Figure], rss_mib=list[_Figure]),
        cameras=list[_record(
            'ReplayCamera', topic=str, camera=str, sent=_Count, received=_Count,
            counts=(_Counts | None, None), **_figures('loss', 'offered_fps', 'fps'),
            latency_ms=_Spread, age_ms=_Spread,
            frames=_record(
                'FrameTimes', _Columns, sent_s=list[_Number], outcome=list[str | None],
                **dict.fromkeys(('latency_ms', 'age_ms', 'infer_ms', 'rain_intensity'),
                                list[_Figure])))])], Meta(min_length=1)],
    search=_record(
        'Search', loss_limit=_Number, **_figures('highest_factor', 'highest_fps'),
        tried=list[_record('Trial', factor=_Number, loss=_Figure, sustained=bool)]) | None)


class _Found(Struct):
    """Detections in a frame: true positives, false positives, and false negatives."""

    tp: _Count
    fp: _Count
    fn: _Count

    @property
    def f1(self) -> float:
        """F1 score; 1 if there are neither objects nor detections."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else 1.0


_Tally = _record('Tally', **_figures('precision', 'recall', 'f1', 'map50'),
                 **dict.fromkeys(('detections', 'truths', 'images'), _Count))
_Rates = _record('Rates', **_figures('precision', 'recall', 'ap50'))
_Recall = _record('Recall', recall=_Figure)
_DetectionsRun = _record(
    'DetectionsRun', _Run, model=_KnownFacts | None, source=_Source,
    detector=_record('DetectorFacts', name=str, file=str, sha256=str, width=_Count,
                     height=_Count, score_threshold=_Number),
    reference=Literal['labels', 'clean'], match_iou=_Number,
    inputs=_record('Inputs', rainy=_Tally, derained=_Tally, clean=(_Tally | None, None)),
    classes=list[_record('Class', name=str, truths=_Count, rainy=_Rates, derained=_Rates)],
    sizes=list[_record('Size', size=str, truths=_Count, rainy=_Recall, derained=_Recall)],
    images=list[_record('DetectorImage', name=str, rain_intensity=_Figure, rainy=_Found,
                        derained=_Found)],
    **dict.fromkeys(('helped', 'hurt', 'same'), _Count))

SCHEMAS = {'bag': _BagRun, 'pairs': _PairsRun, 'replay': _ReplayRun, 'detections': _DetectionsRun}
"""Types by kind of run file: ``derain bag``, ``evaluate``, ``replay-bench`` and ``detections``."""
