"""Loading, checking and running a model in a forked copy of an inference child that has come up already.

The copy does what an agent's child does, by the child's own code and within the same limits; only that the runtime is
not loaded anew for each model, which makes thousands of models a matter of minutes. What the copy does to itself
(crash, hang, allocate) is its own affair: this process only waits, reads a frame and notes how it ended.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgeflock_agent.children import child as child_module
from edgeflock_agent.children import runner
from edgeflock_agent.children.child import Child
from edgeflock_agent.children.datatypes import DATATYPES
from edgeflock_agent.children.frames import BadFrame, Ended, TimedOut, receive, send
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
_SEEDED_ITEMS, _CASES = 4, 3


class Trial(NamedTuple):
    """How a model did: one of OUTCOMES, and the reason in words, or the signal."""

    outcome: str
    detail: str


def warm_up() -> None:
    """Have the runtime, its pools and numpy loaded before the first fork."""
    warm = LoadedModel.load(child_module._WARM_MODEL)
    warm.run(*(np.zeros(info.shape, info.dtype) for info in warm.inputs))


def golden_files(data: Path, models: Sequence[str], folder: Path) -> dict[str, Path]:
    """Golden cases of each whole model, written to a folder."""
    paths = {}
    for name in models:
        whole, rng = LoadedModel.load(data / f"{name}.tflite"), np.random.default_rng(0)
        items = [[child_module._random_tensor(info, rng) for info in whole.inputs] for _ in range(_CASES)]
        outputs = [whole.run(*item) for item in items]
        stacked = [tuple(np.concatenate(column) for column in zip(*rows, strict=True)) for rows in (items, outputs)]
        paths[name] = folder / f"{name}.npz"
        paths[name].write_bytes(write_golden(Golden(stacked[0], stacked[1])))
    return paths


def in_fork(model: Path, golden: Path) -> Trial:
    """Try a model in a fork; `warm_up` comes first."""
    reads, writes = os.pipe()
    os.set_blocking(reads, True)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _be_the_child(parent, writes, model, golden)
    os.close(writes)
    try:
        said = receive(reads, TIMEOUT_S).header
    except TimedOut:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return Trial(HUNG, f"no answer within {TIMEOUT_S:g} s")
    except (Ended, BadFrame):
        said = {}
    finally:
        os.close(reads)
    status = _ending_of(pid)
    if said:
        return _judged(said)
    how = signal.Signals(-status).name if status < 0 else f"code {status}"
    return Trial(CRASHED, how)


def in_process(model: Path, golden: Path) -> Trial:
    """Try a model as an agent does: a child process of its own."""
    try:
        with ModelProcess.start(model, memory_budget_bytes=BUDGET_BYTES, timeout_s=TIMEOUT_S) as process:
            process.check_golden(golden, **TOLERANCE)
            process.use_random_inputs(items=_SEEDED_ITEMS)
            with contextlib.suppress(InferenceFailed):
                process.measure(_SEEDED_ITEMS)
    except HardStop as stop:
        return Trial(BY_REASON[stop.reason], str(stop))
    return Trial(RIGHT, "")


def _be_the_child(parent: int, replies: int, model: Path, golden: Path) -> None:
    """Never returns."""
    try:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        child_module._confine(parent)
        send(replies, _asked(model, golden))
    finally:
        os._exit(0)


def _asked(model: Path, golden: Path) -> dict[str, Any]:
    """The requests that WARMING makes, up to the first that fails; its reply."""
    child = Child()
    load = {"op": "load", "path": str(model), "threads": 1, "memory_budget_bytes": BUDGET_BYTES}
    loaded, _ = child.answer(load, bytearray())
    if "stop" in loaded or "error" in loaded:
        return loaded | {"at": "load"}
    if any(dtype not in DATATYPES for _, dtype, _ in loaded["inputs"] + loaded["outputs"]):
        return {"error": "a tensor of an unknown type", "at": "load"}
    opened, _ = child.answer({"op": "golden", "path": str(golden)}, bytearray())
    cases = range(opened.get("cases", 0))
    asked = [{"op": "golden_case", "case": case} | TOLERANCE for case in cases]
    replies = [opened, *(child.answer(request, bytearray())[0] for request in asked)]
    for reply in replies:
        if "stop" in reply or "error" in reply:
            return reply | {"at": "golden"}
    child.answer({"op": "random", "items": _SEEDED_ITEMS, "seed": 0}, bytearray())
    child.answer({"op": "block", "n": _SEEDED_ITEMS, "max_ms": 1000}, bytearray())
    return {"right": True}


def _judged(said: dict[str, Any]) -> Trial:
    if "stop" not in said and "error" not in said:
        return Trial(RIGHT, "")
    loading = said["at"] == "load"
    if "stop" in said:
        stop = HardStop(Reason(said["stop"]), said["detail"])
    else:
        stop = HardStop(Reason.LOAD_FAILED if loading else Reason.GOLDEN_MISMATCH, said["error"])
    if loading:
        stop = runner._while_loading(stop, bounded=True)
    return Trial(BY_REASON[stop.reason], str(stop))


def _ending_of(pid: int) -> int:
    """The exit status, negative for a signal; a copy that does not end is killed."""
    handle = os.pidfd_open(pid)
    try:
        if not select.select([handle], [], [], TIMEOUT_S)[0]:
            os.kill(pid, signal.SIGKILL)
    finally:
        os.close(handle)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)
