"""The nursery: a process that has imported TensorFlow and computes nothing; it forks a worker whenever one is wanted.

Decided here: how the process of a worker begins and ends. Importing TensorFlow costs seconds of a core, and a search
starts dozens of workers. A fork of a process that has only imported is as fresh as a new one: nothing was computed in
it, no thread pool made, no layer named. Not known here: orders, recipes, what a worker says.

`python -m edgeflock_compression.nursery SOCKET PARENT_PID` is that process. On the socket it is sent one JSON line at a
time, `[module, folder]`, with the worker's standard input, output and error; it answers with the process
id, and at its end with its exit code. It ends with the process that started it, and its worker with it.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, ClassVar

from edgeflock_deploy.lifeline import die_with_parent

_MODULE = "edgeflock_compression.nursery"
_REQUEST_BYTES = 1 << 16  # a module's name and a path are far below
_ANSWER = struct.Struct("=i")


class Worker:
    """A worker that runs.

    Args:
        stdout: what it says.
        stderr: what its libraries say.
        nursery: where it comes from.
    """

    def __init__(self, stdout: IO[bytes], stderr: IO[bytes], nursery: _Nursery) -> None:
        self.stdout, self.stderr, self._nursery = stdout, stderr, nursery

    def wait(self) -> int:
        """Wait for its end; its exit code, below 0 for a signal."""
        return self._nursery.wait()


@contextlib.contextmanager
def worker(module: str, told: bytes) -> Iterator[Worker]:
    """Run the `main` of a module in a process forked off a nursery; killed at the end of the `with` if it still runs.

    The first one waits until TensorFlow is imported; the nursery then stays for the next one.

    Args:
        module: what runs.
        told: what it reads from its standard input.
    """
    nursery = _Nursery.free()
    (stdin, into), (out_of, says) = os.pipe(), os.pipe()
    with os.fdopen(out_of, "rb") as stdout, tempfile.TemporaryFile() as stderr:
        nursery.fork(module, [stdin, says, stderr.fileno()])
        for its in (stdin, says):
            os.close(its)
        try:
            with contextlib.suppress(BrokenPipeError), os.fdopen(into, "wb") as pipe:  # it may have ended already
                pipe.write(told)
            yield Worker(stdout, stderr, nursery)
        finally:
            nursery.end_worker(stdout)


class _Nursery:
    """One such process, and the way to it."""

    idle: ClassVar[list[_Nursery]] = []  # of this process; empty until the first worker has ended

    def __init__(self) -> None:
        self._socket, its = socket.socketpair()
        with its:
            command = [sys.executable, "-m", _MODULE, str(its.fileno()), str(os.getpid())]
            quiet = subprocess.DEVNULL
            self._process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, pass_fds=[its.fileno()])
        self._owner_pid = os.getpid()
        self._busy = False  # whether it has a worker, and which as soon as it has said so
        self._pid: int | None = None
        atexit.register(self.end)

    @classmethod
    def free(cls) -> _Nursery:
        """One that has no worker; a new one where there is none."""
        while cls.idle:
            nursery = cls.idle.pop()
            if nursery._owner_pid == os.getpid() and nursery._process.poll() is None:
                return nursery
            nursery.end()
        return cls()

    def fork(self, module: str, files: list[int]) -> None:
        """Have it run a module with these as its standard input, output and error."""
        self._busy, self._pid = True, None
        with contextlib.suppress(OSError):  # it has just died: `wait` says how
            socket.send_fds(self._socket, [json.dumps([module, str(Path.cwd())]).encode()], files)

    def wait(self) -> int:
        """The code with which the worker has ended; that of the nursery where this died first."""
        self._pid = self._pid or self._answer()
        code = self._answer() if self._pid else None
        if code is None:
            return self._process.wait()
        self._busy = False
        return code

    def end_worker(self, says: IO[bytes]) -> None:
        """See to it that the worker has ended, and keep the nursery for the next one if that is well.

        Args:
            says: the worker's standard output, which ends with it.
        """
        if self._busy and self._speaks():
            self._pid = self._pid or self._answer()
        if self._busy and self._pid:
            if not self._speaks():  # its end is not told yet: the number is still its own
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._pid, signal.SIGKILL)
            self._busy = self._answer() is None
        if not self._busy:
            self.idle.append(self)
            return
        self.end()
        while says.read(1 << 16):
            pass

    def _speaks(self) -> bool:
        """Whether it has something to say."""
        return bool(select.select([self._socket], [], [], 0)[0])

    def _answer(self) -> int | None:
        """The next one, waited for; None where the nursery has died."""
        with contextlib.suppress(OSError):
            answer = self._socket.recv(_ANSWER.size, socket.MSG_WAITALL)
            return int(_ANSWER.unpack(answer)[0]) if answer else None
        return None

    def end(self) -> None:
        """Kill it; its worker dies with it."""
        atexit.unregister(self.end)
        self._socket.close()
        if self._owner_pid == os.getpid():
            self._process.kill()
            self._process.wait()


def end_idle() -> None:
    """End the nurseries that wait: the next worker comes of a new one, with addresses and hash seeds of its own."""
    while _Nursery.idle:
        _Nursery.idle.pop().end()


def main() -> None:
    """Be the nursery; in a process that it forks, become the worker."""
    die_with_parent(int(sys.argv[2]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who waits for the worker, and for the worker
    asked = socket.socket(fileno=int(sys.argv[1]))
    with contextlib.suppress(Exception):  # whoever needs what cannot be imported will say so
        _import_all()
    gc.collect()
    gc.freeze()  # what was imported is shared with the workers as long as nobody writes into it
    module = _forks(asked)
    if module is not None:
        importlib.import_module(module).main()


def _import_all() -> None:
    from edgeflock_compression.tf_import import keras, tensorflow

    keras()
    lite = tensorflow().lite
    for module in ("worker", "search.sensitivity"):
        importlib.import_module(f"edgeflock_compression.{module}")
    _ = lite.TFLiteConverter  # the parts of TensorFlow import theirs when they are first asked for


def _forks(asked: socket.socket) -> str | None:
    """Fork workers until nobody asks any more (None); in a fork, the module that it is to be."""
    nursery_pid = os.getpid()
    while True:
        request, files, _, _ = socket.recv_fds(asked, _REQUEST_BYTES, 3)
        if not request:
            return None
        module, folder = json.loads(request)
        child = os.fork()
        if child == 0:
            die_with_parent(nursery_pid)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            asked.close()
            for number, file in enumerate(files):
                os.dup2(file, number)
                os.close(file)
            os.chdir(folder)
            return str(module)
        for file in files:
            os.close(file)
        asked.sendall(_ANSWER.pack(child))
        _, status = os.waitpid(child, 0)
        asked.sendall(_ANSWER.pack(os.waitstatus_to_exitcode(status)))


if __name__ == "__main__":
    main()
