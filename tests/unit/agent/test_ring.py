from __future__ import annotations

import hashlib
import random
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from file_system import FileSystem
from power import DyingDisk, PowerCut
from recording_disk import RecordingDisk

from edgeflock_agent.storage import ring
from edgeflock_agent.storage.disk import Disk
from edgeflock_agent.storage.ring import Ring
from edgeflock_deploy.captured import About, Captured, KeptTensor, Why, read_captured

ITEM = 3000  # with its sum it takes one block of 4096
BLOCK = 4096


def make(folder: Path, blocks: int = 4, most_items: int = 100, free: int = 1 << 30, disk: Disk | None = None) -> Ring:
    return Ring(folder, disk or Disk(), blocks * BLOCK, lambda: free, most_items)


def item(number: int) -> bytes:
    return hashlib.shake_128(str(number).encode()).digest(ITEM)


def held(folder: Path) -> list[bytes]:
    return [data for _, data in ring.items(folder)]


def on_disk(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir())


def test_the_oldest_items_go_first_and_the_files_never_take_more_than_the_bound(tmp_path: Path) -> None:
    kept = make(tmp_path / "ring")
    for number in range(10):
        assert kept.add(item(number))
        assert held(tmp_path / "ring") == [item(n) for n in range(max(0, number - 3), number + 1)]
        assert on_disk(tmp_path / "ring") <= 4 * BLOCK


def test_the_ring_holds_no_more_items_than_it_may_however_small_they_are(tmp_path: Path) -> None:
    kept = make(tmp_path, blocks=100, most_items=3)
    for number in range(5):
        assert kept.add(bytes([number]))
    assert held(tmp_path) == [b"\2", b"\3", b"\4"]


def test_an_item_larger_than_the_ring_is_refused_and_costs_no_other_its_place(tmp_path: Path) -> None:
    kept = make(tmp_path)
    kept.add(item(0))
    assert not kept.add(bytes(5 * BLOCK))
    assert held(tmp_path) == [item(0)]


def test_nothing_is_kept_on_a_disk_that_is_nearly_full(tmp_path: Path) -> None:
    assert not make(tmp_path, free=BLOCK).add(item(0))
    assert held(tmp_path) == []


@pytest.mark.parametrize("spoil", [lambda it: it[:-1], lambda it: it[:0], lambda it: it[:80] + b"x" + it[81:]])
def test_a_damaged_file_is_skipped_and_goes_in_its_turn(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    kept = make(tmp_path, blocks=3)
    for number in range(3):
        kept.add(item(number))
    path = sorted(tmp_path.iterdir())[1]
    path.write_bytes(spoil(path.read_bytes()))
    assert held(tmp_path) == [item(0), item(2)]
    for number in range(3, 6):
        kept.add(item(number))
    assert held(tmp_path) == [item(3), item(4), item(5)]


def test_a_power_cut_at_any_step_leaves_whole_items_in_order_and_the_next_start_sweeps_what_was_torn(
    tmp_path: Path,
) -> None:
    for operations in range(60):
        folder = tmp_path / str(operations)
        dying = make(folder, blocks=2, disk=DyingDisk(operations))
        added = 0
        try:
            for number in range(4):
                dying.add(item(number))
                added += 1
            break
        except PowerCut:
            pass
        found = held(folder)
        numbers = [number for number in range(4) if item(number) in found]
        assert found == [item(number) for number in numbers]
        assert added == 0 or numbers[-1:] in ([added - 1], [added]) or numbers == []
        make(folder, blocks=2).add(item(9))
        assert held(folder)[-1] == item(9)
        assert not list(folder.glob("*.tmp"))
    else:
        raise AssertionError("the power never lasted")


def test_a_power_cut_brings_nothing_back_beside_what_took_its_place(tmp_path: Path) -> None:
    disk = RecordingDisk(tmp_path)
    kept = make(tmp_path / "ring", blocks=2, disk=disk)
    for number in range(4):
        kept.add(item(number))
    for cut in range(len(disk.operations) + 1):
        system = FileSystem({})
        for operation in disk.operations[:cut]:
            system.do(operation)
        for seed in range(40):
            left = system.after_a_cut(random.Random(seed)).get("ring", {})
            assert isinstance(left, dict)
            assert sum(len(file) > 0 for file in left.values()) <= 2


def test_another_reads_and_clears_the_folder_while_its_writer_goes_on(tmp_path: Path) -> None:
    kept = make(tmp_path)
    for number in range(3):
        kept.add(item(number))
    assert ring.clear(tmp_path, Disk()) == 3
    assert held(tmp_path) == []
    assert kept.add(item(7))
    assert held(tmp_path) == [item(7)]
    assert ring.clear(tmp_path / "none", Disk()) == 0


def test_only_the_agents_user_may_look_into_the_folder(tmp_path: Path) -> None:
    make(tmp_path / "ring").add(item(0))
    assert stat.S_IMODE((tmp_path / "ring").stat().st_mode) == 0o700


def test_a_kept_input_comes_back_as_it_was_and_one_of_another_version_or_length_does_not() -> None:
    tensors = (
        KeptTensor(name="x", dtype="uint8", shape=(1, 3), bytes=3),
        KeptTensor(name="y", dtype="int8", shape=(1,), bytes=1),
    )
    about = About(model="m", digest="d" * 64, at_s=12.5, why=Why.LOW_CONFIDENCE, confidence=0.25, inputs=tensors)
    kept = Captured(about, (b"\n\n\n", b"b"))
    assert read_captured(kept.as_bytes()) == kept
    assert read_captured(kept.as_bytes() + b"c") is None
    assert read_captured(kept.as_bytes().replace(b'"v":1', b'"v":9')) is None
    assert read_captured(b"") is None
