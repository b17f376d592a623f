from __future__ import annotations

import errno
from pathlib import Path

import pytest

from edgeflock_agent.storage.backlog import SYNC_EVERY_S, Backlog, Bound, Kept, Kind
from edgeflock_agent.storage.disk import Disk
from edgeflock_agent.storage.store import used_bytes

SMALL: dict[Kind, Bound] = {"window": Bound(20, 1_000, 200), "event": Bound(50, 5_000, 500)}


class CountingDisk(Disk):
    """The real disk, and how often it was synced; `full` makes it take half of what is put."""

    def __init__(self) -> None:
        self.syncs, self.full = 0, False

    def sync(self, handle: int) -> None:
        self.syncs += 1
        super().sync(handle)

    def put(self, handle: int, data: bytes) -> None:
        if self.full:
            super().put(handle, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        super().put(handle, data)


def kept(folder: Path, bounds: dict[Kind, Bound] | None = None) -> Backlog:
    return Backlog(folder / "backlog", Disk(), bounds)


def said(log: Backlog) -> list[tuple[Kind, bytes]]:
    return [(row.kind, row.payload) for row in log.read(-1, 10_000)]


def test_windows_and_events_come_out_in_the_order_in_which_they_went_in(tmp_path: Path) -> None:
    log = kept(tmp_path)
    order: list[tuple[Kind, bytes]] = [("event", b"{1}"), ("window", b"{2 2}"), ("event", b"{3}"), ("window", b"{4}")]
    for kind, payload in order:
        log.append(kind, payload, 0.0)
    assert said(log) == order
    assert log.read(1, 1) == [Kept(2, "event", b"{3}")]


def test_what_was_kept_is_there_after_a_kill_and_goes_on_counting(tmp_path: Path) -> None:
    log = kept(tmp_path)
    for number in range(5):
        log.append("window", b"%d" % number, 0.0)
    again = kept(tmp_path)  # nobody closed the first one
    again.append("event", b"after", 0.0)
    assert [row.payload for row in again.read(-1, 99)] == [b"0", b"1", b"2", b"3", b"4", b"after"]
    assert [row.ordinal for row in again.read(-1, 99)] == list(range(6))


def test_the_oldest_windows_go_first_are_counted_and_no_event_goes_with_them(tmp_path: Path) -> None:
    log = kept(tmp_path, SMALL)
    log.append("event", b"first", 0.0)
    for number in range(100):
        log.append("window", b"%04d" % number, 0.0)
    windows = [int(payload) for kind, payload in said(log) if kind == "window"]
    assert windows == list(range(100 - len(windows), 100))
    assert 0 < len(windows) <= 20
    assert log.dropped == {"window": 100 - len(windows), "event": 0}
    assert said(log)[0] == ("event", b"first")


def test_the_folder_stays_within_its_bounds(tmp_path: Path) -> None:
    log = kept(tmp_path, SMALL)
    for number in range(500):
        log.append("window" if number % 3 else "event", b"x" * (number % 90), 0.0)
    log.close()
    size = sum(path.stat().st_size for path in (tmp_path / "backlog").iterdir())
    assert size <= 1_000 + 5_000 + 100


def test_where_the_state_folder_is_full_the_oldest_go_and_the_quota_holds(tmp_path: Path) -> None:
    quota = 700

    def free() -> int:
        return quota - used_bytes(tmp_path)

    log = Backlog(tmp_path / "backlog", Disk(), {"window": Bound(99, 9_000, 200), "event": Bound(99, 9_000, 200)}, free)
    for number in range(60):
        assert log.append("window", b"%04d" % number, 0.0)
        assert used_bytes(tmp_path) <= quota
    windows = [int(payload) for _, payload in said(log)]
    assert windows == list(range(60 - len(windows), 60))
    assert 0 < len(windows) < 60
    assert log.dropped == {"window": 60 - len(windows), "event": 0}
    quota = 0
    assert not log.append("event", b"nothing of its own is there to go", 0.0)
    quota = used_bytes(tmp_path) + 100
    assert log.append("event", b"little room is room enough for a short one", 0.0)


def test_the_count_of_the_lost_outlives_a_boot(tmp_path: Path) -> None:
    log = kept(tmp_path, SMALL)
    for number in range(100):
        log.append("window", b"%04d" % number, 0.0)
    log.sync(SYNC_EVERY_S)
    assert kept(tmp_path, SMALL).dropped == log.dropped
    assert log.dropped["window"] > 0


def test_what_was_sent_is_forgotten_and_leaves_no_file(tmp_path: Path) -> None:
    log = kept(tmp_path, SMALL)
    for number in range(12):
        log.append("window", b"%04d" % number, 0.0)
    log.forget(10)
    assert said(log)[-1] == ("window", b"0011")
    log.forget(11)
    assert len(log) == 0
    assert list((tmp_path / "backlog").glob("*.log")) == []
    log.append("window", b"next", 0.0)
    assert log.read(11, 9) == [Kept(12, "window", b"next")]


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_torn_end_costs_the_torn_message_alone(tmp_path: Path, cut: int) -> None:
    log = kept(tmp_path)
    for payload in (b"one", b"two", b"three" * 5):
        log.append("event", payload, 0.0)
    log.close()
    (path,) = (tmp_path / "backlog").glob("*.log")
    path.write_bytes(path.read_bytes()[:-cut])
    again = kept(tmp_path)
    again.append("event", b"four", 0.0)
    whole = [b"one", b"two"] + ([b"three" * 5] if cut == 1 else [])
    assert [payload for _, payload in said(again)] == [*whole, b"four"]
    assert len(again) == len(whole) + 1


def test_a_flipped_bit_costs_one_message(tmp_path: Path) -> None:
    log = kept(tmp_path)
    for payload in (b"one", b"two", b"three"):
        log.append("event", payload, 0.0)
    log.close()
    (path,) = (tmp_path / "backlog").glob("*.log")
    path.write_bytes(path.read_bytes().replace(b"two", b"twp"))
    assert [payload for _, payload in said(kept(tmp_path))] == [b"one", b"three"]


def test_a_full_disk_costs_what_did_not_fit_and_the_log_stays_whole(tmp_path: Path) -> None:
    disk = CountingDisk()
    log = Backlog(tmp_path / "backlog", disk)
    log.append("window", b"before", 0.0)
    disk.full = True
    assert not log.append("window", b"no room", 0.0)
    disk.full = False
    log.append("window", b"after", 0.0)
    assert [payload for _, payload in said(log)] == [b"before", b"after"]
    assert [payload for _, payload in said(kept(tmp_path))] == [b"before", b"after"]


def test_appends_are_synced_together_so_that_flash_lives(tmp_path: Path) -> None:
    disk = CountingDisk()
    log = Backlog(tmp_path / "backlog", disk)
    for second in range(120):
        log.append("window", b"x", float(second))
        log.sync(float(second))
    assert disk.syncs <= 120 / SYNC_EVERY_S


def test_a_folder_that_cannot_be_made_loses_messages_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "backlog").write_text("a file is in the way")
    log = kept(tmp_path)
    assert not log.append("event", b"x", 0.0)
    log.lost("event")
    log.sync(99.0)
    assert (len(log), log.dropped["event"]) == (0, 1)
