"""How a tensor gets to an inference child and back: through the pipes, or in memory that both have mapped.

A process of its own answers frames with as many bytes as came, reading each once, as the interpreter does when it takes
its input. The same request goes both ways in turn, in a new random order each round. The channel is the agent's own;
what is varied is the size from which it uses shared memory.
"""

from __future__ import annotations

import os
import random
import statistics
import time

from benchmarks import table
from edgeflock_agent.children import frames

SIZES: tuple[tuple[str, int, int], ...] = (
    ("4 KB", 4_000, 3000),
    ("16 KB", 16_384, 3000),
    ("37 KB", 36_864, 2000),
    ("150 KB", 150_528, 1000),
    ("602 KB", 602_112, 500),
    ("4 MB", 4_000_000, 200),
)
WARMUP = 20
_PIPE_BYTES = 1 << 20


def _answer(channel: frames.Channel) -> None:
    while True:
        frame = channel.receive()
        taken = bytes(frame.payload)  # the interpreter copies its input
        channel.send({"latency_ms": 0.1, "lengths": [len(taken)]}, taken)


def start(shared_from: int, pipe_bytes: int | None) -> frames.Channel:
    """A child that answers, and the agent's end of its channel, in which payloads from a size on are shared."""
    import fcntl

    ours, theirs = frames.connected()
    for end in (ours.writer, theirs.writer) if pipe_bytes else ():
        fcntl.fcntl(end, 1031, pipe_bytes or 0)  # F_SETPIPE_SZ, which the fcntl of Python 3.10 names on Linux only
    frames.SHARED_FROM_BYTES = shared_from
    if os.fork() == 0:
        try:
            ours.close()
            _answer(frames.Channel(theirs, child=True))
        finally:
            os._exit(0)
    theirs.close()
    return frames.Channel(ours)


def measure(size: int, rounds: int) -> dict[str, list[float]]:
    """Microseconds of each way, round by round."""
    never = frames.PAYLOAD_MAX_BYTES + 1
    ways = {
        "pipes of 64 KB": (never, start(never, None)),
        "pipes of 1 MB": (never, start(never, _PIPE_BYTES)),
        "shared memory": (1, start(1, None)),
    }
    payload = random.Random(0).randbytes(size)
    taken: dict[str, list[float]] = {way: [] for way in ways}
    order = list(ways)
    for turn in range(WARMUP + rounds):
        random.shuffle(order)
        for way in order:
            frames.SHARED_FROM_BYTES, channel = ways[way]
            began = time.perf_counter()
            channel.send({"op": "infer"}, payload, timeout_s=10)
            answer = bytes(channel.receive(10).payload)  # it is copied: the next request would overwrite it
            elapsed_us = (time.perf_counter() - began) * 1e6
            if turn < WARMUP:
                assert answer == payload
            else:
                taken[way].append(elapsed_us)
    for _, channel in ways.values():
        channel.close()
    for _ in ways:  # a later child holds an earlier one's pipes: all have to be closed first
        os.wait()
    return taken


def main() -> None:
    """Measure and write the table."""
    before, rows = os.getloadavg()[0], []
    for name, size, rounds in SIZES:
        taken = measure(size, rounds)
        base = taken["pipes of 1 MB"]
        for way, us in taken.items():
            ratio = statistics.median(one / other for one, other in zip(us, base, strict=True))
            p50, p95 = statistics.median(us), statistics.quantiles(us, n=20)[18]
            rows.append((name, way, f"{p50:.0f}", f"{p95:.0f}", f"{ratio:.2f}"))
    counts = ", ".join(str(rounds) for _, _, rounds in SIZES)
    priority = "Real-time priority, " if os.sched_getscheduler(0) else ""
    note = (
        f"There and back, the same size both ways; {counts} rounds, in each every way once, in random order; ratios "
        "are within rounds, to pipes of 1 MB. "
        f"{priority}{os.cpu_count()} shared cores, load {before:.1f} and {os.getloadavg()[0]:.1f} at start and end."
    )
    header = ("tensor", "way", "p50, us", "p95, us", "ratio, p50")
    table.write("device/tensors", "make bench ARGS=tensors", header, rows, note)


if __name__ == "__main__":
    main()
