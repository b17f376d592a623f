"""What a large journal costs: replaying it from its first event, a restart, a snapshot, and one decision meanwhile.

`python -m benchmarks.rollout.replay [--events N] [--devices N] [--policies p95 standard]`. A fleet on paper answers a
rollout of the real service (`Rollouts`, its database, the real judge): every device acknowledges, gives its windows
with the scatter of a board, drops out now and then. The journal that this leaves is then brought back: from its first
event, in one go and in parts as `edgeflock why` does it, and as a restart does, which makes the whole core of the
service and not the rollout alone. CPU seconds of one core, because other work on the machine would stretch the clock's;
of the replay in parts, which is there to use several cores, the clock's too.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import table
from edgeflock_controller import parts
from edgeflock_controller.core import Core
from edgeflock_controller.recovery import collector_paused, restored
from edgeflock_controller.rollouts import Rollouts
from edgeflock_controller.state_bytes import state_bytes
from edgeflock_controller.store import Store
from edgeflock_deploy.keys import SigningKey
from edgeflock_deploy.link import Link
from edgeflock_deploy.messages.measurements import Conditions
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.values import DeviceState
from edgeflock_deploy.messages.windows import VariantWindow, Window
from edgeflock_deploy.policy.policy_file import load_policy
from edgeflock_deploy.policy.rules import Guardrail, Policy, Stage
from edgeflock_deploy.rollout.events import DeviceSeen, RolloutEvent, Started, StartedDevice, Ticked, WindowClosed
from edgeflock_deploy.rollout.machine import step

OLD, NEW = "o" * 64, "n" * 64
BEGAN = 1_700_000_000.0
_TURN = 500  # events in a transaction, as many as the service takes in one turn at most
_SCATTER = 0.05  # log, of a window's latency ratio


def rules(name: str, windows: int) -> Policy:
    """A policy in whose one stage all devices are in trial at once, and give so many windows each."""
    stage = Stage(percent=100, min_windows=windows, max_windows=10 * windows, deadline_s=1e6)
    if name == "p95":
        rail = Guardrail(metric="latency_ms_p95", fail_margin=0.05, pass_margin=0.10)
        return Policy(name="p95", alpha=0.01, stage=(stage,), guardrail=(rail,))
    return load_policy(name).model_copy(update={"stage": (stage,), "max_in_trial": None})


class Fleet:
    """Devices on paper: what they say, one after the other, in rounds."""

    def __init__(self, devices: int, seed: int) -> None:
        self.classes = {f"board-{number:06}": ("pi4", "zero2", "nano")[number % 3] for number in range(devices)}
        self._rng = random.Random(seed)
        self._boot = "b" * 32

    def started(self, policy: Policy) -> Started:
        """The event that begins the rollout."""
        devices = tuple(
            StartedDevice(device=device, device_class=of, online=True, committed=OLD)
            for device, of in self.classes.items()
        )
        return Started(
            at=BEGAN, rollout="r1", model="m", version=2, variant="v", digest=NEW, selector="all", policy=policy,
            devices=devices, by="benchmark",
        )  # fmt: skip

    def events(self) -> Iterator[RolloutEvent]:
        """What happens after the start, without end: each round is a window of each device, and some come and go."""
        at = BEGAN
        for device in self.classes:
            yield self._seen(device, at + 1, True)
        number = 0
        while True:
            at += 60
            for device in self.classes:
                yield WindowClosed(at=at, window=self._window(device, number))
                if self._rng.random() < 0.02:
                    yield self._seen(device, at + 1, False)
                    yield self._seen(device, at + 2, True)
            number += 1

    def _seen(self, device: str, at: float, online: bool) -> DeviceSeen:
        return DeviceSeen(
            at=at, device=device, device_class=self.classes[device], online=online, digest=OLD,
            state=DeviceState.TRIAL, phase=Phase.TRIAL,
        )  # fmt: skip

    def _window(self, device: str, number: int) -> Window:
        old = 20 * self._rng.lognormvariate(0, 0.35)
        return Window(
            device=device, boot_id=self._boot, seq=number, device_class=self.classes[device], rollout="r1", model="m",
            number=number, old_digest=OLD, new_digest=NEW, duration_s=60.0, pairs=130, agreement=0.99,
            old=_side(old), new=_side(old * self._rng.lognormvariate(-0.02, _SCATTER)),
            conditions=Conditions(cpu_pressure_pct=1.5, throttled=False, frequency_mhz=1500.0, temperature_c=55.0),
        )  # fmt: skip


def _side(p95: float) -> VariantWindow:
    return VariantWindow(
        n=130, latency_ms_p50=0.8 * p95, latency_ms_p90=0.95 * p95, latency_ms_p95=p95, accuracy=0.96,
        peak_rss_bytes=20_000_000,
    )  # fmt: skip


def lived(store: Store, fleet: Fleet, policy: Policy, events: int) -> tuple[Rollouts, float, float]:
    """Let a rollout happen until its journal has so many events.

    Returns:
        The rollouts, CPU seconds of the service's part of it, and the most of them that a turn spent on a snapshot.
    """
    rollouts = Rollouts(store)
    with store.transaction():
        rollouts.start(fleet.started(policy))
        rollouts.project_changed()
    told, spent, longest, journaled = fleet.events(), 0.0, 0.0, 1
    while journaled < events:
        some = [next(told) for _ in range(min(_TURN, events - journaled))]
        began = time.process_time()
        with store.transaction():
            journaled += sum(rollouts.apply("r1", event) for event in some)
            before = time.process_time()
            rollouts.project_changed()
            longest = max(longest, time.process_time() - before)
        spent += time.process_time() - began
    return rollouts, spent, longest


def restarted(store: Store) -> tuple[float, bytes]:
    """CPU seconds of making the service's core on a store, and the state that it gives."""
    key = SigningKey.generate("controller")
    began = time.process_time()
    core = Core(store, lambda _: Link("mqtt://127.0.0.1", "benchmark"), key, time.time, time.monotonic, lambda: "name")
    return time.process_time() - began, state_bytes(core.rollouts.live()["r1"])


def replayed(store: Store) -> tuple[float, bytes]:
    """CPU seconds of a restart without snapshots, and the state that it gives."""
    with store.transaction():
        store.snapshots.forget("r1")
    began = time.process_time()
    found = restored(store, "r1")
    assert found is not None
    return time.process_time() - began, state_bytes(found.rollout)


def in_parts(store: Store, rollouts: Rollouts) -> tuple[float, float, int]:
    """Replay from the first event on all cores, up to the live state.

    Returns:
        Seconds of the clock, CPU seconds of all processes together, and how many events; 0 where it would not pay.
    """
    now = rollouts.case("r1")
    assert now is not None
    began, spent = time.perf_counter(), _spent_s()
    with store.reading() as reading:
        told = parts.proved(reading, now, everything=False)
    took, spent = time.perf_counter() - began, _spent_s() - spent
    if told is None:
        return math.nan, math.nan, 0
    # That the parts end with the live state is what `proved` says; that each decision is the one of then, its faults.
    assert (told.faults_total, told.sealed) == (0, told.events)
    return took, spent, told.events


def _spent_s() -> float:
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def decisions(rollouts: Rollouts, fleet: Fleet) -> tuple[float, float]:
    """The median and the longest CPU seconds of one decision, on a window and on the passing of time."""
    rollout, at, took = rollouts.live()["r1"], BEGAN + 1e5, []
    told = (event for event in Fleet(len(fleet.classes), 2).events() if isinstance(event, WindowClosed))
    with collector_paused():
        for number in range(500):
            window = next(told).window.model_copy(update={"number": 1_000_000 + number})
            for event in (WindowClosed(at=at, window=window), Ticked(at=at)):
                began = time.process_time()
                rollout, _ = step(rollout, event)
                took.append(time.process_time() - began)
    return statistics.median(took), max(took)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--policies", nargs="+", default=["p95", "standard"])
    given = parser.parse_args()
    rows = [measure(policy, given.events, given.devices) for policy in given.policies]
    header = (
        "policy", "guardrails", "events", "live, us an event", "replay from the first event, one core, s",
        "in parts on all cores, s of the clock", "CPU s of these together",
        "restart by snapshot and tail, s", "events in the tail", "snapshot, MB",
        "most that a turn spends on it, ms", "journal, MB",
        "one decision, ms (median, longest)", "peak memory, MB",
    )  # fmt: skip
    command = f"python -m benchmarks.rollout.replay --events {given.events} --devices {given.devices} --policies "
    command += " ".join(given.policies)
    note = f"{given.devices:,} devices of three classes, all in trial at once. CPU seconds of one core. Live: journal, "
    note += (
        "decision, snapshots and SQLite, without MQTT. After each restart and each replay the state had the same bytes "
    )
    note += f"as the live one. {os.cpu_count()} cores."
    table.write("rollout/replay", command, header, rows, note)


def measure(policy: str, events: int, devices: int) -> tuple[object, ...]:
    """One row."""
    fleet = Fleet(devices, 1)
    chosen = rules(policy, 2 * events // devices)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        rollouts, live_s, longest_turn_s = lived(store, fleet, chosen, events)
        state = state_bytes(rollouts.live()["r1"])
        median_s, longest_s = decisions(rollouts, fleet)
        newest = store.snapshots.size("r1")
        found = restored(store, "r1")
        assert found is not None
        tail = found.tail
        restart_s, again = restarted(store)
        assert again == state
        parts_s, parts_cpu_s, replayed_events = in_parts(store, rollouts)
        assert replayed_events in (0, events)
        replay_s, again = replayed(store)
        assert again == state
        megabytes = sum(file.stat().st_size for file in Path(folder).glob("edgeflock.db*")) / 1e6
        store.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return (
        policy, len(chosen.guardrail), f"{events:,}", f"{live_s / events * 1e6:.0f}",
        f"{replay_s:.1f}", f"{parts_s:.1f}", f"{parts_cpu_s:.1f}", f"{restart_s:.2f}", f"{tail:,}",
        f"{newest / 1e6:.1f}", f"{longest_turn_s * 1e3:.0f}", f"{megabytes:,.0f}",
        f"{median_s * 1e3:.2f}, {longest_s * 1e3:.1f}", f"{peak:,.0f}",
    )  # fmt: skip


if __name__ == "__main__":
    main()
