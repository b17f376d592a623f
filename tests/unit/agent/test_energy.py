from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from board import no_commands, put, unpack

from edgeflock_agent.measure.energy import Counted, Counter, NoMeter, Sampled, Spent, integrate_mj
from edgeflock_agent.measure.metering import Idle, Metering, energy_of
from edgeflock_agent.measure.meters import find_meter


class Supply:
    """A supply line with a clock of its own: time passes when somebody sleeps, and energy with it."""

    def __init__(self, folder: Path, watts: float) -> None:
        self.counter = folder / "energy_uj"
        self.now_s, self.uj, self.watts = 0.0, 0.0, watts
        self.sleep(0)

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.uj += 1e6 * seconds * self.watts
        self.counter.write_text(f"{self.uj:.0f}\n")

    def meter(self) -> Counter:
        return Counter("hwmon:ina228", [Counted(self.counter)], "board_input", self.clock)


def test_net_energy_is_gross_without_the_idle_power_beside_it(tmp_path: Path) -> None:
    board = Supply(tmp_path, watts=2.0)
    with Metering(board.meter(), 10, board.clock, board.sleep) as metering:
        board.watts = 5.0
        assert metering.too_short()
        board.sleep(4)
        assert not metering.too_short()
        board.watts = 2.0
        energy = metering.end(100)
    assert energy.mj == pytest.approx(5.0 * 4 / 100 * 1e3)
    assert energy.net_mj == pytest.approx(3.0 * 4 / 100 * 1e3)
    assert energy.net_error_mj == pytest.approx(0.2)  # both idle powers were the same
    assert (energy.method, energy.scope, energy.may_gate) == ("counter", "board_input", True)


def test_an_idle_power_that_moved_is_the_error_of_the_net_energy(tmp_path: Path) -> None:
    board = Supply(tmp_path, watts=2.0)
    with Metering(board.meter(), 10, board.clock, board.sleep) as metering:
        board.watts = 5.0
        board.sleep(1)
        board.watts = 2.5
        energy = metering.end(10)
    assert energy.net_mj == pytest.approx((5.0 - 2.25) / 10 * 1e3)
    assert energy.net_error_mj == pytest.approx(0.25 / 10 * 1e3)


def test_what_is_not_above_the_idle_power_has_no_net_energy_but_a_reason(tmp_path: Path) -> None:
    board = Supply(tmp_path, watts=2.0)
    with Metering(board.meter(), 10, board.clock, board.sleep) as metering:
        board.sleep(1)
        energy = metering.end(10)
    assert energy.mj is not None
    assert energy.net_mj is None
    assert energy.net_reason == "what the inferences add is within the error of the idle power"


def test_a_meter_that_needs_longer_than_there_is_time_is_not_asked(tmp_path: Path) -> None:
    meter = find_meter(unpack("battery", tmp_path), no_commands)
    assert not isinstance(meter, NoMeter)

    def sleep(_: float) -> None:
        raise AssertionError("it was asked")

    with Metering(meter, 5.0, sleep=sleep) as metering:
        assert not metering.too_short()
        energy = metering.end(100)
    assert (energy.mj, energy.reason) == (None, "battery:BAT0 needs 10 s, the measurement may last 5 s")


def test_a_meter_that_fails_when_the_span_begins_is_a_reason(tmp_path: Path) -> None:
    unpack("ina219", tmp_path)
    meter = find_meter(tmp_path, no_commands)
    (tmp_path / "class/hwmon/hwmon2/power1_input").unlink()
    with Metering(meter, 5.0, sleep=lambda _: None) as metering:
        assert metering.end(1).reason == "hwmon:ina219:board cannot be read (No such file or directory)"


def test_a_measurement_that_fails_leaves_no_meter_running(tmp_path: Path) -> None:
    unpack("ina219", tmp_path)
    before = threading.active_count()
    with pytest.raises(RuntimeError), Metering(find_meter(tmp_path, no_commands), 5.0, sleep=lambda _: None):
        assert threading.active_count() == before + 1
        raise RuntimeError("the model crashed")
    assert threading.active_count() == before


def test_a_counter_that_did_not_move_gives_no_number(tmp_path: Path) -> None:
    put(tmp_path, energy_uj="900")
    meter = Counter("rapl", [Counted(tmp_path / "energy_uj", 1000)], "cpu_package")
    energy = energy_of(meter, meter.begin()(), 10, Idle(None, None, "not asked"))
    assert (energy.mj, energy.method) == (None, "none")
    assert energy.reason == "the measurement was too short for the meter"


def test_samples_are_integrated_by_the_trapezoid_rule() -> None:
    ramp = [(0.02 * i, float(i)) for i in range(51)]  # 0 to 50 W over one second
    assert integrate_mj(ramp) == pytest.approx(25_000)


def sampled(read: Callable[[], float], **options: float) -> Spent:
    meter = Sampled("x", read, "board_input", interval_s=0.001, **options)  # type: ignore[arg-type]
    end = meter.begin()
    while not finished(read):
        pass
    return end()


def finished(read: object) -> bool:
    return bool(getattr(read, "done", True))


class Readings:
    """Readings that end: the nth is watts, or a failed one."""

    def __init__(self, values: Iterator[float | None]) -> None:
        self._values, self.done = values, False

    def __call__(self) -> float:
        value = next(self._values, "end")
        if value == "end":
            self.done = True
            return 2.0
        if value is None:
            raise OSError("the bus is busy")
        return float(value)


def test_constant_power_times_time_is_the_energy() -> None:
    spent = sampled(Readings(iter([2.0] * 50)))
    assert spent.mj == pytest.approx(2e3 * spent.seconds, rel=1e-6)
    assert spent.sample_hz is not None


def test_fewer_than_20_samples_say_too_little() -> None:
    assert (
        sampled(Readings(iter([2.0] * 3)), min_samples=1_000_000).reason
        == "the measurement was too short for the meter"
    )


def test_a_reading_that_fails_now_and_then_is_left_out_and_many_are_a_reason() -> None:
    assert sampled(Readings(iter([2.0, None, *[2.0] * 60]))).mj is not None
    spoilt = sampled(Readings(iter([2.0, *[2.0, None] * 30])))
    assert spoilt.mj is None
    assert "readings of x failed" in str(spoilt.reason)
