"""Bags that are cut, split or packed, in every command that reads a bag."""

import pytest
import yaml
from bag_files import long_drive, messages_on, read_bag, write_bag

from derain_ros.cli import main
from derain_ros.files.frame_sources import BagFrames

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
            'bag': ['-o', tmp_path / 'bag', '--topics', TOPIC, *cut_model],
            'video': ['-o', tmp_path / 'video.avi', '--topic', TOPIC, *cut_model],
            'rain': ['-o', tmp_path / 'rain', '--topics', '/rear/image_raw'],
            'gate': ['--topic', TOPIC, '--rain', *cut_model],
            'evaluate': ['--rainy-topic', TOPIC, '--clean-topic', f'{TOPIC}/dry', *cut_model]}
        return main([command, str(bag), *map(str, options[command])])
    return run


@pytest.mark.parametrize('command, storage', [
    ('bag', 'mcap'), ('video', 'sqlite3'), ('rain', 'mcap'), ('gate', 'sqlite3'),
    ('evaluate', 'mcap')])
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


@pytest.mark.parametrize('command, storage, compression', [
    ('bag', 'mcap', 'file'), ('video', 'mcap', 'storage'), ('rain', 'sqlite3', 'file'),
    ('gate', 'sqlite3', 'message'), ('evaluate', 'mcap', 'storage')])
def test_a_packed_bag_is_read_as_any_other(storage, compression, command, tmp_path, run, capsys):
    bag = write_bag(tmp_path / 'in', _paired_drive(4), storage, compression=compression)
    assert run(command, bag) == 0
    assert 'damaged' not in capsys.readouterr().err


def test_the_files_of_a_split_bag_are_read_as_one(tmp_path):
    rows = _paired_drive(9)
    bag = write_bag(tmp_path / 'in', rows[:18])
    other = write_bag(tmp_path / 'other', rows[18:])
    (other / 'other.mcap').rename(bag / 'other.mcap')
    metadata = yaml.safe_load((bag / 'metadata.yaml').read_text())
    metadata['rosbag2_bagfile_information']['relative_file_paths'].append('other.mcap')
    (bag / 'metadata.yaml').write_text(yaml.safe_dump(metadata))
    frames = list(BagFrames(bag, TOPIC, clean_topic=f'{TOPIC}/dry').read())
    assert [frame.position for frame in frames] == list(range(9))
    assert len(messages_on(read_bag(bag), TOPIC)) == 9
