"""``derain image`` on real files: formats, sizes, names, and what must never happen."""

import os

import cv2
import numpy as np
import pytest

from derain_ros.cli import main
from derain_ros.engines import create_engine
from derain_ros.files.image_files import (
    PictureReader,
    check_outputs,
    collect_images,
    derain_images,
    write_png,
)
from derain_ros.images.overlay import draw_overlay

SIZES = ((40, 56), (33, 90), (56, 40))
FORMATS = ('png', 'jpg', 'jpeg', 'bmp', 'tif', 'tiff', 'webp', 'PNG')


def _picture(height=40, width=56, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def _write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    _, data = cv2.imencode(path.suffix.lower(), image)
    path.write_bytes(data)
    return path


def _derain(engine, path, out, **options):
    """What the command does, with an engine that is there already."""
    jobs = collect_images([path], out)
    check_outputs(jobs, out, mask=False, overlay=False)
    results = list(derain_images(jobs, engine, out, **options))
    assert [result.error for result in results] == [None] * len(jobs)


def _files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file())


@pytest.fixture(scope='module')
def engine():
    engine = create_engine('auto', 'nano')
    yield engine
    engine.close()


def test_result_is_that_of_the_engine(tmp_path, engine):
    picture = _picture()
    _write(tmp_path / 'x.png', picture)
    out = tmp_path / 'out'
    assert main(['image', str(tmp_path / 'x.png'), '-o', str(out), '--mask', '--overlay']) == 0
    assert _files(out) == ['x.png', 'x_mask.png', 'x_overlay.png']
    expected = engine.infer(picture[np.newaxis])
    assert np.array_equal(cv2.imread(str(out / 'x.png')), expected.image[0])
    mask = cv2.imread(str(out / 'x_mask.png'), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(mask, expected.rain_mask[0])
    overlay = cv2.imread(str(out / 'x_overlay.png'))
    assert np.array_equal(overlay, draw_overlay(picture, expected.rain_mask[0]))


def test_strength_keeps_part_of_the_rain(tmp_path, engine):
    picture = _picture()
    source = _write(tmp_path / 'x.png', picture)
    assert main(['image', str(source), '-o', str(tmp_path / '0'), '--strength', '0']) == 0
    for strength in (0.5, 1):
        _derain(engine, source, tmp_path / str(strength), strength=strength)
    none, half, full = [
        cv2.imread(str(tmp_path / name / 'x.png')).astype(int) for name in ('0', '0.5', '1')]
    assert np.array_equal(none, picture)
    assert np.abs(half - (none + full) / 2).max() <= 1


def test_folders_of_mixed_sizes_and_formats(tmp_path):
    source = tmp_path / 'in'
    for number, suffix in enumerate(FORMATS):
        name = source / ('sub' if number % 2 else '.') / f'a.{number}.{suffix}'
        _write(name, _picture(*SIZES[number % 3], number))
    (source / 'notes.txt').write_text('no picture')
    (source / '.hidden.png').write_bytes(b'junk')
    out = tmp_path / 'out'
    assert main(['image', str(source), '-o', str(out)]) == 0
    assert _files(out) == sorted(
        f'{"sub/" if number % 2 else ""}a.{number}.png' for number in range(len(FORMATS)))
    for number in range(len(FORMATS)):
        result = cv2.imread(str(out / ('sub' if number % 2 else '.') / f'a.{number}.png'))
        assert result.shape == (*SIZES[number % 3], 3)


def test_files_are_found_in_one_order_wherever_they_come_from(tmp_path):
    for name in ('b/2.png', 'b/10.png', 'a.png', 'c.png', 'b/a/1.png'):
        _write(tmp_path / name, _picture())
    jobs = collect_images([tmp_path], tmp_path / 'out')
    assert [str(job.stem) for job in jobs] == ['a', 'b/2', 'b/10', 'b/a/1', 'c']


def test_second_run_leaves_its_own_results_alone(tmp_path, engine):
    _write(tmp_path / 'x.jpg', _picture())
    _derain(engine, tmp_path, tmp_path / 'out')
    first = (tmp_path / 'out' / 'x.png').read_bytes()
    _derain(engine, tmp_path, tmp_path / 'out')
    assert _files(tmp_path) == ['out/x.png', 'x.jpg']
    assert (tmp_path / 'out' / 'x.png').read_bytes() == first


@pytest.mark.parametrize('image, expected', [
    (_picture()[..., 0], np.repeat(_picture()[..., :1], 3, axis=2)),
    (np.dstack([_picture(), np.full((40, 56), 90, np.uint8)]), _picture()),
    (_picture().astype(np.uint16) * 257, _picture()),
    (_picture()[..., 0].astype(np.uint16) * 257, np.repeat(_picture()[..., :1], 3, axis=2)),
], ids=['grey', 'alpha', 'colour16', 'grey16'])
def test_other_pixel_types_become_8_bit_colour(tmp_path, image, expected):
    path = _write(tmp_path / 'x.png', image)
    assert np.array_equal(PictureReader().read(path)[0], expected)


def test_exif_orientation_is_applied(tmp_path):
    _, data = cv2.imencode('.jpg', _picture(40, 56))
    data = data.tobytes()
    # APP1 with a TIFF directory of one entry: orientation 6, turn 90 degrees clockwise.
    exif = (b'Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0')
    segment = b'\xff\xe1' + (len(exif) + 2).to_bytes(2, 'big') + exif
    path = tmp_path / 'turned.jpg'
    path.write_bytes(data[:2] + segment + data[2:])
    assert PictureReader().read(path)[0].shape == (56, 40, 3)


def test_bad_files_are_named_and_the_others_done(tmp_path, capsys):
    source = tmp_path / 'in'
    _write(source / 'a.png', _picture())
    _write(source / 'small.png', _picture(20, 20))
    (source / 'empty.jpg').touch()
    (source / 'text.jpg').write_text('not a picture')
    whole = _write(tmp_path / 'whole.png', _picture()).read_bytes()
    (source / 'torn.png').write_bytes(whole[:len(whole) // 2])
    whole = _write(tmp_path / 'whole.jpg', _picture(96, 128)).read_bytes()
    half = len(whole) // 2
    (source / 'lost.jpg').write_bytes(whole[:half] + whole[half + 100:])
    (source / 'gone.png').symlink_to(tmp_path / 'nowhere.png')
    _write(source / 'z.png', _picture())
    assert main(['image', str(source), '-o', str(tmp_path / 'out')]) == 1
    assert _files(tmp_path / 'out') == ['a.png', 'z.png']
    captured = capsys.readouterr()
    for name in ('small.png', 'empty.jpg', 'text.jpg', 'torn.png', 'gone.png', 'lost.jpg'):
        assert captured.err.count(f'derain: error: {source / name}: ') == 1
    assert 'lost.jpg: damaged in the middle (Corrupt JPEG data: ' in captured.err
    assert '2 of 8 images' in captured.out
    assert 'Traceback' not in captured.err


def test_two_inputs_with_one_output_are_refused(tmp_path, capsys):
    _write(tmp_path / 'a' / 'x.png', _picture())
    _write(tmp_path / 'a' / 'x.jpg', _picture())
    assert main(['image', str(tmp_path / 'a'), '-o', str(tmp_path / 'out')]) == 2
    message = capsys.readouterr().err
    assert 'x.png' in message and 'x.jpg' in message
    assert not (tmp_path / 'out').exists()


def test_a_mask_that_meets_another_result_is_refused(tmp_path):
    _write(tmp_path / 'a' / 'x.png', _picture())
    _write(tmp_path / 'a' / 'x_mask.png', _picture())
    arguments = ['image', str(tmp_path / 'a'), '-o', str(tmp_path / 'out')]
    assert main([*arguments, '--mask']) == 2
    assert not (tmp_path / 'out').exists()


def test_one_file_named_twice_is_done_once(tmp_path):
    path = _write(tmp_path / 'x.png', _picture())
    job, = collect_images([path, tmp_path, path], tmp_path / 'out')
    assert str(job.stem) == 'x'


def _same_folder(folder):
    return folder


def _linked_folder(folder):
    link = folder.with_name('link')
    link.symlink_to(folder)
    return link


def _symlinked_result(folder):
    other = folder.with_name('other')
    other.mkdir()
    (other / 'x.png').symlink_to(folder / 'x.png')
    return other


def _hardlinked_result(folder):
    other = folder.with_name('other')
    other.mkdir()
    os.link(folder / 'x.png', other / 'x.png')
    return other


@pytest.mark.parametrize(
    'output_for', [_same_folder, _linked_folder, _symlinked_result, _hardlinked_result])
def test_an_input_is_never_overwritten(tmp_path, output_for, capsys):
    source = _write(tmp_path / 'in' / 'x.png', _picture())
    before = source.read_bytes()
    output = output_for(tmp_path / 'in')
    assert main(['image', str(source), '-o', str(output)]) == 2
    assert 'overwrite' in capsys.readouterr().err
    assert source.read_bytes() == before
    assert source.stat().st_size == len(before)


def test_results_beside_inputs_of_another_format(tmp_path, engine):
    source = _write(tmp_path / 'x.jpg', _picture())
    before = source.read_bytes()
    _derain(engine, source, tmp_path)
    assert source.read_bytes() == before
    assert _files(tmp_path) == ['x.jpg', 'x.png']


def test_a_folder_without_pictures_and_a_file_as_output_are_refused(tmp_path, capsys):
    (tmp_path / 'empty').mkdir()
    assert main(['image', str(tmp_path / 'empty'), '-o', str(tmp_path / 'out')]) == 2
    assert 'no picture' in capsys.readouterr().err
    path = _write(tmp_path / 'x.png', _picture())
    blocker = tmp_path / 'file'
    blocker.write_text('mine')
    assert main(['image', str(path), '-o', str(blocker)]) == 2
    assert blocker.read_text() == 'mine'


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path, capsys):
    path = _write(tmp_path / 'x.png', _picture())
    blocker = tmp_path / 'file'
    blocker.write_text('mine')
    assert main(['image', str(path), '-o', str(blocker / 'out')]) == 1
    assert f'derain: error: {path}: ' in capsys.readouterr().err
    assert blocker.read_text() == 'mine'


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    target = tmp_path / 'x.png'
    target.mkdir()
    (target / 'kept').touch()
    with pytest.raises(OSError):
        write_png(target, _picture())
    assert _files(tmp_path) == ['x.png/kept']
