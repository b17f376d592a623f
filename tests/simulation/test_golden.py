"""What happens in some scenarios, line by line. A change of behaviour shows here as a difference that can be read.

Where it is meant, `python -m world --rewrite tests/simulation/golden` writes the traces anew (see ADR 0033).
"""

from __future__ import annotations

from pathlib import Path

import pytest
from world.scenarios import SCENARIOS, trace_of

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_goes_as_it_is_written_down(name: str) -> None:
    assert trace_of(name) == (GOLDEN / f"{name}.txt").read_text()


def test_no_trace_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(SCENARIOS)
