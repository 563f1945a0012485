"""Bags that are cut, split or packed, in commands that read one; test/bags has `derain bag`."""

import pytest
from bag_files import long_drive, write_bag

from derain_ros.cli import main

TOPIC = '/cam/image_raw'


def _paired_drive(frames=24):
    """Rows of a drive whose frames lie a second time on the topic of the ground truth."""
    return [row for topic, *rest in long_drive(frames)
            for row in [(topic, *rest)] + ([(f'{TOPIC}/dry', *rest)] if topic == TOPIC else [])]


@pytest.fixture
def run(tmp_path, cut_model):
    """Run a command on a bag; returns its exit status."""
    def run(command, bag):
        options = {
            'video': ['-o', tmp_path / 'video.avi', '--topic', TOPIC, *cut_model],
            'rain': ['-o', tmp_path / 'rain', '--topics', '/rear/image_raw'],
            'gate': ['--topic', TOPIC, '--rain', *cut_model],
            'evaluate': ['--rainy-topic', TOPIC, '--clean-topic', f'{TOPIC}/dry', *cut_model]}
        return main([command, str(bag), *map(str, options[command])])
    return run


@pytest.mark.parametrize('command, storage', [
    ('video', 'sqlite3'), ('rain', 'mcap'), ('gate', 'sqlite3'), ('evaluate', 'mcap')])
def test_a_cut_bag_is_read_as_far_as_it_goes(storage, command, tmp_path, run, capsys):
    bag = write_bag(tmp_path / 'in', _paired_drive(), storage)
    file = next(path for path in bag.iterdir() if path.suffix != '.yaml')
    content = file.read_bytes()
    file.write_bytes(content[:len(content) * 2 // 3])
    assert run(command, bag) == 1
    captured = capsys.readouterr()
    assert f'damaged: {file.name}, byte ' in captured.err
    assert 'Traceback' not in captured.err
    if command == 'video':
        assert any(f'{count} frames of 96x64' in captured.out for count in range(10, 20))


def test_the_run_file_of_one_bag_lies_in_the_folder_that_is_named(tmp_path, cut_model, derain):
    command = ['evaluate', write_bag(tmp_path / 'in', _paired_drive(2)), '--rainy-topic', TOPIC,
               '--clean-topic', f'{TOPIC}/dry', *cut_model, '-o']
    derain(*command, tmp_path / 'runs')
    assert [path.name for path in (tmp_path / 'runs').iterdir()] == ['in.json']
    file = tmp_path / 'runs' / 'in.json'
    assert f'{file}: is a file' in derain(*command, file, status=2).err


@pytest.mark.parametrize('command, storage, compression', [
    ('video', 'mcap', 'storage'), ('rain', 'sqlite3', 'file'), ('gate', 'sqlite3', 'message')])
def test_a_packed_bag_is_read_as_any_other(storage, compression, command, tmp_path, run, capsys):
    bag = write_bag(tmp_path / 'in', _paired_drive(4), storage, compression=compression)
    assert run(command, bag) == 0
    assert 'damaged' not in capsys.readouterr().err


@pytest.mark.parametrize('command', ['video', 'gate', 'evaluate'])
def test_a_file_that_is_not_read_is_named(command, tmp_path, run, capsys):
    bag = write_bag(tmp_path / 'in', _paired_drive(4))
    (bag / 'more.mcap').touch()
    assert run(command, bag) == 0
    assert capsys.readouterr().err.count('metadata.yaml does not list more.mcap; it is not') == 1
