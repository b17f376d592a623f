"""The journal and its snapshots: what a restart brings back, and what an explanation notices."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgeflock_controller import snapshots, state_bytes
from edgeflock_controller.explanation import why_view
from edgeflock_controller.rollouts import Rollouts
from edgeflock_controller.snapshots import Snapshot
from edgeflock_controller.store import Store
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.values import DeviceState
from edgeflock_deploy.messages.windows import VariantWindow, Window
from edgeflock_deploy.policy.policy_file import load_policy
from edgeflock_deploy.rollout.events import Aborted, DeviceSeen, Started, StartedDevice
from edgeflock_deploy.rollout.state import Rollout

OLDER = Path(__file__).parents[2] / "data" / "journal_schema_2.sql"
DEVICES = ("pi-1", "pi-2")


def window(device: str, number: int) -> Window:
    side = VariantWindow(n=130, latency_ms_p50=10.0 + number / 7, latency_ms_p95=20.0, peak_rss_bytes=1_000_000)
    what = {"device": device, "boot_id": "b", "seq": number, "number": number, "device_class": "a", "rollout": "r1"}
    both = {"old_digest": "old", "new_digest": "new", "old": side, "new": side, "agreement": 0.99}
    return Window(**what, **both, model="m", duration_s=1.0, pairs=130)


def begun(store: Store, windows: int = 5) -> Rollouts:
    """A rollout with one device in trial, at seconds 100 to 101 + windows; an event a second."""
    rollouts = Rollouts(store)
    devices = tuple(StartedDevice(device=d, device_class="a", online=True, committed="old") for d in DEVICES)
    what = {"rollout": "r1", "model": "m", "version": 1, "variant": "v", "digest": "new", "selector": "all"}
    with store.transaction():
        rollouts.start(Started(at=100.0, policy=load_policy("standard"), devices=devices, by="t", **what))
        seen = {"device": "pi-1", "device_class": "a", "online": True, "digest": "old"}
        rollouts.see(DeviceSeen(at=101.0, state=DeviceState.TRIAL, phase=Phase.TRIAL, **seen), "r1")
        for number in range(windows):
            rollouts.window(window("pi-1", number), 102.0 + number)
        rollouts.project_changed()
    return rollouts


def live(rollouts: Rollouts) -> Rollout:
    return rollouts.live()["r1"]


def recovered(store: Store) -> Rollouts:
    rollouts = Rollouts(store)
    with store.transaction():
        rollouts.recover()
    return rollouts


def change(store: Store, statement: str, *values: Any) -> None:
    store._connection.execute(statement, values)


def proof(store: Store, now: Rollout | None = None) -> dict[str, Any]:
    found: dict[str, Any] = why_view(store.journal.read("r1"), now)["proof"]
    return found


@pytest.mark.parametrize("least", [1, 3, 1_000])
def test_a_restart_from_a_snapshot_and_its_tail_is_the_live_state_to_the_last_bit(
    store: Store, monkeypatch: pytest.MonkeyPatch, least: int
) -> None:
    monkeypatch.setattr(snapshots, "LEAST_EVENTS", least)
    rollouts = begun(store)
    for number in range(5, 12):
        with store.transaction():
            rollouts.window(window("pi-1", number), 102.0 + number)
            rollouts.project_changed()
        assert state_bytes.state_bytes(live(recovered(store))) == state_bytes.state_bytes(live(rollouts))
    assert (store.snapshots.newest("r1") is None) == (least == 1_000)


@pytest.fixture
def slow_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot that is due after five events, and takes a turn for each device."""
    monkeypatch.setattr(snapshots, "LEAST_EVENTS", 5)
    monkeypatch.setattr(snapshots, "_LEAST_PIECES", 1)
    monkeypatch.setattr(state_bytes, "PIECE", 1)


def turn(store: Store, rollouts: Rollouts, *numbers: int) -> None:
    with store.transaction():
        for number in numbers:
            rollouts.window(window("pi-1", number), 102.0 + number)
        rollouts.project_changed()


@pytest.mark.usefixtures("slow_snapshots")
def test_a_snapshot_that_takes_several_turns_is_of_the_event_at_which_it_was_begun(store: Store) -> None:
    rollouts = begun(store)
    as_begun, turns = live(rollouts), 0
    while (found := store.snapshots.newest("r1")) is None:
        assert live(recovered(store)) == live(rollouts)  # whatever is in the making when the power goes
        turn(store, rollouts, 5 + turns)
        turns += 1
    assert (found.seq, found.rollout, turns) == (7, as_begun, 4)
    assert live(rollouts) != as_begun
    assert live(recovered(store)) == live(rollouts)


@pytest.mark.usefixtures("slow_snapshots")
def test_the_last_snapshot_is_of_the_end_and_what_ended_is_shown_before_it_is_written(store: Store) -> None:
    rollouts = begun(store)
    with store.transaction():
        rollouts.apply("r1", Aborted(at=200.0, by="t", mode="keep"))
        ended = live(rollouts)
        rollouts.project_changed()
    assert rollouts.case("r1") == Snapshot(8, ended)
    for _ in range(4):
        assert store.snapshots.newest("r1") is None
        assert Rollouts(store).case("r1") == Snapshot(8, ended)
        turn(store, rollouts)
    assert store.snapshots.newest("r1") == rollouts.case("r1") == Snapshot(8, ended)


DAMAGES: dict[str, Callable[[Store], None]] = {
    "bits rotted": lambda store: change(store, "UPDATE snapshots SET state = substr(state, 1, 50)"),
    "another release wrote it": lambda store: change(store, "UPDATE snapshots SET format = 'other'"),
    "gone": lambda store: change(store, "DELETE FROM snapshots"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_snapshot_that_cannot_be_believed_is_as_good_as_none(
    store: Store, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(snapshots, "LEAST_EVENTS", 1)
    rollouts = begun(store)
    assert store.snapshots.newest("r1") is not None
    DAMAGES[damage](store)
    assert store.snapshots.newest("r1") is None
    assert live(recovered(store)) == live(rollouts)


def test_an_explanation_finds_a_whole_journal_and_the_services_state_to_be_the_same(store: Store) -> None:
    rollouts = begun(store)
    assert proof(store, live(rollouts)) == {"sealed": 7, "faults": [], "faults_total": 0, "equals_service": True}


TAMPERINGS: dict[str, tuple[str, str, int]] = {
    "an event changed": ("UPDATE journal SET event = replace(event, '0.99', '0.98') WHERE seq = 4", "altered", 4),
    "a row taken out": ("DELETE FROM journal WHERE seq = 4", "altered", 5),
    "a decision rewritten": ("UPDATE journal SET decided = 'RUNNING | fine' WHERE seq = 6", "altered", 6),
    "a seal taken off": ("UPDATE journal SET seal = NULL WHERE seq = 5", "altered", 5),
}


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_a_row_that_is_not_as_it_was_written_is_found(store: Store, tampering: str) -> None:
    begun(store)
    statement, fault, seq = TAMPERINGS[tampering]
    change(store, statement)
    first = proof(store)["faults"][0]
    assert (first["fault"], first["seq"]) == (fault, seq)


def test_rows_cut_off_at_the_end_show_as_another_state_than_the_services(store: Store) -> None:
    rollouts = begun(store)
    change(store, "DELETE FROM journal WHERE seq > 5")
    assert proof(store, live(rollouts))["equals_service"] is False


def test_rules_that_decide_otherwise_than_those_of_then_are_found_with_both_sentences(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun(store)
    monkeypatch.setattr("edgeflock_deploy.judge.judge.pass_needs", lambda _policy: 7.0)  # a release with other rules
    found = proof(store)
    first = found["faults"][0]
    assert (first["fault"], first["seq"], found["faults_total"]) == ("differs", 3, 5)
    assert "of 100 needed" in first["then"]
    assert "of 7 needed" in first["now"]


def test_a_restart_says_that_the_journal_was_changed(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    begun(store)
    change(store, "UPDATE journal SET event = replace(event, '0.99', '0.98') WHERE seq = 4")
    recovered(store)
    assert "event 4 of the journal is not as it was written" in caplog.text


def test_a_restart_says_which_event_cannot_be_read_and_an_earlier_moment_is_still_told(store: Store) -> None:
    begun(store)
    change(store, "UPDATE journal SET event = '{rotten' WHERE seq = 6")
    with pytest.raises(BadInput, match="event 6 of the journal, of rollout r1: cannot be read"):
        recovered(store)
    assert why_view(store.journal.read("r1"), at=103.5)["events"] == 4


def test_as_it_was_at_a_moment(store: Store) -> None:
    rollouts = begun(store)
    found = why_view(store.journal.read("r1"), live(rollouts), at=103.5)
    rows = found["rollout"]["verdict"]["evidence"]
    assert {(row["device"], row["windows"]) for row in rows if row["metric"] == "latency_ms_p50"} == {("pi-1", 2)}
    assert (found["events"], found["windows"], found["proof"]["equals_service"]) == (4, 2, None)
    assert "gave 2 windows" in found["steps"][-1]["verdict"]["sentence"]
    with pytest.raises(BadInput, match="before the rollout began"):
        why_view(store.journal.read("r1"), at=99.0)


def test_turning_points_are_told_or_everything(store: Store) -> None:
    begun(store)
    turns = why_view(store.journal.read("r1"))["steps"]
    assert [(step["seq"], step["event"]) for step in turns] == [
        (1, "t started it for 2 devices"),
        (3, "pi-1 closed window 0"),
        (7, "pi-1 closed window 4"),
    ]
    assert len(why_view(store.journal.read("r1"), everything=True)["steps"]) == 6


def test_a_journal_is_read_beside_the_service(store: Store) -> None:
    begun(store)
    with store.reading() as rollouts:
        journal = rollouts.journal
        assert [entry.seq for entry in journal.read("r1")] == list(range(1, 8))
        assert [entry.seq for entry in journal.read("r1", after=2, upto=4)] == [3, 4]
        with pytest.raises(sqlite3.OperationalError):
            journal.project("r1", "m", True, {})


def test_an_input_that_fails_takes_back_what_it_made_rollouts_see(store: Store) -> None:
    rollouts = begun(store)
    before, state = rollouts.snapshot(), live(rollouts)
    gone = DeviceSeen(at=200.0, device="pi-1", device_class="a", online=False, digest="old")
    with pytest.raises(RuntimeError), store.transaction():
        rollouts.see(gone, "r1")
        raise RuntimeError
    assert live(rollouts) != state
    rollouts.restore(before)
    assert live(rollouts) == state
    with store.transaction():
        rollouts.see(gone, "r1")  # it is news again
    assert not live(rollouts).devices["pi-1"].online
    assert live(recovered(store)) == live(rollouts)


def test_the_journal_of_an_older_release_is_read_goes_on_and_is_compared_from_there(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "edgeflock.db")
    connection.executescript(OLDER.read_text())
    shown = json.loads(connection.execute("SELECT summary FROM rollouts").fetchone()[0])
    connection.close()
    store = Store(tmp_path)
    rollouts = recovered(store)
    assert live(rollouts).phase.value == shown["phase"]
    assert {name: p.status.value for name, p in live(rollouts).devices.items()} == {
        name: device["status"] for name, device in shown["devices"].items()
    }
    gone = DeviceSeen(at=5000.0, device="pi-2", device_class="pi", online=False, digest="old-digest")
    with store.transaction():
        rollouts.see(gone, "r1")
        rollouts.project_changed()
    assert proof(store, live(rollouts)) == {"sealed": 1, "faults": [], "faults_total": 0, "equals_service": True}
    store.close()
