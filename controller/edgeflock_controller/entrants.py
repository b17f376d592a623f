"""Devices as rollouts take them in: at the start, or when one turns up while a rollout is under way.

Decided here: who turns up late. A device joins a live rollout whose selector means it, if the policy lets late comers
in, no other live rollout of the model has it, and it was never told anything about the model: then it is new, or was
tagged just now, and nothing that was ever decided for it is undone. One that `deploy` would refuse stays out.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping

from edgeflock_controller.offers import check_offer
from edgeflock_controller.store import Store
from edgeflock_controller.twins import Device
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.rollout.events import StartedDevice
from edgeflock_deploy.rollout.selector import Selector, parse_selector
from edgeflock_deploy.rollout.state import Rollout

log = logging.getLogger(__name__)


def entrant(store: Store, row: Device, committed: str | None) -> StartedDevice:
    """A device as it is now, with the bundle to go back to."""
    return StartedDevice(
        device=row.device,
        device_class=row.device_class,
        online=row.online,
        committed=committed,
        tags=dict(row.tags),
        utc_offset_s=row.utc_offset_s,
        frozen=store.freezes.of("device", row.device) is not None,
    )


def late_comers(store: Store, row: Device, live: Mapping[str, Rollout]) -> Iterator[tuple[str, StartedDevice]]:
    """The live rollouts that a device joins now, by id, each with the device as it enters."""
    for name, rollout in list(live.items()):
        if rollout.mode != "deploy" or not rollout.policy.join or row.device in rollout.devices:
            continue
        if not _selector(rollout.selector).matches(row.device, row.device_class, row.tags):
            continue
        rivals = (other for other in live.values() if other.model == rollout.model)
        if any(row.device in other.devices for other in rivals):
            continue
        if store.twins.newest_generation(row.device, rollout.model) or not _offered(store, row, rollout):
            continue
        yield name, entrant(store, row, store.twins.committed(row.device, rollout.model))


@functools.lru_cache(maxsize=256)
def _selector(text: str) -> Selector:
    return parse_selector(text)


def _offered(store: Store, row: Device, rollout: Rollout) -> bool:
    digest = rollout.digest if rollout.choice is None else rollout.choice.digest_for(row.device_class)
    bundle = store.registry.bundle(digest) if digest is not None else None
    if bundle is None:
        return True
    published = [one.manifest for one in store.registry.bundles(rollout.model)]
    try:
        check_offer(bundle.manifest, [row], rollout.selector, published)
    except BadInput as error:
        log.warning("device %s does not join rollout %s: %s", row.device, rollout.id, error)
        return False
    return True
