from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from edgeflock_agent.children import frames
from edgeflock_agent.children.runner import Closed, HardStop, InferenceFailed, ModelProcess
from edgeflock_agent.watch import private_bytes
from edgeflock_deploy.cases import Evaluation, Golden, write_evaluation, write_golden
from edgeflock_deploy.reasons import Reason

DATA = Path(__file__).parents[2] / "data"
GOLDEN, EVALUATION = DATA / "tiny_golden.npz", DATA / "tiny_evaluation.npz"
NEAR = {"atol": 1e-4, "rtol": 1e-3, "steps": 1, "exact": False}


@pytest.fixture(scope="module")
def shared() -> Iterator[ModelProcess]:
    with ModelProcess.start(DATA / "tiny.tflite") as process:
        yield process


@pytest.fixture
def tiny() -> Iterator[ModelProcess]:
    with ModelProcess.start(DATA / "tiny.tflite") as process:
        yield process


def _golden(process: ModelProcess, path: Path = GOLDEN, **other: float) -> None:
    settings = NEAR | other
    process.check_golden(
        path, atol=settings["atol"], rtol=settings["rtol"], steps=int(settings["steps"]), exact=bool(settings["exact"])
    )


def test_a_loaded_model_tells_its_tensors_and_answers_in_raw_bytes(shared: ModelProcess) -> None:
    assert [(t.dtype, t.shape) for t in (*shared.inputs, *shared.outputs)] == [("float32", (1, 8)), ("float32", (1, 3))]
    done = shared.infer([struct.pack("<8f", *[0.5] * 8)])
    assert sum(struct.unpack("<3f", done.outputs[0])) == pytest.approx(1, abs=1e-5)
    assert done.latency_ms > 0
    assert shared.load_ms > 0


@pytest.mark.parametrize("budget_bytes", [None, 64 << 20])
def test_tensors_in_shared_memory_give_the_same_answers(
    shared: ModelProcess, monkeypatch: pytest.MonkeyPatch, budget_bytes: int | None
) -> None:
    rows = [struct.pack("<8f", *np.random.default_rng(seed).normal(size=8)) for seed in range(4)]
    wanted = [shared.infer([row]).outputs for row in rows]
    monkeypatch.setattr(frames, "SHARED_FROM_BYTES", 1)
    with ModelProcess.start(DATA / "tiny.tflite", memory_budget_bytes=budget_bytes) as process:
        assert [process.infer([row]).outputs for row in rows] == wanted
        assert "edgeflock-tensors" in Path(f"/proc/{process.pid}/maps").read_text()


@pytest.mark.parametrize("inputs", [[], [b"\0" * 31], [b"\0" * 32] * 2])
def test_inputs_of_another_number_or_length_are_refused(shared: ModelProcess, inputs: list[bytes]) -> None:
    with pytest.raises(ValueError, match="input"):
        shared.infer(inputs)
    assert shared.alive


@pytest.mark.parametrize("content", [b"", b"not a model at all" * 100, (DATA / "corrupt.tflite").read_bytes()])
def test_a_file_that_is_no_model_does_not_load(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(HardStop) as stopped:
        ModelProcess.start(path)
    assert stopped.value.reason is Reason.LOAD_FAILED


@pytest.mark.parametrize("budget_bytes", [16 * 1024, 512 * 1024])
def test_a_budget_that_the_model_does_not_fit_stops_it(budget_bytes: int) -> None:
    with pytest.raises(HardStop) as stopped:
        ModelProcess.start(DATA / "tiny_slow.tflite", memory_budget_bytes=budget_bytes)
    assert stopped.value.reason is Reason.MEMORY_OVER_BUDGET


def test_a_file_that_is_no_model_is_not_blamed_on_the_budget() -> None:
    with pytest.raises(HardStop) as stopped:
        ModelProcess.start(DATA / "corrupt.tflite", memory_budget_bytes=64 * 1024)
    assert stopped.value.reason is Reason.LOAD_FAILED


def test_a_model_without_a_declared_budget_gets_no_more_than_the_board_has() -> None:
    with ModelProcess.start(DATA / "tiny.tflite") as process:
        limit, _ = psutil.Process(process.pid).rlimit(psutil.RLIMIT_AS)
        size = psutil.Process(process.pid).memory_info().vms
    assert 0 < limit - psutil.virtual_memory().total < 2 * size


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="this system does not show threads")
def test_a_budget_leaves_room_for_the_stacks_of_the_interpreters_threads() -> None:
    with ModelProcess.start(DATA / "tiny_slow.tflite", threads=3, memory_budget_bytes=4 << 20) as process:
        assert len(list(Path(f"/proc/{process.pid}/task").iterdir())) == 3


def test_a_budget_that_the_model_fits_lets_it_run() -> None:
    with ModelProcess.start(DATA / "tiny_slow.tflite", memory_budget_bytes=64 << 20) as process:
        _golden(process)


def test_golden_outputs_that_come_back_pass(shared: ModelProcess) -> None:
    _golden(shared)


def test_the_first_golden_output_that_differs_is_named_with_its_numbers() -> None:
    with ModelProcess.start(DATA / "tiny_other.tflite") as process, pytest.raises(HardStop) as stopped:
        _golden(process)
    assert stopped.value.reason is Reason.GOLDEN_MISMATCH
    assert "golden case 0, output 0, value 0: got 0.998" in stopped.value.detail
    assert "want 0.667" in stopped.value.detail


def test_exact_golden_outputs_may_not_differ_at_all(tmp_path: Path, shared: ModelProcess) -> None:
    with np.load(GOLDEN) as cases:
        inputs, outputs = cases["input_0"], cases["output_0"]
    path = tmp_path / "golden.npz"
    path.write_bytes(write_golden(Golden((inputs,), (outputs + np.float32(1e-6),))))
    _golden(shared, path)
    with pytest.raises(HardStop, match="GOLDEN_MISMATCH"):
        _golden(shared, path, exact=True)


@pytest.mark.parametrize(("off", "steps", "passes"), [(0, 0, True), (1, 0, False), (1, 1, True), (2, 1, False)])
def test_integer_outputs_may_be_so_many_codes_off(tmp_path: Path, off: int, steps: int, passes: bool) -> None:
    codes = np.arange(8, dtype=np.int8)[None]
    with ModelProcess.start(DATA / "tiny_int8.tflite") as process:
        given = np.frombuffer(process.infer([codes.tobytes()]).outputs[0], np.int8)
        path = tmp_path / "golden.npz"
        nudged = (given.astype(int) + np.where(given > 0, -off, off)).astype(np.int8)
        path.write_bytes(write_golden(Golden((codes,), (nudged[None],))))
        if passes:
            _golden(process, path, steps=steps)
        else:
            with pytest.raises(HardStop, match="GOLDEN_MISMATCH"):
                _golden(process, path, steps=steps)


def test_nan_is_a_hard_stop_of_its_own() -> None:
    with ModelProcess.start(DATA / "tiny_nan.tflite") as process, pytest.raises(HardStop) as stopped:
        _golden(process)
    assert stopped.value.reason is Reason.NAN_OUTPUT


def test_golden_cases_of_another_model_are_refused(tmp_path: Path, shared: ModelProcess) -> None:
    path = tmp_path / "golden.npz"
    path.write_bytes(write_golden(Golden((np.zeros((2, 5), "float32"),), (np.zeros((2, 3), "float32"),))))
    for cases in (path, EVALUATION, tmp_path / "missing.npz"):
        with pytest.raises(HardStop) as stopped:
            _golden(shared, cases)
        assert stopped.value.reason is Reason.MANIFEST_INVALID


def test_items_of_the_slice_are_answered_and_scored(shared: ModelProcess) -> None:
    assert shared.open_slice(EVALUATION, kind="classification", agreement_atol=None) == 64
    results = [shared.run_item(item) for item in range(64)]
    assert all(result.correct for result in results)
    assert {result.answer for result in results} == {0, 1, 2}


def test_a_regression_answers_with_its_values_and_their_squared_error(tmp_path: Path, shared: ModelProcess) -> None:
    with np.load(GOLDEN) as cases:
        path = tmp_path / "slice.npz"
        path.write_bytes(write_evaluation(Evaluation((cases["input_0"],), cases["output_0"] + np.float32(0.1))))
    shared.open_slice(path, kind="regression", agreement_atol=0.01)
    result = shared.run_item(0)
    assert isinstance(result.answer, tuple)
    assert sum(result.answer) == pytest.approx(1, abs=1e-5)
    assert result.squared_error == pytest.approx(0.01, rel=1e-3)
    assert result.correct is None


def test_a_regression_whose_answer_is_an_image_is_scored_whole_and_told_in_part(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((2, 30_000, 4)).astype("float32")
    path = tmp_path / "slice.npz"
    path.write_bytes(write_evaluation(Evaluation((images,), 2 * images + np.float32(0.5))))
    with ModelProcess.start(DATA / "tiny_open.tflite") as process:  # its first output is twice the input
        process.open_slice(path, kind="regression", agreement_atol=0.01)
        result = process.run_item(1)
    assert result.squared_error == pytest.approx(0.25, rel=1e-4)
    assert isinstance(result.answer, tuple)
    assert 2_000 < len(result.answer) <= 4_096
    assert result.answer[1] == pytest.approx(2 * images[1].reshape(-1)[30], abs=1e-6)


def test_real_values_become_the_codes_of_a_quantized_input() -> None:
    with ModelProcess.start(DATA / "tiny_int8.tflite") as process:
        process.open_slice(EVALUATION, kind="classification", agreement_atol=None)
        assert sum(bool(process.run_item(item).correct) for item in range(64)) >= 62


def test_an_item_that_fails_leaves_the_child_alive(shared: ModelProcess) -> None:
    shared.open_slice(EVALUATION, kind="classification", agreement_atol=None)
    with pytest.raises(InferenceFailed, match="IndexError"):
        shared.run_item(64)
    assert shared.run_item(63).correct


def test_inputs_that_fail_all_day_do_the_child_no_harm_and_each_is_told_its_own_error() -> None:
    """The runtime keeps what it says of each failure, and says all of it at the next."""
    with ModelProcess.start(DATA / "tiny_bomb.tflite", memory_budget_bytes=64 << 20) as process:
        held, said = private_bytes(process.pid), set()
        for _ in range(5000):
            with pytest.raises(InferenceFailed) as refused:
                process.infer([struct.pack("<8f", 1000.0, *[0.1] * 7)])
            said.add(str(refused.value))
        assert len(said) == 1
        assert len(said.pop()) < 200
        grown = (private_bytes(process.pid) or 0) - (held or 0)
        assert grown < 2 << 20
        assert process.infer([struct.pack("<8f", *[0.1] * 8)]).outputs


def test_a_crash_says_by_which_signal_and_every_further_request_says_so_too(tiny: ModelProcess) -> None:
    os.kill(tiny.pid, signal.SIGSEGV)
    for _ in range(2):
        with pytest.raises(HardStop, match="CRASHED: ended by SIGSEGV"):
            tiny.infer([bytes(32)])
    assert not tiny.alive
    assert tiny.failure is not None
    assert tiny.failure.reason is Reason.CRASHED


def test_a_model_file_that_is_cut_short_ends_the_process_that_has_it_mapped_and_nothing_else(tmp_path: Path) -> None:
    model = tmp_path / "m.tflite"
    model.write_bytes((DATA / "tiny_slow.tflite").read_bytes())
    with ModelProcess.start(model) as process:
        os.truncate(model, 0)
        with pytest.raises(HardStop, match="SIGBUS") as stopped:
            process.infer([bytes(32)])
    assert stopped.value.reason is Reason.CRASHED


def test_a_child_that_hangs_is_killed() -> None:
    with ModelProcess.start(DATA / "tiny.tflite", timeout_s=0.5) as process:
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(HardStop) as stopped:
            process.infer([bytes(32)])
        assert stopped.value.reason is Reason.HUNG
        assert not Path(f"/proc/{process.pid}").exists()


def test_who_asks_a_child_that_is_slow_to_end_is_told_at_once_to_ask_elsewhere() -> None:
    process = ModelProcess.start(DATA / "tiny.tflite")
    os.kill(process.pid, signal.SIGSTOP)  # it does not hear that it is to go
    closing = threading.Thread(target=process.close)
    closing.start()
    while process.alive:
        time.sleep(0.001)
    with pytest.raises(Closed):
        process.infer([bytes(32)])
    assert closing.is_alive()  # the process was not waited for
    closing.join()
    assert not Path(f"/proc/{process.pid}").exists()


def test_a_closed_child_is_gone_and_says_closed(tiny: ModelProcess) -> None:
    tiny.close()
    tiny.close()
    assert not Path(f"/proc/{tiny.pid}").exists()
    with pytest.raises(Closed):
        tiny.infer([bytes(32)])


def test_requests_of_many_threads_get_their_own_answers(shared: ModelProcess) -> None:
    rows = [struct.pack("<8f", *np.random.default_rng(seed).normal(size=8)) for seed in range(4)]
    alone = [shared.infer([row]).outputs for row in rows]
    wrong: list[int] = []

    def ask(number: int) -> None:
        wrong.extend(number for _ in range(100) if shared.infer([rows[number]]).outputs != alone[number])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_child_is_confined_and_its_stdout_cannot_be_taken_for_a_frame(shared: ModelProcess) -> None:
    proc = Path(f"/proc/{shared.pid}")
    assert "NoNewPrivs:\t1" in (proc / "status").read_text()
    limits = {line[:26].strip(): line[26:].split()[0] for line in (proc / "limits").read_text().splitlines()[1:]}
    assert limits["Max core file size"] == "0"
    assert limits["Max open files"] == "64"
    assert (proc / "fd/1").readlink() == (proc / "fd/2").readlink()


def test_the_child_ends_with_its_parent_even_by_kill() -> None:
    script = (
        "import sys, time; from pathlib import Path; from edgeflock_agent.children.runner import ModelProcess\n"
        "print(ModelProcess.start(Path(sys.argv[1])).pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(DATA / "tiny.tflite")], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = Path(f"/proc/{int(parent.stdout.readline())}")
        assert child.exists()
        parent.kill()
    until = time.monotonic() + 10
    while _runs(child) and time.monotonic() < until:
        time.sleep(0.02)
    assert not _runs(child)


def _runs(process: Path) -> bool:
    try:
        return "State:\tZ" not in (process / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_agents_own_process_imports_no_numpy() -> None:
    script = (
        "import sys, edgeflock_agent.children.runner, edgeflock_agent.warming, edgeflock_agent.trial.trials\n"
        "import edgeflock_agent.serving.endpoint, edgeflock_agent.bench; sys.exit('numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
