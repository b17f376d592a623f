"""A rollout that brings each class its own variant: who gets what, who is held, and what a change of class does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.values import DeviceState, Outcome
from edgeflock_deploy.policy.rules import Policy
from edgeflock_deploy.rollout.choice import Choice, ClassChoice
from edgeflock_deploy.rollout.events import EVENTS, Resumed, Started
from edgeflock_deploy.rollout.machine import step
from edgeflock_deploy.rollout.state import DeviceStatus, RolloutPhase

if TYPE_CHECKING:
    from tests.unit.rollout.conftest import Fleet

Start = Callable[..., "Fleet"]
OLD = "old-digest"
SMALL, LARGE = "small-digest", "large-digest"
DEVICES = {"a": "tiny", "b": "big", "c": "odd"}
NO_GUARDRAILS = {"guardrails": (), "min_windows": 0}


def chosen(**digests: str | None) -> Choice:
    classes = {
        name: ClassChoice(digest=digest, variant=digest, why="least energy" if digest else "it was never measured")
        for name, digest in digests.items()
    }
    return Choice(objective="min energy_mj", classes=classes)


@pytest.fixture
def start(fleet: Callable[..., Fleet], policy: Callable[..., Policy]) -> Start:
    def begin(choice: Choice, devices: dict[str, str] | None = None, **rules: object) -> Fleet:
        return fleet(policy(**(NO_GUARDRAILS | rules)), dict(devices or DEVICES), choice=choice)

    return begin


def commits(of: Fleet, device: str, digest: str) -> None:
    of.seen(device, DeviceState.TRIAL)
    of.seen(device, DeviceState.COMMITTED, digest=digest, outcome=Outcome.SUCCEEDED)


def resumed(of: Fleet, choice: Choice | None = None) -> None:
    of.feed(Resumed(at=of.now, by="op", choices=choice.classes if choice is not None else {}))


def test_each_device_is_given_the_variant_of_its_class_and_commits_that_one(start: Start) -> None:
    it = start(chosen(tiny=SMALL, big=LARGE), {"a": "tiny", "b": "big"})
    assert {device: word.digest for device, word in it.desired.items()} == {"a": SMALL, "b": LARGE}
    it.seen("a", DeviceState.TRIAL)
    it.seen("a", DeviceState.COMMITTED, digest=LARGE, outcome=Outcome.SUCCEEDED)
    assert it.status("a") is not DeviceStatus.COMMITTED  # that is not what it was given
    commits(it, "a", SMALL)
    commits(it, "b", LARGE)
    assert it.phase() is RolloutPhase.SUCCEEDED
    assert it.rollout.reason == "2 of 2 devices run their class's variant"


def test_evidence_counts_only_on_the_variant_that_the_device_was_given(start: Start) -> None:
    it = start(chosen(tiny=SMALL, big=LARGE), guardrails=("latency_ms_p50",), min_windows=1)
    it.seen("a", DeviceState.TRIAL)
    it.window("a", new_digest=LARGE)
    assert it.rollout.evidence.of("a").windows == 0
    it.window("a", new_digest=SMALL)
    assert it.rollout.evidence.of("a").windows == 1


def test_a_class_without_a_variant_is_held_with_the_reason_until_somebody_has_seen_it(start: Start) -> None:
    it = start(chosen(tiny=SMALL, big=LARGE, odd=None))
    assert "c" not in it.desired
    progress = it.rollout.devices["c"]
    assert (progress.status, progress.detail) == (
        DeviceStatus.SET_ASIDE,
        "class odd is held: it was never measured",
    )
    commits(it, "a", SMALL)
    commits(it, "b", LARGE)
    assert it.phase() is RolloutPhase.PAUSED
    assert "class odd is held: it was never measured" in it.rollout.reason
    resumed(it)
    assert it.phase() is RolloutPhase.SUCCEEDED
    assert "1 held, whose class has no variant" in it.rollout.reason
    assert "c" not in it.desired


def test_a_class_that_was_measured_since_joins_by_resuming(start: Start) -> None:
    it = start(chosen(tiny=SMALL, big=LARGE, odd=None))
    commits(it, "a", SMALL)
    commits(it, "b", LARGE)
    resumed(it, chosen(odd=SMALL, tiny=LARGE))  # what a class has is not taken from it
    assert it.desired["c"].digest == SMALL
    assert it.rollout.digest_of("a") == SMALL
    commits(it, "c", SMALL)
    assert it.phase() is RolloutPhase.SUCCEEDED
    assert it.rollout.devices_committed == 3


def test_a_class_that_still_has_nothing_says_the_newer_reason(start: Start) -> None:
    it = start(chosen(tiny=SMALL, odd=None), {"a": "tiny", "c": "odd"})
    commits(it, "a", SMALL)
    still = Choice(objective="x", classes={"odd": ClassChoice(why="no variant meets the requirements")})
    resumed(it, still)
    assert it.rollout.devices["c"].detail == "class odd is held: no variant meets the requirements"


def test_a_device_that_runs_its_classes_variant_already_needs_nothing(start: Start) -> None:
    it = start(chosen(tiny=OLD, big=LARGE), {"a": "tiny", "b": "big"})
    assert it.status("a") is DeviceStatus.COMMITTED
    assert list(it.desired) == ["b"]


def test_a_device_that_changes_class_in_its_trial_gets_the_other_variant(start: Start) -> None:
    it = start(chosen(tiny=SMALL, big=LARGE), {"a": "tiny", "b": "big"}, guardrails=("latency_ms_p50",), min_windows=1)
    it.seen("a", DeviceState.TRIAL)
    it.classes["a"] = "big"
    it.seen("a", DeviceState.TRIAL)
    told = [(word.phase, word.digest) for word in it.sent if word.device == "a"]
    assert told == [(Phase.TRIAL, SMALL), (Phase.REVERT, OLD), (Phase.TRIAL, LARGE)]


def test_who_becomes_one_of_a_held_class_goes_back_and_who_has_committed_keeps_it(
    start: Start,
) -> None:
    it = start(chosen(tiny=SMALL, big=LARGE), {"a": "tiny", "b": "big"})
    commits(it, "b", LARGE)
    it.seen("a", DeviceState.TRIAL)
    for device in "ab":
        it.classes[device] = "odd"
        it.seen_again(device)
    assert (it.status("a"), it.desired["a"].phase) == (DeviceStatus.SET_ASIDE, Phase.REVERT)
    assert it.rollout.devices["a"].detail == "class odd is held: it was never measured"
    assert (it.status("b"), it.rollout.digest_of("b")) == (DeviceStatus.COMMITTED, LARGE)


def test_a_held_device_that_becomes_one_of_a_class_with_a_variant_is_asked(start: Start) -> None:
    it = start(chosen(tiny=SMALL, odd=None), {"a": "tiny", "c": "odd"})
    it.classes["c"] = "tiny"
    it.seen("c")
    assert it.desired["c"].digest == SMALL


def test_going_back_takes_every_device_to_its_own_bundle(start: Start) -> None:
    it = start(chosen(tiny=SMALL, big=LARGE), {"a": "tiny", "b": "big"})
    commits(it, "a", SMALL)
    it.abort("revert")
    assert {(word.phase, word.digest) for word in it.desired.values()} == {(Phase.REVERT, OLD)}


def test_the_journal_gives_the_same_rollout_and_an_older_one_is_read(start: Start) -> None:
    it = start(chosen(tiny=SMALL, big=LARGE, odd=None))
    commits(it, "a", SMALL)
    rollout = None
    for event in it.journal:
        rollout, _ = step(rollout, EVENTS.validate_json(event.model_dump_json()))
    assert rollout == it.rollout
    old = it.journal[0].model_dump(mode="json")
    del old["choice"]
    begun = EVENTS.validate_python(old)
    assert isinstance(begun, Started)
    assert begun.choice is None
    assert EVENTS.validate_python({"v": 1, "kind": "resumed", "at": 1.0, "by": "op"}) == Resumed(at=1.0, by="op")
