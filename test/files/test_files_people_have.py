"""Pictures and videos as people have them: odd suffixes, links, names, sizes; none is lost."""

import resource
import subprocess
import sys

import cv2
import numpy as np
import pytest
from bag_files import IMAGE, START, TYPES, header, picture, write_bag
from evaluate_files import write_picture

from derain_ros.cli import main
from derain_ros.files.video_files import new_video


def test_folders_are_searched_through_links_and_say_what_they_leave_out(tmp_path, capsys):
    folder, other = tmp_path / 'in', tmp_path / 'other'
    for name in ('a.png', 'sub/b.ppm', 'c.pnm'):
        write_picture(folder / name, picture(1))
    write_picture(other / 'd.jpg', picture(2))
    (folder / 'link').symlink_to(other)
    (other / 'back').symlink_to(folder)
    for name in ('e.heic', 'f.HEIC', 'notes'):
        (folder / name).write_bytes(b'x')
    for command in ('image', 'rain'):
        out = tmp_path / command
        assert main([command, str(folder), '-o', str(out)]) == 0
        assert sorted(str(path.relative_to(out)) for path in out.rglob('*.png')) == [
            'a.png', 'c.png', 'link/d.png', 'sub/b.png']
        assert 'left out: 2 .heic, 1 without a suffix' in capsys.readouterr().err


@pytest.mark.parametrize('name', ['\udcff\udcfe', 'long' * 55])
def test_names_that_are_not_utf_8_or_long(name, tmp_path, capsys):
    clip = tmp_path / f'{name}.avi'
    with new_video(clip, 96, 64, 10.0) as video:
        for number in range(6):
            video.write(picture(number))
    still = tmp_path / f'{name}.png'
    still.write_bytes(cv2.imencode('.png', picture(0))[1].tobytes())
    for command in (['video', str(clip), '-o', str(tmp_path / f'{name}v.avi')],
                    ['gate', str(clip), '--rain'],
                    ['rain', str(clip), '-o', str(tmp_path / f'{name}r.avi')],
                    ['image', str(still), '-o', str(tmp_path / 'image')],
                    ['rain', str(still), '-o', str(tmp_path / 'rainy')]):
        assert main(command) == 0, command
    assert len(list(tmp_path.iterdir())) == 6
    assert 'Traceback' not in capsys.readouterr().err


def test_a_video_as_picture_names_the_other_command(tmp_path, capsys):
    (tmp_path / 'clip.mp4').write_bytes(b'\0\0\0\x18ftypmp42')
    assert main(['image', str(tmp_path / 'clip.mp4'), '-o', str(tmp_path / 'out')]) == 1
    assert 'for videos there is `derain video`' in capsys.readouterr().err


def test_frames_of_another_size_are_left_out_of_a_video(tmp_path, capsys):
    rows = []
    for number, (height, width) in enumerate([(64, 96)] * 4 + [(32, 48)] * 2 + [(64, 96)] * 2):
        time = START + number * 100_000_000
        rows.append(('/cam', IMAGE, time, TYPES.types[IMAGE](
            header=header(time), height=height, width=width, encoding='bgr8', is_bigendian=0,
            step=3 * width, data=np.ascontiguousarray(picture(number, height, width)).ravel())))
    bag = write_bag(tmp_path / 'in', rows)
    assert main(['video', str(bag), '-o', str(tmp_path / 'out.avi'), '--topic', '/cam']) == 1
    captured = capsys.readouterr()
    assert '6 frames of 96x64 at 10 Hz, 2 left out' in captured.out
    assert captured.err.count('has 48x32 pixels, the first frame 96x64') == 2


def test_a_full_disk_is_told_as_such(tmp_path):
    clip = tmp_path / 'in.avi'
    with new_video(clip, 96, 64, 10.0) as video:
        for number in range(20):
            video.write(picture(number))
    done = subprocess.run(
        [sys.executable, '-m', 'derain_ros.cli', 'rain', str(clip), '-o', str(tmp_path / 'o.avi')],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)),
        capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'is the disk full?' in done.stderr and 'damaged' not in done.stderr
