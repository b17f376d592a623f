"""The order of the files: long ones first. `make test` hands whole files to its workers, in this order.

So a module's set-up is done once, and no worker is left alone with a long file at the end. Those that compute and those
that wait take turns, which keeps the processors busy.
"""

from __future__ import annotations

from pathlib import Path

import pytest

LONG = (
    "simulation/test_fleet.py",
    "system/test_demo.py",
    "integration/compression/test_compress.py",
    "integration/agent/test_agent_process.py",
    "integration/compression/test_search_trains.py",
    "system/test_agent_killed.py",
    "integration/compression/test_models.py",
    "integration/compression/test_combinations.py",
    "system/test_controller_killed.py",
    "integration/compression/test_qat.py",
    "integration/compression/test_search.py",
)
_PLACE = {Path(__file__).parent / name: place for place, name in enumerate(LONG)}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _PLACE.get(item.path, len(LONG)))
