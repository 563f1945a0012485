"""Packs of pictures: what goes in comes out, within the limit, and damage is named."""

import json
import zipfile

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from derain_ros.training.dry_pictures import DryPictures
from derain_ros.training.picture_pack import PackError, read_pack, write_pack


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / 'photos'
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, (height, width) in {
        'road_1.jpg': (160, 240), 'road_2.jpg': (240, 160), 'field.png': (200, 300),
        'field.bmp': (130, 130),
    }.items():
        coarse = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
        picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        noise = rng.normal(0, 12, picture.shape)
        cv2.imwrite(str(folder / name), np.clip(picture + noise, 0, 255).astype(np.uint8))
    (folder / 'broken.jpg').write_bytes(b'\xff\xd8\xff')
    (folder / 'ATTRIBUTION.tsv').write_text('file\tauthor\nroad_1.jpg\tRené\n', 'utf-8')
    return folder


def test_pictures_that_fit_go_in_as_they_are(photos, tmp_path):
    path = tmp_path / 'data.pack'
    done = write_pack(photos, path)
    assert (done.pictures, done.scenes, done.longest) == (4, 2, None)
    assert done.unreadable == ('broken.jpg',)
    assert done.size == path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        facts = json.loads(archive.read('pack.json'))
        names = [entry['name'] for entry in facts['pictures']]
        assert names == ['field.bmp', 'field.png', 'road_1.jpg', 'road_2.jpg']
        assert archive.read('pictures/00002.jpg') == (photos / 'road_1.jpg').read_bytes()
        assert archive.read('ATTRIBUTION.tsv') == (photos / 'ATTRIBUTION.tsv').read_bytes()
    read = list(read_pack(path))
    assert [scene for scene, _ in read] == ['field', 'field', 'road', 'road']
    assert np.array_equal(read[2][1], cv2.imread(str(photos / 'road_1.jpg')))
    truth = cv2.imread(str(photos / 'field.png'))
    assert cv2.PSNR(read[1][1], truth) > 26  # noise in colour, which JPEG halves
    again = tmp_path / 'again.pack'
    write_pack(photos, again)
    assert again.read_bytes() == path.read_bytes()


def test_training_takes_a_pack_as_it_takes_its_folder(photos, tmp_path):
    path = tmp_path / 'data.pack'
    write_pack(photos, path)
    packed, loose = DryPictures(path, 64), DryPictures(photos, 64)
    shapes = [[[[s.shape for s in p] for p in scene] for scene in d.scenes]
              for d in (packed, loose)]
    assert shapes[0] == shapes[1]
    assert len(packed.scenes) == 2


def test_a_limit_reduces_the_largest_pictures(photos, tmp_path):
    whole = write_pack(photos, tmp_path / 'whole.pack').size
    limit = whole * 2 // 3
    done = write_pack(photos, tmp_path / 'small.pack', limit=limit)
    assert done.size <= limit
    assert done.size > limit * 0.7
    sides = [max(p.shape[:2]) for _, p in read_pack(tmp_path / 'small.pack')]
    assert max(sides) == done.longest < 300
    assert sides[0] == 130  # the smallest keeps its size
    assert not list(tmp_path.glob('*.partial'))


def test_too_low_a_limit_and_empty_folders_are_refused(photos, tmp_path):
    with pytest.raises(PackError, match='too few for 4 pictures'):
        write_pack(photos, tmp_path / 'tiny.pack', limit=9000)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(PackError, match='no readable picture'):
        write_pack(tmp_path / 'empty', tmp_path / 'empty.pack')
    assert sorted(p.name for p in tmp_path.iterdir()) == ['empty', 'photos']


def test_the_command_reports_and_refuses(photos, tmp_path, derain):
    path = tmp_path / 'data.pack'
    captured = derain('pack', photos, '-o', path)
    assert '4 pictures of 2 scenes' in captured.out
    assert 'broken.jpg: not readable' in captured.err
    assert 'exists; remove it' in derain('pack', photos, '-o', path, status=2).err
    assert 'none: ' in derain('pack', tmp_path / 'none', '-o', tmp_path / 'b.pack', status=2).err
    (photos / 'ATTRIBUTION.tsv').unlink()
    assert 'has no credits' in derain('pack', photos, '-o', tmp_path / 'b.pack').err


def rewrite(path, facts):
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('pack.json', json.dumps(facts))
        archive.writestr('pictures/00000.jpg', b'no picture')


@pytest.mark.parametrize(('facts', 'message'), [
    ({'format': 'other', 'version': 1, 'pictures': []}, 'not a pack of pictures'),
    ({'format': 'derain-pack', 'version': 2, 'pictures': []}, 'version 2 of the format'),
    ({'format': 'derain-pack', 'version': 1}, 'damaged, or not a pack'),
    ({'format': 'derain-pack', 'version': 1, 'pictures': [{'file': '../a', 'scene': 'a'}]},
     'damaged, or not a pack'),
    ({'format': 'derain-pack', 'version': 1,
      'pictures': [{'file': 'pictures/00000.jpg', 'scene': 'a'}]}, 'is not a readable picture'),
    ([], 'damaged, or not a pack'),
    (3, 'damaged, or not a pack'),
])
def test_packs_that_are_wrong_are_named(facts, message, tmp_path):
    path = tmp_path / 'bad.pack'
    rewrite(path, facts)
    with pytest.raises(PackError, match=message) as caught:
        list(read_pack(path))
    assert 'bad.pack' in str(caught.value)


@settings(max_examples=40, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 20000), place=st.integers(0, 20000), byte=st.integers(0, 255))
@example(cut=0, place=0, byte=0)
def test_damage_anywhere_ends_in_a_pack_error_or_not_at_all(cut, place, byte, tmp_path):
    path, bad = tmp_path / 'data.pack', tmp_path / 'bad.pack'
    if not path.exists():
        (tmp_path / 'one').mkdir()
        cv2.imwrite(str(tmp_path / 'one' / 'a.jpg'), np.full((64, 64, 3), 90, np.uint8))
        write_pack(tmp_path / 'one', path)
    data = bytearray(path.read_bytes())
    data[place % len(data)] = byte
    bad.write_bytes(data[: len(data) - cut % len(data)])
    try:
        pictures = list(read_pack(bad))
    except PackError as error:
        assert 'bad.pack' in str(error)
    else:
        assert all(picture.ndim == 3 for _, picture in pictures)
