"""Loading, checking and running a model in a forked copy of an inference child that has come up already.

The copy is asked by `ModelProcess`, answers by the child's own code and stands in the same sandbox with the same
limits; only that the runtime is not loaded anew for each model, which makes thousands of models a matter of minutes.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from edgeflock_agent.children import child, sandbox
from edgeflock_agent.children.child_process import ChildProcess
from edgeflock_agent.children.frames import Channel, End, connected
from edgeflock_agent.children.random_inputs import RandomInputs
from edgeflock_agent.children.runner import HardStop, InferenceFailed, ModelProcess
from edgeflock_deploy.cases import Golden, write_golden
from edgeflock_deploy.reasons import Reason
from edgeflock_deploy.runtime import LoadedModel

RIGHT = "loads, and answers rightly"
MISMATCH = "golden mismatch"
REFUSED = "load refused"
CRASHED = "crashed"
HUNG = "hung"
MEMORY = "memory over budget"
OUTCOMES = (RIGHT, MISMATCH, REFUSED, CRASHED, HUNG, MEMORY)

BY_REASON = {
    Reason.GOLDEN_MISMATCH: MISMATCH,
    Reason.NAN_OUTPUT: MISMATCH,
    Reason.MANIFEST_INVALID: MISMATCH,  # other tensors than the golden cases have
    Reason.LOAD_FAILED: REFUSED,
    Reason.LOAD_CRASHED: CRASHED,
    Reason.CRASHED: CRASHED,
    Reason.HUNG: HUNG,
    Reason.MEMORY_OVER_BUDGET: MEMORY,
}
TOLERANCE: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5, "steps": 1, "exact": False}
BUDGET_BYTES = 64 << 20
TIMEOUT_S = 5.0
_SEEDED_ITEMS, _CASES, _UP_S = 4, 3, 60.0


class Trial(NamedTuple):
    """How a model did: one of OUTCOMES, and the reason in words, or the signal."""

    outcome: str
    detail: str


def golden_files(data: Path, models: Sequence[str], folder: Path) -> dict[str, Path]:
    """Golden cases of each whole model, written to a folder."""
    paths = {}
    for name in models:
        whole, drawn = LoadedModel.load(data / f"{name}.tflite"), RandomInputs(0)
        items = [[drawn.tensor(info.dtype, info.shape) for info in whole.inputs] for _ in range(_CASES)]
        outputs = [whole.run(*item) for item in items]
        stacked = [tuple(np.concatenate(column) for column in zip(*rows, strict=True)) for rows in (items, outputs)]
        paths[name] = folder / f"{name}.npz"
        paths[name].write_bytes(write_golden(Golden(stacked[0], stacked[1])))
    return paths


def tried(model: Path, golden: Path, start_child: Callable[[float], ChildProcess]) -> Trial:
    """Try a model as WARMING does: load it, check the golden cases, run it."""
    try:
        with ModelProcess.start(
            model, memory_budget_bytes=BUDGET_BYTES, timeout_s=TIMEOUT_S, start_child=start_child
        ) as process:
            process.check_golden(golden, **TOLERANCE)
            process.use_random_inputs(items=_SEEDED_ITEMS)
            with contextlib.suppress(InferenceFailed):
                process.measure(_SEEDED_ITEMS)
    except HardStop as stop:
        return Trial(BY_REASON[stop.reason], str(stop))
    return Trial(RIGHT, "")


def forked(timeout_s: float) -> ChildProcess:
    """Start a child as a fork of this process, in which `child.rehearse` has been called."""
    parent, stderr = os.getpid(), tempfile.TemporaryFile()  # noqa: SIM115 - the child's, who closes it at its end
    ours, theirs = connected()
    pid = os.fork()
    if pid == 0:
        _be_the_child(parent, theirs, stderr.fileno())
    theirs.close()
    process = cast("subprocess.Popen[bytes]", _Forked(pid))
    channel = Channel(ours)
    channel.receive(_UP_S)
    return ChildProcess(process, channel, stderr, timeout_s)


def _be_the_child(parent: int, end: End, stderr: int) -> None:
    """Never returns."""
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(stderr, 1)
        os.dup2(stderr, 2)
        sandbox.enter(parent, (0, 1, 2, *end))
        child.serve(end)
        status = 0
    finally:
        os._exit(status)


class _Forked:
    """What `ChildProcess` needs of a Popen, for a process that was forked."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._handle = os.pidfd_open(pid)

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._handle], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("fork", timeout or 0)
            os.close(self._handle)
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def kill(self) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)
