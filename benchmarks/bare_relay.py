"""The least that two processes between an application and its model cost: bytes passed on, and nothing looked at.

An agent answers applications and has each model in a child, so that a model can neither read nor take down what serves.
That is one process and two wake-ups more on the way in, and as many on the way back, whatever the agent does in them.
This relay does nothing in them: no HTTP, no names, no checks, no limits. What it costs is the floor under the agent.
"""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeflock_deploy.runtime import LoadedModel

_PIPE_BYTES = 1 << 20


class BareClient:
    """An application of a relay.

    Args:
        path: the relay's socket.
        answer_bytes: how long an answer is.
    """

    def __init__(self, path: str, answer_bytes: int) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._answer = bytearray(answer_bytes)

    def ask(self, item: NDArray[Any]) -> NDArray[np.float32]:
        """The model's answer, as a flat array."""
        self._socket.sendall(item.data)
        _receive(self._socket, self._answer)
        return np.frombuffer(self._answer, np.float32)

    def close(self) -> None:
        """Leave; the relay ends then."""
        self._socket.close()


def relay(model: str, path: str, item_bytes: int, answer_bytes: int) -> None:
    """Pass an application's bytes to the model's process and its answer back, until the application leaves."""
    words = [sys.executable, "-m", "benchmarks.bare_relay", "run", model]
    with (
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as child,
        socket.socket(socket.AF_UNIX) as listener,
    ):
        assert child.stdin is not None
        assert child.stdout is not None
        for pipe in (child.stdin, child.stdout):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        child.stdout.read(1)  # it is loaded
        Path(path).unlink(missing_ok=True)
        listener.bind(path)
        listener.listen(1)
        print("ready", flush=True)
        with listener.accept()[0] as application:
            item, answer = bytearray(item_bytes), bytearray(answer_bytes)
            while _receive(application, item):
                _write(child.stdin.fileno(), item)
                _read(child.stdout.fileno(), answer)
                application.sendall(answer)


def run(model: str) -> None:
    """The model's process: items from its input, answers to its output."""
    loaded = LoadedModel.load(Path(model))
    (tensor,) = loaded.inputs
    item = bytearray(int(np.prod(tensor.shape)) * np.dtype(tensor.dtype).itemsize)
    array = np.frombuffer(item, tensor.dtype).reshape(tensor.shape)
    os.write(1, b".")
    while _read(0, item):
        _write(1, np.ascontiguousarray(loaded.run(array)[0]).data.cast("B"))


def _receive(one: socket.socket, into: bytearray) -> bool:
    view, got = memoryview(into), 0
    while got < len(into):
        n = one.recv_into(view[got:])
        if not n:
            return False
        got += n
    return True


def _read(handle: int, into: bytearray) -> bool:
    view, got = memoryview(into), 0
    while got < len(into):
        n = os.readv(handle, [view[got:]])
        if not n:
            return False
        got += n
    return True


def _write(handle: int, data: bytearray | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


if __name__ == "__main__":
    if sys.argv[1] == "run":
        run(sys.argv[2])
    else:
        relay(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
