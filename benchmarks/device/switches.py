"""Requests lost, and requests delayed, across 1,000 switches of variants under load: nothing may be lost.

An agent's own parts in one process: its endpoint, its children, its map of what serves, and the effect that a commit
runs (`effects.EFFECTS[Switch]`); only what leads up to a commit (download, warming, trial) is left out, and the new
variant's process stands ready. Four applications in another process ask without a pause, each over a connection of its
own. After every fourth switch comes a control: the process that stood ready is closed instead, and nothing switches.

Every switch has a digest of its own, and two files of the same cost give different scores, so that an answer shows
which variant gave it. An answer is in order if no later variant can have given it, and no earlier one was still to be
asked.
"""

from __future__ import annotations

import argparse
import bisect
import json
import queue
import random
import statistics
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import table
from edgeflock_agent.client import AgentError, Client, Unreachable
from edgeflock_deploy.codec.tflite_layout import constants
from edgeflock_deploy.runtime import LoadedModel

FOLDER = Path("build/bench/switches")
DATA = Path(__file__).parents[2] / "tests" / "data"
SWITCHES, CLIENTS, MODEL = 1000, 4, "digits"
_READY = 2  # processes that stand ready
_CONTROL_EVERY = 4  # switches
_LAST_LAYER_BYTES = 16 * 3 * 4  # the weights of the last dense layer of tests/data/tiny_slow.tflite


class Request(NamedTuple):
    """One request: monotonic seconds of its start and end, which switch's variant answered, the interpreter's time."""

    start_s: float
    end_s: float
    switch: int
    latency_ms: float


class Found(NamedTuple):
    """What an application saw."""

    requests: list[Request]
    lost: list[str]
    wrong: list[str]


class Events(NamedTuple):
    """Monotonic seconds before and after each switch (the first is what served at the start), and of each control."""

    before_s: list[float]
    after_s: list[float]
    controls_s: list[float]


def digest(switch: int) -> str:
    """The digest of a switch's variant."""
    return f"{switch:064x}"


def write_models(folder: Path) -> tuple[Path, Path]:
    """Two files of the same cost and with different scores: even switches serve the first, odd ones the second."""
    folder.mkdir(parents=True, exist_ok=True)
    data = bytearray((DATA / "tiny_slow.tflite").read_bytes())
    paths = folder / "even.tflite", folder / "odd.tflite"
    paths[0].write_bytes(data)
    (last,) = (one for one in constants(bytes(data)) if one.length == _LAST_LAYER_BYTES)
    weights = struct.unpack_from(f"<{last.length // 4}f", data, last.offset)
    struct.pack_into(f"<{last.length // 4}f", data, last.offset, *(-weight for weight in weights))
    paths[1].write_bytes(data)
    return paths


def serve(folder: Path, switches: int) -> None:
    """The agent's side: say where it listens, switch, say when each switch was, end with the input."""
    from edgeflock_agent.agent import Agent
    from edgeflock_agent.children.runner import ModelProcess
    from edgeflock_agent.device import Identity
    from edgeflock_agent.effects import EFFECTS
    from edgeflock_agent.lane import Lane
    from edgeflock_agent.machine.effects import Switch
    from edgeflock_agent.machine.table import fresh
    from edgeflock_agent.serving.endpoint import Endpoint
    from edgeflock_agent.storage.disk import Disk
    from edgeflock_agent.storage.store import Store
    from edgeflock_agent.work import Work
    from edgeflock_deploy.keys import Trust
    from edgeflock_deploy.link import Link

    paths, broker = write_models(folder), "mqtt://127.0.0.1:9"  # nobody is there, and nobody is asked
    identity = Identity(device="board", device_class="c", runtime="r", boot_id="b", broker=broker)
    trust = Trust(keys=())
    agent = Agent(identity, Store(folder / "state", Disk()), trust, lambda _: Link(broker, "switches"))
    endpoint = Endpoint.start(
        agent.serving.get, lambda: [MODEL], may_lend=agent.may_lend, socket_path=folder / "agent.sock"
    )
    agent.models[MODEL] = fresh(MODEL)
    starter, events, rng = Lane("starter"), Events([], [], []), random.Random(0)
    ready: queue.Queue[ModelProcess] = queue.Queue()

    def prepare(number: int) -> None:
        starter.submit(lambda: ready.put(ModelProcess.start(paths[number % 2], timeout_s=60)))

    def switch(number: int, child: ModelProcess) -> None:
        agent.work[MODEL] = Work(MODEL, digest(number), child=child)
        events.before_s.append(time.monotonic())
        EFFECTS[Switch](agent, MODEL, Switch(digest(number)))
        events.after_s.append(time.monotonic())

    prepare(0)
    switch(0, ready.get())
    print(json.dumps(str(endpoint.socket_path)), flush=True)
    sys.stdin.readline()
    plan = [number for number in range(1, switches + 1) for _ in range(1 + (number % _CONTROL_EVERY == 0))]
    for number in plan[:_READY]:
        prepare(number)
    for place, number in enumerate(plan):
        child = ready.get()
        if place + _READY < len(plan):
            prepare(plan[place + _READY])
        if plan[place + 1 : place + 2] == [number]:  # its turn comes again: this time nothing switches
            events.controls_s.append(time.monotonic())
            agent.close(child)
        else:
            switch(number, child)
        time.sleep(rng.uniform(0, 0.1))
    print(json.dumps(events), flush=True)
    sys.stdin.read()
    endpoint.stop()
    agent.serving[MODEL].process.close()
    for lane in (starter, agent.serving_lane):
        lane.stop(10)


def ask(socket: str, wanted: list[np.ndarray[Any, Any]], item: np.ndarray[Any, Any], stop: threading.Event) -> Found:
    """An application: ask until told to stop."""
    found = Found([], [], [])
    with Client(f"unix:{socket}", timeout_s=60) as client:
        while not stop.is_set():
            start_s = time.monotonic()
            try:
                answer = client.infer(MODEL, {"x": item})
            except (AgentError, Unreachable) as error:
                found.lost.append(str(error))
                continue
            switch = int(answer.digest, 16)
            found.requests.append(Request(start_s, time.monotonic(), switch, answer.latency_ms))
            if not np.array_equal(next(iter(answer.outputs.values())), wanted[switch % 2]):
                found.wrong.append(f"switch {switch}: not its variant's scores")
    return found


def run(folder: Path, switches: int) -> tuple[list[Found], Events]:
    """Serve in a process of its own, and ask from here."""
    command = [sys.executable, "-m", "benchmarks.device.switches", "serve", str(folder), str(switches)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        socket = json.loads(server.stdout.readline())
        item = np.full((1, 8), 0.5, "float32")
        models = [LoadedModel.load(folder / name) for name in ("even.tflite", "odd.tflite")]
        wanted, stop, found = [model.run(item)[0] for model in models], threading.Event(), []
        threads = [
            threading.Thread(target=lambda: found.append(ask(socket, wanted, item, stop))) for _ in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        server.stdin.write("\n")
        server.stdin.flush()
        events = Events(*json.loads(server.stdout.readline()))
        stop.set()
        for thread in threads:
            thread.join()
    return found, events


def out_of_order(requests: list[Request], events: Events) -> list[str]:
    """Answers of variants that had gone before the request was made, or had not come when it was answered."""
    wrong = []
    for one in requests:
        gone_before = bisect.bisect_left(events.after_s, one.start_s) - 1
        come_by = bisect.bisect_right(events.before_s, one.end_s) - 1
        if not gone_before <= one.switch <= come_by:
            wrong.append(f"switch {one.switch} answered between {gone_before} and {come_by}")
    return wrong


def during(requests: list[Request], moments_s: list[float]) -> list[Request]:
    """The requests that were under way at one of the moments."""
    return [
        one
        for one in requests
        if bisect.bisect_left(moments_s, one.start_s) < bisect.bisect_right(moments_s, one.end_s)
    ]


def longest_waits_ms(requests: list[Request], moments_s: list[float]) -> list[float]:
    """Of each moment the longest that a request under way then waited beyond its own inference.

    Args:
        requests: of all applications.
        moments_s: in order; one at which nothing was under way is left out.
    """
    longest: dict[int, float] = {}
    for one in requests:
        waited_ms = (one.end_s - one.start_s) * 1e3 - one.latency_ms
        first, behind = bisect.bisect_left(moments_s, one.start_s), bisect.bisect_right(moments_s, one.end_s)
        for moment in range(first, behind):
            longest[moment] = max(longest.get(moment, 0.0), waited_ms)
    return [longest[moment] for moment in sorted(longest)]


def row(what: str, requests: list[Request], moments_s: list[float]) -> tuple[object, ...]:
    """A row: how the longest waits at these moments are distributed, and how many requests were under way then."""
    waits_ms = longest_waits_ms(requests, moments_s)
    shown = [f"{value:.2f}" for value in np.percentile(waits_ms, [50, 90, 99, 100])] if waits_ms else ["-"] * 4
    return (what, f"{len(waits_ms):,}", f"{len(during(requests, moments_s)):,}", *shown)


def main() -> None:
    """Measure and write the table, or serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--switches", type=int, default=SWITCHES)
    asked = parser.parse_args()
    found, events = run(FOLDER.resolve(), asked.switches)
    requests = [one for application in found for one in application.requests]
    lost = [text for application in found for text in application.lost]
    wrong = [text for application in found for text in application.wrong] + out_of_order(requests, events)
    switches = events.before_s[1:]
    inference_ms = statistics.median(one.latency_ms for one in requests)
    rng = random.Random(1)
    anywhere = sorted(rng.uniform(events.before_s[1], events.after_s[-1]) for _ in switches)
    rows = [
        row("a switch", requests, switches),
        row("a control: a process starts and another is closed, nothing switches", requests, events.controls_s),
        row("any moment", requests, anywhere),
    ]
    seconds = events.after_s[-1] - events.after_s[0]
    effect_ms = [(after - before) * 1e3 for before, after in zip(events.before_s, events.after_s, strict=True)][1:]
    note = (
        f"Requests lost: {len(lost)}. Answers by the wrong variant: {len(wrong)}. Switches: {len(switches)}, each "
        f"{statistics.median(effect_ms):.2f} ms of the agent's time (median; longest {max(effect_ms):.2f}). "
        f"{CLIENTS} applications for {seconds:.0f} s; the interpreter's call takes {inference_ms:.2f} ms (median), and "
        f"a variant answers one request at a time, so that each waits for up to {CLIENTS - 1} others. New processes "
        "start beside it all the while, on the same 2 cores, which others use too: what the row of the "
        "control says is the machine's doing. Wait: what a request takes beyond its own inference; of each moment the "
        "longest one counts. The longer a request takes, the likelier it is under way at a moment; all rows share that."
    )
    header = ("under way at", "moments", "requests", "longest wait p50, ms", "p90, ms", "p99, ms", "max, ms")
    table.write("device/switches", "make bench ARGS=switches", header, rows, note)
    for text in (*lost[:10], *wrong[:10]):
        sys.stderr.write(f"{text}\n")
    sys.exit(1 if lost or wrong else 0)


if __name__ == "__main__":
    serve(Path(sys.argv[2]), int(sys.argv[3])) if sys.argv[1:2] == ["serve"] else main()
