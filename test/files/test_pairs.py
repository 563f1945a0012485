"""Which picture belongs to which: names in folders, stamps in bags."""

import numpy as np
import pytest
from bag_files import COMPRESSED, IMAGE, START, STORAGES, compressed, image, picture, write_bag
from evaluate_files import clean_picture, rainy_picture, write_pairs, write_picture

from derain_ros.bags.damage import BagError
from derain_ros.files import FileError
from derain_ros.files.frame_sources import BagFrames, FolderFrames
from derain_ros.files.pairs import BadPair

RAINY, CLEAN = '/cam/image_raw', '/cam/image_raw/dry'


def _names(source):
    return [pair.name for pair in source.read()]


def test_pairs_go_by_name_and_numbers_are_numbers(tmp_path):
    write_pairs(tmp_path, ['frame_10.png', 'frame_9.png', 'sub/frame_1.png'])
    source = FolderFrames(tmp_path / 'rainy', clean=tmp_path / 'clean')
    assert len(source) == 3
    assert _names(source) == ['frame_9.png', 'frame_10.png', 'sub/frame_1.png']
    first = next(source.read())
    assert np.array_equal(first.rainy, rainy_picture())
    assert np.array_equal(first.clean, clean_picture())
    assert [pair.position for pair in source.read()] == [0, 1, 2]


def test_a_suffix_may_differ_but_the_same_one_comes_first(tmp_path):
    rainy, clean = tmp_path / 'rainy', tmp_path / 'clean'
    for number, name in enumerate(('a.png', 'a.bmp', 'b.png')):
        write_picture(rainy / name, rainy_picture(number))
    write_picture(clean / 'a.tif', np.full((48, 64, 3), 1, np.uint8))
    write_picture(clean / 'a.png', np.full((48, 64, 3), 2, np.uint8))
    write_picture(clean / 'b.bmp', np.full((48, 64, 3), 3, np.uint8))
    found = {pair.name: pair.clean[0, 0, 0] for pair in FolderFrames(rainy, clean=clean).read()}
    assert found == {'a.bmp': 1, 'a.png': 2, 'b.png': 3}


def test_two_partners_are_one_too_many(tmp_path):
    write_picture(tmp_path / 'rainy' / 'a.png', rainy_picture())
    for suffix in ('bmp', 'tif'):
        write_picture(tmp_path / 'clean' / f'a.{suffix}', clean_picture())
    with pytest.raises(FileError, match=r'a\.png could go with .*a\.bmp or .*a\.tif'):
        FolderFrames(tmp_path / 'rainy', clean=tmp_path / 'clean')


@pytest.mark.parametrize('side, other', [('rainy', 'clean'), ('clean', 'rainy')])
def test_a_missing_partner_is_named(tmp_path, side, other):
    write_pairs(tmp_path, ['a.png', 'b.png'])
    (tmp_path / other / 'b.png').unlink()
    with pytest.raises(FileError) as error:
        FolderFrames(tmp_path / 'rainy', clean=tmp_path / 'clean')
    assert str(tmp_path / side / 'b.png') in str(error.value)
    assert str(tmp_path / other / 'b.png') in str(error.value)
    assert 'a.png' not in str(error.value)
    for number in range(7):
        write_picture(tmp_path / side / f'rain-{number}.png', rainy_picture())
    (tmp_path / other / 'a.png').rename(tmp_path / other / 'norain-1.png')
    with pytest.raises(FileError, match='5 more have none; no picture has one'):
        FolderFrames(tmp_path / 'rainy', clean=tmp_path / 'clean')


def test_clean_pictures_inside_the_rainy_folder(tmp_path):
    write_picture(tmp_path / 'a.png', rainy_picture())
    write_picture(tmp_path / 'clean' / 'a.png', clean_picture())
    assert _names(FolderFrames(tmp_path, clean=tmp_path / 'clean')) == ['a.png']


def test_two_files_are_a_pair(tmp_path):
    rainy = write_picture(tmp_path / 'wet.png', rainy_picture())
    clean = write_picture(tmp_path / 'dry.bmp', clean_picture())
    assert _names(FolderFrames(rainy, clean=clean)) == ['wet.png']
    with pytest.raises(FileError, match='is a file'):
        FolderFrames(rainy, clean=tmp_path)
    with pytest.raises(FileError, match='is a file'):
        FolderFrames(tmp_path, clean=clean)
    with pytest.raises(FileError, match='the same'):
        FolderFrames(rainy, clean=rainy)
    with pytest.raises(FileError, match='no such file'):
        FolderFrames(tmp_path / 'none', clean=tmp_path)


def _clip(stamps, clean_stamps, make=image):
    msgtype = IMAGE if make is image else COMPRESSED
    rows = [(RAINY, msgtype, START + 2 * at, make(at, stamp)) for at, stamp in enumerate(stamps)]
    rows += [(CLEAN, msgtype, START + 2 * at + 1, make(100 + at, stamp))
             for at, stamp in enumerate(clean_stamps)]
    return sorted(rows, key=lambda row: row[2])


@pytest.mark.parametrize('storage', STORAGES)
@pytest.mark.parametrize('make', [image, compressed])
def test_frames_pair_by_stamp_whatever_their_order(tmp_path, storage, make):
    stamps = [START + number for number in (5, 1, 2, 3, 4)]
    write_bag(tmp_path / 'bag', _clip(stamps, sorted(stamps), make), storage)
    pairs = list(BagFrames(tmp_path / 'bag', RAINY, clean_topic=CLEAN).read())
    assert [pair.position for pair in pairs] == [0, 1, 2, 3, 4]
    assert pairs[0].name == '1700000000.000000012'
    for pair, partner in zip(pairs, (104, 100, 101, 102, 103), strict=True):
        if make is image:
            assert np.array_equal(pair.rainy, picture(pair.position))
            assert np.array_equal(pair.clean, picture(partner))
        difference = np.abs(pair.clean.astype(int) - picture(partner))
        assert difference.mean() < 10


def test_frames_without_partner_and_repeated_stamps_are_left_out(tmp_path):
    rows = _clip([START, START + 1, START + 1, START + 2, 0], [START + 2, START + 1, START + 9, 0])
    write_bag(tmp_path / 'bag', rows)
    source = BagFrames(tmp_path / 'bag', RAINY.lstrip('/'), clean_topic=CLEAN)
    pair, = source.read()
    assert (pair.position, pair.name) == (3, '1700000000.000000009')
    described = source.describe()
    assert (described['repeated_rainy'], described['repeated_clean']) == (3, 1)
    assert (described['unpaired_rainy'], described['unpaired_clean']) == (1, 2)
    assert len(source) == 1


def test_bad_frames_of_a_bag_are_named(tmp_path):
    rows = _clip([START, START + 1, START + 2], [START, START + 1])
    rows += [(CLEAN, IMAGE, START + 99, image(7, START + 2, encoding='32FC1'))]
    rows[0] = (RAINY, IMAGE, START, image(1, START, height=32, data=picture(0)[:32].ravel()))
    write_bag(tmp_path / 'bag', rows)
    small, good, other_type = BagFrames(tmp_path / 'bag', RAINY, clean_topic=CLEAN).read()
    assert isinstance(small, BadPair) and '96x32' in small.reason and RAINY in small.reason
    assert good.position == 1
    assert isinstance(other_type, BadPair) and '32FC1' in other_type.reason
    assert f'{CLEAN} at 1700000000.000000009' in other_type.reason


def test_no_common_stamp_and_a_damaged_bag(tmp_path):
    write_bag(tmp_path / 'bag', _clip([START, START + 1], [START + 2]))
    with pytest.raises(BagError, match=f'2 on {RAINY} and 1 on {CLEAN}'):
        BagFrames(tmp_path / 'bag', RAINY, clean_topic=CLEAN)
    torn = [(RAINY, IMAGE, START, b'\x00\x01\x00\x00torn'), *_clip([], [START])]
    write_bag(tmp_path / 'torn', torn)
    with pytest.raises(BagError, match='no frames have'):
        BagFrames(tmp_path / 'torn', RAINY, clean_topic=CLEAN)
