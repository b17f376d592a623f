from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgeflock_agent.bench import bench, paired_ratio

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


def test_one_model_is_measured_with_everything_it_costs() -> None:
    done = CliRunner().invoke(bench, [str(DATA / "tiny.tflite"), "--json"])
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert found["n"] >= 662
    assert 0 < found["latency_ms_p50"] <= found["latency_ms_p95"] <= found["latency_ms_p99"]
    assert found["first_inference_ms"] > 0
    assert (found["energy"]["mj"] is None) == (found["energy"]["reason"] is not None)
    assert (found["peak_rss_bytes"] is None) == (found["peak_rss_reason"] is not None)
    assert "contended" in found["conditions"]


def test_against_a_slower_model_the_ratio_and_its_interval_say_so() -> None:
    done = CliRunner().invoke(bench, [str(DATA / "tiny.tflite"), "--against", str(DATA / "tiny_slow.tflite"), "--json"])
    assert done.exit_code == 0
    ratio = json.loads(done.stdout)["ratio"]
    assert 0 < ratio["low"] <= ratio["median"] <= ratio["high"] < 0.5


def test_without_json_it_is_meant_to_be_read() -> None:
    done = CliRunner().invoke(bench, [str(DATA / "tiny_int8.tflite")])
    assert done.exit_code == 0
    for word in ("p50", "p95", "first inference", "warm", "memory", "energy", "conditions"):
        assert word in done.stdout


@pytest.mark.parametrize("name", ["corrupt.tflite", "none.tflite", "make.py", "."])
def test_what_is_no_model_is_one_line_and_exit_code_2(name: str) -> None:
    done = CliRunner().invoke(bench, [str(DATA / name)])
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
