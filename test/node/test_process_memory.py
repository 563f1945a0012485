"""Freed frame buffers stay in the process: counted by the page faults of a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from derain_ros.node.process_memory import KEPT_BYTES

ROOT = Path(__file__).resolve().parents[2]
# A 1080p frame as it comes in, derained and serialized, over and over, in a thread as in the node.
FRAMES = """
import json, resource, sys, threading
from derain_ros.node.process_memory import keep_large_buffers
made = keep_large_buffers() if sys.argv[1] == 'keep' else ()
faults = []

def work():
    for _ in range(30):
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
        buffers = [bytes([number]) * 6220800 for number in (1, 2, 3)]
        del buffers

thread = threading.Thread(target=work)
thread.start()
thread.join()
print(json.dumps({'made': made, 'faults': (faults[-1] - faults[9]) / 20}))
"""

pytestmark = pytest.mark.skipif(
    'CS_GNU_LIBC_VERSION' not in os.confstr_names, reason='the C library is not glibc')


def run(mode, **variables):
    environment = {name: value for name, value in os.environ.items()
                   if name not in KEPT_BYTES and name != 'GLIBC_TUNABLES'}
    environment['PYTHONPATH'] = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    output = subprocess.run(
        [sys.executable, '-c', FRAMES, mode], env=environment | variables, check=True,
        capture_output=True, text=True, timeout=60)
    return json.loads(output.stdout)


def test_buffers_of_frames_are_kept_as_with_the_variables_of_glibc():
    plain = run('plain')
    kept = run('keep')
    by_variables = run('plain', **{name: str(size) for name, size in KEPT_BYTES.items()})
    assert kept['made'] == list(KEPT_BYTES)
    assert plain['faults'] > 1000  # else there is nothing to gain on this machine
    assert kept['faults'] < 0.02 * plain['faults']
    assert by_variables['faults'] < 0.02 * plain['faults']


def test_what_the_environment_says_is_left_alone():
    theirs = run('keep', MALLOC_TRIM_THRESHOLD_='131072')
    assert theirs['made'] == ['MALLOC_MMAP_THRESHOLD_', 'MALLOC_TOP_PAD_']
    assert theirs['faults'] > 100
    assert run('keep', GLIBC_TUNABLES='glibc.malloc.trim_threshold=131072')['made'] == []
    assert run('keep', **dict.fromkeys(KEPT_BYTES, '131072'))['made'] == []
