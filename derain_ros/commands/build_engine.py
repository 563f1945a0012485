"""``derain build-engine``: compile a model by TensorRT.

Compile a model by TensorRT for the sizes of your cameras, and keep the result in the cache of
engines. The precision is that of the ONNX file: fp16 takes NAME_fp16.onnx.

An engine in the cache is found again by everything that it depends on: the model's sha256,
TensorRT and its version, GPU, driver, size, precision and options. A damaged or foreign one
is built anew, never used.

examples:
  derain build-engine --size 1280x720
  derain build-engine --model base --size 1920x1080 --size 640x480 --batch 4
  derain build-engine --size 640x480 --precision fp32 --cache /data/engines

tensorrt builds for the GPU that is there, and not without one; tensorrt_rtx also builds on a
machine without. exit status: 0 built or found, 1 failed, 2 wrong arguments
"""

import argparse
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from derain_ros.commands import print_notes, refusing, slow_bar
from derain_ros.commands.arguments import count, size_in_pixels
from derain_ros.engines.models import find_model
from derain_ros.engines.tensorrt.cuda_runtime import GpuIdentity, find_gpu
from derain_ros.engines.tensorrt.engine_cache import EngineCache
from derain_ros.engines.tensorrt.tensorrt_build import (
    BuildRequest,
    Progress,
    build_engine,
    timings_for,
)
from derain_ros.engines.tensorrt.tensorrt_library import Library, check_gpu, find_library
from derain_ros.text import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--model', default='nano', metavar='NAME',
                        help='model, a name that `derain info` lists or an .onnx file '
                             '(default: nano)')
    parser.add_argument('--size', type=size_in_pixels, action='append', required=True,
                        metavar='WxH', help='frame size in pixels; may be given several times')
    parser.add_argument('--precision', choices=('fp16', 'fp32'), default='fp16',
                        help='which ONNX file (default: fp16)')
    parser.add_argument('--batch', type=count, default=1, metavar='N',
                        help='frames per inference; the node uses 1 (default: 1)')
    parser.add_argument('--workspace', type=count, metavar='MIB',
                        help='largest GPU workspace (default: left to TensorRT)')
    parser.add_argument('--flavour', choices=('tensorrt', 'tensorrt_rtx'), default='',
                        help='Python module to use (default: the first that is installed)')
    parser.add_argument('--cache', type=Path, metavar='DIR',
                        help='folder of the cache (default: ~/.cache/derain_ros/engines)')
    parser.add_argument('--cache-limit', type=count, default=4096, metavar='MIB',
                        help='size limit of the cache; the engines used longest ago are deleted '
                             'first (default: 4096)')


def run(args: argparse.Namespace) -> int:
    with refusing():
        requests = [
            BuildRequest(
                model=find_model(args.model), precision=args.precision, size=(height, width),
                batch=args.batch, workspace=args.workspace and args.workspace << 20)
            for width, height in dict.fromkeys(args.size)]
        content = requests[0].read()
    gpu = find_gpu()
    library = find_library(args.flavour)
    if library.needs_gpu and gpu.missing:
        raise UserError(
            f'{library.flavour} builds for the GPU of this machine, but {gpu.missing}; build on '
            'the machine that will run the engine, or use tensorrt_rtx')
    check_gpu(library, gpu)
    where = f'{gpu.name}, compute capability {gpu.compute_capability}' if gpu.name else (
        'no GPU: building for all GPUs that this flavour supports')
    print(f'derain: {library.flavour} {library.version}, {where}', file=sys.stderr)
    cache = EngineCache(args.cache, limit=args.cache_limit << 20, log=print_notes)
    for request in requests:
        _build(request, content, library, gpu, cache)
    return 0


def _build(
    request: BuildRequest, content: bytes, library: Library, gpu: GpuIdentity, cache: EngineCache
) -> None:
    """Build one engine, or take it from the cache, and print where it is."""
    def show(progress: Progress) -> None:
        bar.set_postfix_str(progress.phase, refresh=False)
        bar.update(round(progress.percent) - bar.n)

    stop, start = threading.Event(), time.monotonic()
    key = request.key(content, library, gpu)
    # In a thread, as KeyboardInterrupt would otherwise be raised within a TensorRT callback.
    with slow_bar(100, '%', 'building') as bar, ThreadPoolExecutor(1) as pool:
        job = pool.submit(
            cache.get_or_build, key,
            lambda: build_engine(request, content, library, report=show, stop=stop,
                                 timings=timings_for(cache, library, gpu)),
            stop=stop, waiting=lambda: print(
                'derain: another process is building this engine; waiting for it',
                file=sys.stderr))
        try:
            engine, found = job.result()
        except KeyboardInterrupt:
            stop.set()
            raise
    seconds = time.monotonic() - start
    done = 'found in the cache' if found else f'built in {seconds:.1f} s'
    height, width = request.size
    print(f'{request.model.name}, {request.precision}, {width}x{height}, batch {request.batch}: '
          f'{done}, {len(engine) / 2**20:.1f} MiB')
    path = cache.path(key)
    if not path.is_file():
        raise UserError('the engine could not be stored, see above')
    print(path)
