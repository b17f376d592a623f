"""The demo itself: it ends as it must and says so; killed or interrupted in the middle, it leaves nothing running."""

from __future__ import annotations

import contextlib
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
    """The live processes that have to do with a folder: they name it, or one that does has started them.

    By process id, the command. A process that runs a model is told nothing, not even in its environment.
    """
    parents: dict[int, int] = {}
    commands: dict[int, str] = {}
    found = set()
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            state, parent = (process / "stat").read_text().rpartition(")")[2].split()[:2]
            command = (process / "cmdline").read_bytes()
            told = command + (process / "environ").read_bytes()
        except OSError:
            continue
        if state not in "ZX":
            pid = int(process.name)
            parents[pid], commands[pid] = int(parent), command.replace(b"\0", b" ").decode()
            found |= {pid} if str(out).encode() in told else set()
    while started := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= started
    return {pid: commands[pid] for pid in found}


def left_of(before: dict[int, str], out: Path) -> dict[int, str]:
    """What still lives of these processes, whoever their parent is now, and what else has to do with the folder."""
    orphans = {}
    for pid, command in before.items():
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            now = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            if stat[0] not in "ZX" and now == command:
                orphans[pid] = command
    return orphans | belonging_to(out)


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
    assert "of the answers differ" in report["rollouts"][3]["reason"]  # it shows sooner than the accuracy that is lost
    assert len(report["devices"]) == 5
    assert len({device["running_digest"] for device in report["devices"]}) == 1
    assert {device["device_class"] for device in report["devices"]} == {"class-a", "class-b"}
    assert report["broker"].startswith("mqtt://127.0.0.1:")
    wait("nothing is left", lambda: not belonging_to(out))


def test_a_killed_demo_leaves_no_process(out: Path, demo: subprocess.Popen[bytes]) -> None:
    in_the_middle(out)
    before = belonging_to(out)
    os.kill(demo.pid, signal.SIGKILL)
    assert demo.wait(60) == -signal.SIGKILL
    wait(f"nothing is left: {left_of(before, out)}", lambda: not left_of(before, out))


def test_an_interrupted_demo_stops_what_it_started_and_says_so(out: Path, demo: subprocess.Popen[bytes]) -> None:
    in_the_middle(out)
    before = belonging_to(out)
    os.killpg(demo.pid, signal.SIGINT)
    assert demo.wait(60) == 130
    wait(f"nothing is left: {left_of(before, out)}", lambda: not left_of(before, out))
    said = (out / "demo.log").read_text()
    assert "interrupted; everything it started is stopped" in said
    assert "Traceback" not in said
