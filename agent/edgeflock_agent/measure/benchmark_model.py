"""What LiteRT's own `benchmark_model` printed, read so that it can be laid beside.

Its sources, benchmark_tflite_model.cc and benchmark_model.cc in tensorflow/lite/tools/benchmark, decide the lines; each
may stand behind a log prefix. Times are microseconds there; older versions print no quantiles. A quotient is given only
for what is alike: the same number of threads, median over median.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from edgeflock_deploy.errors import BadInput

_NUMBER = r"([0-9.]+(?:e[+-]?[0-9]+)?)"
_TIMINGS = re.compile(
    rf"Inference timings in us: Init: {_NUMBER}, First inference: {_NUMBER}, "
    rf"Warmup \(avg\): {_NUMBER}, Inference \(avg\): {_NUMBER}"
)
_COUNTS = re.compile(rf"count=(\d+) (?:first|curr)=.*?(?:median={_NUMBER} p95={_NUMBER})?\s*$")
_THREADS = re.compile(r"(?:Num threads|#threads used for CPU inference): \[(\d+)\]")
_GRAPH = re.compile(r"(?:Graph: \[(.+)\]|Loaded model (\S+))")
_MEMORY = re.compile(rf"(?:delta from the start of the tool|Peak memory footprint) \(MB\): init=\S+ overall={_NUMBER}")
_MAX_BYTES = 16 << 20


class Foreign(NamedTuple):
    """One run of `benchmark_model`; None for what it did not print."""

    graph: str | None
    threads: int | None
    n: int | None
    latency_ms_mean: float
    latency_ms_p50: float | None
    latency_ms_p95: float | None
    first_inference_ms: float
    load_ms: float
    memory_mb: float | None


def read(path: Path) -> list[Foreign]:
    """All runs in a file, in their order.

    Raises:
        BadInput: it cannot be read, or holds none.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise BadInput(str(path), f"is larger than {_MAX_BYTES >> 20} MiB", "give what benchmark_model printed")
        text = path.read_text(errors="replace")
    except OSError as error:
        raise BadInput(str(path), f"cannot be read ({error.strerror})", "name a file with its output") from None
    runs = _runs(text.splitlines())
    if not runs:
        raise BadInput(str(path), "holds no line 'Inference timings in us: …'", "give what benchmark_model printed")
    return runs


def _runs(lines: list[str]) -> list[Foreign]:
    runs: list[Foreign] = []
    graph: str | None = None
    threads: int | None = None
    counts: re.Match[str] | None = None
    for line in lines:
        if match := _THREADS.search(line):
            threads = int(match[1])
        elif match := _GRAPH.search(line):
            graph = match[1] or match[2]
        elif match := _COUNTS.search(line):
            counts = match  # the warm-up's comes first, the measurement's last
        elif match := _TIMINGS.search(line):
            runs.append(_run(match, counts, graph, threads))
            graph = threads = counts = None
        elif runs and (match := _MEMORY.search(line)):
            runs[-1] = runs[-1]._replace(memory_mb=float(match[1]))
    return runs


def _run(timings: re.Match[str], counts: re.Match[str] | None, graph: str | None, threads: int | None) -> Foreign:
    init_us, first_us, _, mean_us = (float(value) for value in timings.groups())
    p50_us, p95_us = (counts[2], counts[3]) if counts else (None, None)
    return Foreign(
        graph=graph,
        threads=threads,
        n=int(counts[1]) if counts else None,
        latency_ms_mean=mean_us / 1e3,
        latency_ms_p50=None if p50_us is None else float(p50_us) / 1e3,
        latency_ms_p95=None if p95_us is None else float(p95_us) / 1e3,
        first_inference_ms=first_us / 1e3,
        load_ms=init_us / 1e3,
        memory_mb=None,
    )


def quotient(ours_p50_ms: float | None, threads: int, foreign: Foreign) -> tuple[float | None, str | None]:
    """Our median over theirs; None and the reason where the two are not alike."""
    if foreign.threads != threads:
        there = "an unknown number of" if foreign.threads is None else foreign.threads
        return None, f"not compared: {there} thread(s) there, {threads} here"
    if foreign.latency_ms_p50 is None or not ours_p50_ms:
        return None, "not compared: no median there"
    return ours_p50_ms / foreign.latency_ms_p50, None
