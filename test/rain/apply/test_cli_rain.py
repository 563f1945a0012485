"""``derain rain`` on pictures: pairs, truth, repeatability, options, and what is refused."""

import hashlib

import cv2
import numpy as np
from bag_files import picture, tree

from derain_ros.cli import main
from derain_ros.rain import RainClip


def _write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    _, data = cv2.imencode(path.suffix, image)
    path.write_bytes(data)
    return path


def _photos(folder):
    _write(folder / 'a.png', picture(1))
    _write(folder / 'b.jpg', picture(2, 80, 64))
    _write(folder / 'more' / 'a.png', picture(3))
    return folder


def _plain(tmp_path, value, *options):
    """What the command makes of a picture of one grey, int."""
    source = _write(tmp_path / 'in' / 'x.png', np.full((160, 200, 3), value, np.uint8))
    assert main(['rain', str(source), '-o', str(tmp_path / 'out'), *options]) == 0
    return cv2.imread(str(tmp_path / 'out' / 'x.png')).astype(int)


def test_a_folder_gets_pairs_by_name_with_the_rain_of_seed_and_name(tmp_path, capsys):
    source = _photos(tmp_path / 'in')
    before = tree(source)
    arguments = ['--intensity', '0.6', '--wind', '-20', '--model', 'screen', '--mist', '0.2']
    for out, seed in (('out', '5'), ('other', '2')):
        assert main(['rain', str(source), '-o', str(tmp_path / out), '--seed', seed,
                     *arguments]) == 0
    assert main(['rain', str(source / 'a.png'), '-o', str(tmp_path / 'alone'), '--seed', '5',
                 *arguments]) == 0
    assert tree(source) == before
    results = tree(tmp_path / 'out')
    assert list(results) == ['a.png', 'b.png', 'more/a.png']
    assert '3 of 3 pictures' in capsys.readouterr().out
    assert tree(tmp_path / 'alone') == {'a.png': results['a.png']}
    assert all(data != results[name] for name, data in tree(tmp_path / 'other').items())
    for name, dry in (('a', picture(1)), ('more/a', picture(3))):
        digest = hashlib.blake2b(f'5/{name}'.encode(), digest_size=8).hexdigest()
        clip = RainClip(0.6, int(digest, 16), wind=-20, model='screen', mist=0.2)
        rainy = cv2.imread(str(tmp_path / 'out' / f'{name}.png'))
        assert np.array_equal(rainy, clip.render(dry, 0).image)
        assert np.abs(rainy.astype(int) - dry).mean() > 1


def test_streaks_are_the_truth(tmp_path):
    rainy = _plain(tmp_path, 60, '--model', 'additive', '--mist', '0', '--intensity', '0.8',
                   '--streaks', str(tmp_path / 'streaks'))
    truth = cv2.imread(str(tmp_path / 'streaks' / 'x.png'), cv2.IMREAD_UNCHANGED)
    assert truth.dtype == np.uint8 and truth.shape == (160, 200)
    added = rainy - 60
    luma = added @ np.array([0.114, 0.587, 0.299])
    assert np.abs(luma - truth).max() <= 0.51
    assert (added >= 0).all()
    assert 0.01 < (truth > 8).mean() < 0.99


def test_intensity_0_and_no_mist_keep_every_pixel(tmp_path):
    source = _write(tmp_path / 'x.png', picture(4))
    arguments = ['--intensity', '0', '--mist', '0', '--streaks', str(tmp_path / 'streaks')]
    assert main(['rain', str(source), '-o', str(tmp_path / 'out'), *arguments]) == 0
    assert np.array_equal(cv2.imread(str(tmp_path / 'out' / 'x.png')), picture(4))
    assert not cv2.imread(str(tmp_path / 'streaks' / 'x.png')).any()


def test_options_reach_the_renderer(tmp_path):
    for model in ('additive', 'screen', 'occlusion'):
        rainy = _plain(tmp_path / model, 255, '--model', model, '--mist', '0', '--seed', '2')
        assert (rainy < 255).any() == (model == 'occlusion'), 'a drop that occludes darkens white'
    misty = _plain(tmp_path, 0, '--mist', '1', '--intensity', '0')
    assert misty[:5].mean() > 150 and misty[-1].mean() < misty[0].mean() - 30
    for wind, foot in (('40', 1), ('-40', -1)):
        rainy = _plain(
            tmp_path / wind, 0, '--wind', wind, '--mist', '0', '--intensity', '0.3')[..., 1]
        rainy = rainy - rainy.mean()
        along, across = ((rainy * np.roll(rainy, (-5, -4 * columns), (0, 1)))[:-5, 4:-4].mean()
                         for columns in (foot, -foot))
        assert along > 0.15 * rainy.var() and across < 0.05 * rainy.var()


def test_a_second_run_does_not_take_its_own_results_in(tmp_path):
    source = _photos(tmp_path / 'in')
    arguments = ['rain', str(source), '-o', str(source / 'rainy'),
                 '--streaks', str(source / 'streaks')]
    assert main(arguments) == 0
    first = tree(source)
    assert main(arguments) == 0
    assert tree(source) == first
    assert len(first) == 9


def test_requests_that_do_not_fit_are_refused(tmp_path, derain):
    source = _photos(tmp_path / 'in')
    before = tree(tmp_path)
    out = tmp_path / 'out'
    (tmp_path / 'link').symlink_to(source)
    for arguments, words in (
        ((tmp_path / 'none.png', '-o', out), ('none.png', 'no such file')),
        ((source, '-o', source), (str(source), 'is the input')),
        ((source, '-o', tmp_path / 'link'), ('link', 'is the input')),
        ((source / 'a.png', '-o', source), ('a.png', 'overwrite')),
        ((source / 'a.png', '-o', tmp_path / 'b.png'), ('b.png', 'folder')),
        ((source, '-o', out, '--streaks', out), (str(out), 'their own')),
        ((source, '-o', out, '--streaks', source), (str(source), 'their own')),
        ((source / 'a.png', '-o', out, '--streaks', source), ('a.png', 'overwrite')),
        ((source, '-o', out, '--topics', '/cam'), ('--topics', 'bags')),
        ((source, '-o', out, '--speed-topic', '/odom'),
         (f'--speed-topic is for bags; {source} is not a bag',)),
        ((source, '-o', out, '--rate-mm-h', 25, '--intensity', 0),
         ('--rate-mm-h', 'replaces --intensity')),
    ):
        message = derain('rain', *arguments, status=2).err
        assert all(word in message for word in words), message
        (tmp_path / 'link').unlink(missing_ok=True)
        assert tree(tmp_path) == before
        (tmp_path / 'link').symlink_to(source)
