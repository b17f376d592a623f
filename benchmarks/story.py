"""What the benchmarks share with the demo: LeNet-5's variants, made once, and a fleet that is up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from fleet import BIN, CLASSES, Fleet

DEMO = Path(__file__).parents[1] / "examples" / "demo"
MODEL = Path("build/bench/model")
VARIANTS = Path("build/bench/variants")


def variant(name: str) -> Path:
    """The folder of a LeNet-5 variant, made now if it is missing."""
    if not (VARIANTS / name / "variant.json").exists():
        subprocess.run([sys.executable, DEMO / "lenet.py", MODEL], check=True)
        command = [str(BIN / "edgeflock"), "compress", str(MODEL / "lenet.keras"), "--data", str(MODEL / "data.npz")]
        subprocess.run([*command, "--recipe", name, "--out", str(VARIANTS)], check=True)
    return VARIANTS / name


def start(fleet: Fleet, agents: int, options: tuple[str, ...] = ()) -> None:
    """Keys, broker, controller and agents, all online."""
    fleet.run("keys", "init")
    fleet.start_broker()
    fleet.start_controller()
    for number in range(agents):
        fleet.start_agent(f"board-{number + 1:02d}", CLASSES[number % len(CLASSES)], *options)
    fleet.wait_for("every agent online", lambda: fleet.online() == agents)


def publish(fleet: Fleet, name: str) -> None:
    """Publish a LeNet-5 variant as version 1 of the model `digits`."""
    fleet.run("publish", str(variant(name)), "--model", "digits", "--version", "1")
