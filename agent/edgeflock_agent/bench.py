"""`edgeflock-agent bench`: what a model file costs on this machine, alone or against another.

The interval of the paired ratio: the two run in turns on one CPU, ABBA in random order (as in a trial); each pair
gives log(this / other). Their median is taken back to a ratio, and its 95 % interval is the order-statistic
interval of a median (sign test; e.g. Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, 3.6), which
assumes independent pairs and nothing of their distribution.
"""

from __future__ import annotations

import json
import math
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from edgeflock_agent.measure import conditions
from edgeflock_agent.measure.energy import Meter, NoMeter
from edgeflock_agent.measure.meters import find_meter
from edgeflock_agent.runner import HardStop, InferenceFailed, ModelProcess
from edgeflock_agent.warming import closed_loop
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.peak_memory import peak_rss_bytes
from edgeflock_deploy.quantiles import P99_SAMPLES, latency_quantiles, quantile

_PAIRS = 400
_PAIRS_MAX_MS = 20_000.0
_ALONE_MAX_MS = 10_000.0
_Z_95 = 1.959964


class Ratio(NamedTuple):
    """Median of paired latency ratios, this over other, and its 95 % interval (None of fewer than 6 pairs)."""

    median: float
    low: float | None
    high: float | None
    pairs: int


def paired_ratio(log_ratios: Sequence[float]) -> Ratio:
    """The median ratio and its order-statistic interval.

    The interval runs from the k-th smallest to the k-th largest value, k the largest number with
    P(Binomial(n, 1/2) < k) <= 0.025, so it covers the median with at least 95 %.

    Raises:
        ValueError: no pairs.
    """
    ordered = sorted(log_ratios)
    n = len(ordered)
    below, k = 0.0, 0
    log_half_n = n * math.log(0.5)
    while k < n:
        below += math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + log_half_n)
        if below > 0.025:
            break
        k += 1
    middle = math.exp(quantile(ordered, 0.5))
    if k == 0:
        return Ratio(middle, None, None, n)
    return Ratio(middle, math.exp(ordered[k - 1]), math.exp(ordered[n - k]), n)


def bench_alone(path: Path, meter: Meter | NoMeter, *, threads: int, clock: Callable[[], float]) -> dict[str, Any]:
    """Everything that one model costs, as the JSON of the command shows it.

    Raises:
        BadInput: the file does not load or run here.
    """
    with _open(path, threads) as process:
        snapshot = conditions.begin(clock())
        try:
            run = closed_loop(process, meter, samples=P99_SAMPLES, max_ms=_ALONE_MAX_MS)
        except HardStop as stop:
            raise _unusable(path, stop) from None
        found = conditions.since(snapshot, clock(), inferences=len(run.latencies_ms), switches=run.switches)
        load_ms = process.load_ms
    quantiles = latency_quantiles(run.latencies_ms)
    peak = peak_rss_bytes(path)
    return {
        "model": str(path),
        "raw_bytes": path.stat().st_size,
        "threads": threads,
        "n": quantiles.n,
        "latency_ms_p50": quantiles.p50,
        "latency_ms_p90": quantiles.p90,
        "latency_ms_p95": quantiles.p95,
        "latency_ms_p99": quantiles.p99,
        "first_inference_ms": run.first_inference_ms,
        "load_ms": load_ms,
        "warmed_up": run.warmed_up,
        "warm_up_inferences": run.warm_up_inferences,
        "peak_rss_bytes": peak.peak_rss_bytes,
        "peak_rss_reason": peak.reason,
        "energy": run.energy.model_dump(),
        "conditions": found.model_dump(),
    }


def bench_against(path: Path, other: Path, *, threads: int, rng: random.Random) -> Ratio:
    """The latency of a model over another's, interleaved pair by pair.

    Raises:
        BadInput: one of the files does not load or run here.
    """
    with _open(path, threads) as this, _open(other, threads) as that:
        if threads == 1 and hasattr(os, "sched_getaffinity"):
            cpu = rng.choice(sorted(os.sched_getaffinity(0)))
            this.pin({cpu})
            that.pin({cpu})
        try:
            for _ in range(8):  # both warm, as `closed_loop` would find them
                this.measure(32)
                that.measure(32)
            return paired_ratio(_log_ratios(this, that, rng))
        except HardStop as stop:
            raise _unusable(path if not this.alive else other, stop) from None


def _log_ratios(this: ModelProcess, that: ModelProcess, rng: random.Random) -> list[float]:
    log_ratios: list[float] = []
    spent_ms = 0.0
    this_first = False
    while len(log_ratios) < _PAIRS and spent_ms < _PAIRS_MAX_MS:
        this_first = bool(rng.getrandbits(1)) if len(log_ratios) % 2 == 0 else not this_first
        first, second = (this, that) if this_first else (that, this)
        first_ms, second_ms = (one.measure(1).latencies_ms[0] for one in (first, second))
        spent_ms += first_ms + second_ms
        log_ratio = math.log(first_ms / second_ms)
        log_ratios.append(log_ratio if this_first else -log_ratio)
    return log_ratios


def _open(path: Path, threads: int) -> ModelProcess:
    if not path.is_file():
        raise BadInput(str(path), "is no file", "give a .tflite file")
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
@click.option("--seed", type=int, default=0, show_default=True, help="Of the order within pairs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def bench(model: Path, against: Path | None, threads: int, seed: int, as_json: bool) -> None:
    """Measure MODEL (.tflite) on this machine: latency once it is warm, first inference, memory, energy.

    Inputs are random, of the type and shape that the model takes. A quantile needs samples (p90 64, p95 130, p99 662),
    else it is left out. With --against both run interleaved, and the ratio of their latencies comes with its interval.
    """
    try:
        _bench(model, against, threads, seed, as_json=as_json)
    except BadInput as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)


def _bench(model: Path, against: Path | None, threads: int, seed: int, *, as_json: bool) -> None:
    meter = find_meter()
    results = [bench_alone(path, meter, threads=threads, clock=time.monotonic) for path in (model, against) if path]
    ratio = None
    if against is not None:
        ratio = bench_against(model, against, threads=threads, rng=random.Random(seed))  # noqa: S311 - orders, no keys
    if as_json:
        click.echo(json.dumps(results[0] | _versus(results[1:], ratio), indent=2))
        return
    for result in results:
        click.echo(_readable(result))
    if ratio is not None:
        interval = f"{ratio.low:.3f} to {ratio.high:.3f}" if ratio.low is not None else "too few pairs for an interval"
        click.echo(f"{model} / {against}: latency x {ratio.median:.3f}  (95 %: {interval}; {ratio.pairs} pairs)")


def _versus(others: list[dict[str, Any]], ratio: Ratio | None) -> dict[str, Any]:
    return {"against": others[0], "ratio": ratio._asdict()} if ratio is not None else {}


def _readable(result: dict[str, Any]) -> str:
    def ms(key: str) -> str:
        return "too few samples" if result[key] is None else f"{result[key]:.4g} ms"

    state = result["conditions"]
    peak, energy = result["peak_rss_bytes"], result["energy"]
    warm = "warm after" if result["warmed_up"] else "NOT settled after"
    flags = [word for word, on in (("contended", state["contended"]), ("throttled", state["throttled"])) if on]
    rows = [
        ("latency", f"p50 {ms('latency_ms_p50')}, p90 {ms('latency_ms_p90')}, p95 {ms('latency_ms_p95')}"),
        ("", f"p99 {ms('latency_ms_p99')}  ({result['n']} inferences, {result['threads']} thread(s))"),
        ("first", f"load {ms('load_ms')}, first inference {ms('first_inference_ms')}"),
        ("warm-up", f"{warm} {result['warm_up_inferences']} inferences"),
        ("memory", f"{peak / 1024:,.0f} KiB at its peak" if peak is not None else f"none: {result['peak_rss_reason']}"),
        ("energy", f"{energy['mj']:.4g} mJ ({energy['meter']})" if energy["mj"] else f"none: {energy['reason']}"),
        ("conditions", ", ".join(flags) or "calm"),
    ]
    lines = [f"{result['model']}  ({result['raw_bytes']:,} bytes)", *(f"  {name:<11}{text}" for name, text in rows)]
    return "\n".join(lines)
