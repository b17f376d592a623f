from __future__ import annotations

import pytest

from edgeflock_controller.expiry import LIFE_S, expiry
from edgeflock_controller.explanation import why_view
from edgeflock_controller.fleet import Fleet
from edgeflock_controller.rollouts import Rollouts
from edgeflock_controller.store import Store
from edgeflock_controller.views import overtaken_view, rollout_view
from edgeflock_deploy.messages.orders import DesiredModel, Phase
from edgeflock_deploy.messages.reports import Reported, ReportedModel
from edgeflock_deploy.messages.values import DeviceState, Outcome
from edgeflock_deploy.messages.windows import Outcomes, VariantWindow, Window
from edgeflock_deploy.policy.policy_file import load_policy
from edgeflock_deploy.policy.rules import Guardrail
from edgeflock_deploy.reasons import Reason
from edgeflock_deploy.rollout.events import DeviceSeen, Paused, Resumed, Started, StartedDevice, Ticked, WindowClosed
from edgeflock_deploy.rollout.state import DeviceStatus, RolloutPhase

IDLE = DeviceState.IDLE


def tell(store: Store, device: str, digest: str) -> None:
    word = DesiredModel(generation=1, phase=Phase.COMMIT, digest=digest, rollout="r0", expires_at=9e9)
    store.twins.put_desired(device, "m", word, 1.0)


def started(rollout: str, *devices: str, at: float = 100.0, committed: str | None = None) -> Started:
    return Started(
        at=at,
        rollout=rollout,
        model="m",
        version=1,
        variant="v",
        digest="new",
        selector="all",
        policy=load_policy("install"),
        devices=tuple(StartedDevice(device=d, device_class="a", online=True, committed=committed) for d in devices),
        by="test",
    )


def says(
    device: str, state: DeviceState, phase: Phase, outcome: Outcome | None = None, at: float = 101.0
) -> DeviceSeen:
    digest = "new" if state is DeviceState.COMMITTED else None
    return DeviceSeen(
        at=at, device=device, device_class="a", online=True, digest=digest, state=state, phase=phase, outcome=outcome
    )


def test_a_started_rollout_gives_each_device_a_signed_word_with_a_generation_and_an_end(store: Store) -> None:
    rollouts = Rollouts(store)
    with store.transaction():
        rollouts.start(started("r1", "pi-1", "pi-2"))
    word = store.twins.desired("pi-1")["m"]
    assert (word.generation, word.phase, word.digest, word.rollout) == (1, Phase.TRIAL, "new", "r1")
    assert word.expires_at == expiry(100.0)
    assert set(rollouts.take_moved()) == {"pi-1", "pi-2"}
    assert not set(rollouts.take_moved())


def test_replay_gives_the_live_state_at_every_point(store: Store) -> None:
    rollouts = Rollouts(store)
    with store.transaction():
        rollouts.start(started("r1", "pi-1", "pi-2"))
        rollouts.project_changed()
    events = [
        says("pi-1", DeviceState.TRIAL, Phase.TRIAL),
        says("pi-1", DeviceState.COMMITTED, Phase.COMMIT, Outcome.SUCCEEDED),
        says("pi-2", DeviceState.TRIAL, Phase.TRIAL),
    ]
    for event in events:
        with store.transaction():
            rollouts.see(event, "r1")
            rollouts.project_changed()
        again = Rollouts(store)
        with store.transaction():
            again.recover()
        assert again.live()["r1"] == rollouts.live()["r1"]


def test_a_rollout_that_ended_is_replayed_no_more_but_can_be_explained(store: Store) -> None:
    rollouts = Rollouts(store)
    with store.transaction():
        rollouts.start(started("r1", "pi-1"))
        rollouts.see(says("pi-1", DeviceState.TRIAL, Phase.TRIAL), "r1")
        rollouts.see(says("pi-1", DeviceState.COMMITTED, Phase.COMMIT, Outcome.SUCCEEDED), "r1")
        rollouts.project_changed()
    assert not rollouts.live()
    assert store.journal.unfinished() == []
    (summary,) = store.journal.summaries()
    assert summary["phase"] == "SUCCEEDED"
    why = why_view(store.journal.read("r1"))["rollout"]
    assert {key: why[key] for key in summary if key != "verdict"} | {"verdict": summary["verdict"]} == summary
    ended = rollouts.case("r1")
    assert ended is not None
    assert rollout_view(ended.rollout) == why


def test_what_changes_nothing_is_not_journaled(store: Store) -> None:
    rollouts = Rollouts(store)
    with store.transaction():
        rollouts.start(started("r1", "pi-1"))
        rollouts.see(says("pi-1", DeviceState.TRIAL, Phase.TRIAL), "r1")
    before = len(list(store.journal.read("r1")))
    with store.transaction():
        assert not rollouts.apply("r1", Ticked(at=102.0))
        rollouts.see(says("pi-1", DeviceState.TRIAL, Phase.TRIAL, at=103.0), "r1")
    assert len(list(store.journal.read("r1"))) == before


def test_a_transaction_that_fails_leaves_neither_event_nor_word_nor_memory(store: Store) -> None:
    rollouts = Rollouts(store)
    before = rollouts.snapshot()
    with pytest.raises(RuntimeError), store.transaction():
        rollouts.start(started("r1", "pi-1"))
        raise RuntimeError
    rollouts.restore(before)
    assert not list(store.journal.read("r1"))
    assert store.twins.desired("pi-1") == {}
    assert not rollouts.live()
    assert not set(rollouts.take_moved())


def test_a_newer_rollout_takes_shared_devices_and_leaves_the_others_alone(store: Store) -> None:
    rollouts = Rollouts(store)
    with store.transaction():
        rollouts.start(started("r1", "pi-1", "pi-2"))
        rollouts.start(started("r2", "pi-3"))
        assert rollouts.overtaken("other", ["pi-1"]) == []
        (foretold,) = [overtaken_view(*one) for one in rollouts.overtaken("m", ["pi-1", "pi-9"])]
        assert foretold == {"rollout": "r1", "phase": "RUNNING", "going_back": 1}
        rollouts.start(started("r3", "pi-1", at=101.0))
    assert store.twins.desired("pi-1")["m"].rollout == "r3"
    assert store.twins.desired("pi-2")["m"].phase is Phase.REVERT
    assert rollouts.live()["r1"].superseded_by == "r3"
    assert rollouts.live()["r2"].phase is RolloutPhase.RUNNING


def test_an_order_that_nobody_answered_is_given_longer_under_the_same_generation(store: Store) -> None:
    rollouts = Rollouts(store)
    with store.transaction():
        rollouts.start(started("r1", "pi-1", "pi-2"))
        store.twins.put_said("pi-2", "m", ReportedModel(digest=None, generation=1, rollout="r1", state=IDLE), 101.0)
    set(rollouts.take_moved())
    later = 100.0 + LIFE_S * 0.6
    with store.transaction():
        rollouts.put_off_expiry(later)
    word = store.twins.desired("pi-1")["m"]
    assert (word.generation, word.expires_at) == (1, expiry(later))
    assert store.twins.desired("pi-2")["m"].expires_at == expiry(100.0)
    assert set(rollouts.take_moved()) == {"pi-1"}
    with store.transaction():
        rollouts.put_off_expiry(later + 60.0)
    assert not set(rollouts.take_moved())


def test_needed_are_what_devices_are_to_run_what_running_rollouts_bring_and_the_way_back(store: Store) -> None:
    rollouts = Rollouts(store)
    with store.transaction():
        tell(store, "pi-9", "elsewhere")
        tell(store, "pi-1", "old")
        rollouts.start(started("r1", "pi-1", committed="old"))
    assert rollouts.needed_digests() == {"elsewhere", "new", "old"}
    with store.transaction():
        rollouts.see(says("pi-1", DeviceState.TRIAL, Phase.TRIAL), "r1")
        rollouts.see(says("pi-1", DeviceState.COMMITTED, Phase.COMMIT, Outcome.SUCCEEDED), "r1")
        rollouts.project_changed()
    assert rollouts.needed_digests() == {"elsewhere", "new"}


def test_a_device_that_failed_for_its_own_reasons_gets_a_second_try_after_a_resume(store: Store) -> None:
    rollouts, fleet = Rollouts(store), Fleet(store.twins, store.freezes)

    def hear(seq: int, said: ReportedModel) -> None:
        report = Reported(
            device="pi-1",
            boot_id="b",
            seq=seq,
            device_class="a",
            runtime="r",
            free_bytes=1,
            models={"m": said},
        )
        fleet.reported(report, 101.0, 1.0)
        event = fleet.seen("pi-1", "m", "r1", 101.0)
        assert event is not None
        rollouts.see(event, "r1")

    full = ReportedModel(
        digest=None, generation=1, rollout="r1", state=IDLE, outcome=Outcome.FAILED, reason=Reason.DISK_FULL
    )
    with store.transaction():
        rollouts.start(started("r1", "pi-1", "pi-2"))
        rollouts.apply("r1", Paused(at=100.5, by="test"))
        hear(1, full)
    assert rollouts.live()["r1"].devices["pi-1"].status is DeviceStatus.SET_ASIDE
    with store.transaction():
        rollouts.apply("r1", Resumed(at=102.0, by="test"))
    generation = store.twins.desired("pi-1")["m"].generation
    assert (generation, rollouts.live()["r1"].devices["pi-1"].status) == (3, DeviceStatus.ASKED)
    rollouts = Rollouts(store)  # another service, which has not seen the first answer
    with store.transaction():
        rollouts.recover()
        hear(2, full)  # a beat from before the new order has arrived
    assert rollouts.live()["r1"].devices["pi-1"].status is DeviceStatus.ASKED
    with store.transaction():
        hear(3, full.model_copy(update={"generation": generation}))
    assert rollouts.live()["r1"].devices["pi-1"].status is DeviceStatus.SET_ASIDE


@pytest.mark.parametrize("gates", [True, False])
def test_the_journal_keeps_how_answers_were_spread_only_where_drift_is_looked_at(store: Store, gates: bool) -> None:
    rails = (Guardrail(metric="drift", fail_margin=0.05),) if gates else ()
    policy = load_policy("standard").model_copy(update={"guardrail": rails})
    rollouts = Rollouts(store)
    sides = {side: VariantWindow(n=4, outcomes=Outcomes(classes=(3, 1))) for side in ("old", "new")}
    window = Window(
        device="pi-1", boot_id="b", seq=1, device_class="a", rollout="r1", model="m", number=0, old_digest="o",
        new_digest="new", duration_s=1.0, pairs=4, agreement=1.0, **sides,
    )  # fmt: skip
    with store.transaction():
        rollouts.start(started("r1", "pi-1", committed="o").model_copy(update={"policy": policy}))
        rollouts.window(window, 101.0)
    kept = [entry.event for entry in store.journal.read("r1")][-1]
    assert isinstance(kept, WindowClosed)
    assert kept.window.new.outcomes.classes == ((3, 1) if gates else ())
