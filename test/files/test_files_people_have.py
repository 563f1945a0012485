"""Pictures and videos as people have them: odd suffixes, links, names, sizes; none is lost."""

import os
import resource
import shutil
import struct

import cv2
import numpy as np
import pytest
from bag_files import picture
from evaluate_files import write_picture
from video_clips import write_video

from derain_ros.cli import main
from derain_ros.files.image_files import PictureReader, collect_images


@pytest.mark.parametrize('command', ['image', 'rain', 'video', 'evaluate', 'gate'])
def test_folders_are_searched_through_links_and_say_what_they_leave_out(
        command, tmp_path, cut_model, derain):
    folder, other, out = tmp_path / 'in', tmp_path / 'other', tmp_path / 'out.avi'
    for name in ('a.png', 'sub/b.ppm', 'c.pnm', 'e.pgm'):
        write_picture(folder / name, picture(1)[..., 0] if name == 'e.pgm' else picture(1))
    write_picture(other / 'd.jpg', picture(2))
    (folder / 'link').symlink_to(other)
    (other / 'back').symlink_to(folder)
    for name in ('e.heic', 'f.HEIC', 'notes'):
        (folder / name).write_bytes(b'x')
    (folder / 'metadata.yaml').write_text('camera: front\n')  # not that of a bag
    copy = shutil.copytree(folder, tmp_path / 'copy', ignore=lambda *_: ['back'])
    options = {
        'image': [folder, '-o', out], 'rain': [folder, '-o', out], 'video': [folder, '-o', out],
        'gate': ['--pan', folder, '--duration', '1'],
        'evaluate': ['--rainy', folder, '--clean', copy]}[command]
    captured = derain(command, *options, *cut_model * (command != 'rain'))
    assert f'{folder}: left out: 2 .heic, 1 .yaml, 1 without a suffix' in captured.err
    if command in ('image', 'rain'):
        assert sorted(str(path.relative_to(out)) for path in out.rglob('*.png')) == [
            'a.png', 'c.png', 'e.png', 'link/d.png', 'sub/b.png']
    else:
        assert {'video': '5 frames', 'gate': 'd.jpg', 'evaluate': '5 pairs'}[
            command] in captured.out


def test_a_folder_that_cannot_be_read_is_named(tmp_path, caplog):
    write_picture(tmp_path / 'a.png', picture(1))
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):  # longer than a path may be
        os.mkdir('x' * 250, dir_fd=here)
        here = os.open('x' * 250, os.O_RDONLY, dir_fd=here)
    assert len(collect_images([tmp_path])) == 1
    assert 'File name too long; left out' in caplog.text


def test_names_that_are_not_utf_8_and_long(tmp_path, cut_model, derain):
    name = '\udcff\udcfe' + 54 * 'long'
    clip = write_video(tmp_path / f'{name}.avi', 3)
    stills = [write_picture(tmp_path / folder / f'{name}.png', picture(0))
              for folder in ('stills', 'clean')]
    out = tmp_path / 'out'
    for command in (['video', clip, '-o', out / f'{name}v.avi', *cut_model],
                    ['video', tmp_path / 'stills', '-o', out / f'{name}.mp4', *cut_model],
                    ['gate', clip, '--rain', *cut_model],
                    ['rain', clip, '-o', out / f'{name}r.avi', '--streaks', out / name],
                    ['image', stills[0], '-o', out / 'image', *cut_model],
                    ['evaluate', '--rainy', stills[0].parent, '--clean', stills[1].parent,
                     '--json', out / f'{name}.json', *cut_model],
                    ['rain', stills[0], '-o', out / 'rainy']):
        derain(*command)
    assert len(list(out.iterdir())) == 7


@pytest.mark.parametrize('suffix', ['avi', 'mp4'])
def test_a_full_disk_is_told_as_such(suffix, tmp_path, capsys):
    clip = write_video(tmp_path / 'in.avi', 20, size=(64, 96))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
    try:
        status = main(['rain', str(clip), '-o', str(tmp_path / f'o.{suffix}')])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    message = capsys.readouterr().err
    assert status == 1
    assert 'is the disk full?' in message and 'damaged' not in message
    assert [path.name for path in tmp_path.iterdir()] == ['in.avi']


@pytest.mark.parametrize('kind', [np.int16, np.float32])
def test_samples_that_are_no_brightness_are_refused(kind, tmp_path, cut_model, derain):
    cv2.imwrite(str(tmp_path / 'a.tif'), picture(1).astype(kind))
    error = derain('image', tmp_path / 'a.tif', '-o', tmp_path / 'out', *cut_model, status=1).err
    assert f'its samples are {np.dtype(kind)}, convert it to 8 or 16 bits' in error


@pytest.mark.parametrize('mark, header, layout', [
    (b'II', '<2sHI', '<HHIHxx'), (b'MM', '>2sHI', '>HHIHxx'),
    (b'II', '<2sHHHQ', '<HHQHxxxxxx'), (b'MM', '>2sHHHQ', '>HHQHxxxxxx')])
def test_the_colours_of_a_transparent_tiff_are_those_in_the_file(mark, header, layout, tmp_path):
    pixels = np.dstack([picture(1), np.full(picture(1).shape[:2], 128, np.uint8)])
    start, big = struct.calcsize(header), header.endswith('Q')
    tags = {256: pixels.shape[1], 257: pixels.shape[0], 258: 8, 259: 1, 262: 2, 273: start,
            277: 4, 278: pixels.shape[0], 279: pixels.nbytes, 338: 2}  # alpha, unassociated
    (tmp_path / 'a.tif').write_bytes(
        struct.pack(header, mark, *((43, 8, 0) if big else (42,)), start + pixels.nbytes)
        + pixels.tobytes() + struct.pack(f'{header[0]}{"Q" if big else "H"}', len(tags))
        + b''.join(struct.pack(layout, tag, 3, 1, value) for tag, value in tags.items()))
    read, = PictureReader().read(tmp_path / 'a.tif')
    assert np.array_equal(read, pixels[..., 2::-1])


@pytest.mark.parametrize('bits', [10, 16])
def test_pictures_of_fewer_bits_are_not_black(bits, tmp_path, cut_model, capsys):
    dark = picture(1)
    dark[0, 0] = 255
    scale = (1 << bits) // 256
    write_picture(tmp_path / 'in' / 'a.png', picture(1).astype(np.uint16) // 4 * scale)
    write_picture(tmp_path / 'in' / 'b.png', dark.astype(np.uint16) * scale)
    write_picture(tmp_path / 'in' / 'c.png', picture(1).astype(np.uint16) // 4 * scale)
    out = tmp_path / 'out'
    assert main(
        ['image', str(tmp_path / 'in'), '-o', str(out), '--strength', '0', *cut_model]) == 0
    # By the largest sample so far, as the node does it.
    for name, expected in (('b', dark), ('c', picture(1) // 4)):
        assert np.array_equal(cv2.imread(str(out / f'{name}.png')), expected)
    assert f'{bits} of the 16 bits' in capsys.readouterr().err


@pytest.mark.parametrize('option, expected, warned', [((), 1, 'b.png'), (('--bits', 12), 16, '')])
def test_a_picture_of_fewer_bits_after_one_of_16_is_named(
        option, expected, warned, tmp_path, cut_model, derain):
    full = picture(1).astype(np.uint16) * 256
    full[0, 0] = 65535
    few = picture(1).astype(np.uint16) * 16
    few[0, 0] = 4095
    for name, samples in (('a', full), ('b', few), ('c', few)):
        write_picture(tmp_path / 'in' / f'{name}.png', samples)
    told = derain('image', tmp_path / 'in', '-o', tmp_path / 'out', '--strength', 0, *option,
                  *cut_model).err
    written = cv2.imread(str(tmp_path / 'out' / 'c.png'))
    assert np.array_equal(written, (few * expected // 256).astype(np.uint8))
    notes = [line for line in told.splitlines() if 'bits' in line]
    assert len(notes) == bool(warned) and all(warned in line for line in notes)
