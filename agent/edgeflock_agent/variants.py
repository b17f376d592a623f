"""A variant made to run on this board: started in a child, held against its golden cases, measured against its limits.

Decided here: what a variant must show before it may serve or be tried, and that a board that was busy for a moment is
measured twice. Not known here: whether it is a candidate or the incumbent, and what follows from a failure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeflock_agent.children.manifest_view import told
from edgeflock_agent.children.runner import HardStop, ModelProcess
from edgeflock_agent.limits import exceeded, sampling_ms, time_limit_s
from edgeflock_agent.measure.energy import Meter, NoMeter
from edgeflock_agent.warming import SAMPLING_MS, measure_process
from edgeflock_deploy.bundle import BlobRole, Manifest
from edgeflock_deploy.messages.measurements import Measurement
from edgeflock_deploy.peak_memory import peak_rss_bytes
from edgeflock_deploy.reasons import Reason

_LOOKS = 2  # a board that was busy for a moment is not told that its model is slow: the second measurement decides


@dataclass(frozen=True)
class Surroundings:
    """What a variant finds on this board.

    Attributes:
        runtime: the runtime's name; golden outputs made by the same one must match exactly.
        threads: of each interpreter.
        state: the agent's state folder, where a power model may lie.
        tell_confidence: whether classifications are to say how sure they are of each answer.
        emulated: software plays this board: no latency is held against a limit, no meter is asked.
    """

    runtime: str
    threads: int
    state: Path
    tell_confidence: bool = False
    emulated: bool = False


def start(manifest: Manifest, files: Mapping[BlobRole, Path], here: Surroundings) -> ModelProcess:
    """Start a variant in a child and check its golden cases.

    Args:
        manifest: as the form that is to run.
        files: of that form, by role.
        here: this board.

    Raises:
        HardStop: it does not load, or gives other outputs than it should.
    """
    limit_s = time_limit_s(manifest.limits)
    child = ModelProcess.start(
        files["model"],
        threads=here.threads,
        memory_budget_bytes=manifest.limits.memory_bytes,
        timeout_s=max(10.0, limit_s),
        inference_timeout_s=limit_s,
        view=told(manifest),
        labels=files.get("labels"),
    )
    try:
        _check_golden(child, manifest, files["golden"], here.runtime)
        if here.tell_confidence and manifest.task.kind == "classification":
            child.tell_confidence()
    except BaseException:
        child.close()
        raise
    return child


def _check_golden(child: ModelProcess, manifest: Manifest, golden: Path, runtime: str) -> None:
    tolerance = manifest.tolerance
    held = manifest.held_outputs or manifest.outputs
    integers = all("int" in tensor.dtype or tensor.dtype == "bool" for tensor in held)
    exact = integers and tolerance.runtime == runtime
    child.check_golden(golden, atol=tolerance.atol, rtol=tolerance.rtol, steps=tolerance.steps, exact=exact)


def meter(here: Surroundings) -> Meter | NoMeter:
    """The energy meter of this board, or why there is none."""
    from edgeflock_agent.measure.meters import find_meter  # rarely needed, so not in an idle agent's memory

    return find_meter(state=here.state, emulated=here.emulated)


def measure(
    child: ModelProcess, manifest: Manifest, model: Path, here: Surroundings, usual_ms: float = SAMPLING_MS
) -> Measurement:
    """What a variant costs here; `model` is its file, `usual_ms` how long it is sampled if its limits need no longer.

    Raises:
        HardStop: it takes more than was declared, or failed meanwhile.
    """
    limits = manifest.limits
    peak = peak_rss_bytes(model).peak_rss_bytes
    for look in range(_LOOKS):
        measured = measure_process(child, meter(here), peak, max_ms=sampling_ms(limits, usual_ms))
        over = exceeded(measured, limits, emulated=here.emulated)
        if over is not None and (over.reason is not Reason.TOO_SLOW or look == _LOOKS - 1):
            raise HardStop(over.reason, over.detail)
        if over is None:
            break
    return measured
