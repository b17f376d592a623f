"""A process that is confined like a child and then tries what a model has no business with; JSON of what came of it.

Arguments: how it is sealed (open, landlock, sealed as a child is, decoder), its parent, the descriptor of the model,
another file, the port of a listening TCP socket, the name of an abstract Unix socket, a bystander's process id.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeflock_agent.children import sandbox
from edgeflock_agent.storage import unpacking
from edgeflock_deploy.sandbox import landlock, privileges

HOW, PARENT, MODEL, OTHER, PORT, ABSTRACT, BYSTANDER = sys.argv[1:]
folder = Path(OTHER).parent
model = Path(f"/proc/self/fd/{MODEL}")
written = os.open(folder / f"stderr-{HOW}", os.O_RDWR | os.O_CREAT)


def tried(what: Callable[[], Any]) -> str:
    try:
        what()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def remove() -> None:
    doomed = folder / f"doomed-{HOW}"
    doomed.unlink()


def fork() -> None:
    if (pid := os.fork()) == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def execute() -> None:
    """In a new process where there may be one, else in this one's stead: that would be noticed."""
    try:
        pid = os.fork()
    except OSError:
        os.execv("/bin/true", ["true"])
    if pid == 0:
        try:
            os.execv("/bin/true", ["true"])
        except OSError as error:
            os._exit(error.errno or 1)
    if status := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise OSError(status, "execv")


def reach(family: int, kind: int, address: Any) -> None:
    with socket.socket(family, kind) as asking:
        asking.connect(address)


def listen() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()


def thread() -> None:
    one = threading.Thread(target=int)
    one.start()
    one.join()


def trace() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(16, int(BYSTANDER), 0, 0):  # PTRACE_ATTACH
        raise OSError(ctypes.get_errno(), "ptrace")
    os.waitpid(int(BYSTANDER), 0x40000000)  # __WALL
    libc.ptrace(17, int(BYSTANDER), 0, 0)


def memory() -> None:
    with Path(f"/proc/{BYSTANDER}/mem").open("rb"):
        pass


(folder / f"doomed-{HOW}").touch()
if HOW == "sealed":
    sandbox.enter(int(PARENT), (0, 1, 2, int(MODEL), written))
    sandbox.seal([int(MODEL)])
elif HOW == "landlock":
    privileges.gain_none()
    landlock.restrict([int(MODEL)])
elif HOW == "decoder":
    unpacking.confine(64 << 20)

limits = {
    name: resource.getrlimit(number)[0]
    for name, number in {
        "core": resource.RLIMIT_CORE,
        "files": resource.RLIMIT_NOFILE,
        "written": resource.RLIMIT_FSIZE,
    }.items()
}
results: dict[str, Any] = {
    "read the model": tried(lambda: model.read_text()),
    "read": tried(lambda: Path(OTHER).read_text()),
    "write": tried(lambda: Path(OTHER).open("a").close()),
    "write the model": tried(lambda: model.open("a").close()),
    "make a file": tried(lambda: (folder / f"new-{HOW}").touch()),
    "make a folder": tried(lambda: (folder / f"newer-{HOW}").mkdir()),
    "list": tried(lambda: os.listdir(folder)),  # noqa: PTH208
    "remove": tried(remove),
    "change the mode": tried(lambda: os.fchmod(int(MODEL), 0o644)),
    "fork": tried(fork),
    "execute": tried(execute),
    "connect": tried(lambda: reach(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", int(PORT)))),
    "listen": tried(listen),
    "udp": tried(lambda: reach(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 9))),
    "abstract socket": tried(lambda: reach(socket.AF_UNIX, socket.SOCK_STREAM, f"\0{ABSTRACT}")),
    "signal another": tried(lambda: os.kill(int(BYSTANDER), 0)),
    "signal itself": tried(lambda: os.kill(os.getpid(), 0)),
    "limit another": tried(lambda: resource.prlimit(int(BYSTANDER), resource.RLIMIT_CORE, (0, 0))),
    "memory of another": tried(memory),
    "trace": tried(trace),
    "start a thread": tried(thread),
    "write much": tried(lambda: os.pwrite(written, b"x", 1 << 20)),
    "folder": os.readlink("/proc/self/cwd") if HOW == "open" else os.getcwd(),  # noqa: PTH109, PTH115
    "limits": limits,
}
if HOW == "open":
    del results["folder"], results["limits"]
json.dump(results, sys.stdout)
