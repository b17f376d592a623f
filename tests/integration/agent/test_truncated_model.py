"""The file of a model is cut short under the process that has it mapped: the kernel ends that process with SIGBUS."""

from __future__ import annotations

import os
import time
import urllib.error
from typing import TYPE_CHECKING

from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.values import Outcome

if TYPE_CHECKING:
    from tests.integration.agent.conftest import Board, Headquarters

PATIENCE_S = 60.0


def first_answer(board: Board) -> str:
    """The digest of whoever answers first."""
    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s:
        try:
            return str(board.infer()["parameters"]["digest"])
        except urllib.error.HTTPError as refused:
            assert refused.code == 503  # nobody can answer now; the endpoint itself goes on
            time.sleep(0.02)
    raise AssertionError("nothing serves any more")


def test_a_model_that_is_cut_short_while_it_serves_gives_way_to_a_whole_one_and_is_fetched_again(
    hq: Headquarters, board: Board
) -> None:
    old, new = hq.bundle("tiny.tflite", 1), hq.bundle("tiny_slow.tflite", 2)
    board.start()
    for generation, digest in enumerate((old, new), start=1):
        hq.want(board.device, Phase.COMMIT, digest, generation)
        assert hq.wait_done(generation).outcome is Outcome.SUCCEEDED
    assert board.infer()["parameters"]["digest"] == new
    before = set(board.children())
    mark = len(hq.said)

    os.truncate(board.state / "blobs" / hq.blob_names[new][0], 0)  # whose pages the process reads at each inference
    assert first_answer(board) in (old, new)
    fell_back = hq.wait_reported("the bundle before serves", lambda m: m.digest == old, mark)
    assert fell_back.slots.active == old
    hq.wait_reported("it is whole again", lambda m: m.digest == new and m.outcome is Outcome.SUCCEEDED, len(hq.said))
    assert first_answer(board) == new
    assert not before & set(board.children())
