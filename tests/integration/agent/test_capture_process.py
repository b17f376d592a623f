"""Keeping inputs in a real agent process: off unless it is turned on, and fetched while the agent runs."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeflock_agent.client import Client
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.values import Outcome

if TYPE_CHECKING:
    from tests.integration.agent.conftest import Board, Headquarters


def captures(board: Board, *words: str) -> str:
    command = [sys.executable, "-m", "edgeflock_agent.cli", "captures", *words, "--state", str(board.state)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def test_inputs_are_kept_only_when_the_owner_turns_it_on_and_are_fetched_while_the_agent_runs(
    hq: Headquarters, board: Board, tmp_path: Path
) -> None:
    digest = hq.bundle("tiny.tflite", 1)
    board.start()
    hq.want(board.device, Phase.COMMIT, digest, 1)
    assert hq.wait_done(1).outcome is Outcome.SUCCEEDED
    board.infer()
    assert not (board.state / "captures").exists()
    board.end()

    hq.wait_online(False)
    mark = len(hq.said)
    board.start("--capture-mb", "1", "--capture-below", "1", "--capture-every", "0")
    hq.wait_reported("it serves again", lambda model: model.digest == digest, mark)
    board.infer()
    until = time.monotonic() + 30
    while "1 input kept" not in captures(board, "list") and time.monotonic() < until:
        time.sleep(0.1)
    captures(board, "export", str(tmp_path / "kept.npz"))
    with np.load(tmp_path / "kept.npz") as kept:
        np.testing.assert_array_equal(kept["x"], np.full((1, 8), 0.1, "float32"))
        assert kept["digest"].tolist() == [digest]
    assert captures(board, "clear") == "1 removed\n"
    assert board.infer()["parameters"]["digest"] == digest


def test_inputs_on_which_incumbent_and_candidate_disagree_in_a_trial_are_kept(
    hq: Headquarters, board: Board, tmp_path: Path
) -> None:
    old, new = hq.bundle("tiny.tflite", 1), hq.bundle("tiny_other.tflite", 2)
    board.start("--capture-mb", "1", "--capture-below", "0", "--capture-every", "0")
    hq.want(board.device, Phase.COMMIT, old, 1, rollout="first")
    assert hq.wait_done(1).outcome is Outcome.SUCCEEDED
    hq.want(board.device, Phase.TRIAL, new, 2)
    rng, until = np.random.default_rng(0), time.monotonic() + 60
    with Client(board.endpoint, timeout_s=30) as client:
        while not list((board.state / "captures").glob("*.item")) and time.monotonic() < until:
            client.infer("digits", {"x": rng.normal(size=(1, 8)).astype("float32")})
    captures(board, "export", str(tmp_path / "kept.npz"))
    with np.load(tmp_path / "kept.npz") as kept:
        assert set(kept["why"].tolist()) == {"disagreement"}
        assert (kept["digest"][0], kept["candidate"][0]) == (old, new)
        assert kept["answer"][0] != kept["candidate_answer"][0]
