"""A fleet in a test tube, by seeds: whatever fails meanwhile, the law of the fleet holds, and in the end all converges.

A seed that fails is printed with its options; `python -m world --seed N` shows all that happened in it (see ADR 0033).
"""

from __future__ import annotations

import pytest
from world.options import draw
from world.world import run

SEEDS = 1_000
_PARTS = 5


@pytest.mark.parametrize("part", range(_PARTS))
def test_whatever_fails_the_law_of_the_fleet_holds_and_all_converges(part: int) -> None:
    found = {}
    for seed in range(part, SEEDS, _PARTS):
        ended = run(draw(seed))
        if ended.violations:
            found[ended.options.in_words()] = ended.violations
    assert found == {}


def test_the_same_seed_gives_the_same_world_line_by_line() -> None:
    assert run(draw(7)).trace == run(draw(7)).trace
