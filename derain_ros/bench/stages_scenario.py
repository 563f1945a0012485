"""Every stage at several sizes, with the fast path and with rclpy's own serialization."""

from derain_ros.bench.bars import Figure, Result
from derain_ros.bench.node_comparison import Side, compare, overheads_ms
from derain_ros.bench.setting import Setting
from derain_ros.bench.stream_statistics import percentile, ratio
from derain_ros.live.listener import number

STAGES = ('wait', 'decode', 'infer', 'encode', 'publish', 'age')
_FRAMES = 60
_QUICK_FRAMES = 5


def run(setting: Setting) -> Result:
    """Measure: frames one by one, so that every size can be taken."""
    frames = _QUICK_FRAMES if setting.quick else _FRAMES
    figures, notes, details = [], [], {}
    for width, height in setting.sizes:
        size = f'{width}x{height}'
        sides = compare(
            setting, f'stages_{size}', setting.clip(width, height), {
                'fast': ('derain', {'rain_gate': 'false', 'fast_path': 'true'}),
                'ordinary': ('derain', {'rain_gate': 'false', 'fast_path': 'false'}),
            }, frames)
        times = {name: _times(side) for name, side in sides.items()}
        figures.append(Figure(
            f'{size} fast / ordinary, sent to received less inference',
            ratio(*(percentile(overheads_ms(sides[name]), 50) for name in ('fast', 'ordinary'))),
            '', None, 2))
        notes += [_row(size, name, found) for name, found in times.items()]
        details[size] = times
    header = f'{"p50 / p95 in ms":<24}' + ''.join(f'{stage:>16}' for stage in (*STAGES, 'total'))
    return Result(
        'stages: one frame at a time, with fast_path and without (age: stamp to published, '
        'total: stamp to image received)', figures, [header, *notes], details)


def _times(side: Side) -> dict[str, tuple[float, float]]:
    """Return p50 and p95 of each stage, and of stamp to arrival."""
    times = {
        stage: (number(side.diagnostics, f'{stage}_p50_ms'),
                number(side.diagnostics, f'{stage}_p95_ms'))
        for stage in STAGES}
    ages = [frame.age_ms for frame in side.frames]
    times['total'] = percentile(ages, 50), percentile(ages, 95)
    return times


def _row(size: str, name: str, times: dict[str, tuple[float, float]]) -> str:
    cells = ''.join(
        f'{"-":>16}' if p50 != p50 else f'{f"{p50:.1f} / {p95:.1f}":>16}'
        for p50, p95 in times.values())
    return f'{f"{size} {name}":<24}{cells}'
