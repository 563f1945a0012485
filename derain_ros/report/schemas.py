"""What the report needs to find in a run file of each kind."""

from derain_ros.report.run_fields import (
    Check,
    columns,
    count,
    flag,
    listed,
    maybe,
    number,
    one_of,
    record,
    text,
    whole,
)

_FACTS = ('model', 'file', 'sha256', 'engine', 'device', 'precision')
_FACT_FIELDS = dict.fromkeys(_FACTS, text)
_FACTS_OR_NULL = record(**{name: maybe(text) for name in _FACTS})
_BAG = {
    'path': text, 'sha256': text,
    'files': listed(record(name=text, bytes=count, sha256=text)),
}
_COMMON = {
    'versions': record(derain_ros=maybe(text)),
    'host': record(
        processor=maybe(text), cores=maybe(count), system=maybe(text), machine=maybe(text)),
}
_DAMAGE = record(file=text, offset=maybe(count), reason=text, last_time=maybe(whole))

BAG = record(
    **_COMMON,
    model=record(**_FACT_FIELDS),
    strength=number, mask=flag,
    source=record(**_BAG, storage=text, messages=count, damage=maybe(_DAMAGE)),
    output=record(**_BAG, storage=text, messages=count),
    start_s=maybe(number), duration_s=maybe(number), every=count, workers=count,
    seconds=number, frames_per_second=maybe(number),
    cameras=listed(record(
        source=text, image=text, rain_mask=maybe(text), derained=count, failed=count,
        failures=listed(record(time=whole, reason=text)),
        frames=columns(
            time=whole, stamp=whole, rain_intensity=number, mask_coverage=number))))

_SUMMARY = {
    name: maybe(number) for name in (
        'input_psnr', 'psnr', 'worst_psnr', 'input_ssim', 'ssim', 'worst_ssim',
        'streak_energy_left', 'mask_precision', 'mask_recall', 'mask_f1', 'mask_iou',
        'clean_psnr', 'clean_mask_coverage', 'input_flicker', 'flicker')}

PAIRS = record(
    **_COMMON,
    source=record(
        ('bag', 'rainy_topic', 'clean_topic', 'rainy', 'clean'),
        kind=text, bag=text, rainy_topic=text, clean_topic=text, rainy=text, clean=text),
    clip=flag, pairs=count,
    failed=listed(record(name=text, reason=text)),
    models=listed(record(
        **_FACT_FIELDS,
        summary=record(
            **_SUMMARY, pairs=count, made_worse=count,
            worst_psnr_image=text, worst_ssim_image=text),
        images=listed(record(
            name=text, input_psnr=number, psnr=number, input_ssim=number, ssim=number,
            mask_f1=maybe(number)))), least=1))

_SPREAD = record(p50=maybe(number), p90=maybe(number), p95=maybe(number), p99=maybe(number),
                 max=maybe(number))
COUNTS = ('received', 'published', 'dropped', 'failed', 'idle', 'derained', 'bypassed',
          'passed_through')
"""What the node tells of its frames."""


REPLAY = record(
    **_COMMON,
    model=_FACTS_OR_NULL,
    bag=record(**_BAG),
    runs=listed(record(
        ('pacing',), pacing=record(kept=flag),
        factor=number, seconds=number, sent=count, received=count, loss=maybe(number),
        fps=maybe(number), cpu_percent=maybe(number), cpu_ms_per_frame=maybe(number),
        rss_mib=record(median=maybe(number), max=maybe(number)),
        samples=columns(time_s=number, cpu_percent=maybe(number), rss_mib=maybe(number)),
        cameras=listed(record(
            ('counts',), counts=record(COUNTS, **dict.fromkeys(COUNTS, maybe(count))),
            topic=text, camera=text, sent=count, received=count, loss=maybe(number),
            offered_fps=maybe(number), fps=maybe(number),
            latency_ms=_SPREAD, age_ms=_SPREAD, infer_ms=maybe(_SPREAD),
            frames=columns(
                sent_s=number, latency_ms=maybe(number), age_ms=maybe(number),
                infer_ms=maybe(number), outcome=maybe(text),
                rain_intensity=maybe(number))))), least=1),
    search=maybe(record(
        loss_limit=number, highest_factor=maybe(number), highest_fps=maybe(number),
        tried=listed(record(factor=number, loss=maybe(number), sustained=flag)))))

_RATES = {name: maybe(number) for name in ('precision', 'recall')}
_TALLY = record(**_RATES, f1=maybe(number), map50=maybe(number), detections=count, truths=count,
                images=count)
_CLASS = record(**_RATES, ap50=maybe(number))
_COUNTS = record(tp=count, fp=count, fn=count)

DETECTIONS = record(
    **_COMMON,
    detector=record(name=text, file=text, sha256=text, width=count, height=count,
                    score_threshold=number, iou_threshold=number),
    model=maybe(record(**_FACT_FIELDS)),
    source=record(
        ('bag', 'rainy_topic', 'derained_topic', 'clean_topic', 'rainy', 'derained', 'clean',
         'failed'),
        kind=text, bag=text, rainy_topic=maybe(text), derained_topic=maybe(text),
        clean_topic=maybe(text), rainy=maybe(text), derained=maybe(text), clean=maybe(text),
        failed=listed(record(name=text, reason=text))),
    reference=one_of('labels', 'clean'), match_iou=number,
    inputs=record(('clean',), rainy=_TALLY, derained=_TALLY, clean=_TALLY),
    classes=listed(record(name=text, truths=count, rainy=_CLASS, derained=_CLASS)),
    sizes=listed(record(size=text, truths=count, rainy=record(recall=maybe(number)),
                        derained=record(recall=maybe(number)))),
    images=listed(record(name=text, stamp=maybe(whole), rain_intensity=maybe(number),
                         rainy=_COUNTS, derained=_COUNTS)),
    helped=count, hurt=count, same=count)

SCHEMAS: dict[str, Check] = {
    'bag': BAG, 'pairs': PAIRS, 'replay': REPLAY, 'detections': DETECTIONS}
"""By kind of run file; see :data:`derain_ros.files.run_files.KINDS`."""
