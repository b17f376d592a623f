"""WARMING: what one variant costs, alone on the device: latency once it is warm, its first inference, memory, energy.

Decided here: when a variant is warm (the medians of two consecutive blocks are within 2 % of each other) and how many
inferences are measured then. The loop is closed: the next inference starts when the last has ended. No sample is
dropped, and a quantile with too few samples is None. It does not know whether the numbers are good enough.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from edgeflock_agent.children.runner import HardStop, InferenceFailed, ModelProcess
from edgeflock_agent.measure.energy import Meter, NoMeter
from edgeflock_agent.measure.metering import Metering
from edgeflock_deploy import peak_memory
from edgeflock_deploy.messages.measurements import Energy, Measurement
from edgeflock_deploy.quantiles import P95_SAMPLES, Quantiles, latency_quantiles, median
from edgeflock_deploy.reasons import Reason

SETTLED_WITHIN = 0.02
_BLOCK = 32
_WARM_UP_BLOCKS = 40
_WARM_UP_MS = 2000.0
SAMPLING_MS = 5000.0
_END_TO_END_MS = 3000.0


class Run(NamedTuple):
    """A closed loop over one variant: the latencies once it was warm (or had its chance), and the energy they took."""

    first_inference_ms: float
    warmed_up: bool
    warm_up_inferences: int
    latencies_ms: tuple[float, ...]
    switches: int
    energy: Energy


def settled(medians_ms: Sequence[float]) -> bool:
    """Whether the last two block medians are within 2 % of each other."""
    if len(medians_ms) < 2:
        return False
    before, last = medians_ms[-2:]
    return abs(last - before) <= SETTLED_WITHIN * before


def closed_loop(
    process: ModelProcess,
    meter: Meter | NoMeter,
    *,
    samples: int = 2 * P95_SAMPLES,
    max_ms: float = SAMPLING_MS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Run:
    """Warm a variant up, then measure it.

    Args:
        process: its child, with golden cases, an evaluation slice or random inputs to run over.
        meter: an energy meter, or why there is none.
        samples: how many inferences to measure; fewer if they take longer than max_ms altogether.
        max_ms: see samples.
        clock: monotonic seconds.
        sleep: waits, while the idle power is measured before and after.

    Raises:
        HardStop: the variant crashed, hung, or failed on an input that it must be able to run.
    """
    try:
        first_ms, medians, count = _warm_up(process)
        latencies: list[float] = []
        switches = 0
        with Metering(meter, max_ms / 1e3, clock, sleep) as metering:
            while sum(latencies) < max_ms and (len(latencies) < samples or metering.too_short()):
                block = process.measure(_BLOCK, max_ms=min(1000.0, max_ms))
                latencies += block.latencies_ms
                switches += block.switches
            energy = metering.end(len(latencies))
    except InferenceFailed as error:
        raise HardStop(Reason.CRASHED, f"an inference failed: {error}") from None
    return Run(first_ms, settled(medians), count, tuple(latencies), switches, energy)


def end_to_end(process: ModelProcess, *, samples: int = 2 * P95_SAMPLES, max_ms: float = _END_TO_END_MS) -> Quantiles:
    """Measure whole requests over a warm variant, one after the other, with the processing that its bundle declares.

    Raises:
        HardStop: the variant crashed, hung, or failed on an input that it must be able to run.
    """
    took_ms: list[float] = []
    try:
        while len(took_ms) < samples and sum(took_ms) < max_ms:
            took_ms += process.measure_end_to_end(_BLOCK, max_ms=min(1000.0, max_ms))
    except InferenceFailed as error:
        raise HardStop(Reason.CRASHED, f"a whole request failed: {error}") from None
    return latency_quantiles(took_ms)


def measure_process(
    process: ModelProcess, meter: Meter | NoMeter, peak_rss_bytes: int | None, *, max_ms: float = SAMPLING_MS
) -> Measurement:
    """Measure a loaded variant, for the report of the device; `max_ms` as in `closed_loop`.

    Raises:
        HardStop: see `closed_loop`.
    """
    run = closed_loop(process, meter, max_ms=max_ms)
    quantiles, whole = latency_quantiles(run.latencies_ms), end_to_end(process)
    return Measurement(
        n=quantiles.n,
        latency_ms_p50=quantiles.p50,
        latency_ms_p90=quantiles.p90,
        latency_ms_p95=quantiles.p95,
        first_inference_ms=run.first_inference_ms,
        load_ms=process.load_ms,
        warmed_up=run.warmed_up,
        peak_rss_bytes=peak_rss_bytes,
        energy=run.energy,
        end_to_end_ms_p50=whole.p50,
        end_to_end_ms_p95=whole.p95,
        involuntary_switches=run.switches,
    )


def measure_alone(
    model_path: Path,
    meter: Meter | NoMeter,
    *,
    golden_path: Path | None = None,
    threads: int = 1,
    memory_budget_bytes: int | None = None,
) -> Measurement:
    """Measure a model file in a child of its own: over its golden cases, else over random inputs.

    Raises:
        HardStop: it does not load or run; see `ModelProcess.start` and `closed_loop`.
    """
    with ModelProcess.start(model_path, threads=threads, memory_budget_bytes=memory_budget_bytes) as process:
        if golden_path is None:
            process.use_random_inputs()
        else:
            process.open_golden(golden_path)
        return measure_process(process, meter, peak_memory.peak_rss_bytes(model_path).peak_rss_bytes)


def _warm_up(process: ModelProcess) -> tuple[float, list[float], int]:
    medians: list[float] = []
    spent_ms, count, first_ms = 0.0, 0, 0.0
    while not settled(medians) and len(medians) < _WARM_UP_BLOCKS and spent_ms < _WARM_UP_MS:
        block = process.measure(_BLOCK)
        first_ms = block.first_inference_ms
        medians.append(median(block.latencies_ms))
        spent_ms += sum(block.latencies_ms)
        count += len(block.latencies_ms)
    return first_ms, medians, count
