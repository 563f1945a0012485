"""Bags that are cut, split or packed, in every command that reads a bag."""

import pytest
import yaml
from bag_files import STORAGES, long_drive, messages_on, read_bag, write_bag

from derain_ros.cli import main
from derain_ros.files.frame_sources import BagFrames

TOPIC = '/cam/image_raw'
PACKED = [('mcap', 'storage'), ('mcap', 'file'), ('sqlite3', 'file'), ('sqlite3', 'message')]


def _paired_drive(frames=24):
    """Rows of a drive whose frames lie a second time on the topic of the ground truth."""
    return [row for topic, *rest in long_drive(frames)
            for row in [(topic, *rest)] + ([(f'{TOPIC}/dry', *rest)] if topic == TOPIC else [])]


def _commands(bag, folder):
    """Each command that reads bags, and what shows how many frames it has seen."""
    engine = ['--precision', 'f32']
    return {
        'bag': ['bag', bag, '-o', folder / 'bag', '--topics', TOPIC, *engine],
        'video': ['video', bag, '-o', folder / 'video.avi', '--topic', TOPIC, *engine],
        'rain': ['rain', bag, '-o', folder / 'rain', '--topics', '/rear/image_raw'],
        'gate': ['gate', bag, '--topic', TOPIC, '--rain', *engine],
        'evaluate': ['evaluate', bag, '--rainy-topic', TOPIC,
                     '--clean-topic', f'{TOPIC}/dry'],
    }


def _storage_file(bag):
    return next(path for path in bag.iterdir() if path.suffix != '.yaml')


@pytest.mark.parametrize('command', ['bag', 'video', 'rain', 'gate', 'evaluate'])
@pytest.mark.parametrize('storage', STORAGES)
def test_a_cut_bag_is_read_as_far_as_it_goes(storage, command, tmp_path, capsys):
    bag = write_bag(tmp_path / 'in', _paired_drive(), storage)
    file = _storage_file(bag)
    content = file.read_bytes()
    file.write_bytes(content[:len(content) * 2 // 3])
    assert main([str(part) for part in _commands(bag, tmp_path)[command]]) == 1
    captured = capsys.readouterr()
    assert f'damaged: {file.name}, byte ' in captured.err
    assert 'Traceback' not in captured.err
    if command == 'video':
        assert any(f'{count} frames of 96x64' in captured.out for count in range(10, 20))


@pytest.mark.parametrize('command', ['bag', 'video', 'rain', 'gate', 'evaluate'])
@pytest.mark.parametrize('storage, compression', PACKED)
def test_a_packed_bag_is_read_as_any_other(storage, compression, command, tmp_path, capsys):
    bag = write_bag(tmp_path / 'in', _paired_drive(8), storage, compression=compression)
    assert main([str(part) for part in _commands(bag, tmp_path)[command]]) == 0
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
