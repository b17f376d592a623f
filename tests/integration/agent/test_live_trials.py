"""Trials on what an application asks, with a real agent, broker and models: it never meets an error."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from edgeflock_agent.client import Client
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.values import DeviceState, Outcome
from edgeflock_deploy.messages.windows import Window
from edgeflock_deploy.reasons import Reason

if TYPE_CHECKING:
    from tests.integration.agent.conftest import Board, Headquarters


class Asking:
    """An application that asks without pause; the digests that answered it, and the first thing that went wrong."""

    def __init__(self, board: Board) -> None:
        self.digests: list[str] = []
        self.wrong: Exception | None = None
        self._board, self._done = board, threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        try:
            rng = np.random.default_rng(0)
            with Client(self._board.endpoint, timeout_s=60) as client:
                while not self._done.is_set():
                    x = rng.normal(size=(1, 8)).astype("float32")
                    self.digests.append(client.infer("digits", {"x": x}).digest)
        except Exception as error:
            self.wrong = error

    def end(self) -> None:
        self._done.set()
        self._thread.join()


@contextmanager
def asking(board: Board) -> Iterator[Asking]:
    application = Asking(board)
    try:
        yield application
    finally:
        application.end()


def commit_first(hq: Headquarters, board: Board) -> str:
    digest = hq.bundle("tiny.tflite", 1)
    hq.want(board.device, Phase.COMMIT, digest, 1, rollout="first")
    assert hq.wait_done(1).outcome is Outcome.SUCCEEDED
    return digest


def is_window(number: int, message: object) -> bool:
    return isinstance(message, Window) and message.number == number


def turns(digests: list[str]) -> int:
    """How often another variant answered than before."""
    return sum(a != b for a, b in itertools.pairwise(digests))


def test_a_shadow_trial_runs_what_applications_ask_and_they_see_the_incumbent_alone(
    hq: Headquarters, board: Board
) -> None:
    board.start()
    old, new = commit_first(hq, board), hq.bundle("tiny_other.tflite", 2)
    with asking(board) as application:
        hq.want(board.device, Phase.TRIAL, new, 2, live_share=1.0)
        window = hq.wait("live pairs", lambda m: isinstance(m, Window) and m.live_pairs > 0)
    assert (window.mode, window.pairs) == ("shadow", 20)
    assert window.live_pairs <= 15
    assert window.old.accuracy == 1.0
    assert application.wrong is None
    assert set(application.digests) == {old}


def test_inputs_on_which_the_two_differ_are_kept_where_the_owner_wants_that(hq: Headquarters, board: Board) -> None:
    board.start("--capture-mb", "1", "--capture-below", "0")
    commit_first(hq, board)
    new = hq.bundle("tiny_other.tflite", 2)
    listing = [sys.executable, "-m", "edgeflock_agent.cli", "captures", "list", "--json", "--state", str(board.state)]
    with asking(board):
        hq.want(board.device, Phase.TRIAL, new, 2, live_share=1.0)
        hq.wait(
            "a disagreement",
            lambda m: isinstance(m, Window) and m.live_pairs > 0 and m.agreement is not None and m.agreement < 1,
        )
        until = time.monotonic() + 30
        while not (kept := json.loads(subprocess.run(listing, capture_output=True, check=True).stdout)):
            assert time.monotonic() < until
            time.sleep(0.2)
    assert {(one["why"], one["candidate"]) for one in kept} == {("disagreement", new)}


def test_a_serving_trial_answers_in_turns_and_after_the_commit_only_the_new_one_does(
    hq: Headquarters, board: Board
) -> None:
    board.start()
    old, new = commit_first(hq, board), hq.bundle("tiny_other.tflite", 2)
    with asking(board) as application:
        hq.want(board.device, Phase.TRIAL, new, 2, mode="serving", window_pairs=130, block_requests=16)
        hq.wait("the second window", lambda m: isinstance(m, Window) and m.number == 1)
        hq.want(board.device, Phase.COMMIT, new, 3)
        assert hq.wait_done(3).outcome is Outcome.SUCCEEDED
        committed_at = len(application.digests) + 1  # one request may be under way
        hq.wait_reported("it serves", lambda m: m.digest == new and m.state is DeviceState.COMMITTED)
        while len(application.digests) < committed_at + 50 and application.wrong is None:
            time.sleep(0.01)
    assert application.wrong is None
    assert set(application.digests) == {old, new}
    assert turns(application.digests) >= 8
    assert set(application.digests[committed_at:]) == {new}
    first = next(window for window in hq.windows() if window.number == 0)
    assert (first.mode, first.new.service_n) == ("serving", first.live_pairs)
    assert first.live_pairs >= 130
    assert first.new.service_ms_p95 is not None
    assert first.new.accuracy is not None


def test_a_candidate_that_dies_in_a_serving_trial_is_dropped_and_no_application_sees_it(
    hq: Headquarters, board: Board
) -> None:
    board.start()
    old, new = commit_first(hq, board), hq.bundle("tiny_other.tflite", 2)
    with asking(board) as application:
        serving = set(board.children())
        hq.want(board.device, Phase.TRIAL, new, 2, mode="serving")
        hq.wait("a window", lambda m: isinstance(m, Window))
        os.kill(next(pid for pid in board.children() if pid not in serving), signal.SIGKILL)
        done = hq.wait_done(2)
    assert (done.outcome, done.reason, done.digest) == (Outcome.FAILED, Reason.CRASHED, old)
    assert application.wrong is None
    assert application.digests[-1] == old


def test_without_memory_for_both_they_take_turns_and_requests_wait(hq: Headquarters, board: Board) -> None:
    board.start("--memory-mb", "60")
    old, new = commit_first(hq, board), hq.bundle("tiny_other.tflite", 2)
    with asking(board) as application:
        hq.want(board.device, Phase.TRIAL, new, 2)
        most = 0
        for number in (0, 1):
            hq.wait(f"window {number}", partial(is_window, number))
            most = max(most, len(board.children()))
        hq.want(board.device, Phase.COMMIT, new, 3)
        assert hq.wait_done(3).outcome is Outcome.SUCCEEDED
        hq.wait_reported("it serves", lambda m: m.digest == new and m.state is DeviceState.COMMITTED)
        committed_at = len(application.digests) + 1
        while len(application.digests) < committed_at + 50 and application.wrong is None:
            time.sleep(0.01)
    assert application.wrong is None
    assert most <= 1
    window = hq.windows()[0]
    assert (window.mode, window.paired, window.pairs) == ("alternating", True, 20)
    assert (window.old.accuracy, window.old_digest, window.new_digest) == (1.0, old, new)
    assert {old, new} == set(application.digests)
    assert set(application.digests[committed_at:]) == {new}
    assert len(board.children()) == 1


def test_a_bad_candidate_that_took_the_incumbents_place_gives_it_back(hq: Headquarters, board: Board) -> None:
    board.start("--memory-mb", "60")
    old, bad = commit_first(hq, board), hq.bundle("tiny_other.tflite", 2, wrong_golden=True)
    with asking(board) as application:
        hq.want(board.device, Phase.TRIAL, bad, 2)
        done = hq.wait_done(2)
        asked = len(application.digests)
        while len(application.digests) < asked + 20 and application.wrong is None:
            time.sleep(0.01)
    assert (done.outcome, done.reason) == (Outcome.FAILED, Reason.GOLDEN_MISMATCH)
    assert application.wrong is None
    assert set(application.digests) == {old}
    assert len(board.children()) == 1
