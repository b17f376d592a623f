"""What asking through the agent costs over calling the interpreter in the application's own process.

Four ways of asking, our client over the Unix socket and over TCP (binary tensors, the connection lent to the model's
child after some requests alike), over the Unix socket with an `id` (which is never lent: the agent answers) and JSON by
the standard library's client over one open TCP connection, and what a relay of two processes takes that looks at
nothing (`bare_relay`), are each laid beside LiteRT's interpreter in this process (one thread): round by round in random
order, each asked a few times in a row as an application does, of which the first is left out. The endpoint runs in a
process of its own, each model in its child, as in an agent. What an application does to its array (for JSON: making
text of it, and arrays of the answer) is part of the time.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from benchmarks import table
from benchmarks.bare_relay import BareClient
from edgeflock_agent.children.datatypes import DATATYPES
from edgeflock_agent.client import Client
from edgeflock_deploy.runtime import LoadedModel

FOLDER = Path("build/bench/serving")
WARMUP = 20
IN_A_ROW = 5


class Shape(NamedTuple):
    """A convolutional model: its input, the channels of its layers, how many layers, and how many rounds to measure."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    stride: int
    channels: int
    layers: int
    rounds: int  # JSON, which takes its time, gets a fifth of them


SHAPES = (
    Shape("0.1 ms", "float32", (1, 49, 10, 1), 1, 16, 8, 400),
    Shape("1 ms", "float32", (1, 96, 96, 1), 2, 16, 17, 200),
    Shape("10 ms", "uint8", (1, 224, 224, 3), 2, 16, 30, 150),
    Shape("10 ms, float input", "float32", (1, 224, 224, 3), 2, 16, 30, 150),
)


def make(shape: Shape, path: Path) -> None:
    """Write the model, unless it is there; it gives ten scores."""
    if path.exists():
        return
    import tensorflow as tf

    rng = np.random.default_rng(0)

    def weights(*size: int) -> NDArray[np.float32]:
        return np.asarray(rng.normal(size=size) / np.sqrt(np.prod(size[:-1])), np.float32)

    kernels = [weights(3, 3, shape.channels if n else shape.shape[-1], shape.channels) for n in range(shape.layers)]
    last = weights(shape.channels, 10)

    def scores(x: Any) -> Any:
        image = tf.cast(x, tf.float32)
        for number, kernel in enumerate(kernels):
            image = tf.nn.relu(tf.nn.conv2d(image, kernel, 1 if number else shape.stride, "SAME"))
        return tf.nn.softmax(tf.matmul(tf.reduce_mean(image, axis=(1, 2)), last))

    spec = tf.TensorSpec(shape.shape, getattr(tf, shape.dtype), name="x")
    concrete = tf.function(scores, input_signature=[spec]).get_concrete_function()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert())


def serve(paths: list[str]) -> None:
    """The server process: say where it listens, and serve until its input ends."""
    from edgeflock_agent.children.runner import ModelProcess
    from edgeflock_agent.serving.endpoint import Endpoint, Serving

    now = {Path(path).stem: Serving("0" * 64, ModelProcess.start(Path(path))) for path in paths}
    endpoint = Endpoint.start(now.get, may_lend=lambda *_: True, socket_path=FOLDER / "agent.sock")
    print(json.dumps([endpoint.url, str(endpoint.socket_path)]), flush=True)
    sys.stdin.read()
    endpoint.stop()
    for serving in now.values():
        serving.process.close()


def ask_json(connection: http.client.HTTPConnection, model: str, item: NDArray[Any]) -> NDArray[Any]:
    """The model's scores, by JSON."""
    datatype = DATATYPES[item.dtype.name].name
    tensor = {"name": "x", "datatype": datatype, "shape": item.shape, "data": item.reshape(-1).tolist()}
    connection.request("POST", f"/v2/models/{model}/infer", json.dumps({"inputs": [tensor]}).encode())
    output = json.loads(connection.getresponse().read())["outputs"][0]
    return np.array(output["data"], "float32").reshape(output["shape"])


class Taken(NamedTuple):
    """Milliseconds of the same round: asked through the agent, and in this process."""

    asked_ms: float
    own_ms: float


@contextmanager
def bare(path: Path, item: NDArray[Any], answer: NDArray[Any]) -> Iterator[BareClient]:
    """A relay with the model behind it, and its application."""
    socket = str(FOLDER / "bare.sock")
    words = [sys.executable, "-m", "benchmarks.bare_relay", "relay", str(path), socket]
    words += [str(item.nbytes), str(answer.nbytes)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        client = BareClient(socket, answer.nbytes)
        try:
            yield client
        finally:
            client.close()


def measure(shape: Shape, path: Path, url: str, socket: str, stack: ExitStack) -> dict[str, list[Taken]]:
    """Every ask of each way beside one in process."""
    rng = np.random.default_rng(1)
    item = (rng.random(shape.shape) * (255 if shape.dtype == "uint8" else 1)).astype(shape.dtype)
    own, model = LoadedModel.load(path), path.stem
    unix, unlent, tcp = Client(f"unix:{socket}"), Client(f"unix:{socket}"), Client(url)
    connection = http.client.HTTPConnection(urlsplit(url).netloc)
    wanted = own.run(item)[0]
    relay = stack.enter_context(bare(path, item, wanted))
    asks: dict[str, Callable[[], NDArray[Any]]] = {
        "Unix socket": lambda: next(iter(unix.infer(model, {"x": item}).outputs.values())),
        "Unix socket, not lent": lambda: next(iter(unlent.infer(model, {"x": item}, id="mine").outputs.values())),
        "bare relay": lambda: relay.ask(item).reshape(wanted.shape),
        "TCP": lambda: next(iter(tcp.infer(model, {"x": item}).outputs.values())),
        "JSON": lambda: ask_json(connection, model, item),
    }
    taken: dict[str, list[Taken]] = {}
    for way, ask in asks.items():
        for _ in range(WARMUP):
            np.testing.assert_allclose(ask(), wanted, rtol=1e-6)
        rounds = shape.rounds // (5 if way == "JSON" else 1)
        taken[way] = [pair for _ in range(rounds) for pair in one_round(ask, lambda: own.run(item)[0])]
    for client in (unix, unlent, tcp):
        client.close()
    connection.close()
    return taken


def one_round(ask: Callable[[], object], own: Callable[[], object]) -> list[Taken]:
    """Both a few times in a row, in random order; without the first of each."""
    found = {}
    for call in random.sample((ask, own), 2):
        found[call] = [timed_ms(call) for _ in range(IN_A_ROW)][1:]
    return [Taken(*pair) for pair in zip(found[ask], found[own], strict=True)]


def timed_ms(call: Callable[[], object]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1e3


def rows_of(shape: Shape, taken: dict[str, list[Taken]]) -> list[tuple[str, ...]]:
    """A row per way; differences and ratios are of the same round."""
    rows: list[tuple[str, ...]] = []
    size = f"{int(np.prod(shape.shape)) * DATATYPES[shape.dtype].nbytes / 1000:.1f}"
    for way, pairs in taken.items():
        p50, p95 = np.percentile([pair.asked_ms for pair in pairs], [50, 95])
        own = statistics.median(pair.own_ms for pair in pairs)
        more50, more95 = np.percentile([(pair.asked_ms - pair.own_ms) * 1e3 for pair in pairs], [50, 95])
        ratio = statistics.median(pair.asked_ms / pair.own_ms for pair in pairs)
        cells = (f"{own:.3f}", f"{p50:.3f}", f"{p95:.3f}", f"{more50:.0f}", f"{more95:.0f}", f"{ratio:.3f}")
        rows.append((shape.name, size, way, *cells))
    return rows


def main() -> None:
    """Measure and write the table."""
    paths = {shape: FOLDER / f"model{number}.tflite" for number, shape in enumerate(SHAPES)}
    for shape, path in paths.items():
        make(shape, path)
    command = [sys.executable, "-m", "benchmarks.serving", "serve", *map(str, paths.values())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        url, socket = json.loads(server.stdout.readline())
        before = os.getloadavg()[0]
        rows = []
        for shape, path in paths.items():
            with ExitStack() as stack:
                rows += rows_of(shape, measure(shape, path, url, socket, stack))
    header = (
        "model",
        "input, KB",
        "way",
        "in process, p50, ms",
        "p50, ms",
        "p95, ms",
        "more, p50, us",
        "more, p95, us",
        "ratio, p50",
    )
    counts = ", ".join(str(shape.rounds) for shape in SHAPES)
    note = (
        f"{counts} rounds (JSON: a fifth) of {IN_A_ROW} asks in a row of the way and of the interpreter in process, in "
        f"random order, the first of each left out; one thread per interpreter; differences and ratios are within "
        f"rounds. {'Real-time priority, ' if os.sched_getscheduler(0) else ''}"
        f"{os.cpu_count()} shared cores, load {before:.1f} at the start and "
        f"{os.getloadavg()[0]:.1f} at the end. "
        "Reach: 300 us at p50 with binary tensors over a Unix socket, 3 % at 10 ms."
    )
    table.write("device/serving", "make bench ARGS=serving", header, rows, note)


if __name__ == "__main__":
    serve(sys.argv[2:]) if sys.argv[1:2] == ["serve"] else main()
