"""Switches under load: the short form of `make bench ARGS=switches`, and deployments of a real agent process."""

from __future__ import annotations

import contextlib
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from benchmarks.device.switches import CLIENTS, Events, Request, longest_waits_ms, out_of_order, run

from edgeflock_agent.client import Client
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.values import Outcome

if TYPE_CHECKING:
    from tests.integration.agent.conftest import Board, Headquarters


def test_twenty_switches_under_load_lose_no_request_and_every_answer_is_its_variants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])
    found, events = run(tmp_path, 20)
    requests = [one for application in found for one in application.requests]
    assert len(found) == CLIENTS
    assert len(events.before_s) == 21
    assert {one.switch for one in requests} >= {0, 20}
    assert [text for application in found for text in (*application.lost, *application.wrong)] == []
    assert out_of_order(requests, events) == []


def test_an_answer_of_a_variant_that_had_gone_or_had_not_come_is_noticed() -> None:
    events = Events([0.0, 10.0, 20.0], [0.1, 10.1, 20.1], [])
    fine = [Request(1, 2, 0, 1.0), Request(9.9, 10.05, 0, 1.0), Request(9.9, 10.05, 1, 1.0), Request(30, 31, 2, 1.0)]
    assert out_of_order(fine, events) == []
    assert len(out_of_order([Request(11, 12, 0, 1.0), Request(1, 2, 1, 1.0), Request(30, 31, 1, 1.0)], events)) == 3


def test_of_each_moment_the_longest_wait_beyond_the_inference_counts() -> None:
    requests = [Request(0.0, 0.010, 0, 4.0), Request(0.004, 0.006, 0, 1.0), Request(0.1, 0.12, 0, 2.0)]
    assert longest_waits_ms(requests, [0.005, 0.05, 0.11]) == pytest.approx([6.0, 18.0])


def open_sockets(pid: int) -> int:
    found = 0
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found += "socket" in str(file.readlink())
    return found


def test_deployments_of_a_real_agent_under_load_lose_no_request(hq: Headquarters, board: Board, tmp_path: Path) -> None:
    path = tmp_path / "asked.sock"
    bundles = [hq.bundle("tiny.tflite", 1), hq.bundle("tiny_other.tflite", 2)]
    board.start("--socket", str(path))
    hq.want(board.device, Phase.COMMIT, bundles[0], 1, rollout="first")
    assert hq.wait_done(1).outcome is Outcome.SUCCEEDED
    answers: list[list[str]] = [[] for _ in range(CLIENTS)]
    failures: list[Exception] = []
    stop = threading.Event()

    def ask(seen: list[str]) -> None:
        with Client(f"unix:{path}", timeout_s=30) as client:
            while not stop.wait(0.002):
                try:
                    seen.append(client.infer("digits", {"x": np.zeros((1, 8), "float32")}).digest)
                except Exception as error:
                    failures.append(error)

    threads = [threading.Thread(target=ask, args=(seen,)) for seen in answers]
    for thread in threads:
        thread.start()
    child = board.children()[0]
    until_s = time.monotonic() + 20
    while open_sockets(child) == 1 and time.monotonic() < until_s:
        time.sleep(0.05)
    assert open_sockets(child) > 1  # applications' connections are in its hand
    for generation, phase in ((2, Phase.COMMIT), (3, Phase.REVERT), (4, Phase.COMMIT), (5, Phase.REVERT)):
        digest = bundles[generation % 2 == 0]
        hq.want(board.device, phase, digest, generation, rollout=f"r{generation}")
        assert hq.wait_done(generation).digest == digest
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    for seen in answers:
        turns = [seen[0]] + [new for old, new in pairwise(seen) if new != old]
        assert turns == [bundles[n % 2] for n in range(len(turns))]  # never back to one that had gone
        assert len(turns) <= 5
