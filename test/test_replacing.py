"""A file is replaced whole or not at all."""

import os

import pytest

from derain_ros.files.run_files import check_output
from derain_ros.replacing import replace_file, replacing


@pytest.mark.parametrize('content', [b'\x00\xff', 'Grüße\n'])
def test_a_file_is_written_and_replaced(tmp_path, content):
    path = tmp_path / 'file.json'
    path.write_text('before')
    replace_file(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(tmp_path.iterdir()) == [path]


def test_whoever_reads_meanwhile_sees_the_file_of_before(tmp_path):
    path = tmp_path / 'clip.mp4'
    path.write_text('before')
    with replacing(path) as partial:
        assert partial.parent == tmp_path
        assert partial.name.startswith('.')
        partial.write_text('after')
        assert path.read_text() == 'before'
    assert path.read_text() == 'after'


def test_a_writer_that_fails_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / 'file'
    path.write_text('before')
    with pytest.raises(OSError, match='No space'), replacing(path) as partial:
        partial.write_text('hal')
        raise OSError(28, 'No space left on device')
    assert path.read_text() == 'before'
    assert list(tmp_path.iterdir()) == [path]


def test_a_pipe_stays_one_and_is_written_to(tmp_path):
    path = tmp_path / 'pipe'
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    check_output(path)
    replace_file(path, 'said')
    assert os.read(reader, 9) == b'said' and path.is_fifo()


def test_two_writers_of_a_file_do_not_meet(tmp_path):
    path = tmp_path / 'file'
    with replacing(path) as first, replacing(path) as second:
        first.write_text('first')
        second.write_text('second')
    assert path.read_text() == 'first'
    assert list(tmp_path.iterdir()) == [path]
