from __future__ import annotations

import pytest

from edgeflock_controller.fleet import Fleet
from edgeflock_controller.store import Store
from edgeflock_deploy.messages.orders import DesiredModel, Phase
from edgeflock_deploy.messages.reports import Presence, Reported, ReportedModel, Slots
from edgeflock_deploy.messages.values import DeviceState, Outcome
from edgeflock_deploy.reasons import Reason


def report(seq: int, boot: str = "boot-1", beat_s: float = 10.0, **models: ReportedModel) -> Reported:
    return Reported(
        device="pi-1",
        boot_id=boot,
        seq=seq,
        device_class="a",
        runtime="r",
        free_bytes=1,
        beat_s=beat_s,
        models=models,
    )


def presence(seq: int, online: bool) -> Presence:
    return Presence(device="pi-1", boot_id="boot-1", seq=seq, online=online)


def runs(active: str, generation: int = 0, outcome: Outcome | None = None, rollout: str | None = None) -> ReportedModel:
    return ReportedModel(
        digest=active,
        generation=generation,
        rollout=rollout,
        state=DeviceState.IDLE,
        outcome=outcome,
        slots=Slots(active=active),
    )


def tell(store: Store, generation: int, phase: Phase, digest: str, rollout: str = "r1") -> None:
    word = DesiredModel(generation=generation, phase=phase, digest=digest, rollout=rollout, expires_at=9e9)
    store.twins.put_desired("pi-1", "m", word, 1.0)


def online(store: Store) -> bool:
    device = store.twins.device("pi-1")
    assert device is not None
    return device.online


def test_a_device_never_heard_of_is_registered_by_its_report(store: Store) -> None:
    fleet = Fleet(store.twins, store.freezes)
    fleet.reported(report(1), at=5.0, now_s=5.0)
    device = store.twins.device("pi-1")
    assert device is not None
    assert (device.device_class, device.online, device.first_seen) == ("a", True, 5.0)


def test_a_last_will_that_came_before_the_retained_report_still_counts(store: Store) -> None:
    fleet = Fleet(store.twins, store.freezes)
    fleet.presence(presence(0, online=False), now_s=5.0)
    fleet.reported(report(7), at=5.0, now_s=5.0)
    assert not online(store)


def test_the_retained_copy_of_a_report_does_not_wake_a_dead_device(store: Store) -> None:
    fleet = Fleet(store.twins, store.freezes)
    fleet.reported(report(7), at=5.0, now_s=5.0)
    fleet.presence(presence(0, online=False), now_s=5.0)
    fleet.reported(report(7), at=6.0, now_s=6.0)
    assert not online(store)


def test_a_newer_report_proves_a_device_alive_whatever_a_late_last_will_said(store: Store) -> None:
    fleet = Fleet(store.twins, store.freezes)
    fleet.reported(report(7), at=5.0, now_s=5.0)
    fleet.presence(presence(0, online=False), now_s=5.0)
    fleet.reported(report(8), at=6.0, now_s=6.0)
    assert online(store)


def test_a_report_that_was_overtaken_is_ignored(store: Store) -> None:
    fleet = Fleet(store.twins, store.freezes)
    fleet.reported(report(8, m=runs("B")), at=5.0, now_s=5.0)
    fleet.reported(report(7, m=runs("A")), at=6.0, now_s=6.0)
    assert store.twins.said("pi-1")["m"].digest == "B"


def test_commits_form_a_stack_that_a_return_takes_down(store: Store) -> None:
    fleet = Fleet(store.twins, store.freezes)
    fleet.reported(report(1, m=runs("A")), at=1.0, now_s=1.0)
    tell(store, 1, Phase.COMMIT, "B")
    fleet.reported(report(2, m=runs("B", 1, Outcome.SUCCEEDED, "r1")), at=2.0, now_s=2.0)
    assert (store.twins.committed("pi-1", "m"), store.twins.committed_before("pi-1", "m")) == ("B", "A")
    tell(store, 2, Phase.REVERT, "A", "r2")
    fleet.reported(report(3, m=runs("A", 2, Outcome.ROLLED_BACK, "r2")), at=3.0, now_s=3.0)
    assert (store.twins.committed("pi-1", "m"), store.twins.committed_before("pi-1", "m")) == ("A", None)


def test_coming_back_to_an_old_bundle_by_a_deployment_is_a_step_forward(store: Store) -> None:
    fleet = Fleet(store.twins, store.freezes)
    for generation, digest in enumerate(["A", "B", "A"], start=1):
        tell(store, generation, Phase.COMMIT, digest)
        fleet.reported(report(generation, m=runs(digest, generation, Outcome.SUCCEEDED, "r1")), at=1.0, now_s=1.0)
    assert (store.twins.committed("pi-1", "m"), store.twins.committed_before("pi-1", "m")) == ("A", "B")


def test_a_device_that_fell_back_by_itself_has_left_the_newer_bundle(store: Store) -> None:
    fleet = Fleet(store.twins, store.freezes)
    tell(store, 1, Phase.COMMIT, "B")
    fleet.reported(report(1, m=runs("A")), at=1.0, now_s=1.0)
    fleet.reported(report(2, m=runs("B", 1, Outcome.SUCCEEDED, "r1")), at=2.0, now_s=2.0)
    fleet.reported(report(3, m=runs("A", 1, Outcome.FAILED, "r1")), at=3.0, now_s=3.0)
    assert (store.twins.committed("pi-1", "m"), store.twins.committed_before("pi-1", "m")) == ("A", None)


def test_a_rollout_sees_the_state_only_of_a_report_that_answers_it(store: Store) -> None:
    fleet = Fleet(store.twins, store.freezes)
    tell(store, 1, Phase.TRIAL, "B")
    fleet.reported(report(1, m=runs("A", 1, None, "r1")), at=1.0, now_s=1.0)
    mine, other = fleet.seen("pi-1", "m", "r1", 2.0), fleet.seen("pi-1", "m", "r2", 2.0)
    assert mine is not None
    assert other is not None
    assert (mine.state, mine.phase, mine.digest) == (DeviceState.IDLE, Phase.TRIAL, "A")
    assert (other.state, other.phase, other.digest) == (None, None, "A")
    assert fleet.seen("pi-9", "m", "r1", 2.0) is None


def failed(generation: int, reason: Reason) -> ReportedModel:
    return runs("A", generation, Outcome.FAILED, "r1").model_copy(update={"reason": reason})


def test_a_report_on_an_earlier_try_has_no_phase_so_that_it_cannot_end_the_next_one(store: Store) -> None:
    fleet = Fleet(store.twins, store.freezes)
    tell(store, 1, Phase.TRIAL, "B")
    fleet.reported(report(1, m=failed(1, Reason.DISK_FULL)), at=1.0, now_s=1.0)
    first = fleet.seen("pi-1", "m", "r1", 2.0)
    assert first is not None
    assert (first.phase, first.reason) == (Phase.TRIAL, Reason.DISK_FULL)
    tell(store, 2, Phase.TRIAL, "B")
    again = fleet.seen("pi-1", "m", "r1", 3.0)
    assert again is not None
    assert (again.phase, again.outcome) == (None, Outcome.FAILED)


def test_a_failed_return_to_the_old_bundle_is_not_told_once_something_newer_is_asked(store: Store) -> None:
    fleet = Fleet(store.twins, store.freezes)
    tell(store, 1, Phase.REVERT, "A")
    fleet.reported(report(1, m=failed(1, Reason.LOAD_FAILED)), at=1.0, now_s=1.0)
    tell(store, 2, Phase.TRIAL, "B")
    seen = fleet.seen("pi-1", "m", "r1", 2.0)
    assert seen is not None
    assert (seen.state, seen.phase, seen.outcome, seen.reason) == (DeviceState.IDLE, None, None, None)


def test_a_silent_device_counts_as_offline_until_it_reports_again(store: Store) -> None:
    fleet = Fleet(store.twins, store.freezes)
    fleet.liveness.listening(0.0)
    fleet.reported(report(1, beat_s=20.0), at=5.0, now_s=5.0)
    assert fleet.fallen_silent(65.0) == []
    assert fleet.fallen_silent(65.1) == ["pi-1"]
    assert not online(store)
    assert fleet.fallen_silent(99.0) == []
    fleet.reported(report(1, beat_s=20.0), at=99.0, now_s=99.0)  # the broker's retained copy
    assert not online(store)
    fleet.reported(report(2, beat_s=20.0), at=100.0, now_s=100.0)
    assert online(store)
    assert fleet.fallen_silent(160.0) == []


def test_the_retained_copy_of_a_coming_does_not_wake_a_silent_device(store: Store) -> None:
    fleet = Fleet(store.twins, store.freezes)
    fleet.liveness.listening(0.0)
    fleet.reported(report(7), at=1.0, now_s=1.0)
    assert fleet.fallen_silent(40.0) == ["pi-1"]
    fleet.presence(presence(6, online=True), now_s=41.0)
    assert not online(store)
    fleet.presence(presence(8, online=True), now_s=42.0)
    assert online(store)


def test_a_generation_is_above_every_one_that_the_device_has_seen(store: Store) -> None:
    assert store.twins.next_generation("pi-1", "m") == 1
    Fleet(store.twins, store.freezes).reported(report(1, m=runs("A", generation=41)), at=1.0, now_s=1.0)
    assert store.twins.next_generation("pi-1", "m") == 42
    tell(store, 50, Phase.COMMIT, "B")
    assert store.twins.next_generation("pi-1", "m") == 51
    assert store.twins.desired("pi-1")["m"].generation == 50


def test_what_a_device_lost_while_it_could_not_be_heard_is_logged_once(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = Fleet(store.twins, store.freezes)
    for seq, windows in enumerate((0, 7, 7, 9)):
        said = report(seq).model_copy(update={"windows_dropped": windows, "events_dropped": 1 if windows else 0})
        fleet.reported(said, at=1.0, now_s=1.0)
    assert [record.getMessage() for record in caplog.records] == [
        "device pi-1 could not be heard, and has lost 7 windows and 1 events so far",
        "device pi-1 could not be heard, and has lost 9 windows and 1 events so far",
    ]
    device = store.twins.device("pi-1")
    assert device is not None
    assert (device.windows_dropped, device.events_dropped) == (9, 1)
