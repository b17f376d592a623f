"""A bundle that is measured and nothing more: `step(measuring, event) -> (measuring, effects)`.

Decided here: when a measurement begins, what each finished step leads to, and how it ends. Pure and total; what is not
in `MEASURING` is ignored, and an ended one stays as it is.

    IDLE -> DOWNLOADING -> VERIFYING -> STAGED -> WARMING -> IDLE with an outcome

Not known here: the slots, the incumbent and the candidate of the model (`table`), which this machine therefore cannot
touch. They go first: a board that gets something to do calls the measurement off, and it begins again when the board
has nothing to do. A bundle that is known to be bad here, or older than what was committed, is not even measured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeflock_agent.machine.effects import (
    AskTurn,
    CollectGarbage,
    Effect,
    FetchBlobs,
    FetchManifest,
    Gauge,
    Persist,
    Report,
    StopWork,
    Verify,
)
from edgeflock_agent.machine.events import (
    BlobsReady,
    BoardBusy,
    BoardIdle,
    DownloadFailed,
    Gauged,
    HardStopped,
    ManifestReady,
    Refused,
    Ticked,
    TurnCame,
    Verified,
)
from edgeflock_agent.machine.state import Now
from edgeflock_deploy.messages.orders import MeasureOrder
from edgeflock_deploy.messages.reports import Measured
from edgeflock_deploy.messages.values import DeviceState, Frozen, Outcome
from edgeflock_deploy.reasons import Reason

MAX_ATTEMPTS = 3  # an agent that died so often while it measured a variant gives it up

S = DeviceState


class Measuring(Frozen):
    """One order to measure, how far it is, and its answer.

    `form` is the form of the bundle that is measured, 0 for the first; `floor_version` the version below which a bundle
    is refused. `attempts` counts how often warming was begun since the order came: it is durable before the model is
    loaded, so that a model that kills the agent is given up.
    """

    model: str
    order: MeasureOrder
    answer: Measured
    form: int = 0
    floor_version: int = 0
    attempts: int = 0

    @property
    def over(self) -> bool:
        """Whether the order has been dealt with."""
        return self.answer.outcome is not None

    @property
    def working(self) -> bool:
        """Whether something is being done for it."""
        return self.answer.state is not S.IDLE

    def but(self, **changes: Any) -> Measuring:
        """The same with other fields."""
        return self.model_copy(update=changes)

    def saying(self, **changes: Any) -> Measuring:
        """The same with other fields of the answer."""
        return self.but(answer=self.answer.model_copy(update=changes))


Stepped = tuple[Measuring, tuple[Effect, ...]]


def asked(model: str, order: MeasureOrder) -> Measuring:
    """An order that has just come."""
    return Measuring(model=model, order=order, answer=Measured(token=order.token, digest=order.digest))


def after_boot(measuring: Measuring) -> Measuring:
    """What a boot makes of it: what was under way begins again when the controller's word has come."""
    return measuring if measuring.over else measuring.saying(state=S.IDLE)


def step(measuring: Measuring, event: Any) -> Stepped:
    """What becomes of a measurement when this happens, and what is to be done, in order."""
    handler = MEASURING.get(type(event), {}).get(measuring.answer.state)
    if handler is None or measuring.over or getattr(event, "digest", measuring.order.digest) != measuring.order.digest:
        return measuring, ()
    return handler(measuring, event)


def _idle(measuring: Measuring, event: BoardIdle) -> Stepped:
    order = measuring.order
    if event.known_bad:
        return _end(measuring, Outcome.REJECTED, Reason.KNOWN_BAD, f"{order.digest[:12]} failed on this device before")
    if measuring.attempts >= MAX_ATTEMPTS:
        detail = f"the agent died {measuring.attempts} times while it measured {order.digest[:12]}"
        return _end(measuring, Outcome.FAILED, Reason.CRASH_LOOP, detail)
    if _expired(measuring, event.now):
        return _late(measuring)
    begun = measuring.but(form=event.form, floor_version=event.floor_version).saying(state=S.DOWNLOADING)
    return begun, (Persist(), FetchManifest(order.digest), Report())


def _manifest(measuring: Measuring, event: ManifestReady) -> Stepped:
    if event.version < measuring.floor_version:
        detail = f"version {event.version} is older than the last committed version {measuring.floor_version}"
        return _end(measuring, Outcome.REJECTED, Reason.VERSION_TOO_OLD, detail)
    name = event.variants[measuring.form] if measuring.form < len(event.variants) else None
    return measuring.saying(variant=name), (FetchBlobs(event.digest),)


def _blobs(measuring: Measuring, event: BlobsReady) -> Stepped:
    return measuring.saying(state=S.VERIFYING), (Verify(event.digest), Report())


def _verified(measuring: Measuring, event: Verified) -> Stepped:
    return measuring.saying(state=S.STAGED), (AskTurn(event.digest), Report())


def _turn(measuring: Measuring, event: TurnCame) -> Stepped:
    after = measuring.but(attempts=measuring.attempts + 1).saying(state=S.WARMING)
    return after, (Persist(), Gauge(event.digest), Report())


def _gauged(measuring: Measuring, event: Gauged) -> Stepped:
    known = measuring.saying(runs=event.runs, accuracy=event.accuracy, items=event.items)
    return _end(known, Outcome.SUCCEEDED, None, None)


def _refused(measuring: Measuring, event: Refused) -> Stepped:
    return _end(measuring, Outcome.REJECTED, event.reason, event.detail)


def _failed(measuring: Measuring, event: DownloadFailed | HardStopped) -> Stepped:
    return _end(measuring, Outcome.FAILED, event.reason, event.detail)


def _busy(measuring: Measuring, _event: BoardBusy) -> Stepped:
    # It is stopped by us and has killed nobody: this attempt does not count.
    attempts = measuring.attempts - (measuring.answer.state is S.WARMING)
    return measuring.but(attempts=attempts).saying(state=S.IDLE), (StopWork(), Persist(), Report())


def _tick(measuring: Measuring, event: Ticked) -> Stepped:
    return _late(measuring) if _expired(measuring, event.now) else (measuring, ())


def _expired(measuring: Measuring, now: Now) -> bool:
    return now.wall_s >= measuring.order.expires_at


def _late(measuring: Measuring) -> Stepped:
    return _end(measuring, Outcome.TIMED_OUT, Reason.EXPIRED, "the order expired before the bundle was measured")


def _end(measuring: Measuring, outcome: Outcome, reason: Reason | None, detail: str | None) -> Stepped:
    after = measuring.saying(state=S.IDLE, outcome=outcome, reason=reason, detail=detail)
    return after, (StopWork(), Persist(), CollectGarbage(), Report())


Handler = Callable[[Measuring, Any], Stepped]
_UNDER_WAY = (S.DOWNLOADING, S.VERIFYING, S.STAGED, S.WARMING)

MEASURING: dict[type, dict[DeviceState, Handler]] = {
    BoardIdle: {S.IDLE: _idle},
    BoardBusy: dict.fromkeys(_UNDER_WAY, _busy),
    ManifestReady: {S.DOWNLOADING: _manifest},
    BlobsReady: {S.DOWNLOADING: _blobs},
    DownloadFailed: {S.DOWNLOADING: _failed, S.VERIFYING: _failed},
    Refused: {S.DOWNLOADING: _refused, S.VERIFYING: _refused},
    Verified: {S.VERIFYING: _verified},
    TurnCame: {S.STAGED: _turn},
    Gauged: {S.WARMING: _gauged},
    HardStopped: {S.STAGED: _failed, S.WARMING: _failed},
    Ticked: dict.fromkeys((S.IDLE, *_UNDER_WAY), _tick),
}
