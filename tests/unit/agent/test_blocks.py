from __future__ import annotations

import random

import pytest

from edgeflock_agent.trial.blocks import Block, block_at
from edgeflock_agent.trial.serving_window import next_step
from edgeflock_deploy.messages.orders import TrialSettings


def _asked(times: list[float], seed: int = 0, max_requests: int = 3, max_s: float = 10.0) -> list[Block]:
    rng, blocks = random.Random(seed), []
    before: Block | None = None
    for now_s in times:
        before = block_at(before, now_s, lambda: bool(rng.getrandbits(1)), max_requests=max_requests, max_s=max_s)
        blocks.append(before)
    return blocks


@pytest.mark.parametrize("seed", range(20))
def test_blocks_of_requests_run_abba_or_baab(seed: int) -> None:
    sides = [block.side for block in _asked([0.0] * 24, seed)]
    of_blocks = [sides[at] for at in range(0, 24, 3)]
    assert all(set(sides[at : at + 3]) == {of_blocks[at // 3]} for at in range(0, 24, 3))
    for four in (of_blocks[:4], of_blocks[4:]):
        assert four in (["old", "new", "new", "old"], ["new", "old", "old", "new"])


def test_which_variant_begins_is_drawn_anew_for_every_four_blocks() -> None:
    begins = [block.side for block in _asked([0.0] * 400, max_requests=1)][::4]
    assert 30 < begins.count("new") < 70


def test_a_block_ends_by_time_too() -> None:
    blocks = _asked([0.0, 1.0, 2.5, 2.6, 4.6], max_requests=100, max_s=2.0)
    assert [block.number for block in blocks] == [0, 0, 1, 1, 2]
    assert blocks[2].began_s == 2.5


SETTINGS = TrialSettings(mode="serving", window_pairs=100, window_max_s=60.0, block_s=1.0)


@pytest.mark.parametrize(
    ("live", "replayed", "elapsed_s", "step"),
    [
        (0, 0, 0.0, "pair"),  # a quarter of the pairs comes from the slice, whatever is asked
        (500, 24, 10.0, "pair"),
        (0, 25, 1.0, "wait"),  # requests are given their chance
        (20, 25, 10.0, "wait"),  # 120 by the end of the window: they will do
        (100, 25, 10.0, "close"),
        (3, 25, 10.0, "pair"),  # 18 by its end: the slice stands in
        (0, 99, 10.0, "pair"),
        (3, 97, 10.0, "close"),
        (60, 25, 60.0, "close"),
        (0, 0, 60.0, "pair"),  # never without a pair
    ],
)
def test_what_a_serving_window_does_next(live: int, replayed: int, elapsed_s: float, step: str) -> None:
    assert next_step(live, replayed, elapsed_s, SETTINGS) == step
