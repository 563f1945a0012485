"""Work on whole bags tells how far it is: hashing, checking for a report, reading through."""

import sys
import time

import pytest
from bag_files import drive, write_bag
from report_files import bag_run, write

from derain_ros import commands
from derain_ros.files.run_files import bag_bytes, bag_facts
from derain_ros.report.pictures import BagFinder
from derain_ros.report.runs import load_entries


def test_hashing_counts_every_byte(tmp_path):
    source = write_bag(tmp_path / 'in', drive())
    (source / 'big.mcap').write_bytes(bytes(3_500_000))
    size = sum(file.stat().st_size for file in source.glob('*.mcap'))
    counts = []
    facts = bag_facts(source, counts.append)
    assert sum(counts) == bag_bytes(source) == size and len(counts) > 3
    assert facts == bag_facts(source)
    assert bag_bytes(source / 'big.mcap') == 3_500_000


def test_a_report_counts_the_bytes_that_it_checks(tmp_path):
    bag = write_bag(tmp_path / 'drive_derained', drive())
    run = bag_run()
    run['output']['sha256'] = bag_facts(bag)['sha256']
    entry, = load_entries([write(tmp_path, 'run.json', run)])
    counts = []
    finder = BagFinder(progress=counts.append)
    assert finder.find(entry) == bag
    assert sum(counts) == bag_bytes(bag)
    finder.find(entry)
    assert sum(counts) == bag_bytes(bag)


def test_reading_through_a_bag_passes_every_message(tmp_path):
    pytest.importorskip('rclpy', reason='ROS 2 is not installed')
    from derain_ros.live.played import scan

    source = write_bag(tmp_path / 'in', drive())
    seen = []

    def watch(messages, total):
        seen.append(total)
        for message in messages:
            seen.append(message[1])
            yield message

    assert scan(source, None, watch) == scan(source, None)
    assert seen == [len(drive()), *(time for _, _, time, _ in drive())]


def test_a_bar_of_slow_work_is_seen_and_goes_away(capsys, monkeypatch):
    monkeypatch.setattr(commands, 'QUIET_SECONDS', 0.1)
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: True)
    with commands.slow_bar(10, 'B', 'reading') as bar:
        bar.update(4)
        time.sleep(0.2)
        bar.update(3)
        bar.update(3)
    shown = capsys.readouterr().err
    assert 'derain: reading:  70%' in shown
    assert shown.endswith('\r')
