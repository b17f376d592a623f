from __future__ import annotations

from edgeflock_controller.store import Store
from edgeflock_deploy.messages.reports import Reported

DAY_S = 86_400.0


def report(store: Store, online: bool, at: float) -> None:
    said = Reported(device="pi-1", boot_id="b", seq=1, device_class="a", runtime="r", free_bytes=1)
    store.twins.put_device(said, online, at)


def test_a_device_is_noted_when_it_comes_and_goes_and_not_in_between(store: Store) -> None:
    for at, online in ((1.0, True), (2.0, True), (3.0, False), (4.0, False), (5.0, True)):
        report(store, online, at)
        store.comings.note("pi-1", at)
    assert store.comings.of("pi-1") == [(1.0, True), (3.0, False), (5.0, True)]


def test_a_device_that_never_reported_has_no_history(store: Store) -> None:
    store.comings.note("pi-9", 1.0)
    assert store.comings.of("pi-9") == []


def test_history_older_than_a_season_goes_when_the_device_turns_again(store: Store) -> None:
    for day, online in ((0, True), (1, False), (100, True)):
        report(store, online, day * DAY_S)
        store.comings.note("pi-1", day * DAY_S)
    assert store.comings.of("pi-1") == [(100 * DAY_S, True)]


def test_a_failed_turn_takes_its_note_back(store: Store) -> None:
    report(store, True, 1.0)
    store.comings.note("pi-1", 1.0)
    try:
        with store.transaction():
            report(store, False, 2.0)
            store.comings.note("pi-1", 2.0)
            raise RuntimeError
    except RuntimeError:
        store.comings.note("pi-1", 3.0)
    assert store.comings.of("pi-1") == [(1.0, True)]
