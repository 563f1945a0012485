"""JPEGs that are damaged in the middle: told, by whichever thread and process decodes them."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from image_messages import textured

from derain_ros.images.decoder_warnings import decode_noting_damage

PICTURE = textured(96, 128)
JPEG = cv2.imencode('.jpg', PICTURE)[1].ravel()
HALF = len(JPEG) // 2
LOST = np.delete(JPEG, slice(HALF, HALF + 100))


def _padded(count):
    return np.concatenate([JPEG[:-2], np.zeros(count, np.uint8), JPEG[-2:]])


@pytest.mark.parametrize('data, noticed', [
    (JPEG, False), (_padded(2), False), (_padded(200), True), (LOST, True),
    (cv2.imencode('.png', PICTURE)[1].ravel(), False)])
def test_the_decoder_is_heard(data, noticed):
    image, damage = decode_noting_damage(data, cv2.IMREAD_COLOR)
    assert np.array_equal(image, cv2.imdecode(data, cv2.IMREAD_COLOR))
    assert (damage is not None) == noticed
    assert not noticed or damage.startswith('Corrupt JPEG data: ')


def test_what_cannot_be_decoded_is_none():
    for data in (np.zeros(50, np.uint8), np.zeros(0, np.uint8)):
        assert decode_noting_damage(data, cv2.IMREAD_COLOR) == (None, None)


def test_each_thread_hears_of_its_own_picture_and_a_fork_goes_on():
    def noticed(number):
        return decode_noting_damage(LOST if number % 3 else JPEG, cv2.IMREAD_COLOR)[1] is not None

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(noticed, range(60))) == [bool(number % 3) for number in range(60)]
    child = os.fork()
    if not child:
        os._exit(int(noticed(0)) + 2 * int(not noticed(1)))
    assert os.waitpid(child, 0)[1] == 0


def test_standard_error_stays_what_it_was(tmp_path):
    (tmp_path / 'lost.jpg').write_bytes(LOST.tobytes())
    code = ('import sys, cv2, numpy as np\n'
            'from derain_ros.images.decoder_warnings import decode_noting_damage\n'
            f'decode_noting_damage(np.fromfile("{tmp_path}/lost.jpg", np.uint8), 1)\n'
            'print("mine", file=sys.stderr)')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stderr == 'mine\n'
