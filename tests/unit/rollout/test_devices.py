"""What `Devices` answers without going through all devices is what going through all of them would answer."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.rollout.devices import CANDIDATES, DeviceProgress, Devices, DeviceStatus


def some_progress(rng: random.Random) -> DeviceProgress:
    return DeviceProgress(
        device_class=rng.choice(["pi", "zero"]),
        online=rng.random() < 0.7,
        committed_before=None,
        status=rng.choice(list(DeviceStatus)),
        desired=rng.choice([None, Phase.TRIAL]),
        clock_at=rng.choice([None, float(rng.randrange(100))]),
        late=rng.random() < 0.2,
        overdue=rng.random() < 0.2,
    )


@pytest.mark.parametrize("seed", range(3))
def test_counts_groups_and_clocks_are_those_of_the_devices_after_every_change(seed: int) -> None:
    rng = random.Random(seed)
    plain = {f"d{number:03}": some_progress(rng) for number in range(150)}
    devices = Devices(plain)
    for _ in range(300):
        device = f"d{rng.randrange(200):03}"  # now and then a new one
        plain[device] = some_progress(rng)
        before, copied = devices, dict(devices)
        devices = devices.with_device(device, plain[device])
        assert dict(before) == copied
        asked = rng.sample(list(DeviceStatus), 3)
        assert devices.with_status(*asked) == sorted(d for d, p in plain.items() if p.status in asked)
        assert devices.count(*asked) == len(devices.with_status(*asked))
        waiting = Counter(p.device_class for p in plain.values() if p.status is DeviceStatus.WAITING and p.online)
        counted: Counter[str] = Counter()
        for group, members in devices.groups(DeviceStatus.WAITING):
            counted[group.device_class] += len(members) if group.online else 0
        assert +counted == waiting
        running = {d: p for d, p in plain.items() if p.status in CANDIDATES and not p.overdue}
        due = sorted(d for d, p in running.items() if p.clock_at is not None and 120.0 - p.clock_at > 60)
        assert devices.due(120.0, 60) == due
    assert devices == plain
    assert devices == Devices(plain)
    assert list(devices) == sorted(plain)
