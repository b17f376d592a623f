"""What LiteRT's own benchmark tools say, read so that it can be laid beside.

`benchmark_model` prints lines, decided by benchmark_tflite_model.cc and benchmark_model.cc in
tensorflow/lite/tools/benchmark; each may stand behind a log prefix. Times are microseconds there; older versions print
no quantiles. The Python package's `benchmark_litert_model --result_json` writes milliseconds, rounded to hundredths,
too coarse for a model that takes less than one. A quotient is given only for what is alike: the same number of threads,
median over median.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

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
_COARSE_MS = 1.0  # below, hundredths of a millisecond say less than a percent does


class Foreign(NamedTuple):
    """One run of a tool; None for what it did not say. `coarse`: its times are rounded too much to be compared."""

    graph: str | None
    threads: int | None
    n: int | None
    latency_ms_mean: float
    latency_ms_p50: float | None
    latency_ms_p95: float | None
    first_inference_ms: float
    load_ms: float
    memory_mb: float | None
    coarse: bool = False


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
    runs = _from_json(text) if text.lstrip().startswith("{") else _runs(text.splitlines())
    if not runs:
        wrong = "holds no line 'Inference timings in us: …' and is no result of benchmark_litert_model"
        raise BadInput(str(path), wrong, "give what benchmark_model printed")
    return runs


def _from_json(text: str) -> list[Foreign]:
    try:
        said: dict[str, Any] = json.loads(text)
        times: dict[str, Any] = said["latency"]
        return [
            Foreign(
                graph=str(said["model"]),
                threads=int(said["num_threads"]),
                n=int(times["num_runs"]),
                latency_ms_mean=float(times["avg_ms"]),
                latency_ms_p50=float(times["median_ms"]),
                latency_ms_p95=float(times["p95_ms"]),
                first_inference_ms=float(times["warmup_first_ms"]),
                load_ms=float(times["init_ms"]),
                memory_mb=None,
                coarse=float(times["median_ms"]) < _COARSE_MS,
            )
        ]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []


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
    if foreign.coarse:
        return None, "not compared: its times are rounded to 0.01 ms"
    if foreign.latency_ms_p50 is None or not ours_p50_ms:
        return None, "not compared: no median there"
    return ours_p50_ms / foreign.latency_ms_p50, None
