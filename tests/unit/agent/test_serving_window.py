from __future__ import annotations

import itertools
import json
import os
import random
import signal
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from edgeflock_agent.children.runner import Answer, InferenceFailed, Judged, ModelProcess
from edgeflock_agent.client import Client
from edgeflock_agent.serving.endpoint import Endpoint, Serving, Turn
from edgeflock_agent.trial.serving_window import run_serving_window
from edgeflock_agent.trial.side import Inputs, SideStopped
from edgeflock_agent.trial.window import WindowSides
from edgeflock_deploy.messages.orders import TrialSettings
from edgeflock_deploy.reasons import Reason

DATA = Path(__file__).parents[2] / "data"
X = np.full((1, 8), 0.5, "float32")
SETTINGS = TrialSettings(mode="serving", window_pairs=40, window_max_s=60, block_requests=8, block_s=30)


class RefusingLive(ModelProcess):
    """A child whose runtime refuses what applications ask."""

    def infer_judged(self, inputs: object) -> Judged:
        raise InferenceFailed("refused")


class Board:
    """Two variants behind a real endpoint, and an application that asks as long as a window runs."""

    def __init__(self, stack: ExitStack, new: str = "tiny", kind: type[ModelProcess] = ModelProcess) -> None:
        def started(name: str, kind: type[ModelProcess], digest: str) -> Serving:
            process = stack.enter_context(kind.start(DATA / f"{name}.tflite"))
            process.open_slice(DATA / "tiny_evaluation.npz", kind="classification", agreement_atol=None)
            return Serving(digest, process, f"variant-{digest}")

        self.old, self.new = started("tiny", ModelProcess, "old"), started(new, kind, "new")
        self.serving, self.turns = {"digits": self.old}, dict[str, Turn]()
        self.endpoint = Endpoint.start(self.serving.get, turns=self.turns.get)
        stack.callback(self.endpoint.stop)
        self.digests: list[str] = []
        self.told: list[tuple[Inputs, Answer, Answer | None]] = []
        self.done = threading.Event()

    def install(self, turn: Turn | None) -> None:
        if turn is None:
            del self.turns["digits"]
        else:
            self.turns["digits"] = turn

    def ask(self, x: np.ndarray = X) -> None:
        """Ask until it is done; an error ends the thread, and the test fails for its missing answers."""
        with Client(self.endpoint.url, timeout_s=30) as client:
            while not self.done.is_set():
                self.digests.append(client.infer("digits", {"x": x}).digest)

    def window(
        self, settings: TrialSettings = SETTINGS, should_stop: Callable[[], bool] = lambda: False
    ) -> WindowSides | None:
        return run_serving_window(
            self.old,
            self.new,
            settings,
            random.Random(3),
            self.install,
            should_stop=should_stop,
            differed=lambda *said: self.told.append(said),
        )

    def window_while_asked(self, x: np.ndarray = X) -> WindowSides | None:
        asking = threading.Thread(target=self.ask, args=(x,))
        asking.start()
        try:
            return self.window()
        finally:
            self.done.set()
            asking.join()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_applications_are_answered_in_blocks_by_each_in_turn(stack: ExitStack) -> None:
    board = Board(stack)
    window = board.window_while_asked()
    assert window is not None
    assert (window.mode, window.paired, window.agreement) == ("serving", True, 1.0)
    assert window.live_pairs >= 40
    assert window.pairs == window.live_pairs + 10
    assert board.told == []
    for side in (window.old, window.new):
        assert side.service_n == window.live_pairs
        assert side.n == window.pairs
        assert side.accuracy == 1.0
        assert side.service_ms_p50 is not None
        assert side.latency_ms_p50 is not None
        assert side.service_ms_p50 > side.latency_ms_p50
    first = board.digests.index("new")
    turned = [at for at in range(first, len(board.digests)) if board.digests[at] != board.digests[at - 1]]
    lengths = {b - a for a, b in itertools.pairwise(turned[:-1])}  # the last one may be the window's end
    assert lengths <= {8, 16}  # blocks of 8; the middle two of four are one variant's
    assert not board.turns


def test_each_answer_names_the_variant_that_gave_it(stack: ExitStack) -> None:
    board = Board(stack)
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 8], "data": X.ravel().tolist()}]})
    names = set[tuple[str, str]]()

    def ask() -> None:
        while not board.done.is_set():
            with urllib.request.urlopen(f"{board.endpoint.url}/v2/models/digits/infer", body.encode()) as response:
                told = json.load(response)
            names.add((told["model_version"], told["parameters"]["variant"]))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        board.window()
    finally:
        board.done.set()
        asking.join()
    assert names == {("old", "variant-old"), ("new", "variant-new")}


def test_without_requests_the_slice_is_replayed(stack: ExitStack) -> None:
    board = Board(stack)
    window = board.window(SETTINGS.model_copy(update={"block_s": 0.01}))
    assert window is not None
    assert (window.pairs, window.live_pairs, window.old.service_n, window.agreement) == (40, 0, 0, 1.0)


def test_an_error_of_the_candidate_is_answered_by_the_incumbent_and_counted(stack: ExitStack) -> None:
    board = Board(stack, kind=RefusingLive)
    asking = threading.Thread(target=board.ask)
    asking.start()
    window = board.window(SETTINGS.model_copy(update={"window_max_s": 1.0}))
    board.done.set()
    asking.join()
    assert window is not None
    assert window.new.errors > 0
    assert window.live_pairs == 0
    assert set(board.digests) == {"old"}
    assert len(board.told) >= window.new.errors  # one may have been on its way when the window closed
    assert set(board.told) == {((X.tobytes(),), 0, None)}


def test_a_crash_of_the_candidate_reaches_no_application_and_stops_it(stack: ExitStack) -> None:
    board = Board(stack)
    os.kill(board.new.process.pid, signal.SIGKILL)
    with pytest.raises(SideStopped) as stopped:
        board.window_while_asked()
    assert stopped.value.side == "new"
    assert set(board.digests) == {"old"}
    assert not board.turns


def test_nan_of_the_candidate_reaches_no_application_and_stops_it(stack: ExitStack) -> None:
    board = Board(stack, "tiny_late_nan")
    with pytest.raises(SideStopped) as stopped:
        board.window_while_asked(np.full((1, 8), 3, "float32"))
    assert stopped.value.side == "new"
    assert stopped.value.stop is not None
    assert stopped.value.stop.reason is Reason.NAN_OUTPUT
    assert set(board.digests) == {"old"}


def test_a_request_for_one_version_is_answered_by_it(stack: ExitStack) -> None:
    board = Board(stack)
    seen: list[str] = []

    def look() -> bool:
        given = {"name": "x", "shape": [1, 8], "datatype": "FP32", "data": X.ravel().tolist()}
        body = json.dumps({"inputs": [given]}).encode()
        for _ in range(40):
            path = f"{board.endpoint.url}/v2/models/digits/versions/old/infer"
            with urllib.request.urlopen(path, data=body, timeout=30) as reply:
                seen.append(json.load(reply)["model_version"])
        return True

    assert board.window(should_stop=look) is None
    assert seen == ["old"] * 40


def test_after_the_trial_whoever_serves_answers_though_a_turn_is_still_asked(stack: ExitStack) -> None:
    board = Board(stack)
    held: list[Turn] = []

    def keep(turn: Turn | None) -> None:
        held.extend([turn] if turn is not None else [])

    assert (
        run_serving_window(
            board.old, board.new, SETTINGS, random.Random(0), keep, should_stop=lambda: True, over=lambda: True
        )
        is None
    )
    board.turns["digits"] = held[0]
    board.serving["digits"] = board.new
    board.old.process.close()
    with Client(board.endpoint.url, timeout_s=30) as client:
        assert {client.infer("digits", {"x": X}).digest for _ in range(20)} == {"new"}
