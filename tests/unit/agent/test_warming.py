from __future__ import annotations

from pathlib import Path

import pytest
from board import no_commands, unpack

from edgeflock_agent.children.runner import HardStop, ModelProcess
from edgeflock_agent.measure.energy import Counted, Counter, NoMeter
from edgeflock_agent.measure.meters import find_meter
from edgeflock_agent.warming import closed_loop, measure_alone, settled
from edgeflock_deploy.reasons import Reason

DATA = Path(__file__).parents[2] / "data"
NONE = NoMeter("no meter: none here")


@pytest.mark.parametrize(
    ("medians", "warm"),
    [([], False), ([1.0], False), ([2.0, 1.0], False), ([2.0, 1.0, 1.019], True), ([1.0, 1.0, 1.03], False)],
)
def test_a_variant_is_warm_when_two_blocks_in_a_row_are_within_2_percent(medians: list[float], warm: bool) -> None:
    assert settled(medians) is warm


def test_a_measurement_has_every_quantile_that_its_samples_allow() -> None:
    found = measure_alone(DATA / "tiny.tflite", NONE, golden_path=DATA / "tiny_golden.npz")
    assert found.n >= 130
    assert found.latency_ms_p50 is not None
    assert found.latency_ms_p95 is not None
    assert found.latency_ms_p95 >= found.latency_ms_p50
    assert found.first_inference_ms > 0
    assert found.load_ms > 0
    assert found.end_to_end_ms_p50 is not None
    assert found.end_to_end_ms_p95 is not None
    assert (found.energy.mj, found.energy.reason) == (None, "no meter: none here")


def test_a_slow_model_is_measured_for_no_longer_than_it_may_take() -> None:
    with ModelProcess.start(DATA / "tiny_slow.tflite") as process:
        process.use_random_inputs()
        run = closed_loop(process, NONE, samples=100_000, max_ms=1.0)
    assert 1 <= len(run.latencies_ms) < 1000


def test_energy_per_inference_comes_from_the_meter(tmp_path: Path) -> None:
    counter = tmp_path / "energy_uj"
    counter.write_text("0")

    def sleep(seconds: float) -> None:  # idle: 3 W
        counter.write_text(f"{float(counter.read_text()) + 3e6 * seconds}")

    class Board(Counter):
        spans = 0

        def begin(self):  # type: ignore[no-untyped-def]
            end = super().begin()
            self.spans += 1
            if self.spans == 2:  # the inferences: 1 J
                counter.write_text(f"{float(counter.read_text()) + 1e6}")
            return end

    with ModelProcess.start(DATA / "tiny.tflite") as process:
        process.open_golden(DATA / "tiny_golden.npz")
        ticks = iter(range(10_000))
        board = Board("rapl", [Counted(counter)], "cpu_package")
        run = closed_loop(process, board, samples=64, clock=lambda: float(next(ticks)), sleep=sleep)
    assert board.spans == 3
    assert run.energy.mj == pytest.approx(1000 / len(run.latencies_ms))
    assert run.energy.method == "counter"


def test_a_board_with_an_ina219_reports_sampled_energy_with_its_scope(tmp_path: Path) -> None:
    meter = find_meter(unpack("ina219", tmp_path), no_commands)
    energy = measure_alone(DATA / "tiny.tflite", meter, golden_path=DATA / "tiny_golden.npz").energy
    assert energy.mj is not None
    assert (energy.method, energy.scope, energy.meter) == ("sampled", "board_input", "hwmon:ina219:board")
    assert energy.may_gate
    assert energy.sample_hz is not None
    assert energy.net_mj is None  # a recording draws the same whatever happens
    assert energy.net_reason == "what the inferences add is within the error of the idle power"


def test_a_model_that_does_not_load_is_not_measured() -> None:
    with pytest.raises(HardStop) as stopped:
        measure_alone(DATA / "corrupt.tflite", NONE)
    assert stopped.value.reason is Reason.LOAD_FAILED
