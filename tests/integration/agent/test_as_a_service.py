"""The agent as a service manager starts it: what it is told, and under which restrictions it serves."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgeflock_agent.install import unit_text
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.values import Outcome
from edgeflock_deploy.messages.windows import Window

if TYPE_CHECKING:
    from tests.integration.agent.conftest import Board, Headquarters

DATA = Path(__file__).parents[2] / "data"

# Linux 6.3: memory that is written is never executed, as MemoryDenyWriteExecute= of the unit has it.
NEVER_WRITE_AND_EXECUTE = """
import ctypes, mmap, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) != 0:
    sys.exit("skip")
try:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    sys.exit("skip")
except PermissionError:
    pass
from pathlib import Path
from edgeflock_agent.children.runner import ModelProcess
for name in sys.argv[1:]:
    with ModelProcess.start(Path(name)) as process:
        process.infer([bytes(process.inputs[0].nbytes)])
        print(process.alive)
"""


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(30)
        yield listening


def test_it_is_ready_when_it_serves_is_fed_while_it_turns_and_says_when_it_ends(
    hq: Headquarters, board: Board, manager: socket.socket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    digest = hq.bundle()
    board.start()
    hq.want(board.device, Phase.COMMIT, digest, 1)
    assert hq.wait_done(1).outcome is Outcome.SUCCEEDED
    assert board.end() == 0
    hq.wait_online(False)

    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    board.start("--log-format", "json", broker="mqtt://127.0.0.1:9")
    assert manager.recv(4096) == b"READY=1"
    assert board.infer()["parameters"]["digest"] == digest  # it was not ready before
    heard = [manager.recv(4096).decode() for _ in range(3)]
    assert sum("WATCHDOG=1" in words for words in heard) == 3
    assert any(f"STATUS=serves digits {digest[:12]}; no broker" in words for words in heard)
    (child,) = board.children()
    assert b"NOTIFY_SOCKET" not in Path(f"/proc/{child}/environ").read_bytes()

    assert board.process is not None
    board.process.send_signal(signal.SIGTERM)
    while manager.recv(4096) != b"STOPPING=1":
        pass
    assert board.process.wait(20) == 0
    last = board.log_path.read_text().splitlines()[-1]
    assert json.loads(last)["level"]


def test_a_loop_that_stands_still_is_not_fed(
    hq: Headquarters, board: Board, manager: socket.socket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    board.start()
    while "WATCHDOG=1" not in manager.recv(4096).decode():
        pass
    assert board.process is not None
    board.process.send_signal(signal.SIGSTOP)
    manager.settimeout(2.0)
    with pytest.raises(TimeoutError):
        for _ in range(10):  # what was on its way when it stopped
            manager.recv(4096)


def test_models_run_where_no_memory_is_both_written_and_executed() -> None:
    names = [str(DATA / name) for name in ("tiny.tflite", "tiny_int8.tflite", "tiny_int4.tflite", "tiny_slow.tflite")]
    command = [sys.executable, "-c", NEVER_WRITE_AND_EXECUTE, *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=os.environ)
    if "skip" in done.stderr:
        pytest.skip("this kernel does not know PR_SET_MDWE")
    assert done.stdout == "True\n" * 4, done.stderr


def call_sets() -> dict[str, set[str]]:
    """systemd's groups of system calls, taken apart."""
    text = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager"], capture_output=True, text=True, check=True
    ).stdout
    listed: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("@"):
            members = listed.setdefault(line.strip(), [])
        elif line.startswith("    ") and not line.strip().startswith("#"):
            members.append(line.strip())

    def members_of(name: str) -> set[str]:
        return set().union(*({m} if not m.startswith("@") else members_of(m) for m in listed.get(name, [])))

    return {name: members_of(name) for name in listed}


def allowed_by_unit() -> set[str]:
    """The system calls that SystemCallFilter= of the unit leaves."""
    sets = call_sets()
    allowed = set(sets["@default"])
    for rule in re.findall(r"^SystemCallFilter=(.*)$", unit_text(), re.MULTILINE):
        named: set[str] = set().union(*(sets.get(word, {word}) for word in rule.lstrip("~").split()))
        allowed = allowed - named if rule.startswith("~") else allowed | named
    return allowed


@pytest.mark.skipif(
    not (shutil.which("strace") and shutil.which("systemd-analyze")), reason="needs strace and systemd-analyze"
)
def test_the_unit_allows_every_system_call_of_an_agent_through_an_update(
    hq: Headquarters, board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, traced = tmp_path / "calls", tmp_path / "traced-python"
    traced.write_text(f'#!/bin/sh\nexec strace -D -f -c -o {counts} {sys.executable} "$@"\n')
    traced.chmod(0o755)
    if subprocess.run([str(traced), "-c", ""], check=False).returncode != 0:
        pytest.skip("this process may not trace")
    old, new = hq.bundle("tiny.tflite", 1), hq.bundle("tiny_other.tflite", 2)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(traced))
        board.start("--socket", str(tmp_path / "asked.sock"))
    hq.want(board.device, Phase.COMMIT, old, 1)
    assert hq.wait_done(1).outcome is Outcome.SUCCEEDED
    hq.want(board.device, Phase.TRIAL, new, 2)
    hq.wait("a window", lambda m: isinstance(m, Window))
    board.infer()
    hq.want(board.device, Phase.COMMIT, new, 3)
    assert hq.wait_done(3).outcome is Outcome.SUCCEEDED
    assert board.end() == 0
    until_s = time.monotonic() + 30
    while not (counts.exists() and "total" in counts.read_text()) and time.monotonic() < until_s:
        time.sleep(0.1)
    used = set(re.findall(r"^\s*\d+\.\d+\s.*\s(\w+)$", counts.read_text(), re.MULTILINE)) - {"total"}
    assert len(used) > 40
    assert used - allowed_by_unit() == set()
