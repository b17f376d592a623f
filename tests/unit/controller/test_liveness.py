from __future__ import annotations

import pytest

from edgeflock_controller.liveness import LINK_KEEPALIVE_S, Liveness, grace_s


@pytest.mark.parametrize(("beat_s", "grace"), [(0.1, 15.0), (5.0, 15.0), (5.1, 15.3), (10.0, 30.0), (600.0, 1800.0)])
def test_a_device_may_miss_two_beats_and_never_less_than_fifteen_seconds(beat_s: float, grace: float) -> None:
    assert grace_s(beat_s) == pytest.approx(grace)


def test_each_device_has_the_grace_of_its_own_beat() -> None:
    liveness = Liveness()
    liveness.listening(0.0)
    for device, beat_s in (("quick", 1.0), ("slow", 60.0)):
        liveness.beats(device, beat_s)
        liveness.heard(device, 100.0)
    assert liveness.silent(["quick", "slow"], 115.0) == []
    assert liveness.silent(["quick", "slow"], 115.1) == ["quick"]
    assert liveness.silent(["quick", "slow"], 280.1) == ["quick", "slow"]


def test_after_a_start_everyone_has_the_whole_grace() -> None:
    liveness = Liveness()
    assert liveness.silent(["pi-1"], 1e9) == []  # nothing can be heard yet
    liveness.listening(1000.0)
    assert liveness.silent(["pi-1"], 1030.0) == []
    assert liveness.silent(["pi-1"], 1030.1) == ["pi-1"]


def test_silence_proves_nothing_while_the_service_cannot_hear_and_counts_anew_when_it_can() -> None:
    liveness = Liveness()
    liveness.listening(0.0)
    liveness.heard("pi-1", 1.0)
    liveness.deaf()
    assert liveness.silent(["pi-1"], 500.0) == []
    liveness.listening(500.0)
    assert liveness.silent(["pi-1"], 530.0) == []
    assert liveness.silent(["pi-1"], 531.0) == ["pi-1"]


@pytest.mark.parametrize("beat_s", [0.1, 2.0, 4.9, 5.0, 5.1, 10.0, 60.0, 600.0])
def test_a_broker_that_hangs_is_known_for_one_before_anybody_counts_as_silent(beat_s: float) -> None:
    liveness = Liveness()
    liveness.listening(0.0)
    liveness.beats("pi-1", beat_s)
    hangs_at = 100.0
    liveness.heard("pi-1", hangs_at - beat_s)  # what it said next was swallowed
    noticed_at = hangs_at + 2 * LINK_KEEPALIVE_S + 1.0
    assert liveness.silent(["pi-1"], noticed_at) == []
    liveness.deaf()
    assert liveness.silent(["pi-1"], 1e9) == []
