"""Disks that fill up, fail or refuse to be written, at some operation of a board's life."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bad_disks import REASONS, live_on_a_bad_disk
from update_story import World

from edgeflock_agent.storage.disk import Disk, DiskFull
from edgeflock_agent.storage.record import RecordFile
from edgeflock_agent.storage.store import Store
from edgeflock_deploy.reasons import Reason

BOOTED = 20  # operations before which there is no board yet


@pytest.fixture(scope="module")
def world() -> World:
    return World.make(model_bytes=150_000)


@pytest.mark.parametrize("number", REASONS, ids=errno.errorcode.__getitem__)
def test_a_disk_that_fails_at_some_operation_ends_an_order_and_nothing_else(
    world: World, tmp_path: Path, number: int
) -> None:
    told: set[Reason] = set()
    for first in range(BOOTED + number % 7, 500, 41):
        told.update(live_on_a_bad_disk(world, tmp_path / str(first), first, number))
    assert told == {REASONS[number]}


def test_a_disk_that_stays_full_fails_each_order_until_there_is_room_again(world: World, tmp_path: Path) -> None:
    assert live_on_a_bad_disk(world, tmp_path / "x", 200, errno.ENOSPC, failures=3) == [Reason.DISK_FULL] * 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(place)]
    if subprocess.run(words, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system is not allowed here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_file_system_that_is_really_full_keeps_the_record_and_says_so(small_disk: Path, tmp_path: Path) -> None:
    from tests.unit.agent.test_record import record

    store = Store(small_disk, Disk())
    file = RecordFile(small_disk, store.disk)
    file.write(record(1))
    with pytest.raises(DiskFull):
        store.disk.write_whole(small_disk / "blobs" / "large", [bytes(4096)] * 1000)
    (small_disk / "filler").write_bytes(bytes(store.disk.free_bytes(small_disk)))
    with pytest.raises(DiskFull):
        file.write(record(2))
    assert RecordFile(small_disk, Disk()).read() == record(1)
    store.lock()  # an agent starts on a full disk
    store.unlock()
    (small_disk / "filler").unlink()
    file.write(record(2))
    assert RecordFile(small_disk, Disk()).read() == record(2)


def test_a_log_on_a_full_disk_does_not_end_the_program() -> None:
    code = "import logging, sys; logging.basicConfig(); logging.error('x'); sys.stdout.write('alive')"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=full, check=False)
    assert done.stdout == b"alive"
