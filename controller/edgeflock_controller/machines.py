"""Virtual boards on this machine: QEMU plays 64-bit ARM computers, each with the agent in it and a disk of its own.

For a user without boards, and for tests that cut a board's power. Decided here: what a machine consists of (a folder
with its disk, its console's log and its record), how it is started, and that killing its process is the power cut: what
the guest had not brought to its disk is lost. All machines share one read-only root, kernel and ramdisk, which
deploy/qemu/image.py makes; the agent's code is copied to a machine's disk when the disk is made. A machine reaches
this computer's loopback as 10.0.2.2, and its agent's endpoint is forwarded to a loopback port here. Not known here:
rollouts.

Version history of machine.json (on the disk) and running.json (beside it): 1, the first.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeflock_controller.pids import pid_started
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.link import parse_broker

_MEMORY_MB = 384
_DISK_BYTES = 256 << 20  # sparse: what is not written takes no room here
_HOST_IN_GUEST = "10.0.2.2"
_AGENT_PORT = 8000  # where deploy/qemu/init.py relays to the agent
_END_S = 5.0


@dataclass(frozen=True)
class Join:
    """What a new machine needs to know: the broker as seen from this computer, the trust file, seconds per beat."""

    broker: str
    trust: Path
    beat_s: float = 10.0
    measure_s: float = 0.0  # print the agent's memory and CPU to the console every so often; 0: never


@dataclass(frozen=True)
class Machine:
    """A virtual board: its id, its folder, and its process while it runs; `endpoint` is where its agent is asked."""

    name: str
    folder: Path
    pid: int | None
    endpoint: str | None

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self.pid is not None

    @property
    def console(self) -> Path:
        """What the machine has printed."""
        return self.folder / "console.log"


class Machines:
    """The virtual boards below one folder.

    Args:
        folder: each machine has a folder in it, by its id.
        dies_with_parent: a machine is killed when the process that started it ends (for tests).
    """

    def __init__(self, folder: Path, *, dies_with_parent: bool = False) -> None:
        self._folder, self._dies_with_parent = folder.resolve(), dies_with_parent
        self._started: dict[str, subprocess.Popen[bytes]] = {}  # by us; others are known by their record alone

    def all(self) -> list[Machine]:
        """Every machine that has a disk, by id."""
        if not self._folder.is_dir():
            return []
        found = [self.machine(path.name) for path in self._folder.iterdir() if (path / "own.img").exists()]
        return sorted(found, key=lambda machine: (len(machine.name), machine.name))

    def machine(self, name: str) -> Machine:
        """One machine.

        Raises:
            BadInput: there is none of this id.
        """
        folder = self._folder / name
        if not (folder / "own.img").exists():
            known = ", ".join(path.name for path in self._folder.glob("*")) or "none; `edgeflock vm up` makes one"
            raise BadInput(f"machine {name}", "does not exist", f"there are: {known}")
        with contextlib.suppress(OSError, ValueError, KeyError):
            record = json.loads((folder / "running.json").read_text())
            if pid_started(record["pid"]) == record["pid_started"]:
                return Machine(name, folder, record["pid"], f"http://127.0.0.1:{record['port']}")
        return Machine(name, folder, None, None)

    def up(self, count: int, join: Join) -> list[Machine]:
        """Have `count` machines run: those that exist are booted as they are, missing ones are made.

        Raises:
            BadInput: this computer cannot run them; the message says what is missing.
        """
        for name in (f"vm-{number + 1}" for number in range(count)):
            if not (self._folder / name / "own.img").exists():
                self._make(name, join)
            self.boot(name)
        return self.all()

    def boot(self, name: str) -> Machine:
        """Start one machine, unless it runs."""
        machine = self.machine(name)
        if machine.running:
            return machine
        image, command, environment = _installed()
        port = _free_port()
        words = [
            str(command), "-M", "virt", "-cpu", "cortex-a72", "-m", str(_MEMORY_MB), "-nodefaults", "-display", "none",
            "-no-reboot", "-kernel", str(image / "kernel"), "-initrd", str(image / "initrd"),
            "-append", "console=ttyAMA0 quiet panic=1", "-serial", f"file:{machine.console}",
            "-drive", f"if=none,id=root,file={image / 'root.img'},format=raw,readonly=on",
            "-device", "virtio-blk-device,drive=root,serial=root",
            "-drive", f"if=none,id=own,file={machine.folder / 'own.img'},format=raw",
            "-device", "virtio-blk-device,drive=own,serial=own",
            "-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{port}-:{_AGENT_PORT}",
            "-device", "virtio-net-device,netdev=net",
        ]  # fmt: skip
        lifeline = [sys.executable, "-m", "edgeflock_deploy.lifeline"] if self._dies_with_parent else []
        with (machine.folder / "qemu.log").open("wb") as log:
            process = subprocess.Popen(
                [*lifeline, *words],
                env=os.environ | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        time.sleep(0.5)
        if process.poll() is not None:
            said = (machine.folder / "qemu.log").read_text().strip().splitlines()
            raise BadInput(f"machine {name}", f"QEMU ended: {said[-1] if said else process.returncode}", "mend that")
        self._started[name] = process
        record = {"v": 1, "pid": process.pid, "pid_started": pid_started(process.pid), "port": port}
        (machine.folder / "running.json").write_text(json.dumps(record))
        return self.machine(name)

    def cut_power(self, name: str) -> None:
        """End a machine as a power cut does. It may be booted again."""
        machine = self.machine(name)
        if machine.pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(machine.pid, signal.SIGKILL)
        if name in self._started:
            self._started.pop(name).wait()
        until = time.monotonic() + _END_S
        while self.machine(name).running and time.monotonic() < until:
            time.sleep(0.02)

    def down(self, *, delete: bool = False) -> list[str]:
        """Cut the power of every machine, and with `delete` remove their disks; the ids of those that ran."""
        ran = [machine.name for machine in self.all() if machine.running]
        for machine in self.all():
            self.cut_power(machine.name)
            if delete:
                shutil.rmtree(machine.folder)
        return ran

    def _make(self, name: str, join: Join) -> None:
        """Make a machine's disk: init, the agent's code, who it is, whom it trusts."""
        image = _image_module()
        source = image.BUILD.parents[1]
        host, port = parse_broker(join.broker)
        inside = _HOST_IN_GUEST if host in ("127.0.0.1", "localhost", "::1") else host
        settings: dict[str, Any] = {"v": 1, "id": name, "broker": f"mqtt://{inside}:{port}", "beat_s": join.beat_s}
        settings |= {"made_at": time.time(), "measure_s": join.measure_s}
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as name_of_seed:
            seed = Path(name_of_seed)
            shutil.copy(source / "deploy/qemu/init.py", seed)
            for part in ("agent/edgeflock_agent", "deploy/edgeflock_deploy"):
                shutil.copytree(
                    source / part, seed / "code" / Path(part).name, ignore=shutil.ignore_patterns("__pycache__")
                )
            try:
                shutil.copy(join.trust, seed / "trust.json")
            except OSError:
                raise BadInput(str(join.trust), "is not there", "make the keys with `edgeflock keys init`") from None
            (seed / "machine.json").write_text(json.dumps(settings))
            with _told():
                image.make_disk(folder / "own.img", _DISK_BYTES, seed)


def _installed() -> tuple[Path, Path, dict[str, str]]:
    """The image's folder, QEMU, and the environment it needs; made where they are missing, which takes a minute."""
    image = _image_module()
    with _told():
        command, environment = image.system_qemu()
        return image.image(), command, environment


def _image_module() -> Any:
    try:
        from qemu import image
    except ImportError:
        raise BadInput(
            "edgeflock vm", "needs deploy/qemu of the repository, which makes the machines", "run it from a checkout"
        ) from None
    return image


@contextlib.contextmanager
def _told() -> Any:
    """What cannot be had on this computer is the user's to mend."""
    from qemu.packages import Missing

    try:
        yield
    except Missing as error:
        raise BadInput("edgeflock vm", str(error), "install qemu-system-arm and e2fsprogs, or use a Debian") from None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
