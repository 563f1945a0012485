"""Bags by several processes: of this machine, and of a Dask cluster; the same bytes as by one."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from bag_files import STORAGES, drive, long_drive, tree, write_bag

from derain_ros.bags.damage import BagError
from derain_ros.bags.derain import derain_bag, plan_bag
from derain_ros.bags.fleet import bags_below, holds_bags
from derain_ros.bags.pool import cluster_pool, local_pool
from derain_ros.bags.recording import Recording
from derain_ros.cli import main
from derain_ros.files.run_files import bag_facts
from derain_ros.rain.apply.rainy_bags import choose_to_rain, rain_bag
from derain_ros.rain.apply.weather import Weather

plan_rain = partial(plan_bag, choose=choose_to_rain)


@pytest.fixture(scope='module')
def wholes(engine, tmp_path_factory):
    """Return bags of both storages, and what becomes of them in this process."""
    folder = tmp_path_factory.mktemp('whole')
    found = {}
    for storage in STORAGES:
        source = write_bag(folder / storage / 'in', long_drive(24), storage)
        derain_bag(plan_bag(source, folder / storage / 'out'), engine)
        found[storage] = source, tree(folder / storage / 'out')
    return found


def _dask(*arguments):
    """Start a process of Dask on the loopback, without its dashboard."""
    return subprocess.Popen(
        [sys.executable, '-m', 'distributed.cli.dask_' + arguments[0], *arguments[1:],
         '--host', '127.0.0.1', '--no-dashboard'],
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class _Cluster:
    """A scheduler and two workers, each a process of its own."""

    def __init__(self):
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            self.address = f'tcp://127.0.0.1:{free.getsockname()[1]}'
        self.scheduler = _dask('scheduler', '--port', self.address.rpartition(':')[2])
        self.workers = [
            _dask('worker', self.address, '--nthreads', '1', '--no-nanny') for _ in range(2)]
        end = time.monotonic() + 120
        while True:
            try:
                with cluster_pool(self.address) as pool:
                    if pool.workers == 2:
                        return
            except BagError:
                pass
            assert time.monotonic() < end
            time.sleep(0.5)

    def close(self):
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


@pytest.fixture(scope='module')
def cluster():
    """Return a cluster, of which the last test that takes it leaves one worker."""
    with closing(_Cluster()) as cluster:
        yield cluster


def test_two_processes_of_this_machine_one_of_which_is_killed_and_replaced(
        wholes, engine, tmp_path):
    counts, killed = [], []

    def kill(_):
        if not killed:
            killed.append(os.kill(pool.call(os.getpid), signal.SIGKILL))

    with local_pool(2) as pool:
        source, _ = wholes['mcap']
        for name, kind in (('many', pool), ('one', None)):
            derain_bag(plan_bag(source, tmp_path / name / 'out', every=3), engine, pool=kind)
        assert tree(tmp_path / 'many') == tree(tmp_path / 'one')
        for storage, (source, expected) in wholes.items():
            out = tmp_path / storage / 'out'
            derain_bag(plan_bag(source, out), engine, pool=pool,
                       progress=counts.append if killed else kill)
            assert tree(out) == expected
    assert killed and sum(counts) == 48


def test_a_cluster_does_the_same_and_listens_on_the_loopback_alone(
        wholes, cluster, engine, tmp_path):
    with cluster_pool(cluster.address) as pool:
        for storage, (source, expected) in wholes.items():
            derain_bag(plan_bag(source, tmp_path / storage / 'out'), engine, pool=pool)
            assert tree(tmp_path / storage / 'out') == expected
        source = write_bag(tmp_path / 'in', drive())
        weather = Weather(0.6)
        rain_bag(plan_rain(source, tmp_path / 'a' / 'rain'), weather, pool=pool)
        rain_bag(plan_rain(source, tmp_path / 'b' / 'rain'), weather)
        assert tree(tmp_path / 'a') == tree(tmp_path / 'b')


def test_a_folder_of_rainy_drives_is_evaluated(cluster, tmp_path, capsys):
    drives = tmp_path / 'drives'
    rain_bag(plan_rain(write_bag(tmp_path / 'dry', drive()), drives / 'a'), Weather(0.6))
    shutil.copytree(drives / 'a', drives / 'more' / 'b')
    write_bag(drives / 'c', drive())
    runs = {}
    for name, options in (('cluster', ['--scheduler', cluster.address]), ('here', [])):
        command = ['evaluate', str(drives), '-o', str(tmp_path / name), '--precision', 'f32',
                   '--rainy-topic', '/cam/image_raw', '--clean-topic', '/cam/image_raw/dry']
        assert main([*command, *options]) == 1
        captured = capsys.readouterr()
        assert 'dry is not an image topic' in captured.err and 'Traceback' not in captured.err
        assert '2 of 3 bags evaluated' in captured.out
        assert '4 pairs, PSNR' in captured.out
        runs[name] = {path: json.loads((tmp_path / name / path).read_text()) for path in (
            Path('a.json'), Path('more', 'b.json'))}
        assert len(list((tmp_path / name).rglob('*.json'))) == 2
    for path, run in runs['here'].items():
        assert run['models'] == runs['cluster'][path]['models']
    # The same command does what is left.
    shutil.rmtree(drives / 'c')
    (tmp_path / 'here' / 'a.json').unlink()
    before = (tmp_path / 'here' / 'more' / 'b.json').stat().st_mtime_ns
    assert main(command) == 0
    assert (tmp_path / 'here' / 'a.json').exists()
    assert (tmp_path / 'here' / 'more' / 'b.json').stat().st_mtime_ns == before


def test_bags_are_found_behind_links_and_under_names_in_capitals(tmp_path):
    drives, other = tmp_path / 'drives', tmp_path / 'other'
    trash = drives / '.Trash-1000' / 'files'
    trash.mkdir(parents=True)
    for folder in (drives / 'a', drives / 'sub' / 'b', other / 'c', trash / 'deleted'):
        write_bag(folder, drive())
    (other / 'c' / 'metadata.yaml').unlink()
    file = (other / 'c' / 'c.mcap').rename(other / 'c' / 'C.MCAP')
    for link, folder in ((drives / 'latest', drives / 'sub'), (drives / 'link', other),
                         (other / 'back', drives)):
        link.symlink_to(folder)
    assert [str(out.relative_to(tmp_path)) for _, out in bags_below(drives, tmp_path / 'out')] == [
        'out/a', 'out/link/c', 'out/sub/b']
    assert len(bag_facts(drives / 'link' / 'c')['files']) == 1
    for bag in (file, file.parent):
        with Recording(bag) as recording:
            assert recording.message_count == 16 and recording.storage == 'mcap'


def test_a_folder_that_must_not_be_read_keeps_no_bag_away(tmp_path):
    drives = tmp_path / 'drives'
    write_bag(drives / 'a', drive())
    (drives / 'lost+found').mkdir(mode=0)
    if root := os.geteuid() == 0:  # who may read everything
        for folder in drives.parents:
            if not folder.stat().st_mode & 1:
                folder.chmod(0o755)
        os.setresuid(65534, 65534, 0)
    try:
        assert holds_bags(drives) and len(bags_below(drives, tmp_path / 'out')) == 1
    finally:
        if root:
            os.setresuid(0, 0, 0)


def test_a_folder_of_drives_and_one_that_fails(cluster, tmp_path, capsys):
    drives = tmp_path / 'drives'
    for name in ('a', 'sub/b', 'sub/c'):
        write_bag(drives / name, drive())
    (drives / 'sub' / 'c' / 'c.mcap').write_bytes(b'no bag')
    assert [str(out.relative_to(tmp_path)) for _, out in bags_below(drives, tmp_path / 'out')] == [
        'out/a', 'out/sub/b', 'out/sub/c']
    command = ['bag', str(drives), '-o', str(tmp_path / 'out'), '--precision', 'f32']
    assert main([*command, '--scheduler', cluster.address]) == 1
    captured = capsys.readouterr()
    assert 'sub/c: not a single message' in captured.err and 'Traceback' not in captured.err
    assert '2 of 3 bags derained' in captured.out
    done = tree(tmp_path / 'out')
    assert {name.rpartition('/')[2] for name in done} == {'a.mcap', 'b.mcap', 'metadata.yaml'}
    # The same command does what is left, here by this process alone.
    write_bag(tmp_path / 'c', drive())
    (tmp_path / 'c' / 'c.mcap').replace(drives / 'sub' / 'c' / 'c.mcap')
    assert main([*command, '--workers', '1']) == 0
    assert '3 of 3 bags derained' in (told := capsys.readouterr().out)
    assert 'out, 2 of them earlier' in told
    again = tree(tmp_path / 'out')
    assert {name: again[name] for name in done} == done
    assert again['sub/c/c.mcap'] == again['a/a.mcap']


def test_a_killed_worker_costs_nothing_and_after_a_killed_scheduler_the_same_command_goes_on(
        wholes, cluster, engine, tmp_path):
    source, expected = wholes['mcap']

    def run(name, victim):
        killed = []

        def kill(_):
            if not killed:
                victim.kill()
                killed.append(victim.wait())

        with cluster_pool(cluster.address) as pool:
            derain_bag(plan_bag(source, tmp_path / name / 'out'), engine, pool=pool, progress=kill)

    run('worker', cluster.workers[0])
    with pytest.raises(BagError, match='run the same command again to resume'):
        run('scheduler', cluster.scheduler)
    derain_bag(plan_bag(source, tmp_path / 'scheduler' / 'out'), engine)
    for name in ('worker', 'scheduler'):
        assert tree(tmp_path / name / 'out') == expected


def test_no_scheduler_and_no_workers_are_told(wholes, tmp_path, capsys):
    source, _ = wholes['mcap']
    command = ['bag', str(source), '-o', str(tmp_path / 'out'), '--scheduler']
    assert main([*command, 'tcp://127.0.0.1:9']) == 1
    error = capsys.readouterr().err
    assert 'no Dask scheduler answers' in error and 'docs/fleet.md' in error
