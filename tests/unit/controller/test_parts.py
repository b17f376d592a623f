"""A journal replayed in parts: the same is told as in one go, or nothing."""

from __future__ import annotations

import hashlib
import zlib
from typing import Any

import pytest
from benchmarks.rollout import replay as on_paper

from edgeflock_controller import parts, snapshots
from edgeflock_controller.explanation import Case, why_view
from edgeflock_controller.parts import Outcome, Part, folded, proved
from edgeflock_controller.reading import read_only
from edgeflock_controller.rollouts import Rollouts
from edgeflock_controller.snapshots import KEPT, Snapshot
from edgeflock_controller.state_bytes import pieces
from edgeflock_controller.store import Store
from edgeflock_controller.telling import Told
from edgeflock_deploy.errors import BadInput

EVENTS = 120


@pytest.fixture
def now(store: Store, monkeypatch: pytest.MonkeyPatch) -> Snapshot:
    """A rollout of three devices with a snapshot every ten events, as the service has it."""
    monkeypatch.setattr(snapshots, "LEAST_EVENTS", 10)
    monkeypatch.setattr(on_paper, "_TURN", 5)
    monkeypatch.setattr(parts, "LEAST_EVENTS", 10)
    rollouts, *_ = on_paper.lived(store, on_paper.Fleet(3, 1), on_paper.rules("standard", 8), EVENTS)
    found = rollouts.case("r1")
    assert found is not None
    return found


def here(file: str, wanted: list[Part], everything: bool) -> list[Outcome | None]:
    """Replay the parts one after the other."""
    with read_only(file) as rollouts:
        return [folded(rollouts, part, everything) for part in wanted]


def in_parts(store: Store, now: Snapshot, everything: bool = False, cores: int = 4) -> Told | None:
    with store.reading() as rollouts:
        return proved(rollouts, now, everything, cores, here)


def change(store: Store, statement: str, *values: Any) -> None:
    store._connection.execute(statement, values)


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("cores", [2, 3, 8])
def test_parts_tell_what_one_go_tells(store: Store, now: Snapshot, cores: int, everything: bool) -> None:
    told = in_parts(store, now, everything, cores)
    assert told is not None
    in_one_go = why_view(store.journal.read("r1"), now.rollout, everything=everything)
    assert list(told.ended().steps) == in_one_go["steps"]
    assert (told.events, told.windows, told.sealed) == (EVENTS, in_one_go["windows"], EVENTS)
    assert in_one_go["proof"]["equals_service"]


def test_processes_tell_the_same(store: Store, now: Snapshot) -> None:
    with store.reading() as rollouts:
        told = proved(rollouts, now, everything=True, cores=2)
    assert told is not None
    assert told == in_parts(store, now, everything=True, cores=2)


def test_a_short_journal_and_one_core_and_one_without_snapshots_are_not_worth_it(store: Store, now: Snapshot) -> None:
    assert in_parts(store, now, cores=1) is None
    change(store, "DELETE FROM journal WHERE seq <= 101")
    assert in_parts(store, now) is None
    change(store, "DELETE FROM snapshots")
    assert in_parts(store, now) is None


def test_a_fault_inside_a_part_is_named_as_in_one_go(store: Store, now: Snapshot) -> None:
    change(store, "UPDATE journal SET decided = 'RUNNING | fine' WHERE seq = 66")
    told = in_parts(store, now)
    assert told is not None
    assert list(told.faults) == why_view(store.journal.read("r1"))["proof"]["faults"]
    assert [fault["seq"] for fault in told.faults] == [66]


def test_a_state_that_the_events_do_not_give_proves_nothing_and_the_journal_is_believed(
    store: Store, now: Snapshot
) -> None:
    for place in store.snapshots.places("r1"):
        found = store.snapshots.at("r1", place)
        assert found is not None
        other = found.rollout.model_copy(update={"selector": "none"})
        text = b"".join(piece + b"\n" for piece in pieces(other))
        state = zlib.compress(text)
        change(
            store, "UPDATE snapshots SET state = ?, sha256 = ? WHERE seq = ?",
            state, hashlib.sha256(state).hexdigest(), place,
        )  # fmt: skip
    assert in_parts(store, now) is None
    found_why = Case(store, now, 0).why(None, False)
    assert (found_why["rollout"]["selector"], found_why["proof"]["equals_service"]) == ("all", True)


def test_an_event_that_was_changed_proves_nothing_and_is_named(store: Store, now: Snapshot) -> None:
    change(store, "UPDATE journal SET event = replace(event, '0.99', '0.98') WHERE seq = 66")
    assert in_parts(store, now) is None
    assert why_view(store.journal.read("r1"))["proof"]["faults"][0]["seq"] == 66


def test_an_event_that_cannot_be_read_proves_nothing_and_is_named(store: Store, now: Snapshot) -> None:
    change(store, "UPDATE journal SET event = '{rotten' WHERE seq = 66")
    assert in_parts(store, now) is None
    with pytest.raises(BadInput, match="event 66 of the journal, of rollout r1: cannot be read"):
        Case(store, now, 0).why(None, False)


def test_a_snapshot_that_rotted_and_a_process_that_ended_early_prove_nothing(store: Store, now: Snapshot) -> None:
    with store.reading() as rollouts:
        assert proved(rollouts, now, False, 4, lambda _, wanted, __: [None for _ in wanted]) is None
    change(store, "UPDATE snapshots SET state = substr(state, 1, 50)")
    assert in_parts(store, now) is None


def test_snapshots_are_kept_evenly_and_the_newest_always(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "LEAST_EVENTS", 1)
    monkeypatch.setattr(on_paper, "_TURN", 3)
    rollouts, *_ = on_paper.lived(store, on_paper.Fleet(3, 1), on_paper.rules("standard", 8), 300)
    places = store.snapshots.places("r1")
    gaps = [after - before for before, after in zip([0, *places], places, strict=False)]
    assert (len(places), max(gaps) <= 3 * 300 / KEPT) == (KEPT, True)
    newest = store.snapshots.newest("r1")
    assert newest is not None
    assert newest.seq == places[-1] > 295
    change(store, "UPDATE snapshots SET sha256 = 'other' WHERE seq = ?", places[-1])
    older = store.snapshots.newest("r1")
    assert older is not None
    assert older.seq == places[-2]
    again = Rollouts(store)
    with store.transaction():
        again.recover()
    assert again.live() == rollouts.live()
