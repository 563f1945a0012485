"""What options take for numbers, counts and sizes."""

import argparse

import pytest

from derain_ros.commands.arguments import (
    count,
    count_or_none,
    positive_number,
    share,
    size_in_pixels,
)


@pytest.mark.parametrize(('read', 'text', 'value'), [
    (share, '0', 0.0), (share, '1', 1.0), (share, '2.5e-1', 0.25),
    (positive_number, '5e-324', 5e-324), (positive_number, '1e308', 1e308),
    (count, '1', 1), (count, '007', 7), (count_or_none, '0', 0),
    (size_in_pixels, '640x480', (640, 480)),
])
def test_what_fits_is_read(read, text, value):
    assert read(text) == value


@pytest.mark.parametrize(('read', 'text'), [
    (share, '-0.1'), (share, '1.01'), (share, 'nan'), (share, ''), (share, 'half'),
    (positive_number, '0'), (positive_number, '-1'), (positive_number, 'inf'),
    (positive_number, 'nan'), (positive_number, '1e999'),
    (count, '0'), (count, '-1'), (count, '1.0'), (count, '²'), (count, '٣'), (count, '9' * 5000),
    (count_or_none, '-0'), (count_or_none, ''),
    (size_in_pixels, '640'), (size_in_pixels, '640x0'), (size_in_pixels, 'x480'),
    (size_in_pixels, '640x480x3'), (size_in_pixels, '-640x480'),
])
def test_what_does_not_is_named(read, text):
    with pytest.raises(argparse.ArgumentTypeError) as error:
        read(text)
    assert str(error.value).startswith(repr(text))
