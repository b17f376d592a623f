from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeflock_agent import bench_report
from edgeflock_agent.bench import bench
from edgeflock_agent.measure import benchmark_model
from edgeflock_agent.measure.paired import Ratio, enough, paired_ratio
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.messages.measurements import Conditions, Energy

DATA = Path(__file__).parents[2] / "data"


def test_the_interval_of_the_median_has_the_ranks_of_the_sign_test() -> None:
    # Tables of the sign test: for n = 20 the 95 % interval runs from the 6th smallest to the 6th largest value.
    found = paired_ratio([math.log(1 + i) for i in range(20)])
    assert found.low == pytest.approx(6)
    assert found.high == pytest.approx(15)
    assert paired_ratio([0.0] * 5).low is None
    assert paired_ratio([0.0] * 6).low == 1.0


def test_the_interval_covers_the_true_ratio_as_often_as_it_says() -> None:
    rng = random.Random(1)
    covered = 0
    for _ in range(1000):
        found = paired_ratio([rng.gauss(math.log(1.1), 0.2) for _ in range(50)])
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 1.1 <= found.high
    assert 940 <= covered <= 990


def test_a_thousand_pairs_do_not_underflow() -> None:
    found = paired_ratio([math.log(1 + i) for i in range(2000)])
    assert found.low == pytest.approx(957, abs=2)


def test_rounds_are_enough_when_there_are_eight_that_agree_within_half_a_percent() -> None:
    assert enough(paired_ratio([0.0] * 8))
    assert not enough(paired_ratio([0.0] * 7))
    assert not enough(paired_ratio([0.02 * i for i in range(8)]))
    assert Ratio(1.0, 0.995, 1.005, 20).half_width == pytest.approx(0.005)
    assert Ratio(2.0, 1.98, 2.02, 20).half_width == pytest.approx(0.01)
    assert Ratio(1.0, None, None, 5).half_width is None


def test_one_model_is_measured_with_everything_it_costs() -> None:
    done = CliRunner().invoke(bench, [str(DATA / "tiny.tflite"), "--json"])
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert found["n"] >= 662
    assert 0 < found["latency_ms_p50"] <= found["latency_ms_p95"] <= found["latency_ms_p99"]
    assert found["first_inference_ms"] > 0
    assert found["inferences_per_s"]["1"] > 0
    assert (found["energy"]["mj"] is None) == (found["energy"]["reason"] is not None)
    assert (found["peak_rss_bytes"] is None) == (found["peak_rss_reason"] is not None)
    if found["peak_rss_bytes"] is not None:
        assert found["peak_anonymous_bytes"] + found["peak_file_bytes"] == found["peak_rss_bytes"]
    assert "contended" in found["conditions"]


def test_against_a_slower_model_the_ratio_says_so_and_that_its_time_was_too_short() -> None:
    command = [str(DATA / "tiny.tflite"), "--against", str(DATA / "tiny_slow.tflite"), "--max-seconds", "1", "--json"]
    done = CliRunner().invoke(bench, command)
    assert done.exit_code == 0
    ratio = json.loads(done.stdout)["ratio"]
    assert 0 < ratio["median"] < 0.5
    assert ratio["pairs"] >= 8
    assert (ratio["rounds"], ratio["reached"], ratio["low"]) == (1, False, None)


def test_without_json_it_is_meant_to_be_read() -> None:
    beside = str(DATA / "benchmark_model.txt")
    done = CliRunner().invoke(bench, [str(DATA / "tiny_int8.tflite"), "--beside", beside])
    assert done.exit_code == 0
    for word in ("p50", "p95", "throughput", "first inference", "warm", "memory", "anonymous", "energy", "conditions"):
        assert word in done.stdout
    assert "LiteRT's tool on tiny.tflite: mean 0.0141 ms, p50 0.0135 ms, first 0.061 ms, memory 4.2 MB" in done.stdout
    assert "of their median" in done.stdout
    assert "not compared: 4 thread(s) there, 1 here" in done.stdout


def test_a_ratio_that_did_not_settle_says_how_far_it_was() -> None:
    calm = Conditions().model_dump()
    numbers = {"median": 1.01, "low": 0.98, "high": 1.04, "half_width": 0.03, "wanted_half_width": 0.005}
    model = {
        "model": "a.tflite", "raw_bytes": 1, "threads": 1, "n": 1, "latency_ms_p50": 1.0, "latency_ms_p90": None,
        "latency_ms_p95": None, "latency_ms_p99": None, "end_to_end_ms_p50": 1.1, "end_to_end_ms_p95": None,
            "first_inference_ms": 1.0, "load_ms": 1.0, "warmed_up": False,
        "warm_up_inferences": 1, "inferences_per_s": {"1": 2.0}, "peak_rss_bytes": None, "peak_rss_reason": "no",
        "energy": Energy(reason="no meter").model_dump(), "conditions": calm,
    }  # fmt: skip
    ratio = numbers | {"reached": False, "rounds": 9, "pairs": 900, "seconds": 60.2, "conditions": calm}
    text = bench_report.readable(model | {"against": model, "ratio": ratio})
    assert "latency x 1.010  (95 %: 0.980 to 1.040; 9 rounds, 900 pairs)" in text
    assert "NOT settled within 60 s: half the interval is 3.0 %, 0.5 % was wanted".replace(" %", "%") in text
    assert "NOT settled within" not in bench_report.readable(
        model | {"against": model, "ratio": ratio | {"reached": True}}
    )


def test_energy_is_shown_with_method_scope_and_whether_it_may_gate() -> None:
    energy = Energy(
        mj=2.0, method="sampled", meter="hwmon:ina226", scope="rail", sample_hz=47.6, net_mj=0.5, net_error_mj=0.01
    )
    gross, net = bench_report.energy_lines(energy.model_dump() | {"may_gate": energy.may_gate})
    assert gross == "2 mJ gross (sampled, rail, hwmon:ina226, 48 readings a second, gates nothing)"
    assert net == "0.5 mJ net of idle, +-0.01"


def test_flags_say_what_disturbed() -> None:
    disturbed = Conditions(
        contended=True,
        throttled=True,
        frequency_mhz=600,
        frequency_max_mhz=2400,
        temperature_c=84.6,
        cpu_pressure_pct=7,
    )
    shown = "contended, throttled, slow clock, 600 MHz of 2400, 85 C, pressure 7 %"
    assert bench_report.flags(disturbed.model_dump()) == shown
    assert bench_report.flags(Conditions().model_dump()) == "calm"


def test_what_benchmark_model_printed_is_read_run_by_run() -> None:
    new, old = benchmark_model.read(DATA / "benchmark_model.txt")
    assert (new.graph, new.threads, new.n) == ("tiny.tflite", 1, 8123)
    assert (new.latency_ms_mean, new.latency_ms_p50, new.latency_ms_p95) == (0.0141, 0.0135, 0.018)
    assert (new.first_inference_ms, new.load_ms, new.memory_mb) == (0.061, 1.523, 4.25)
    assert (old.threads, old.n, old.latency_ms_mean, old.latency_ms_p50) == (4, 50, 249.684, None)
    assert old.memory_mb == 138.809
    assert benchmark_model.quotient(0.027, 1, new) == (2.0, None)
    assert benchmark_model.quotient(0.027, 4, old) == (None, "not compared: no median there")


def test_the_result_of_the_python_tool_is_read_and_compared_unless_its_rounding_is_too_coarse(tmp_path: Path) -> None:
    (run,) = benchmark_model.read(DATA / "benchmark_litert_model.json")
    assert (run.graph, run.threads, run.n) == ("tiny.tflite", 1, 200)
    assert (run.latency_ms_mean, run.latency_ms_p50, run.first_inference_ms, run.load_ms) == (2.04, 2.0, 0.13, 5.14)
    assert benchmark_model.quotient(3.0, 1, run) == (1.5, None)
    quick = tmp_path / "quick.json"
    quick.write_text(
        (DATA / "benchmark_litert_model.json").read_text().replace('"median_ms": 2.0', '"median_ms": 0.02')
    )
    (run,) = benchmark_model.read(quick)
    assert benchmark_model.quotient(0.021, 1, run) == (None, "not compared: its times are rounded to 0.01 ms")


@pytest.mark.parametrize("text", ["{", "{}", '{"latency": 3}', '{"latency": {"avg_ms": null}}'])
def test_json_that_the_python_tool_did_not_write_is_bad_input(tmp_path: Path, text: str) -> None:
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(BadInput, match="benchmark_model"):
        benchmark_model.read(tmp_path / "other.json")


@pytest.mark.parametrize("name", ["none.txt", "make.py", "."])
def test_a_file_that_benchmark_model_did_not_print_is_bad_input(name: str) -> None:
    with pytest.raises(BadInput):
        benchmark_model.read(DATA / name)


@pytest.mark.parametrize("name", ["corrupt.tflite", "none.tflite", "make.py", "."])
def test_what_is_no_model_is_one_line_and_exit_code_2(name: str) -> None:
    done = CliRunner().invoke(bench, [str(DATA / name)])
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
