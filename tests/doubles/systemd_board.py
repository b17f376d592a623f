"""A board whose process 1 is a real systemd, on this machine: namespaces, and a root that is this machine's, unharmed.

Decided here: what a machine must offer for it, and that nothing of it outlives the test: a keeper (`python -m
systemd_board`) ends the board and removes its cgroups when its standard input closes, also when the test was killed.
What the board sees stands in `systemd_board.sh`; this file knows no agent.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import site
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

REPOSITORY = Path(__file__).resolve().parents[2]
_BOOT = Path(__file__).with_suffix(".sh")
_SYSTEMD = Path("/lib/systemd/systemd")
_TOOLS = (
    "setpriv",
    "unshare",
    "nsenter",
    "mount",
    "mountpoint",
    "pivot_root",
    "hostname",
    "systemctl",
    "systemd-sysusers",
)
# What systemd counts and limits with; other hierarchies of version 1 are left alone.
_CONTROLLERS = {"name=systemd", "memory", "pids", "devices", "cpu", "cpuacct", "cpu,cpuacct"}
_PATIENCE_S = 60.0


class Unavailable(Exception):
    """This machine cannot stand up such a board; the message is one line and says why."""


class Group(NamedTuple):
    """A cgroup of the board's, and how its hierarchy is mounted: the folder's name below /sys/fs/cgroup."""

    folder: Path
    name: str
    kind: str
    options: str


class SystemdBoard:
    """A board while it runs; made by `start`."""

    def __init__(self, keeper: subprocess.Popen[str], pid: int) -> None:
        self._keeper, self.pid = keeper, pid

    @classmethod
    def start(cls, folder: Path) -> SystemdBoard:
        """Boot it.

        Args:
            folder: empty; the board's file system is mounted on it, where only the board sees it.

        Raises:
            Unavailable: not on this machine.
        """
        if os.geteuid() != 0:
            raise Unavailable("only root can make a board of namespaces")
        missing = [tool for tool in _TOOLS if shutil.which(tool, path=_path()) is None]
        if missing or not _SYSTEMD.exists():
            raise Unavailable(f"no {', '.join(missing) or 'systemd'} on this machine")
        command = [sys.executable, __file__, str(folder)]
        keeper = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert keeper.stdout is not None
        said = json.loads(keeper.stdout.readline() or '{"why": "its keeper died"}')
        if "why" in said:
            keeper.communicate()
            raise Unavailable(said["why"])
        return cls(keeper, said["pid"])

    def stop(self) -> None:
        """End it; nothing of it is left."""
        self._keeper.communicate(timeout=_PATIENCE_S)  # closes its input

    def run(self, *words: str, code: int | None = 0) -> str:
        """Run a command on the board, as root; what it printed.

        Args:
            words: the command.
            code: how it must end (128 and a signal's number: by that signal); None: any way.
        """
        done = subprocess.run(
            [*_inside(self.pid), *words], capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
        ended = done.returncode if done.returncode >= 0 else 128 - done.returncode
        assert code is None or ended == code, f"{words}: {ended}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def write(self, path: str, text: str) -> None:
        """Write a file of the board's."""
        self.run("sh", "-euc", 'mkdir -p "$(dirname "$0")"; printf %s "$1" >"$0"', path, text)

    def show(self, unit: str, what: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", "-p", what, unit).strip()

    def journal(self, unit: str) -> str:
        """What a unit, and systemd about it, have said."""
        return self.run("journalctl", "--no-pager", "-o", "cat", "-u", unit)


def _path() -> str:
    return os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


def _inside(pid: int) -> list[str]:
    clean = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"]
    return ["nsenter", f"--target={pid}", "--mount", "--pid", "--ipc", "--uts", "--cgroup", "--", *clean]


# --- the keeper ------------------------------------------------------------------------------------------------------


def _own_groups(name: str) -> Iterator[Group]:
    """Make a cgroup below our own in each hierarchy that systemd works with, one after the other."""
    mounted: dict[str, tuple[Path, str, str]] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            own = [word for word in options.split(",") if word not in ("rw", "ro", "xattr", "nsdelegate")]
            mounted["" if kind == "cgroup2" else ",".join(own)] = (Path(before.split()[4]), kind, ",".join(own))
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in mounted or (controllers and controllers not in _CONTROLLERS):
            continue
        point, kind, options = mounted[controllers]
        only = kind == "cgroup2" and not any(one == "cgroup" for _, one, _ in mounted.values())
        # Where there is nothing but version 2, only the first level is sure to have controllers to hand out.
        folder = point / name if only else point / path.lstrip("/") / name
        folder.mkdir()
        yield Group(folder, "." if only else point.name, kind, options if kind == "cgroup" else "rw")


def _keep(folder: Path) -> None:
    groups: list[Group] = []
    booting: subprocess.Popen[str] | None = None
    pid = 0
    try:
        try:
            groups.extend(_own_groups(f"edgeflock-board-{os.getpid()}"))
        except OSError as error:
            raise Unavailable(f"no cgroup of its own: {error}") from None
        if not groups:
            raise Unavailable("this machine has no cgroups")
        with tempfile.TemporaryFile("w+") as said:
            booting = _boot(folder, groups, said)
            pid = _wait_up(booting, said)
        print(json.dumps({"pid": pid}), flush=True)
        sys.stdin.read()
    except Unavailable as error:
        print(json.dumps({"why": str(error)}), flush=True)
    finally:
        if booting is not None:
            pid = pid or _child(booting.pid)
            with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
                os.kill(pid or booting.pid, signal.SIGKILL)  # process 1 of the board: all others go with it
            booting.wait()
        for group in groups:
            _remove(group.folder)


def _boot(folder: Path, groups: list[Group], said: IO[str]) -> subprocess.Popen[str]:
    enter = 'for group in {}; do echo $$ >"$group/cgroup.procs"; done; exec "$@"'
    enter = enter.format(" ".join(f"'{group.folder}'" for group in groups))
    apart = [
        "setpriv",
        "--pdeathsig=KILL",
        "unshare",
        "--kill-child",
        "--mount",
        "--pid",
        "--ipc",
        "--uts",
        "--cgroup",
        "--propagation=private",
        "--fork",
    ]
    packages = next((path for path in site.getsitepackages() if Path(path, "pydantic").exists()), "")
    mounts = [word for group in groups for word in (group.name, group.kind, group.options)]
    prefix = sysconfig.get_config_var("installed_base") or sys.base_prefix
    words = [*apart, "sh", str(_BOOT), str(folder), str(prefix), packages, str(REPOSITORY), *mounts]
    return subprocess.Popen(
        ["sh", "-euc", enter, "sh", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=said,
        text=True,
        env=os.environ | {"PATH": _path()},
    )


def _wait_up(booting: subprocess.Popen[str], said: IO[str]) -> int:
    """The number of process 1, once systemd has reached its target."""
    until_s = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until_s:
        if booting.poll() is not None:
            said.seek(0)
            raise Unavailable(f"the board does not boot: {(said.read().strip().splitlines() or ['it ended'])[0]}")
        pid = _child(booting.pid)
        if pid and _is_systemd(pid):
            asked = [*_inside(pid), "systemctl", "is-active", "board.target"]
            done = subprocess.run(asked, capture_output=True, text=True, check=False)
            if done.stdout.strip() == "active":
                return pid
        time.sleep(0.05)
    raise Unavailable("the board's systemd does not come up")


def _child(pid: int) -> int:
    with contextlib.suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    return 0


def _is_systemd(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip() == "systemd"
    return False


def _remove(group: Path) -> None:
    """Remove a cgroup and those below it, as soon as their processes are gone."""
    until_s = time.monotonic() + 10
    while group.exists() and time.monotonic() < until_s:
        for below in sorted(group.rglob("*/"), reverse=True):
            if below.is_dir():
                with contextlib.suppress(OSError):
                    below.rmdir()
        try:
            group.rmdir()
        except OSError:
            time.sleep(0.05)


if __name__ == "__main__":
    _keep(Path(sys.argv[1]))
