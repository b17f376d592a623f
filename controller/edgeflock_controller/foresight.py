"""What a plan and a rehearsal are made from: who would get what, as things stand now. Nothing is begun by asking.

Put together here on the core's thread, bounded; reckoned with in the process that asked (`rehearsal`). What `deploy`
would refuse is refused here in the same words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from edgeflock_controller.choosing import Choosing, Wish
from edgeflock_controller.core import Core
from edgeflock_controller.entrants import entrant
from edgeflock_controller.naming import selected
from edgeflock_controller.prospects import RECORDS_AT_ONCE
from edgeflock_controller.registry import Bundle
from edgeflock_controller.twins import Device
from edgeflock_controller.views import overtaken_view
from edgeflock_deploy.errors import BadInput

Json = dict[str, Any]
Offered = Callable[[str, "int | None", str, str], "tuple[Bundle, dict[str, Device]]"]


class Foresight:
    """Answers for whoever plans or rehearses.

    Args:
        core: the service's core, on whose thread this runs.
        choosing: knows what each class would get.
        offered: resolves a deployment of one variant, as `deploy` does, to its bundle and the devices that it means.
    """

    def __init__(self, core: Core, choosing: Choosing, offered: Offered) -> None:
        self._store, self._rollouts, self._clock = core.store, core.rollouts, core.clock
        self._choosing, self._offered = choosing, offered

    def prospect(self, model: str, version: int | None, variant: str, selector: str) -> Json:
        """What a deployment of one variant would bring to whom: the bundle, and each device as it is now.

        Raises:
            BadInput: whatever `deploy` would refuse.
        """
        bundle, devices = self._offered(model, version, variant, selector)
        return self._found([bundle], devices) | {"at": self._clock(), "digest": bundle.digest, "choice": None}

    def prospect_per_class(self, wish: Wish) -> Json:
        """What a deployment of the variant per class would bring to whom, and what boards would first measure.

        Raises:
            BadInput: whatever `deploy` would refuse.
        """
        foreseen = self._choosing.foreseen(wish)
        campaign = foreseen.campaign
        bundles = [self._store.registry.bundle(digest) for digest in campaign.candidates]
        ahead = {
            name: {"tasks": [task._asdict() for task in one.tasks], "waits": one.waits}
            for name, one in foreseen.ahead.items()
        }
        return self._found([one for one in bundles if one is not None], selected(self._store, wish.selector)) | {
            "at": campaign.started_at,
            "digest": None,
            "choice": foreseen.choice.model_dump(mode="json"),
            "ahead": ahead,
            "runs": campaign.runs,
            "sample_ms": campaign.sample_ms,
        }

    def records(self, model: str, devices: Sequence[str]) -> Json:
        """What devices showed in earlier trials of a model, and when they came and went; by device.

        Raises:
            BadInput: more devices than are answered for at once.
        """
        if len(devices) > RECORDS_AT_ONCE:
            raise BadInput("records", f"of {len(devices)} devices", f"ask for {RECORDS_AT_ONCE} at a time")
        return {device: self._store.prospects.record(device, model) for device in devices}

    def _found(self, bundles: Sequence[Bundle], devices: Mapping[str, Device]) -> Json:
        """The bundles that may be brought, which blobs come with each of the model, what would end, and the devices."""
        model = bundles[0].manifest.model
        return {
            "manifests": {one.digest: one.manifest.model_dump(mode="json") for one in bundles},
            "blobs": _blobs(self._store.registry.bundles(model)),
            "overtakes": [overtaken_view(*one) for one in self._rollouts.overtaken(model, devices)],
            "devices": [
                entrant(self._store, row, self._store.twins.committed(row.device, model)).model_dump(mode="json")
                | self._store.prospects.device(row, model)
                for row in devices.values()
            ],
        }


def _blobs(published: Iterable[Bundle]) -> dict[str, list[str]]:
    return {one.digest: sorted(blob.sha256 for blob in one.manifest.all_blobs) for one in published}
