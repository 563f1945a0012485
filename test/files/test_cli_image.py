"""``derain image`` on real files: formats, sizes, names, and what must never happen."""

import os
import shutil

import cv2
import numpy as np
import pytest
from bag_files import picture, tree
from evaluate_files import write_picture
from memory_model import write_memory_model

from derain_ros.files.image_files import PictureReader, collect_images, write_png
from derain_ros.images.overlay import draw_overlay

SIZES = ((40, 56), (33, 90), (56, 40))
FORMATS = ('png', 'jpg', 'jpeg', 'bmp', 'tif', 'tiff', 'webp', 'PNG')
SMALL = picture(0, 40, 56)


@pytest.fixture
def run(derain, cut_model):
    """Run ``derain image PATH... -o OUT ...``."""
    return lambda *arguments, **options: derain('image', *arguments, *cut_model, **options)


def _write(path, image=SMALL):
    return write_picture(path, image)


def test_results_are_those_of_the_model(tmp_path, run):
    source, out = _write(tmp_path / 'x.png'), tmp_path / 'out'
    run(source, '-o', out, '--mask', '--overlay')
    assert list(tree(out)) == ['x.png', 'x_mask.png', 'x_overlay.png']
    mask = np.where(SMALL.max(axis=2) > 120, 255, 0).astype(np.uint8)
    results = [PictureReader().read(out / f'x{end}.png')[0] for end in ('', '_mask', '_overlay')]
    for result, expected in zip(results, (
            np.minimum(SMALL, 120), np.dstack([mask] * 3), draw_overlay(SMALL, mask)),
            strict=True):
        assert np.array_equal(result, expected)
    run(source, '-o', tmp_path / 'half', '--strength', '0.5')
    half = cv2.imread(str(tmp_path / 'half' / 'x.png'))
    assert np.abs(half - (SMALL.astype(float) + np.minimum(SMALL, 120)) / 2).max() <= 1


def test_a_model_that_remembers_is_not_expected_to_do_so_here(tmp_path, derain):
    source = _write(tmp_path / 'x.png')
    model = write_memory_model(tmp_path / 'm.onnx')
    told = derain('image', source, '-o', tmp_path / 'out', '--model', model).err
    assert 'by itself here; for the frames of a clip there is `derain video`' in told


def test_folders_of_mixed_sizes_and_formats(tmp_path, run):
    source, out = tmp_path / 'in', tmp_path / 'out'
    names = [f'{"sub/" if number % 2 else ""}a.{number}' for number in range(len(FORMATS))]
    for number, (name, suffix) in enumerate(zip(names, FORMATS, strict=True)):
        _write(source / f'{name}.{suffix}', picture(number, *SIZES[number % 3]))
    (source / '.hidden.png').write_bytes(b'junk')
    run(source, '-o', out)
    assert list(tree(out)) == sorted(f'{name}.png' for name in names)
    for number, name in enumerate(names):
        assert cv2.imread(str(out / f'{name}.png')).shape == (*SIZES[number % 3], 3)
    before = tree(out)
    run(source, '-o', out)
    assert tree(out) == before


def test_files_are_found_once_and_in_one_order(tmp_path):
    for name in ('b/2.png', 'b/10.png', 'a.png', 'c.png', 'b/a/1.png', 'out/d.png'):
        _write(tmp_path / name)
    jobs = collect_images([tmp_path, tmp_path / 'a.png', tmp_path], tmp_path / 'out')
    assert [str(job.stem) for job in jobs] == ['a', 'b/2', 'b/10', 'b/a/1', 'c']


@pytest.mark.parametrize('image, expected', [
    (SMALL[..., 0], np.repeat(SMALL[..., :1], 3, axis=2)),
    (np.dstack([SMALL, np.full((40, 56), 90, np.uint8)]), SMALL),
    (SMALL.astype(np.uint16) * 257, SMALL),
    (SMALL[..., 0].astype(np.uint16) * 257, np.repeat(SMALL[..., :1], 3, axis=2)),
], ids=['grey', 'alpha', 'colour16', 'grey16'])
def test_other_pixel_types_become_8_bit_colour(tmp_path, image, expected):
    assert np.array_equal(PictureReader().read(_write(tmp_path / 'x.png', image))[0], expected)


def test_exif_orientation_is_applied(tmp_path):
    data = _write(tmp_path / 'x.jpg').read_bytes()
    # APP1 with a TIFF directory of one entry: orientation 6, turn 90 degrees clockwise.
    exif = (b'Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0')
    segment = b'\xff\xe1' + (len(exif) + 2).to_bytes(2, 'big') + exif
    path = tmp_path / 'turned.jpg'
    path.write_bytes(data[:2] + segment + data[2:])
    assert PictureReader().read(path)[0].shape == (56, 40, 3)


def test_bad_files_are_named_and_the_others_done(tmp_path, run):
    source = tmp_path / 'in'
    for name in ('a.png', 'z.png'):
        _write(source / name)
    _write(source / 'small.png', SMALL[:20, :20])
    (source / 'empty.jpg').touch()
    (source / 'text.jpg').write_text('not a picture')
    whole = _write(tmp_path / 'whole.png').read_bytes()
    (source / 'torn.png').write_bytes(whole[:len(whole) // 2])
    whole = _write(tmp_path / 'whole.jpg', picture(1)).read_bytes()
    half = len(whole) // 2
    (source / 'lost.jpg').write_bytes(whole[:half] + whole[half + 100:])
    # After a power loss a file may have its length, but zeros at its end.
    noise = np.random.default_rng(1).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    whole = _write(tmp_path / 'noise.jpg', noise).read_bytes()
    (source / 'zeros.jpg').write_bytes(whole[:-2000] + bytes(2000))
    (source / 'gone.png').symlink_to(tmp_path / 'nowhere.png')
    captured = run(source, '-o', tmp_path / 'out', status=1)
    assert list(tree(tmp_path / 'out')) == ['a.png', 'z.png']
    for name in ('small.png', 'empty.jpg', 'text.jpg', 'torn.png', 'gone.png', 'lost.jpg',
                 'zeros.jpg'):
        assert captured.err.count(f'derain: error: {source / name}: ') == 1
    assert 'lost.jpg: damaged in the middle (Corrupt JPEG data: ' in captured.err
    assert '2 of 9 images' in captured.out


@pytest.mark.parametrize('names, options', [
    (('x.png', 'x.jpg'), []), (('x.png', 'x_mask.png'), ['--mask'])])
def test_two_results_of_one_name_are_refused(tmp_path, names, options, derain):
    for name in names:
        _write(tmp_path / 'a' / name)
    message = derain('image', tmp_path / 'a', '-o', tmp_path / 'out', *options, status=2).err
    assert all(name in message for name in names)
    assert not (tmp_path / 'out').exists()


def _linked_folder(folder, other):
    other.symlink_to(folder)


def _symlinked_result(folder, other):
    other.mkdir()
    (other / 'x.png').symlink_to(folder / 'x.png')


def _hardlinked_result(folder, other):
    other.mkdir()
    os.link(folder / 'x.png', other / 'x.png')


@pytest.mark.parametrize('link', [None, _linked_folder, _symlinked_result, _hardlinked_result])
def test_an_input_is_never_overwritten(tmp_path, link, derain):
    source = _write(tmp_path / 'in' / 'x.png')
    before = source.read_bytes()
    output = tmp_path / ('other' if link else 'in')
    if link:
        link(tmp_path / 'in', output)
    assert 'overwrite' in derain('image', source, '-o', output, status=2).err
    assert source.read_bytes() == before


def test_outputs_that_cannot_be_written(tmp_path, run):
    (tmp_path / 'empty').mkdir()
    assert 'no picture' in run(tmp_path / 'empty', '-o', tmp_path / 'out', status=2).err
    path, blocker = _write(tmp_path / 'x.png'), tmp_path / 'file'
    blocker.write_text('mine')
    for output in (blocker, blocker / 'out'):
        assert f'{blocker}: is a file; name a folder' in run(path, '-o', output, status=2).err
    assert blocker.read_text() == 'mine'
    (tmp_path / 'out' / 'x.png').mkdir(parents=True)
    told = run(path, '-o', tmp_path / 'out', status=1).err
    assert f'derain: error: {path}: {tmp_path}/out/x.png: Is a directory' in told
    shutil.rmtree(tmp_path / 'out')
    target = tmp_path / 'target.png'
    target.mkdir()
    with pytest.raises(OSError):
        write_png(target, SMALL)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        'empty', 'file', 'target.png', 'x.png']
