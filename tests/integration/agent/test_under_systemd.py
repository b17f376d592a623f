"""The unit that `edgeflock-agent install` writes, under a real systemd: what it forbids is not missed, what it promises
happens. The tests share one board."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from systemd_board import SystemdBoard, Unavailable
from tests.integration.agent.conftest import Headquarters

from edgeflock_agent.install import UNIT
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.values import Outcome
from edgeflock_deploy.messages.windows import Window

PATIENCE_S = 60.0
PAGE = Path(__file__).parents[3] / "docs" / "device.md"
PROGRAM = "/opt/edgeflock/bin/edgeflock-agent"
SOCKET = "/run/edgeflock/agent.sock"
ASK = f"""
import http.client, json, socket
asked = http.client.HTTPConnection("board")
asked.sock = socket.socket(socket.AF_UNIX)
asked.sock.connect({SOCKET!r})
tensor = {{"name": "x", "datatype": "FP32", "shape": [1, 8], "data": [0.1] * 8}}
asked.request("POST", "/v2/models/digits/infer", json.dumps({{"inputs": [tensor]}}))
print(json.load(asked.getresponse())["parameters"]["digest"])
"""
HOG = 'echo $$ >"$0"; exec /opt/edgeflock/bin/python -S -c "held = bytes([1]) * (1 << 30)"'


class Service(NamedTuple):
    """The agent as a service of a board, and its headquarters."""

    board: SystemdBoard
    hq: Headquarters

    def wait(self, what: str, found: Callable[[], Any]) -> Any:
        until_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < until_s:
            if result := found():
                return result
            time.sleep(0.1)
        raise AssertionError(f"waited for {what}\n{self.board.journal(UNIT)[-3000:]}")

    def show(self, what: str) -> str:
        return self.board.show(UNIT, what)

    @property
    def main(self) -> int:
        """The agent's process, by the board's numbers."""
        return int(self.show("MainPID"))

    def ask(self, user: str = "0", group: str = "0") -> str:
        """The digest that answers on the unit's socket, or why none does."""
        somebody = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
        python = ["/opt/edgeflock/bin/python", "-I", "-S", "-c", ASK]
        return self.board.run(*somebody, *python, code=None).strip()


@pytest.fixture(scope="module")
def installed(broker_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Installed as docs/device.md has it, and running its first bundle."""
    folder = tmp_path_factory.mktemp("systemd")
    (folder / "root").mkdir()
    try:
        board = SystemdBoard.start(folder / "root")
    except Unavailable as error:
        pytest.skip(f"no systemd of our own here: {error}")
    hq = Headquarters(broker_url, folder)
    try:
        board.write("/root/trust.json", hq.trust_path.read_text())
        words = ["install", "--id", hq.device, "--broker", hq.url, "--trust", "/root/trust.json", "--option=--beat=0.5"]
        printed = board.run(PROGRAM, *words)
        for step in re.findall(r"^  sudo (system\S+ .*?)(?: +#.*)?$", printed, re.MULTILINE):
            board.run(*step.split())
        hq.want(hq.device, Phase.COMMIT, hq.bundle("tiny.tflite", 1), 1)
        assert hq.wait_done(1).outcome is Outcome.SUCCEEDED
        yield Service(board, hq)
        print(board.journal(UNIT))  # shown where a test failed
    finally:
        hq.link.stop()
        board.stop()


@pytest.fixture
def service(installed: Service) -> Service:
    """It runs, and has said that it is ready; `systemctl start` waits for that."""
    installed.board.run("systemctl", "start", UNIT)
    return installed


def test_it_takes_an_update_with_a_trial_and_says_what_it_serves(service: Service) -> None:
    hq = service.hq
    assert (service.show("ActiveState"), service.show("SubState")) == ("active", "running")
    new = hq.bundle("tiny_other.tflite", 2)
    assert service.ask() != new
    hq.want(hq.device, Phase.TRIAL, new, 2)
    hq.wait("a window", lambda m: isinstance(m, Window))
    hq.want(hq.device, Phase.COMMIT, new, 3)
    assert hq.wait_done(3).outcome is Outcome.SUCCEEDED
    assert service.ask() == new
    service.wait("a status", lambda: service.show("StatusText") == f"serves digits {new[:12]}; connected")


def test_its_hardening_holds_it_and_its_children(service: Service) -> None:
    board, main = service.board, service.main
    children = board.run("pgrep", "--parent", str(main)).split()
    assert children
    for pid in (str(main), *children):
        status = board.run("cat", f"/proc/{pid}/status")
        for held in (r"NoNewPrivs:\s1", r"Seccomp:\s2", r"CapBnd:\s0+", r"Uid:\s[1-9].*"):
            assert re.search(f"^{held}$", status, re.MULTILINE), held
    as_it_sees = ["nsenter", f"--target={main}", "--mount", "--"]
    for refused in ("/etc/new", "/usr/bin/new", "/opt/edgeflock/new", "/var/new"):
        assert "Read-only file system" in board.run(*as_it_sees, "touch", refused, code=1)
    for hidden in ("/root", "/home", "/tmp"):
        assert board.run(*as_it_sees, "find", hidden, "-mindepth", "1") == ""
    assert board.run("stat", "--format=%A %U %G", "/var/lib/edgeflock").strip() == "drwxr-x--- edgeflock edgeflock"
    # What a kernel offers to hold an inference child is not taken away by the unit.
    offered = "from edgeflock_agent.children import sandbox; print(sandbox.offered())"
    outside = board.run("/opt/edgeflock/bin/python", "-c", offered).strip()
    assert f"inference processes are held by {outside}\n" in board.journal(UNIT)


def test_an_application_of_its_group_may_ask_and_another_may_not(service: Service) -> None:
    assert service.ask("nobody", "edgeflock") == service.ask()
    assert "PermissionError" in service.ask("nobody", "nogroup")


def test_what_eats_the_memory_dies_alone(service: Service) -> None:
    board, main, group = service.board, service.main, service.show("ControlGroup")
    places = (f"/sys/fs/cgroup{group}/memory.max", f"/sys/fs/cgroup/memory{group}/memory.limit_in_bytes")
    limit = next((place for place in places if board.run("cat", place, code=None).strip().isdigit()), None)
    if limit is None:
        pytest.skip("the cgroups of this machine have no memory to limit")
    assert board.run("cat", limit).strip() == service.show("MemoryMax")
    board.run("systemctl", "set-property", "--runtime", UNIT, "MemoryMax=400M")
    board.run("sh", "-c", HOG, str(Path(limit).with_name("cgroup.procs")), code=137)  # killed
    assert service.main == main
    assert re.fullmatch(r"[0-9a-f]{64}", service.ask())


def test_a_loop_that_stands_still_is_ended_by_the_watchdog_and_serves_again_without_an_order(service: Service) -> None:
    board = service.board
    before = service.ask()
    # The unit's own watchdog waits a minute.
    board.write(f"/etc/systemd/system/{UNIT}.d/quick.conf", "[Service]\nWatchdogSec=5\n")
    board.run("systemctl", "daemon-reload")
    board.run("systemctl", "restart", UNIT)
    main = service.main
    board.run("kill", "-STOP", str(main))
    service.wait("a restart", lambda: int(service.show("NRestarts")) > 0 and service.show("ActiveState") == "active")
    assert service.main != main
    assert "Watchdog timeout" in board.journal(UNIT)
    assert service.ask() == before


def test_it_ends_in_good_order(service: Service) -> None:
    said = len(service.hq.said)
    service.board.run("systemctl", "stop", UNIT)
    assert (service.show("Result"), service.show("ExecMainStatus")) == ("success", "0")
    service.hq.wait_online(False, said)


def test_systemd_finds_it_as_exposed_as_the_page_says(installed: Service) -> None:
    said = installed.board.run("systemd-analyze", "security", "--no-pager", UNIT)
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+) (\w+)", said)
    assert exposure is not None
    if "systemd 252" in installed.board.run("systemctl", "--version"):
        assert f"**{exposure[1]}, {exposure[2]}**" in PAGE.read_text()
    assert float(exposure[1]) <= 2.0
