"""What the store recorded of a fleet becomes the boards of a rehearsal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgeflock_controller.rehearsal.board import Board, Scatter, assumed_scatter
from edgeflock_controller.rehearsal.candidate import Candidate
from edgeflock_controller.rehearsal.records import boards_of
from edgeflock_controller.rehearsal.regression import HARMLESS
from edgeflock_controller.rehearsal.windows import Windows
from edgeflock_controller.store import Store
from edgeflock_deploy.judge.observations import observations
from edgeflock_deploy.messages.measurements import Conditions
from edgeflock_deploy.messages.orders import TrialSettings
from edgeflock_deploy.messages.reports import AgentEvent
from edgeflock_deploy.messages.values import DeviceState
from edgeflock_deploy.messages.windows import VariantWindow, Window

DAY_S = 86_400.0
NOW = 100 * DAY_S


def device(name: str, device_class: str = "pi", **changed: Any) -> dict[str, Any]:
    found = {"device": name, "device_class": device_class, "online": True, "committed": "old", "latency_ms": None}
    return found | {"measures_energy": False, **changed}


def shown(z: list[float], throttled: tuple[int, ...] = ()) -> list[dict[str, Any]]:
    return [
        {"rollout": "r", "number": number, "duration_s": 2.6, "pairs": 130, "throttled": number in throttled,
         "emulated": False, "z": {"latency_ms_p50": value}}
        for number, value in enumerate(z)
    ]  # fmt: skip


def one(records: dict[str, Any], *others: dict[str, Any]) -> Board:
    return boards_of([device("a"), *others], records, NOW)[0]


def test_a_devices_own_windows_say_how_it_scatters_and_how_long_it_takes() -> None:
    found = one({"a": {"windows": shown([0.1, 0.3] * 10)}})
    assert found.windows_from == "own"
    assert found.scatter["latency_ms_p50"].sd == pytest.approx(0.1, rel=0.05)
    assert found.scatter["latency_ms_p50"].rho == 0.0
    assert found.pair_s == pytest.approx(0.02)


def test_the_effect_of_an_earlier_candidate_is_no_scatter() -> None:
    windows = shown([0.5] * 12) + [w | {"rollout": "s"} for w in shown([-0.5] * 12)]
    assert one({"a": {"windows": windows}}).scatter["latency_ms_p50"].sd == pytest.approx(0.0, abs=1e-9)


def test_throttled_windows_scatter_by_their_own() -> None:
    found = one({"a": {"windows": shown([0.1, -0.1] * 10 + [0.4, -0.4] * 5, tuple(range(20, 30)))}})
    calm, throttled = found.scatter["latency_ms_p50"].sd, found.scatter["latency_ms_p50"].throttled_sd
    assert throttled == pytest.approx(4 * calm)
    assert found.throttled_share == pytest.approx(1 / 3)
    assert found.throttled_windows == 10.0


def test_a_record_made_by_a_rehearsed_board_gives_that_board_back() -> None:
    truth = one({})._replace(scatter={"latency_ms_p50": Scatter(0.1, 0.5, 0.3)}, throttled_share=0.3, pair_s=0.02)
    truth = truth._replace(throttled_windows=6.0)
    trial = TrialSettings(window_pairs=130, window_max_s=60)
    said = Windows(np.random.default_rng(3), truth, Candidate("m", 1, "v", "new"), HARMLESS, trial)
    heard = [said.next("r") for _ in range(6000)]
    windows = [
        {"rollout": "r", "number": w.number, "duration_s": w.duration_s, "pairs": w.pairs, "emulated": False,
         "throttled": w.conditions.throttled, "z": observations(w)}
        for w in heard
    ]  # fmt: skip
    found = one({"a": {"windows": windows}})
    assert found.scatter["latency_ms_p50"].sd == pytest.approx(0.1, rel=0.1)
    assert found.scatter["latency_ms_p50"].throttled_sd == pytest.approx(0.3, rel=0.1)
    assert found.throttled_share == pytest.approx(0.3, abs=0.05)
    assert found.throttled_windows == pytest.approx(6.0, rel=0.2)
    assert found.scatter["latency_ms_p50"].rho > 0.2


def test_a_device_without_a_record_is_played_by_its_class_then_by_the_fleet_then_by_the_model() -> None:
    records = {"b": {"windows": shown([0.1, 0.3] * 10), "presence": [(NOW - 10, True)], "starts_s": [5.0]}}
    records["b"]["measured_s"] = [9.0, 7.0, 8.0]
    same = one(records, device("b"))
    other = one(records, device("b", "tiny"))
    nobody = one({})
    assert (same.windows_from, other.windows_from, nobody.windows_from) == ("class", "fleet", "assumed")
    assert (same.presence_from, nobody.presence_from) == ("class", "assumed")
    assert same.scatter["latency_ms_p50"].sd == other.scatter["latency_ms_p50"].sd
    assert (same.start_s, same.measure_s, other.measure_s, nobody.measure_s) == (5.0, 8.0, 8.0, None)
    assert same.pair_s == pytest.approx(0.02)
    assert nobody.scatter == assumed_scatter()[0]
    assert nobody.pair_s is None


def test_few_windows_are_no_record() -> None:
    assert one({"a": {"windows": shown([0.1, 0.3] * 4)}}).windows_from == "assumed"


def test_what_warming_up_measured_says_how_long_a_pair_takes() -> None:
    assert boards_of([device("a", latency_ms=8.0)], {}, NOW)[0].pair_s == pytest.approx(0.016)


def test_presence_is_the_mean_stretch_here_and_away() -> None:
    turns = [(0.0, True), (100.0, False), (400.0, True), (700.0, False), (800.0, True)]
    found = one({"a": {"presence": turns}})
    assert found.presence_from == "own"
    assert found.away_s == pytest.approx(200.0)
    assert found.here_s == pytest.approx((100 + 300 + NOW - 800) / 2)


def test_a_device_that_was_away_for_less_than_a_minute_was_not_away() -> None:
    blinks = [(0.0, True), (100.0, False), (100.3, True), (300.0, False), (359.0, True)]
    assert one({"a": {"presence": blinks}}).here_s is None
    left = one({"a": {"presence": [*blinks, (500.0, False), (600.0, True)]}})
    assert left.here_s == pytest.approx(500 + NOW - 600)
    assert left.away_s == pytest.approx(100.0)


def test_a_device_that_was_never_seen_to_leave_stays_and_one_that_sleeps_wakes_like_its_class() -> None:
    records = {
        "a": {"presence": [(0.0, True)]},
        "b": {"presence": [(0.0, True), (NOW - 60, False)]},
        "c": {"presence": [(0.0, True), (500.0, False), (1500.0, True)]},
    }
    a, b, c = boards_of([device(name) for name in "abc"], records, NOW)
    assert a.here_s is None
    assert (b.here_s, b.away_s) == (NOW - 60, 1000.0)
    assert c.away_s == 1000.0


def window(number: int, **changed: Any) -> Window:
    old = VariantWindow(n=130, latency_ms_p50=10, latency_ms_p95=20)
    new = VariantWindow(n=130, latency_ms_p50=11, latency_ms_p95=20)
    fields = {"device": "a", "boot_id": "b", "seq": number, "device_class": "pi", "rollout": "r", "model": "m"}
    fields |= {"number": number, "old_digest": "o", "new_digest": "n", "duration_s": 2.6, "pairs": 130}
    return Window(**(fields | {"old": old, "new": new, "conditions": Conditions(throttled=False), **changed}))


def test_the_store_tells_the_newest_paired_windows_of_the_model_oldest_first(store: Store) -> None:
    store.telemetry.add_windows([window(number) for number in range(100)], 1.0)
    store.telemetry.add_windows([window(100, paired=False), window(101, model="other")], 2.0)
    found = store.prospects.record("a", "m")["windows"]
    assert [w["number"] for w in found] == list(range(38, 100))
    assert found[0]["z"]["latency_ms_p50"] == pytest.approx(np.log(1.1))


def test_the_store_tells_how_long_each_start_of_a_trial_took(store: Store) -> None:
    def event(seq: int, at: float, before: DeviceState, after: DeviceState, boot: str = "b") -> AgentEvent:
        return AgentEvent(device="a", boot_id=boot, seq=seq, model="m", rollout="r", before=before, after=after, at=at)

    s = DeviceState
    events = [
        event(1, 10.0, s.IDLE, s.DOWNLOADING),
        event(2, 40.0, s.WARMING, s.TRIAL),
        event(1, 50.0, s.IDLE, s.DOWNLOADING, "c"),  # a boot later it began anew, and has not come there yet
    ]
    store.telemetry.add_events(events, 1.0)
    assert store.prospects.record("a", "m")["starts_s"] == [30.0]
