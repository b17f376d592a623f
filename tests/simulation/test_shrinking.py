"""A world that shows a planted mistake is made smaller: what the mistake needs stays, the rest goes."""

from __future__ import annotations

import subprocess
import sys

from world.options import Options, draw
from world.planted import FOUND_BY, MISTAKES


def test_a_world_against_the_law_shrinks_to_what_the_mistake_needs() -> None:
    number, mistake = next((n, one) for n, one in enumerate(MISTAKES) if one.needs == "rot")
    seed = FOUND_BY[mistake.name]
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-m", "world", "--plant", str(number), "--seed", str(seed), "--shrink"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    drawn = draw(seed).unlike(Options(seed))
    words = next(line for line in done.stdout.splitlines() if line.startswith(f"seed {seed} "))
    left = {setting.partition("=")[0] for setting in words.split()[2:]}
    assert done.returncode == 1  # it is still against the law
    assert "rot" in left  # without which the mistake cannot show
    assert len(left) < len(drawn)
    assert "boards=1" in words.split()
