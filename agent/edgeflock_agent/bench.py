"""`edgeflock-agent bench`: what a model file costs on this machine, alone or against another.

Here it is measured and put together; how two are compared stands in `measure.paired`, what is shown in `bench_report`.
"""

from __future__ import annotations

import functools
import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from edgeflock_agent import bench_report
from edgeflock_agent.children.runner import HardStop, InferenceFailed, ModelProcess
from edgeflock_agent.measure import benchmark_model, conditions
from edgeflock_agent.measure.emulation import is_emulated
from edgeflock_agent.measure.energy import Meter, NoMeter
from edgeflock_agent.measure.meters import find_meter
from edgeflock_agent.measure.paired import HALF_WIDTH, compare
from edgeflock_agent.measure.throughput import inferences_per_s
from edgeflock_agent.state_folder import DEFAULT_STATE
from edgeflock_agent.warming import closed_loop, end_to_end
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.given_numbers import FloatRange
from edgeflock_deploy.peak_memory import peak_rss_bytes
from edgeflock_deploy.quantiles import P99_SAMPLES, latency_quantiles

_ALONE_MAX_MS = 10_000.0

Clock = Callable[[], float]


def bench_alone(path: Path, meter: Meter | NoMeter, *, threads: int, clock: Clock) -> dict[str, Any]:
    """Everything that one model costs, as the JSON of the command shows it.

    Raises:
        BadInput: the file does not load or run here.
    """
    with open_model(path, threads) as process:
        snapshot = conditions.begin(clock())
        try:
            run = closed_loop(process, meter, samples=P99_SAMPLES, max_ms=_ALONE_MAX_MS)
            found = conditions.since(snapshot, clock(), inferences=len(run.latencies_ms), switches=run.switches)
            whole = end_to_end(process)
            per_s = {threads: inferences_per_s(process, clock)}
        except (HardStop, InferenceFailed) as error:
            raise _unusable(path, error) from None
        load_ms = process.load_ms
    quantiles = latency_quantiles(run.latencies_ms)
    peak = peak_rss_bytes(path)
    return {
        "model": str(path),
        "raw_bytes": path.stat().st_size,
        "threads": threads,
        "n": quantiles.n,
        "latency_ms_mean": sum(run.latencies_ms) / len(run.latencies_ms),
        "latency_ms_p50": quantiles.p50,
        "latency_ms_p90": quantiles.p90,
        "latency_ms_p95": quantiles.p95,
        "latency_ms_p99": quantiles.p99,
        "end_to_end_ms_p50": whole.p50,
        "end_to_end_ms_p95": whole.p95,
        "first_inference_ms": run.first_inference_ms,
        "load_ms": load_ms,
        "warmed_up": run.warmed_up,
        "warm_up_inferences": run.warm_up_inferences,
        "inferences_per_s": _throughput(path, per_s, clock),
        "peak_rss_bytes": peak.peak_rss_bytes,
        "peak_anonymous_bytes": peak.anonymous_bytes,
        "peak_file_bytes": peak.file_bytes,
        "peak_rss_reason": peak.reason,
        "energy": run.energy.model_dump() | {"may_gate": run.energy.may_gate},
        "conditions": found.model_dump(),
    }


def _throughput(path: Path, known: dict[int, float], clock: Clock) -> dict[str, float]:
    """Inferences a second by the number of threads: one, the one asked for, and as many as there are CPUs."""
    every = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for threads in {1, every} - set(known):
        with open_model(path, threads) as process:
            try:
                known[threads] = inferences_per_s(process, clock)
            except (HardStop, InferenceFailed) as error:
                raise _unusable(path, error) from None
    return {str(threads): known[threads] for threads in sorted(known)}


def bench_against(path: Path, other: Path, *, threads: int, max_s: float, rng: random.Random) -> dict[str, Any]:
    """The latency of a model over another's, as the JSON of the command shows it.

    Raises:
        BadInput: one of the files does not load or run here.
    """
    snapshot = conditions.begin(time.monotonic())
    try:
        found = compare((path, other), open_model, threads=threads, max_s=max_s, rng=rng, clock=time.monotonic)
    except (HardStop, InferenceFailed) as error:
        raise _unusable(Path(f"{path} or {other}"), error) from None
    state = conditions.since(snapshot, time.monotonic(), inferences=2 * found.pairs, switches=found.switches)
    ratio = found.ratio
    return {
        "median": ratio.median,
        "low": ratio.low,
        "high": ratio.high,
        "half_width": ratio.half_width,
        "wanted_half_width": HALF_WIDTH,
        "reached": found.reached,
        "rounds": ratio.n,
        "pairs": found.pairs,
        "seconds": found.seconds,
        "conditions": state.model_dump(),
    }


def open_model(path: Path, threads: int) -> ModelProcess:
    """A process with a model that has random inputs and has run.

    Raises:
        BadInput: the file does not load or run here.
    """
    if not os.path.isfile(path):  # noqa: PTH113 - Path's own raises where the folder may not be looked into
        raise BadInput(str(path), "is no file, or lies where it cannot be seen", "give a .tflite file")
    try:
        process = ModelProcess.start(path, threads=threads)
    except HardStop as stop:
        raise _unusable(path, stop) from None
    try:
        process.use_random_inputs()
        process.measure(1)
    except (HardStop, InferenceFailed) as error:
        process.close()
        raise _unusable(path, error) from None
    return process


def _unusable(path: Path, error: Exception) -> BadInput:
    return BadInput(str(path), f"does not load and run here ({error})", "give a .tflite that this runtime supports")


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--against", type=click.Path(path_type=Path), help="Another model, run in turns with this one.")
@click.option("--threads", type=click.IntRange(1, 64), default=1, show_default=True, help="Threads of the interpreter.")
@click.option(
    "--max-seconds",
    "max_s",
    type=FloatRange(1),
    default=120.0,
    show_default=True,
    help="The most that the comparison may take.",
)
@click.option(
    "--beside", type=click.Path(path_type=Path), help="A file with what LiteRT's benchmark tool said of MODEL."
)
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_STATE,
    show_default=True,
    help="The agent's state folder, where a power model may lie.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the order within pairs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def bench(
    model: Path,
    against: Path | None,
    threads: int,
    max_s: float,
    beside: Path | None,
    state: Path,
    seed: int,
    as_json: bool,
) -> None:
    """Measure MODEL (.tflite) on this machine: latency once it is warm, throughput, first inference, memory, energy.

    Inputs are random, of the type and shape that the model takes. A quantile needs samples (p90 64, p95 130, p99 662),
    else it is left out. With --against both run interleaved in fresh processes, round after round, until the interval
    of the ratio of their latencies is within 0.5 % to either side, or says that it is not.

    Example: edgeflock-agent bench new.tflite --against old.tflite
    """
    try:
        foreign = benchmark_model.read(beside) if beside is not None else []
        meter = find_meter(state=state.expanduser(), emulated=is_emulated())
        measure = functools.partial(bench_alone, meter=meter, threads=threads, clock=time.monotonic)
        found = measure(model)
        if foreign:
            found["benchmark_model"] = [_laid_beside(run, found["latency_ms_p50"], threads) for run in foreign]
        if against is not None:
            found["against"] = measure(against)
            rng = random.Random(seed)  # noqa: S311 - orders, no keys
            found["ratio"] = bench_against(model, against, threads=threads, max_s=max_s, rng=rng)
    except BadInput as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    click.echo(json.dumps(found, indent=2) if as_json else bench_report.readable(found))


def _laid_beside(run: benchmark_model.Foreign, p50_ms: float | None, threads: int) -> dict[str, Any]:
    quotient, reason = benchmark_model.quotient(p50_ms, threads, run)
    return run._asdict() | {"ours_over_theirs_p50": quotient, "reason": reason}
