"""A model on a device in each of its states, and words and events for it: what the tests of the machine start from."""

from __future__ import annotations

from typing import Any

from edgeflock_agent.machine.effects import Effect
from edgeflock_agent.machine.events import DesiredChanged, Event
from edgeflock_agent.machine.state import BundleFacts, ModelState, Now
from edgeflock_agent.machine.table import step
from edgeflock_deploy.messages.measurements import Measurement
from edgeflock_deploy.messages.orders import DesiredModel, Phase, TrialSettings
from edgeflock_deploy.messages.reports import Slots
from edgeflock_deploy.messages.values import DeviceState

S = DeviceState
OLD, NEW, OLDER, FACTORY = "old", "new", "older", "factory"
NOW = Now(1_000.0, 50.0)
LATE = Now(9_999.0, 60.0)
EXPIRES_AT = 5_000.0
MEASURED = Measurement(
    n=130,
    latency_ms_p50=1.0,
    latency_ms_p90=1.1,
    latency_ms_p95=1.2,
    first_inference_ms=2.0,
    load_ms=3.0,
    warmed_up=True,
    peak_rss_bytes=1000,
)


def entry(
    phase: Phase = Phase.TRIAL, digest: str | None = NEW, generation: int = 2, rollout: str = "r2"
) -> DesiredModel:
    trial = TrialSettings(deadline_s=100.0)
    return DesiredModel(
        generation=generation, phase=phase, digest=digest, rollout=rollout, trial=trial, expires_at=EXPIRES_AT
    )


def at(state: DeviceState, phase: Phase = Phase.TRIAL, **changes: Any) -> ModelState:
    """A model in this state: OLD serves, and where something is on its way it is NEW (or OLDER when going back)."""
    fields: dict[str, Any] = {
        "model": "digits",
        "state": state,
        "desired": entry(phase, generation=1, rollout="r1"),
        "slots": Slots(active=OLD, previous=OLDER, factory=FACTORY),
        "bundles": {d: BundleFacts(version=v) for d, v in ((FACTORY, 1), (OLDER, 2), (OLD, 3), (NEW, 4))},
        "floor_version": 3,
    }
    if state in (S.DOWNLOADING, S.VERIFYING, S.STAGED, S.WARMING, S.TRIAL):
        fields["candidate"] = NEW
    if state is S.ROLLING_BACK:
        fields["candidate"] = OLDER
    if state in (S.WARMING, S.TRIAL):
        fields["attempts"] = 1
    if state is S.TRIAL:
        fields["trial_since_s"] = NOW.mono_s
    return ModelState(**(fields | changes))


def desired(state: ModelState, word: DesiredModel, now: Now = NOW) -> tuple[ModelState, tuple[Effect, ...]]:
    return step(state, DesiredChanged(word, now))


def walk(state: ModelState, *events: Event) -> tuple[ModelState, tuple[Effect, ...]]:
    effects: tuple[Effect, ...] = ()
    for event in events:
        state, effects = step(state, event)
    return state, effects
