"""Run files for the tests of `derain report`, as the commands write them."""

import json
import random

from derain_ros.files.run_files import FORMAT, write_run

HOST = {'processor': 'Some CPU', 'cores': 8, 'system': 'Linux 6.1', 'machine': 'x86_64'}
VERSIONS = {'derain_ros': '0.1.0', 'python': '3.11.7', 'numpy': '2.0', 'opencv': '5.0.0',
            'openvino': '2026.1', 'torch': None}
START = 1_700_000_000 * 10**9


def facts(model='nano', engine='openvino'):
    """What is known of a model."""
    return {'model': model, 'file': f'{model}.onnx', 'sha256': f'{model:0<64.64}',
            'engine': engine, 'device': 'Some CPU', 'precision': 'f32', 'reason': '',
            'parameters': 1000, 'flops_per_pixel': 13451}


def bag(path='drive', seed='a'):
    """The facts of a bag."""
    return {'path': path, 'sha256': seed * 64,
            'files': [{'name': f'{path}.mcap', 'bytes': 1_000_000, 'sha256': 'b' * 64}]}


def stamps(count, rate=10):
    """Header stamps at an even rate, ns."""
    return [START + number * 10**9 // rate for number in range(count)]


def common(kind):
    """Keys of all run files."""
    return {'format': FORMAT, 'kind': kind, 'versions': dict(VERSIONS), 'host': dict(HOST)}


def bag_run(model='nano', frames=24, topics=('/camera/image_raw',), output='drive_derained'):
    """A run of `derain bag`."""
    rng = random.Random(model)
    cameras = []
    for topic in topics:
        base = topic.rpartition('/')[0] + '/derained'
        cameras.append({
            'source': topic, 'image': f'{base}/image', 'rain_mask': f'{base}/rain_mask',
            'derained': frames, 'failed': 1,
            'failures': [{'time': START, 'reason': 'encoding 16UC1 is not of a colour camera'}],
            'frames': {'time': stamps(frames), 'stamp': stamps(frames),
                       'rain_intensity': [rng.uniform(0.2, 0.6) for _ in range(frames)],
                       'mask_coverage': [rng.uniform(0.1, 0.4) for _ in range(frames)]}})
    return {**common('bag'), 'model': facts(model), 'strength': 1.0, 'mask': True,
            'source': {**bag(), 'storage': 'mcap', 'messages': 72, 'damages': [
                {'file': 'drive_1.mcap', 'offset': 4711, 'reason': 'the file ends in a chunk',
                 'last_time': START, 'lost': 3},
                {'file': 'metadata.yaml', 'offset': None, 'reason': 'lists 72 messages on /cam',
                 'last_time': None, 'lost': None}]},
            'output': {**bag(output, 'c'), 'storage': 'mcap', 'messages': 168},
            'start_s': None, 'duration_s': 2.5, 'every': 1, 'workers': 2,
            'resumed_segments': 0, 'seconds': 5.4, 'frames_per_second': 8.8,
            'cameras': cameras}


def pairs_run(models=('nano', 'base'), frames=24, topic='/camera/image_raw'):
    """A run of `derain evaluate` on a bag."""
    found = []
    for number, model in enumerate(models):
        images = [{
            'name': f'{stamp // 10**9}.{stamp % 10**9:09d}', 'width': 640, 'height': 360,
            'input_psnr': 24.0, 'psnr': 30.0 + number + 0.1 * place, 'input_ssim': 0.7,
            'ssim': 0.95, 'mask_precision': 0.9, 'mask_recall': 0.9, 'mask_f1': 0.9,
            'mask_iou': 0.8, 'streak_energy_left': 0.05, 'clean_psnr': 55.0, 'clean_ssim': 0.999,
            'clean_mask_coverage': 0.0, 'input_flicker': None, 'flicker': None}
            for place, stamp in enumerate(stamps(frames))]
        found.append({**facts(model), 'images': images, 'summary': {
            'pairs': frames, 'input_psnr': 24.0, 'psnr': 31.15 + number, 'worst_psnr': 30.0,
            'worst_psnr_image': images[0]['name'], 'input_ssim': 0.7, 'ssim': 0.95,
            'worst_ssim': 0.94, 'worst_ssim_image': images[0]['name'], 'made_worse': number,
            'mask_precision': 0.9, 'mask_recall': 0.9, 'mask_f1': 0.9, 'mask_iou': 0.8,
            'streak_energy_left': 0.05, 'clean_psnr': 55.0, 'worst_clean_psnr': 50.0,
            'worst_clean_psnr_image': images[0]['name'], 'clean_ssim': 0.999,
            'clean_mask_coverage': 0.0, 'flicker_steps': 0, 'input_flicker': None,
            'flicker': None}})
    return {**common('pairs'), 'clip': True, 'pairs': frames, 'models': found,
            'source': {'kind': 'bag', 'bag': 'drive', 'rainy_topic': topic,
                       'clean_topic': f'{topic}/dry', 'unpaired_rainy': 0, 'unpaired_clean': 0,
                       'repeated_rainy': 0, 'repeated_clean': 0},
            'failed': [{'name': 'x', 'reason': 'x: the message is torn'}]}


def replay_run(model='nano', frames=300, cameras=('front', 'rear'), slow=1.0, search=True):
    """A run of `derain replay-bench`: 30 frames a second, with a hiccup and some drops."""
    rng = random.Random(model)
    runs = []
    for factor in (1.0, 1.5, 2.0) if search else (1.0,):
        listed = []
        for name in cameras:
            sent = [round(number / 30 / factor, 6) for number in range(frames)]
            latency = []
            for time in sent:
                value = slow * (18 + rng.expovariate(1 / 3) + (25 if 4 < time < 4.6 else 0))
                latency.append(None if rng.random() < 0.01 * factor**4 else round(value, 3))
            there = sorted(value for value in latency if value is not None)
            listed.append({
                'topic': f'/{name}/image_raw', 'camera': name, 'sent': frames,
                'received': len(there), 'loss': 1 - len(there) / frames,
                'offered_fps': 30 * factor,
                'fps': 30 * factor * len(there) / frames,
                'counts': {'received': frames, 'published': len(there),
                           'dropped': frames - len(there), 'failed': 0, 'idle': 0,
                           'derained': len(there), 'bypassed': 0, 'passed_through': 0},
                'latency_ms': _spread(there), 'age_ms': _spread([v + 4 for v in there]),
                'infer_ms': _spread([0.7 * v for v in there]),
                'frames': {
                    'sent_s': sent, 'latency_ms': latency,
                    'age_ms': [v and v + 4 for v in latency],
                    'infer_ms': [v and 0.7 * v for v in latency],
                    'outcome': ['derained' if v else 'dropped' for v in latency],
                    'rain_intensity': [v and min(1.0, 0.3 + 0.02 * time)
                                       for v, time in zip(latency, sent, strict=True)]}})
        seconds = frames / 30 / factor
        count = int(2 * seconds)
        received = sum(camera['received'] for camera in listed)
        runs.append({
            'factor': factor, 'seconds': seconds, 'sent': frames * len(cameras),
            'received': received, 'loss': 1 - received / (frames * len(cameras)),
            'fps': received / seconds, 'cpu_percent': 150.0 * slow, 'cpu_ms_per_frame': 21.5,
            'rss_mib': {'median': 310.0, 'max': 325.0},
            'samples': {'time_s': [number / 2 for number in range(count)],
                        'cpu_percent': [rng.uniform(120, 180) * slow for _ in range(count)],
                        'rss_mib': [min(325.0, 300.0 + number) for number in range(count)]},
            'cameras': listed})
    tried = [{'factor': run['factor'], 'loss': run['loss'], 'sustained': run['loss'] < 0.03}
             for run in runs]
    return {**common('replay'), 'bag': bag(), 'parameters': {'model': model},
            'model': {key: value for key, value in facts(model).items()
                      if key in ('model', 'file', 'sha256', 'engine', 'device', 'precision')},
            'runs': runs, 'search': {'loss_limit': 0.01, 'highest_factor': 1.5,
                                     'highest_fps': 88.1, 'tried': tried} if search else None}


def detections_run(model='nano'):
    """A run of `derain detections`."""
    def tally(recall):
        return {'precision': 0.8, 'recall': recall, 'f1': 0.7, 'map50': recall - 0.1,
                'detections': 80, 'truths': 100, 'images': 3}

    rates = {'ap50': 0.5, 'precision': 0.8, 'recall': 0.6}
    return {**common('detections'), 'model': model and facts(model),
            'detector': {'name': 'FastestDet', 'file': 'FastestDet.onnx', 'sha256': 'd' * 64,
                         'width': 352, 'height': 352, 'score_threshold': 0.4,
                         'iou_threshold': 0.45},
            'source': {'kind': 'folders', 'rainy': 'rainy', 'derained': None, 'clean': 'clean',
                       'failed': [], 'unlabelled': 0},
            'reference': 'labels', 'match_iou': 0.5,
            'inputs': {'rainy': tally(0.5), 'derained': tally(0.7), 'clean': tally(0.8)},
            'classes': [{'name': 'car', 'truths': 90, 'rainy': rates, 'derained': rates},
                        {'name': 'person', 'truths': 10, 'rainy': rates, 'derained': {
                            'ap50': None, 'precision': None, 'recall': 0.0}}],
            'sizes': [{'size': size, 'truths': 30, 'rainy': {'recall': 0.2},
                       'derained': {'recall': 0.4}} for size in ('small', 'medium', 'large')],
            'images': [
                {'name': 'helped.png', 'stamp': None, 'rain_intensity': 0.4,
                 'rainy': {'tp': 1, 'fp': 0, 'fn': 5}, 'derained': {'tp': 5, 'fp': 1, 'fn': 1}},
                {'name': 'hurt.png', 'stamp': START, 'rain_intensity': None,
                 'rainy': {'tp': 4, 'fp': 0, 'fn': 0}, 'derained': {'tp': 2, 'fp': 0, 'fn': 2}},
                {'name': 'empty.png', 'stamp': None, 'rain_intensity': 0.1,
                 'rainy': {'tp': 0, 'fp': 0, 'fn': 0}, 'derained': {'tp': 0, 'fp': 0, 'fn': 0}}],
            'helped': 1, 'hurt': 1, 'same': 1}


def write(folder, name, run):
    """Write a run file and return its path."""
    path = folder / name
    write_run(path, json.loads(json.dumps(run)))
    return path


def _spread(values):
    found = sorted(values)

    def at(part):
        return found[min(len(found) - 1, int(part * len(found)))]
    return {'p50': at(0.5), 'p90': at(0.9), 'p95': at(0.95), 'p99': at(0.99), 'max': found[-1]}
