"""Mistakes planted into the product: each must show in a world, else that nothing shows without them means nothing."""

from __future__ import annotations

import json
import subprocess
import sys

from world.planted import FOUND_BY, MISTAKES
from world.planting import text_of


def test_every_mistake_is_still_a_change_of_the_product() -> None:
    found = {(one.name, change): text_of(change.module).count(change.old) for one in MISTAKES for change in one.changes}
    assert {key for key, times in found.items() if times != 1} == set()


def test_every_second_mistake_shows_in_the_world_that_is_known_to_show_it() -> None:
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-m", "world", "--planted", "2"]  # `make soak` looks at all
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    found = json.loads(done.stdout)
    assert set(found) == {mistake.name for mistake in MISTAKES[::2]} & set(FOUND_BY)
    assert [name for name, violations in found.items() if not violations] == []
