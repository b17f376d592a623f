"""What serves is watched: NaN of numbers, and memory that grows; the child is a real one."""

from __future__ import annotations

import os
import resource
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from edgeflock_agent.children.runner import HardStop, Inference, ModelProcess
from edgeflock_agent.serving.endpoint import Answered, Serving
from edgeflock_agent.watch import (
    DOUBTED_EVERY_S,
    NAN_IN_A_ROW,
    REFUSED_IN_A_ROW,
    Watch,
    allowed_bytes,
    private_bytes,
    too_much_nan,
)
from edgeflock_deploy.cases import Golden, write_golden
from edgeflock_deploy.reasons import Reason

DATA = Path(__file__).parents[2] / "data"


def item(first: float) -> bytes:
    return struct.pack("<8f", first, *([0.1] * 7))


@pytest.fixture
def told() -> list[tuple[str, Serving, HardStop]]:
    return []


@pytest.fixture
def watch(told: list[tuple[str, Serving, HardStop]]) -> Watch:
    return Watch(lambda *what: told.append(what))


@pytest.fixture(scope="module")
def late_nan() -> Iterator[ModelProcess]:
    with ModelProcess.start(DATA / "tiny_late_nan.tflite") as process:
        yield process


@pytest.fixture(scope="module")
def serving(late_nan: ModelProcess) -> Serving:
    return Serving("d" * 64, late_nan)


def feed(watch: Watch, serving: Serving, *nans: bool) -> None:
    for nan in nans:
        watch.answered(Answered("digits", (), serving, Inference((), 0.1, nan=nan)))


def test_nan_of_numbers_is_told_apart_from_nan_of_nan(late_nan: ModelProcess) -> None:
    assert late_nan.infer([item(1.0)]).nan is False
    assert late_nan.infer([item(3.0)]).nan is True
    assert late_nan.infer([item(float("nan"))]).nan is False  # the application's own doing


def test_a_variant_that_gives_nan_again_and_again_is_told_on_once(
    watch: Watch, serving: Serving, told: list[tuple[str, Serving, HardStop]]
) -> None:
    feed(watch, serving, *[True] * (NAN_IN_A_ROW - 1))
    assert told == []
    feed(watch, serving, *[True] * 20)
    assert [(model, by, stop.reason) for model, by, stop in told] == [("digits", serving, Reason.NAN_OUTPUT)]
    assert watch.nan_answers == NAN_IN_A_ROW + 19


def test_a_nan_now_and_then_is_counted_and_no_verdict(
    watch: Watch, serving: Serving, told: list[tuple[str, Serving, HardStop]]
) -> None:
    feed(watch, serving, *[number % 4 == 0 for number in range(400)])
    assert (watch.nan_answers, told) == (100, [])


def test_every_other_answer_nan_is_a_verdict(
    watch: Watch, serving: Serving, told: list[tuple[str, Serving, HardStop]]
) -> None:
    feed(watch, serving, *[number % 2 == 0 for number in range(64)])
    assert len(told) == 1


def test_what_a_variant_did_is_not_held_against_the_next(
    watch: Watch, serving: Serving, told: list[tuple[str, Serving, HardStop]]
) -> None:
    feed(watch, serving, *[True] * (NAN_IN_A_ROW - 1))
    with ModelProcess.start(DATA / "tiny.tflite") as other:
        feed(watch, Serving("e" * 64, other), True)
    assert told == []


def test_the_rule_reads_the_newest_answers() -> None:
    assert too_much_nan((1 << NAN_IN_A_ROW) - 1)
    assert not too_much_nan(((1 << NAN_IN_A_ROW) - 1) << 1)
    assert too_much_nan(int("10" * 32, 2))


def test_a_model_that_eats_memory_is_found_by_its_growth(watch: Watch) -> None:
    with ModelProcess.start(DATA / "tiny_bomb.tflite") as bomb:
        assert watch.memory(bomb) is None
        bomb.infer([item(3.0)])  # 4 MB
        assert watch.memory(bomb) is None
        bomb.infer([item(80.0)])  # 312 MB
        stop = watch.memory(bomb)
        assert stop is not None
        assert stop.reason is Reason.MEMORY_OVER_BUDGET


def test_a_process_that_is_gone_holds_nothing_to_complain_of(watch: Watch) -> None:
    with ModelProcess.start(DATA / "tiny.tflite") as process:
        pass
    assert watch.memory(process) is None


def test_private_memory_leaves_out_what_files_stand_behind() -> None:
    held = private_bytes(os.getpid())
    assert held is not None
    assert 1 << 20 < held < 8 << 30
    assert allowed_bytes(held) > 2 * held


def refuse(watch: Watch, serving: Serving, times: int) -> None:
    for _ in range(times):
        watch.refused("digits", serving)


def test_refusals_in_a_row_are_doubted_once_a_minute_and_an_answer_ends_the_row(watch: Watch, serving: Serving) -> None:
    refuse(watch, serving, REFUSED_IN_A_ROW - 1)
    feed(watch, serving, False)
    refuse(watch, serving, REFUSED_IN_A_ROW - 1)
    assert not watch.doubts("digits", serving, 0.0)
    refuse(watch, serving, 1)
    doubted = [second for second in range(130) if watch.doubts("digits", serving, float(second))]
    assert doubted == [0, DOUBTED_EVERY_S, 2 * DOUBTED_EVERY_S]


def test_a_variant_that_gives_its_golden_outputs_is_not_told_on(
    watch: Watch, told: list[tuple[str, Serving, HardStop]]
) -> None:
    with ModelProcess.start(DATA / "tiny.tflite") as process:
        process.check_golden(DATA / "tiny_golden.npz", atol=1e-4, rtol=1e-3, steps=1, exact=False)
        watch.prove("digits", Serving("d" * 64, process))
    watch.prove("digits", Serving("d" * 64, process))  # closed meanwhile
    assert told == []


def test_a_variant_that_fails_at_its_golden_cases_too_is_told_on(
    tmp_path: Path, watch: Watch, told: list[tuple[str, Serving, HardStop]]
) -> None:
    x = np.full((1, 8), 40.0, np.float32)  # takes 152 MB
    golden = tmp_path / "golden.npz"
    with ModelProcess.start(DATA / "tiny_bomb.tflite") as process:
        y = np.frombuffer(process.infer([x.tobytes()]).outputs[0], np.float32).reshape(1, 3)
        golden.write_bytes(write_golden(Golden((x,), (y,))))
        process.check_golden(golden, atol=1e-4, rtol=1e-3, steps=1, exact=False)
        serving = Serving("d" * 64, process)
        process.infer([item(1.0)])  # which gives the memory back
        held = psutil.Process(process.pid).memory_info().vms + (8 << 20)
        resource.prlimit(process.pid, resource.RLIMIT_AS, (held, held))  # as if it had leaked what it may have
        refuse(watch, serving, 9)
        watch.prove("digits", serving)
    ((_, by, stop),) = told
    assert (by, stop.reason) == (serving, Reason.CRASHED)
    assert "refused 9 requests of applications in a row, and then: a golden case did not run" in stop.detail
