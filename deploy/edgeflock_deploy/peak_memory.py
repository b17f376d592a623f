"""Peak memory of a model: what loading and running it adds to a process that has the runtime warm.

Decided here: the method, and that a number is given only where the kernel lets us take it (null with a reason
otherwise). A process of its own, started afresh, loads and runs a tiny model first, so that the runtime's own libraries
and threads are not charged to the model; then it resets the kernel's high-water mark of resident memory by writing 5
to `/proc/self/clear_refs` (proc(5)), loads the model, runs it, and reads `VmHWM`. The size of the tensor arena would be
the wrong number: XNNPACK keeps a packed copy of the weights beside the file. Of the peak, what files back is the growth
of `RssFile`, which mapped pages only add to while the model lives; the rest is anonymous. The kernel can drop the pages
of a file when memory is short, and read them again; anonymous pages it cannot.

`python -m edgeflock_deploy.peak_memory MODEL` prints one JSON object; `peak_rss_bytes` starts that process. The kernel
maps files in clusters of pages, so where a library happens to lie moves the number by some 60 kB: the process turns the
randomization of its addresses off (personality(2)), which makes calls from one program agree to a page or so. Where
that is forbidden, in some containers, the number scatters.

The tiny model, `warm.tflite`, is one 1x1 convolution and one matrix product of ones on an input of (1, 2, 2, 1):
`TFLiteConverter.from_concrete_functions` (TensorFlow 2.21) on
`tf.matmul(tf.reshape(tf.nn.relu(tf.nn.conv2d(x, tf.ones((1, 1, 1, 1)), 1, "VALID")), (1, 4)), tf.ones((4, 1)))`.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeflock_deploy.errors import EdgeflockError
from edgeflock_deploy.heap import give_back_freed
from edgeflock_deploy.lifeline import die_with_parent
from edgeflock_deploy.sandbox import landlock, privileges, seccomp

if TYPE_CHECKING:  # whoever only asks for a measurement pays for neither numpy nor the runtime
    from edgeflock_deploy.runtime import LoadedModel

METHOD = "VmHWM after clear_refs, fresh process, warm runtime"
_WARM_MODEL = Path(__file__).with_name("warm.tflite")
_RUNS = 3
_TIMEOUT_S = 120
_ADDR_NO_RANDOMIZE = 0x0040000


@dataclass(frozen=True)
class PeakMemory:
    """Peak resident memory that a model adds.

    Args:
        peak_rss_bytes: bytes, file-backed and anonymous together; None where it could not be measured.
        method: how it was measured.
        reason: why it could not be measured; None if it was.
        runs: whether the model loaded and ran; False if it was refused, crashed the process or hung.
        file_bytes: how much of the peak files back, the mapped model first of all; the rest is anonymous.
    """

    peak_rss_bytes: int | None
    method: str = METHOD
    reason: str | None = None
    runs: bool = True
    file_bytes: int | None = None

    @property
    def anonymous_bytes(self) -> int | None:
        """How much of the peak is the process's own: buffers, packed weights, what the runtime keeps of the model."""
        if self.peak_rss_bytes is None or self.file_bytes is None:
            return None
        return self.peak_rss_bytes - self.file_bytes


def peak_rss_bytes(path: Path) -> PeakMemory:
    """Measure a `.tflite` with one thread in a fresh process, which ends with the calling thread.

    Takes about as long as starting Python with numpy and the runtime.
    """
    command = [sys.executable, "-m", "edgeflock_deploy.peak_memory", str(path)]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return PeakMemory(None, runs=False, reason=f"the model did not load and run within {_TIMEOUT_S} s")
    if done.returncode:
        return PeakMemory(None, runs=False, reason=f"loading it ended the process with code {done.returncode}")
    return PeakMemory(**json.loads(done.stdout))


def measure_here(
    path: Path, proc: Path = Path("/proc/self"), confine: Callable[[], object] = lambda: None
) -> PeakMemory:
    """Measure in this process, which must be a fresh one.

    Args:
        path: the `.tflite`.
        proc: where the kernel shows this process.
        confine: called when the runtime is warm and no other file is needed, before the model is touched.
    """
    try:
        _load_and_run(_WARM_MODEL)
        give_back_freed()  # free memory that stays resident would hide a part of the model
        warm = _load_and_run(_WARM_MODEL)  # again, so that what the trim took from the runtime itself is back
        counters = _Counters(proc)  # clear_refs(5) is not to be opened any more by a process that is confined
        confine()
        before, file_before = counters.reset(), counters.bytes("RssFile")
    except (OSError, KeyError, ValueError) as error:
        warm, before, file_before, why = None, 0, 0, f"{proc} does not tell the peak of resident memory: {error}"
    try:
        model = _load_and_run(path)
    except (EdgeflockError, RuntimeError) as error:
        return PeakMemory(None, runs=False, reason=str(error))
    if warm is None:
        return PeakMemory(None, reason=why)
    peak = counters.bytes("VmHWM") - before
    file_bytes = min(max(counters.bytes("RssFile") - file_before, 0), peak)
    del model, warm  # both had to live until here
    return PeakMemory(peak, file_bytes=file_bytes)


def _load_and_run(path: Path) -> LoadedModel:
    import numpy as np

    from edgeflock_deploy.runtime import LoadedModel

    model = LoadedModel.load(path)
    model.set_inputs([np.zeros(info.shape, info.dtype) for info in model.inputs])
    for _ in range(_RUNS):
        model.invoke()
    return model


class _Counters:
    """The kernel's counters of this process's memory, in files that are opened once."""

    def __init__(self, proc: Path) -> None:
        self._status = os.open(proc / "status", os.O_RDONLY)
        self._clear_refs = os.open(proc / "clear_refs", os.O_WRONLY)

    def reset(self) -> int:
        """Set the high-water mark to what is resident now, and return that: the base, from the counter of the peak."""
        os.write(self._clear_refs, b"5")
        return self.bytes("VmHWM")

    def bytes(self, field: str) -> int:
        """One of the fields of status that are in kB, in bytes."""
        text = os.pread(self._status, 1 << 16, 0).decode()
        fields = dict(line.split(":", 1) for line in text.splitlines())
        return int(fields[field].split()[0]) * 1024


def _confine(model: int) -> None:
    """The model is somebody else's program: from now on it is the only file that can be opened, and only be read."""
    privileges.gain_none()
    privileges.drop_capabilities()
    for hold in (lambda: landlock.restrict([model]), seccomp.restrict):
        with contextlib.suppress(landlock.NotOffered):
            hold()


def _fix_addresses() -> None:
    """Start this program again without address randomization, unless it runs so already or may not."""
    if not sys.platform.startswith("linux"):
        return
    personality = ctypes.CDLL(None).personality
    now = personality(ctypes.c_ulong(0xFFFFFFFF))  # asks, changes nothing
    if now < 0 or now & _ADDR_NO_RANDOMIZE or personality(ctypes.c_ulong(now | _ADDR_NO_RANDOMIZE)) < 0:
        return
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - the same program, started afresh


def main() -> None:
    """Measure the model in the arguments and print the JSON of a `PeakMemory`."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m edgeflock_deploy.peak_memory MODEL")
    die_with_parent()
    _fix_addresses()
    resource.setrlimit(resource.RLIMIT_CPU, (_TIMEOUT_S, _TIMEOUT_S))  # a hanging model does not outlive its question
    path = Path(sys.argv[1])
    try:
        model = os.open(path, os.O_RDONLY)
    except OSError as error:
        measured = PeakMemory(None, runs=False, reason=f"{path.name}: {error.strerror}")
    else:
        measured = measure_here(Path(f"/proc/self/fd/{model}"), confine=lambda: _confine(model))
        if measured.reason is not None:
            measured = replace(measured, reason=measured.reason.replace(f"{model}: ", f"{path.name}: ", 1))
    print(json.dumps(asdict(measured)))


if __name__ == "__main__":
    main()
