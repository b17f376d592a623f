"""What a device's words mean: a report or a presence becomes rows of its twin, and the event that rollouts see.

Decided here: when a device counts as online (by its own word, its last will, or its silence: `liveness`), which bundle
it has committed, and which report answers which rollout. Not decided here: what a rollout makes of it.
"""

from __future__ import annotations

import logging

from edgeflock_controller.freezes import Freezes
from edgeflock_controller.liveness import Liveness
from edgeflock_controller.twins import Twins
from edgeflock_controller.unheard import Unheard
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.reports import Presence, Reported, ReportedModel
from edgeflock_deploy.messages.values import Outcome
from edgeflock_deploy.rollout.events import DeviceSeen

_CAME_FORWARD = frozenset({Outcome.SUCCEEDED, Outcome.ALREADY_CURRENT})

log = logging.getLogger(__name__)


class Fleet:
    """The devices as their own words paint them."""

    def __init__(self, twins: Twins, freezes: Freezes) -> None:
        self.liveness = Liveness()
        self._unheard = Unheard()
        self._twins, self._freezes = twins, freezes
        # A presence may overtake the first report; it is retained, so that forgetting it in a crash does no harm.
        self._unknown: dict[str, bool] = {}

    def presence(self, said: Presence, now_s: float) -> None:
        """Note that a device came or went.

        `now_s` is monotonic seconds. The broker's retained copy of a coming that is older than what the device has
        said since proves nothing; a last will carries no sequence number to compare, and always counts.
        """
        known = self._twins.device(said.device)
        if known is None:
            self._unknown[said.device] = said.online
        elif not said.online:
            self._twins.set_online(said.device, False)
        elif known.boot_id != said.boot_id or said.seq > known.seq:
            self.liveness.heard(said.device, now_s)
            self._twins.set_online(said.device, True)

    def reported(self, said: Reported, at: float, now_s: float) -> None:
        """Note what a device says it runs; a device never heard of is registered by it.

        A report that is newer than the last one proves the device alive, whatever a late last will says. The last one
        again (the broker's retained copy) proves nothing. `at` is seconds since 1970, `now_s` monotonic seconds.
        """
        known = self._twins.device(said.device)
        if known is not None and known.boot_id == said.boot_id and said.seq < known.seq:
            return
        fresh = known is None or known.boot_id != said.boot_id or said.seq > known.seq
        self.liveness.beats(said.device, said.beat_s)
        lost = said.windows_dropped, said.events_dropped
        if lost != ((known.windows_dropped, known.events_dropped) if known is not None else (0, 0)):
            log.warning(
                "device %s could not be heard, and has lost %d windows and %d events so far", said.device, *lost
            )
        if fresh:
            self.liveness.heard(said.device, now_s)
        online = self._unknown.pop(said.device, True) if known is None else known.online or fresh
        self._twins.put_device(said, online, at)
        for model, entry in said.models.items():
            self._twins.put_said(said.device, model, entry, at)
            self._note_committed(said.device, model, entry, at)

    def has_not_heard(self, said: Reported, now_s: float) -> bool:
        """Whether a report shows that the device waits in vain for its newest word, and is to be told again."""
        told = self._twins.newest_generations(said.device)
        models = said.models
        lags = any(model not in models or models[model].generation < newest for model, newest in told.items())
        return self._unheard.reported(said.device, lags, now_s)

    def fallen_silent(self, now_s: float) -> list[str]:
        """Note as offline those of which nothing has been heard for too long; says which."""
        silent = self.liveness.silent(self._twins.online(), now_s)
        for device in silent:
            self._twins.set_online(device, False)
        return silent

    def seen(self, device: str, model: str, rollout: str, at: float) -> DeviceSeen | None:
        """The device as a rollout of the model sees it now; None for one that has never reported.

        A report on an earlier order than the one that holds carries no phase: it answers nothing that is being asked.
        If that order was to go back, how it ended is left out too, for it speaks of the old bundle.
        """
        row = self._twins.device(device)
        if row is None:
            return None
        said = self._twins.said(device).get(model)
        bare = DeviceSeen(
            at=at,
            device=device,
            device_class=row.device_class,
            online=row.online,
            digest=said.digest if said is not None else None,
            utc_offset_s=row.utc_offset_s,
            frozen=self._freezes.of("device", device) is not None,
            variant=said.variant if said is not None else None,
        )
        if said is None or said.rollout != rollout:
            return bare
        told = self._twins.phase_of(device, model, said.generation, rollout)
        ended = {"outcome": said.outcome, "reason": said.reason, "detail": said.detail}
        if said.generation == self._twins.newest_generation(device, model):
            return bare.model_copy(update={"state": said.state, "phase": told, **ended})
        return bare.model_copy(update={"state": said.state, **({} if told is Phase.REVERT else ended)})

    def _note_committed(self, device: str, model: str, said: ReportedModel, at: float) -> None:
        active = said.slots.active or said.digest
        if active is None:
            return
        told = self._twins.phase_of(device, model, said.generation, said.rollout) if said.rollout else None
        if said.outcome in _CAME_FORWARD and told is not Phase.REVERT:
            self._twins.note_commit(device, model, active, at)
        else:
            self._twins.note_return(device, model, active, at)
