"""A real agent process, a real broker, real models: what is said on the wire and what the endpoint answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgeflock_agent.client import Client
from edgeflock_deploy.keys import SigningKey
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.reports import AgentEvent, Reported
from edgeflock_deploy.messages.values import DeviceState, Outcome
from edgeflock_deploy.messages.windows import Window
from edgeflock_deploy.reasons import Reason

if TYPE_CHECKING:
    from tests.integration.agent.conftest import Board, Headquarters


def commit_first(hq: Headquarters, board: Board, digest: str) -> None:
    hq.want(board.device, Phase.COMMIT, digest, 1, rollout="first")
    assert hq.wait_done(1).outcome is Outcome.SUCCEEDED


def test_a_variant_goes_from_trial_to_committed_and_serves_over_a_kill(hq: Headquarters, board: Board) -> None:
    old, new = hq.bundle("tiny.tflite", 1), hq.bundle("tiny_other.tflite", 2)
    board.start()
    commit_first(hq, board, old)
    assert board.infer()["parameters"]["digest"] == old

    hq.want(board.device, Phase.TRIAL, new, 2)
    hq.wait("the third window", lambda m: isinstance(m, Window) and m.number == 2)
    assert [window.number for window in hq.windows()][:3] == [0, 1, 2]
    for window in hq.windows():
        assert (window.old_digest, window.new_digest, window.pairs) == (old, new, 20)
        assert window.old.peak_rss_bytes is not None
        assert window.old.accuracy is not None
        assert window.agreement is not None
    assert board.infer()["parameters"]["digest"] == old  # in shadow the incumbent answers

    hq.want(board.device, Phase.COMMIT, new, 3)
    done = hq.wait_done(3)
    assert (done.outcome, done.digest, done.slots.previous) == (Outcome.SUCCEEDED, new, old)
    assert board.infer()["parameters"]["digest"] == new
    order = [event.after for event in hq.events() if event.rollout == "r1"]
    assert order == [
        DeviceState.DOWNLOADING,
        DeviceState.VERIFYING,
        DeviceState.STAGED,
        DeviceState.WARMING,
        DeviceState.TRIAL,
        DeviceState.COMMITTED,
    ]

    board.end(signal.SIGKILL)
    hq.wait_online(False)
    mark = len(hq.said)
    board.start()
    hq.wait_reported("it serves again", lambda m: m.digest == new and m.generation == 3, mark)
    assert board.infer()["parameters"]["digest"] == new


def test_an_agent_answers_on_its_unix_socket_too_and_takes_it_away_at_the_end(
    hq: Headquarters, board: Board, tmp_path: Path
) -> None:
    path = tmp_path / "asked.sock"
    digest = hq.bundle("tiny.tflite", 1)
    board.start("--socket", str(path))
    commit_first(hq, board, digest)
    assert board.noted["socket"] == str(path)
    with Client(f"unix:{path}", timeout_s=20) as unix, Client(board.endpoint, timeout_s=20) as tcp:
        x = np.full((1, 8), 0.1, "float32")
        answer = unix.infer("digits", {"x": x})
        assert answer.digest == digest
        np.testing.assert_array_equal(answer.outputs["Identity"], tcp.infer("digits", {"x": x}).outputs["Identity"])
        status = [sys.executable, "-m", "edgeflock_agent.cli", "status", "--state", str(board.state)]
        assert f"unix:{path}" in subprocess.run(status, capture_output=True, text=True, check=True).stdout
    assert board.end() == 0
    assert not path.exists()


@pytest.mark.parametrize("state", [DeviceState.DOWNLOADING, DeviceState.STAGED, DeviceState.WARMING, DeviceState.TRIAL])
def test_an_agent_killed_on_the_way_takes_it_up_again_and_fetches_nothing_twice(
    hq: Headquarters, board: Board, state: DeviceState
) -> None:
    old, new = hq.bundle("tiny.tflite", 1), hq.bundle("tiny_other.tflite", 2, padding=os.urandom(600_000))
    board.start()
    commit_first(hq, board, old)
    hq.want(board.device, Phase.TRIAL, new, 2)
    hq.wait(f"{state} is entered", lambda m: isinstance(m, AgentEvent) and m.rollout == "r1" and m.after is state)
    board.end(signal.SIGKILL)
    whole = all((board.state / "blobs" / name).exists() for name in hq.blob_names[new])
    hq.wait_online(False)
    mark = len(hq.said)
    board.start()
    hq.wait("a window", lambda m: isinstance(m, Window), mark)
    assert board.infer()["parameters"]["digest"] == old
    hq.want(board.device, Phase.COMMIT, new, 3)
    assert hq.wait_done(3).outcome is Outcome.SUCCEEDED
    if whole:
        assert [m for m in hq.said if isinstance(m, Reported)][-1].bytes_received == 0
    assert board.infer()["parameters"]["digest"] == new


def test_an_agent_killed_while_going_back_goes_back(hq: Headquarters, board: Board) -> None:
    old, new = hq.bundle("tiny.tflite", 1), hq.bundle("tiny_other.tflite", 2)
    board.start()
    commit_first(hq, board, old)
    hq.want(board.device, Phase.COMMIT, new, 2)
    hq.wait_done(2)
    hq.want(board.device, Phase.REVERT, old, 3)
    hq.wait("it goes back", lambda m: isinstance(m, AgentEvent) and m.after is DeviceState.ROLLING_BACK)
    board.end(signal.SIGKILL)
    hq.wait_online(False)
    board.start()
    assert hq.wait_done(3).outcome is Outcome.ROLLED_BACK
    assert board.infer()["parameters"]["digest"] == old


def test_a_revert_goes_back_to_the_devices_own_previous_bundle_without_a_download(
    hq: Headquarters, board: Board
) -> None:
    old, new = hq.bundle("tiny.tflite", 1), hq.bundle("tiny_other.tflite", 2)
    board.start()
    commit_first(hq, board, old)
    hq.want(board.device, Phase.COMMIT, new, 2)
    hq.wait_done(2)
    received = [m for m in hq.said if isinstance(m, Reported)][-1].bytes_received
    hq.want(board.device, Phase.REVERT, old, 3)
    done = hq.wait_done(3)
    assert (done.outcome, done.state, done.digest) == (Outcome.ROLLED_BACK, DeviceState.ROLLED_BACK, old)
    assert [m for m in hq.said if isinstance(m, Reported)][-1].bytes_received == received
    assert board.infer()["parameters"]["digest"] == old


def test_without_a_broker_a_board_serves_what_it_served(hq: Headquarters, board: Board) -> None:
    digest = hq.bundle()
    board.start()
    commit_first(hq, board, digest)
    assert board.end() == 0
    hq.wait_online(False)
    board.start(broker="mqtt://127.0.0.1:9")
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            assert board.infer()["parameters"]["digest"] == digest
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(board.log_path.read_text())


def test_a_switch_drops_no_request(hq: Headquarters, board: Board) -> None:
    old, new = hq.bundle("tiny.tflite", 1), hq.bundle("tiny_other.tflite", 2)
    board.start()
    commit_first(hq, board, old)
    answers: list[str] = []
    failures: list[Exception] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                answers.append(board.infer()["parameters"]["digest"])
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    hq.want(board.device, Phase.TRIAL, new, 2)
    hq.wait("a window", lambda m: isinstance(m, Window))
    hq.want(board.device, Phase.COMMIT, new, 3)
    hq.wait_done(3)
    hq.want(board.device, Phase.REVERT, old, 4)
    hq.wait_done(4)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert new in answers
    assert board.infer()["parameters"]["digest"] == old  # of the threads' answers the last may be a slow one


def test_a_candidate_whose_process_dies_in_the_trial_is_dropped_and_remembered(hq: Headquarters, board: Board) -> None:
    old, new = hq.bundle("tiny.tflite", 1), hq.bundle("tiny_other.tflite", 2)
    board.start()
    commit_first(hq, board, old)
    incumbent = board.children()
    hq.want(board.device, Phase.TRIAL, new, 2)
    hq.wait("a window", lambda m: isinstance(m, Window))
    (candidate,) = set(board.children()) - set(incumbent)
    os.kill(candidate, signal.SIGSEGV)
    done = hq.wait_done(2)
    assert (done.outcome, done.reason, done.digest) == (Outcome.FAILED, Reason.CRASHED, old)
    hq.want(board.device, Phase.TRIAL, new, 3)
    done = hq.wait_done(3)
    assert (done.outcome, done.reason) == (Outcome.REJECTED, Reason.KNOWN_BAD)
    assert board.infer()["parameters"]["digest"] == old


def test_an_incumbent_whose_process_dies_is_started_again(hq: Headquarters, board: Board) -> None:
    digest = hq.bundle()
    board.start()
    commit_first(hq, board, digest)
    (incumbent,) = board.children()
    os.kill(incumbent, signal.SIGKILL)
    mark = len(hq.said)
    hq.wait_reported("it is gone", lambda m: m.digest is None, mark)
    hq.wait_reported("it serves again", lambda m: m.digest == digest, len(hq.said))
    assert board.infer()["parameters"]["digest"] == digest


def test_an_incumbent_that_wedges_is_replaced_though_nobody_asks_it(hq: Headquarters, board: Board) -> None:
    digest = hq.bundle()
    board.start()
    commit_first(hq, board, digest)
    (incumbent,) = board.children()
    os.kill(incumbent, signal.SIGSTOP)
    mark = len(hq.said)
    hq.wait_reported("it is gone", lambda m: m.digest is None, mark)
    hq.wait_reported("it serves again", lambda m: m.digest == digest, len(hq.said))
    assert incumbent not in board.children()
    assert board.infer()["parameters"]["digest"] == digest


def test_wrong_golden_outputs_stop_a_candidate_before_it_is_tried(hq: Headquarters, board: Board) -> None:
    old, new = hq.bundle("tiny.tflite", 1), hq.bundle("tiny_other.tflite", 2, wrong_golden=True)
    board.start()
    commit_first(hq, board, old)
    hq.want(board.device, Phase.TRIAL, new, 2)
    done = hq.wait_done(2)
    assert (done.outcome, done.reason, done.digest) == (Outcome.FAILED, Reason.GOLDEN_MISMATCH, old)
    assert hq.windows() == []


def test_a_bundle_of_another_key_is_rejected(hq: Headquarters, board: Board) -> None:
    digest = hq.bundle(key=SigningKey.generate("publish"))
    board.start()
    hq.want(board.device, Phase.COMMIT, digest, 1)
    done = hq.wait_done(1)
    assert (done.outcome, done.reason) == (Outcome.REJECTED, Reason.SIGNATURE_INVALID)


def test_a_bundle_for_another_device_class_is_rejected(hq: Headquarters, board: Board) -> None:
    digest = hq.bundle(device_classes=("rpi4-aarch64-litert2.3",))
    board.start("--device-class", "toaster")
    hq.want(board.device, Phase.COMMIT, digest, 1)
    done = hq.wait_done(1)
    assert (done.outcome, done.reason) == (Outcome.REJECTED, Reason.NOT_ALLOWED_HERE)


def test_a_word_of_another_key_changes_nothing(hq: Headquarters, board: Board) -> None:
    digest = hq.bundle()
    board.start()
    hq.wait_online(True)
    hq.want(board.device, Phase.COMMIT, digest, 7, key=SigningKey.generate("controller"))
    commit_first(hq, board, digest)
    assert all(event.rollout == "first" for event in hq.events())


def test_a_bundle_that_does_not_fit_the_quota_is_refused_and_the_incumbent_goes_on(
    hq: Headquarters, board: Board
) -> None:
    old = hq.bundle("tiny.tflite", 1)
    large = hq.bundle("tiny_other.tflite", 2, padding=os.urandom(400_000))
    board.start("--quota", "300000")
    commit_first(hq, board, old)
    hq.want(board.device, Phase.TRIAL, large, 2)
    done = hq.wait_done(2)
    assert (done.outcome, done.reason, done.digest) == (Outcome.FAILED, Reason.DISK_FULL, old)
    assert not list((board.state / "incoming").iterdir())
    assert board.infer()["parameters"]["digest"] == old


def test_a_trial_that_is_not_confirmed_in_time_drops_the_candidate(hq: Headquarters, board: Board) -> None:
    old, new = hq.bundle("tiny.tflite", 1), hq.bundle("tiny_other.tflite", 2)
    board.start()
    commit_first(hq, board, old)
    hq.want(board.device, Phase.TRIAL, new, 2, deadline_s=1.0)
    done = hq.wait_done(2)
    assert (done.outcome, done.reason, done.digest) == (Outcome.TIMED_OUT, Reason.TRIAL_UNCONFIRMED, old)


def test_a_second_agent_cannot_share_a_state_folder(hq: Headquarters, board: Board, tmp_path: Path) -> None:
    board.start()
    hq.wait_online(True)
    command = [sys.executable, "-m", "edgeflock_agent.cli", "run", "--id", board.device, "--broker", hq.url]
    second = subprocess.run([*command, "--state", str(board.state)], capture_output=True, timeout=30, check=False)
    assert second.returncode == 2
    assert b"another agent is using it" in second.stderr
    assert b"Traceback" not in second.stderr


def test_status_reads_the_folder_of_a_running_and_of_a_stopped_agent(hq: Headquarters, board: Board) -> None:
    digest = hq.bundle()
    board.start()
    commit_first(hq, board, digest)
    command = [sys.executable, "-m", "edgeflock_agent.cli", "status", "--state", str(board.state)]
    running = subprocess.run(command, capture_output=True, timeout=30, check=False)
    assert (running.returncode, digest[:12] in running.stdout.decode()) == (0, True)
    assert "MB in 1 inference process (proportional set size)" in running.stdout.decode()
    assert board.end() == 0
    assert subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 1


def test_no_child_outlives_a_killed_agent(hq: Headquarters, board: Board) -> None:
    digest = hq.bundle()
    board.start()
    commit_first(hq, board, digest)
    (child,) = board.children()
    board.end(signal.SIGKILL)
    until = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()


def test_a_model_with_an_operator_that_the_runtime_lacks_is_rejected_with_its_name(
    hq: Headquarters, board: Board
) -> None:
    old, new = hq.bundle("tiny.tflite", 1), hq.bundle("tiny_custom.tflite", 2, cases_of="tiny.tflite")
    board.start()
    commit_first(hq, board, old)
    hq.want(board.device, Phase.TRIAL, new, 2)
    done = hq.wait_done(2)
    assert (done.outcome, done.reason) == (Outcome.REJECTED, Reason.OPERATOR_MISSING)
    assert done.detail is not None
    assert "Sorcery" in done.detail
    assert board.infer()["parameters"]["digest"] == old
