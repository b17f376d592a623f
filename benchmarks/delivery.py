"""Delivery of a 2 MB bundle to 20 agents, every tenth of them killed mid-way: bytes on the wire over bytes needed.

Each process reaches the broker through a proxy of its own that counts bytes, so the numbers hold everything that MQTT
adds and do not rest on our own counters. The agents' proxies are slowed down so that "mid-way" lasts long enough.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import numpy as np
from fleet import BIN, CLASSES, Fleet
from proxy import CountingProxy
from rich.console import Console

from benchmarks import table
from edgeflock_controller.client import Client
from edgeflock_deploy.bundle import CHUNK_BYTES

AGENTS = 20
RATE = 400_000.0  # bytes per second to each agent
FOLDER = Path("build/bench/delivery")


def make_model(folder: Path) -> tuple[Path, Path]:
    """A dense net whose file is 2 MB of noise that no codec shrinks much, and data for it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([keras.Input((64,)), layers.Dense(1000), layers.Dense(480), layers.Dense(10)])
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder / "noise.keras")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(600, 64)).astype("float32"), rng.integers(0, 10, 600)
    np.savez(folder / "data.npz", x_train=x[:400], y_train=y[:400], x_test=x[400:], y_test=y[400:])
    return folder / "noise.keras", folder / "data.npz"


def main() -> None:
    """Measure and write the table."""
    model, data = make_model(FOLDER / "model")
    with Fleet(FOLDER, Console(stderr=True)) as fleet:
        variants = str(FOLDER / "variants")
        fleet.run("compress", str(model), "--data", str(data), "--recipe", "float32", "--out", variants)
        fleet.run("keys", "init")
        fleet.start_broker()
        port = int(fleet.broker_url.rsplit(":", 1)[1])
        controllers = CountingProxy(port)
        fleet.spawn("controller", "edgeflock", "serve", "--broker", controllers.url)
        fleet.wait_for("the controller", lambda: fleet.ask(Client.devices) is not None)
        proxies = {f"board-{n + 1:02d}": CountingProxy(port, RATE) for n in range(AGENTS)}
        for number, (name, proxy) in enumerate(proxies.items()):
            start(fleet, name, number, proxy)
        fleet.wait_for("every agent online", lambda: fleet.online() == AGENTS)
        fleet.run("publish", str(FOLDER / "variants" / "float32"), "--model", "noise")
        size = bundle_bytes(fleet)
        idle_up, idle_down = controllers.up_bytes, {name: proxy.down_bytes for name, proxy in proxies.items()}

        began = time.monotonic()
        fleet.run("deploy", "noise", "--variant", "float32", "--to", "all", "--policy", "install")
        victims = list(proxies)[9::10]
        lost = {name: kill_midway(fleet, name, proxies[name], idle_down[name], size) for name in victims}
        for name in victims:
            start(fleet, name, list(proxies).index(name), proxies[name])
        fleet.wait_for(
            "every agent committed",
            lambda: (
                len({d for d in fleet.running_digests("noise").values() if d}) == 1
                and None not in fleet.running_digests("noise").values()
            ),
            timeout_s=300,
        )
        seconds = time.monotonic() - began
        sent = controllers.up_bytes - idle_up
        received = {name: proxy.down_bytes - idle_down[name] for name, proxy in proxies.items()}
    whole = [received[name] / size for name in proxies if name not in victims]
    killed = [received[name] / size for name in victims]
    rows = [
        ("bundle, bytes on the wire", f"{size:,}", ""),
        ("sent by the controller / bundle", f"{sent / size:.3f}", "1.1"),
        ("received / bundle, mean of the fleet", f"{sum(received.values()) / AGENTS / size:.3f}", "1.03"),
        ("received / bundle, agents that were not killed, largest", f"{max(whole):.3f}", ""),
        ("received / bundle, agents killed mid-way, largest", f"{max(killed):.3f}", ""),
        ("chunks on disk when killed, of all", ", ".join(lost.values()), ""),
        ("seconds until all have committed", f"{seconds:.1f}", ""),
    ]
    note = (
        f"{AGENTS} agents, {len(victims)} killed with SIGKILL at half of the download and started again; "
        f"{RATE / 1e6:.1f} MB/s to each. Bytes as TCP payload at a proxy, with everything that MQTT adds, all messages."
    )
    table.write("delivery", "make bench ARGS=delivery", ("what", "measured", "reach"), rows, note)


def start(fleet: Fleet, name: str, number: int, proxy: CountingProxy) -> None:
    """Start one agent behind its proxy."""
    trust = fleet.home / "keys" / "trust.json"
    fleet.spawn(
        name, "edgeflock-agent", "run", "--id", name, "--broker", proxy.url, "--state", str(fleet.state(name)),
        "--device-class", CLASSES[number % 2], "--trust", str(trust),
    )  # fmt: skip


def bundle_bytes(fleet: Fleet) -> int:
    """Chunk payload bytes of the published bundle: model, golden cases and evaluation slice."""
    answer = subprocess.run([BIN / "edgeflock", "models", "--json"], env=fleet.env, capture_output=True, check=True)
    (bundle,) = json.loads(answer.stdout)
    size: int = bundle["bundle_wire_bytes"]
    return size


def kill_midway(fleet: Fleet, name: str, proxy: CountingProxy, before: int, size: int) -> str:
    """`kill -9` an agent when half of the bundle went to it; returns how many chunks it had on disk."""
    fleet.wait_for("half of the download", lambda: proxy.down_bytes - before > size / 2)
    fleet.kill(name)
    maps = list(fleet.state(name).glob("incoming/*/bitmap"))
    stored = sum(bin(byte).count("1") for path in maps for byte in path.read_bytes())
    return f"{stored} of {-(-size // CHUNK_BYTES)}"


if __name__ == "__main__":
    main()
