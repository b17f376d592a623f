"""The demo itself: it ends as it must and says so; killed or interrupted in the middle, it leaves nothing running."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "demo"
LIFELINE = (sys.executable, "-m", "edgeflock_deploy.lifeline")
PATIENCE_S = 60.0
needed = [name for name in ("tensorflow", "mlxtend", "iotcore") if importlib.util.find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(needed), reason=f"the demo needs {', '.join(needed)}")


def belonging_to(out: Path) -> dict[int, str]:
    """The live processes that have to do with a folder, by its name in their environment or command."""
    found = {}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
            command = (process / "cmdline").read_bytes()
            told = command + (process / "environ").read_bytes()
        except OSError:
            continue
        if state not in "ZX" and str(out).encode() in told:
            found[int(process.name)] = command.replace(b"\0", b" ").decode()
    return found


def wait(what: str, check: object) -> None:
    assert callable(check)
    until = time.monotonic() + PATIENCE_S
    while not check():
        assert time.monotonic() < until, what
        time.sleep(0.1)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture
def demo(out: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The demo in a process group of its own, with what an earlier run has trained and compressed."""
    command = [*LIFELINE, sys.executable, str(DEMO), "--out", str(out)]
    with (out / "demo.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def in_the_middle(out: Path) -> None:
    """Wait until a rollout runs: broker, controller, agents, their models and a command are up."""

    def deploying() -> bool:
        commands = " ".join(belonging_to(out).values())
        return "edgeflock_agent.children.child" in commands and "edgeflock deploy" in commands

    wait(f"a rollout: {(out / 'demo.log').read_text()}", deploying)


def test_the_demo_ends_as_it_must_and_reports_it(out: Path, demo: subprocess.Popen[bytes]) -> None:
    code = demo.wait(600)
    assert code == 0, (out / "demo.log").read_text()
    report = json.loads((out / "report.json").read_text())
    assert [v["name"] for v in report["variants"]] == ["float32", "dynamic_wi8", "static_wi8_ai16", "three_levels_wi8"]
    for variant in report["variants"]:
        assert variant.keys() >= {"name", "raw_bytes", "wire_bytes", "accuracy", "agreement"}
    ended = [(rollout["name"], rollout["outcome"]) for rollout in report["rollouts"]]
    assert ended == [
        ("float32", "SUCCEEDED"),
        ("dynamic_wi8", "SUCCEEDED"),
        ("static_wi8_ai16", "ROLLED_BACK"),
        ("three_levels_wi8", "ROLLED_BACK"),
    ]
    for rollout in report["rollouts"]:
        assert rollout.keys() >= {"stage", "reason", "devices_reached", "duration_s"}
    assert [rollout["devices_reached"] for rollout in report["rollouts"]] == [5, 5, 1, 1]
    assert [rollout["stage"] for rollout in report["rollouts"][2:]] == [1, 1]
    assert "latency_ms_p50" in report["rollouts"][2]["reason"]
    assert "accuracy" in report["rollouts"][3]["reason"]
    assert len(report["devices"]) == 5
    assert len({device["running_digest"] for device in report["devices"]}) == 1
    assert {device["device_class"] for device in report["devices"]} == {"class-a", "class-b"}
    assert report["broker"].startswith("mqtt://127.0.0.1:")
    wait("nothing is left", lambda: not belonging_to(out))


def test_a_killed_demo_leaves_no_process(out: Path, demo: subprocess.Popen[bytes]) -> None:
    in_the_middle(out)
    os.kill(demo.pid, signal.SIGKILL)
    assert demo.wait(60) == -signal.SIGKILL
    wait(f"nothing is left: {belonging_to(out)}", lambda: not belonging_to(out))


def test_an_interrupted_demo_stops_what_it_started_and_says_so(out: Path, demo: subprocess.Popen[bytes]) -> None:
    in_the_middle(out)
    os.killpg(demo.pid, signal.SIGINT)
    assert demo.wait(60) == 130
    wait(f"nothing is left: {belonging_to(out)}", lambda: not belonging_to(out))
    said = (out / "demo.log").read_text()
    assert "interrupted; everything it started is stopped" in said
    assert "Traceback" not in said
