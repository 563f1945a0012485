"""The JSON files that measurements leave: whole or not at all, and never taken for another's."""

import hashlib
import json

import pytest

from derain_ros.files import FileError
from derain_ros.files.run_files import FORMAT, bag_facts, read_run, write_run
from derain_ros.report.schemas import SCHEMAS


def test_what_was_written_is_read(tmp_path):
    run = {'format': FORMAT, 'kind': 'bag', 'messages': 3, 'rain': [0.5, None]}
    write_run(tmp_path / 'run.json', run)
    assert json.loads((tmp_path / 'run.json').read_text()) == run
    assert [path.name for path in tmp_path.iterdir()] == ['run.json']


def test_a_file_that_cannot_be_written_leaves_the_earlier_one(tmp_path):
    run = {'format': FORMAT, 'kind': 'bag'}
    write_run(tmp_path / 'run.json', run)
    with pytest.raises(ValueError, match='JSON compliant'):
        write_run(tmp_path / 'run.json', run | {'psnr': float('nan')})
    assert json.loads((tmp_path / 'run.json').read_text()) == run
    for use in (lambda path: write_run(path, run), lambda path: read_run(path, SCHEMAS)):
        with pytest.raises(FileNotFoundError, match='No such file') as error:
            use(tmp_path / 'missing' / 'run.json')
        assert error.value.filename == str(tmp_path / 'missing' / 'run.json')


@pytest.mark.parametrize(('text', 'reason'), [
    ('', 'not JSON'),
    ('\xff\xfe\x00', 'not JSON'),
    ('{"kind": "bag"', 'not JSON'),
    ('[' * 100_000, 'not JSON'),
    ('[]', 'not a run file'),
    ('{"kind": "song"}', 'not a run file'),
    ('{"kind": ["bag"]}', 'not a run file'),
    ('{"kind": "bag"}', 'has format None'),
    ('{"kind": "bag", "format": 999}', 'has format 999'),
])
def test_other_files_are_refused_by_name(tmp_path, text, reason):
    path = tmp_path / 'other.json'
    path.write_text(text, encoding='latin-1')
    with pytest.raises(FileError, match=f'other.json: .*{reason}'):
        read_run(path, SCHEMAS)


def test_a_bag_is_known_by_its_storage_files(tmp_path):
    bag = tmp_path / 'drive'
    bag.mkdir()
    (bag / 'drive_1.mcap').write_bytes(b'two')
    (bag / 'drive_0.mcap').write_bytes(b'one')
    (bag / 'metadata.yaml').write_text('rosbag2_bagfile_information:\n')
    one, two = hashlib.sha256(b'one').hexdigest(), hashlib.sha256(b'two').hexdigest()
    facts = bag_facts(bag)
    assert facts['files'] == [
        {'name': 'drive_0.mcap', 'bytes': 3, 'sha256': one},
        {'name': 'drive_1.mcap', 'bytes': 3, 'sha256': two}]
    # As `sha256sum` with one space prints it.
    lines = f'{one} drive_0.mcap\n{two} drive_1.mcap\n'
    assert facts['sha256'] == hashlib.sha256(lines.encode()).hexdigest()
    assert bag_facts(bag / 'drive_0.mcap')['files'] == facts['files'][:1]
