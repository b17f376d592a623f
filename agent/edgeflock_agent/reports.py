"""What the device says of itself, as messages: presence, the twin's `reported`, events and windows.

Known here: how the agent's values become messages, and their sequence numbers. Not known: when they
are due.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

from edgeflock_agent.device import Identity
from edgeflock_agent.machine import forms
from edgeflock_agent.machine.state import ModelState
from edgeflock_agent.outbox import Outbox, Sender
from edgeflock_agent.sent_again import SentAgain
from edgeflock_agent.storage.download import Traffic
from edgeflock_agent.trial.window import WindowSides
from edgeflock_deploy import topics
from edgeflock_deploy.messages.measurements import Conditions, Measurement
from edgeflock_deploy.messages.reports import AgentEvent, CapturePiece, Measured, Presence, Reported, ReportedModel
from edgeflock_deploy.messages.windows import VariantWindow, Window
from edgeflock_deploy.messages.wire import encode
from edgeflock_deploy.reasons import Reason

_LATENCIES = ("n", "latency_ms_p50", "latency_ms_p90", "latency_ms_p95", "end_to_end_ms_p50", "end_to_end_ms_p95")


def last_will(device: str, boot_id: str) -> tuple[str, bytes]:
    """Topic and payload that the broker publishes when this agent is gone without a word."""
    return topics.up(device, "presence"), encode(Presence(device=device, boot_id=boot_id, seq=0, online=False))


class Reporter:
    """Sends this device's messages, in order, each with the next sequence number of this boot."""

    def __init__(
        self,
        link: Sender,
        outbox: Outbox,
        identity: Identity,
        traffic: Traffic,
        free_bytes: Callable[[], int],
        beat_s: float = 10.0,
    ) -> None:
        self._link, self._outbox, self._identity = link, outbox, identity
        self._device, self._boot_id = identity.device, identity.boot_id
        self._traffic, self._free_bytes, self._beat_s = traffic, free_bytes, beat_s
        self._seq = 0
        self._windows: dict[str, int] = {}
        self._restarts: dict[str, set[float]] = {}  # of the incumbent that were told, or were before, by rollout
        self._sent = SentAgain()
        self.endpoint: str | None = None
        self.nan_answers: Callable[[], int] = lambda: 0
        self.utc_offset_s: Callable[[], int | None] = lambda: None

    def presence(self, online: bool) -> None:
        """Say that the device is here, or that it goes."""
        message = Presence(device=self._device, boot_id=self._boot_id, seq=self._next(), online=online)
        self._link.publish(topics.up(self._device, "presence"), encode(message), retain=True)

    def reported(
        self,
        models: Mapping[str, ModelState],
        running: Mapping[str, str],
        measured: Mapping[str, Measured] = MappingProxyType({}),
    ) -> None:
        """Say what runs, and what was measured; `running` are the digests that really answer, by model."""
        message = Reported(
            device=self._device,
            boot_id=self._boot_id,
            seq=self._next(),
            device_class=self._identity.device_class,
            runtime=self._identity.runtime,
            free_bytes=self._free_bytes(),
            beat_s=self._beat_s,
            endpoint=self.endpoint,
            bytes_received=self._traffic.bytes_received,
            windows_dropped=self._outbox.dropped["window"],
            events_dropped=self._outbox.dropped["event"],
            nan_answers=self.nan_answers(),
            tags=dict(self._identity.tags),
            utc_offset_s=self.utc_offset_s(),
            models={name: reported_model(state, running.get(name)) for name, state in models.items()},
            measured=dict(measured),
        )
        self._link.publish(topics.up(self._device, "reported"), encode(message), retain=True)

    def transition(self, before: ModelState, after: ModelState, at: float) -> None:
        """Say that a model's state changed; `at` in seconds since 1970."""
        why = forms.gave_way(before, after) or after
        message = AgentEvent(
            device=self._device,
            boot_id=self._boot_id,
            seq=self._next(),
            model=after.model,
            rollout=after.desired.rollout if after.desired is not None else None,
            before=before.state,
            after=after.state,
            reason=why.reason,
            detail=why.detail,
            at=at,
        )
        payload = encode(message)
        self._sent.event(payload)
        self._outbox.send("event", payload)

    def window(self, state: ModelState, rollout: str, old_digest: str, new_digest: str, sides: WindowSides) -> None:
        """Send a window. Numbers count per rollout from 0 in this boot, so a replayed window is known by its key."""
        number = self._windows.get(rollout, 0)
        self._windows[rollout] = number + 1
        # A candidate whose process ends is stopped hard, so that only the incumbent's restarts are to be counted here.
        restarted = len(set(state.restarts_s) - self._restarts.get(rollout, set(state.restarts_s)))
        self._restarts[rollout] = set(state.restarts_s)
        message = Window(
            device=self._device,
            boot_id=self._boot_id,
            seq=self._next(),
            device_class=self._identity.device_class,
            rollout=rollout,
            model=state.model,
            number=number,
            old_digest=old_digest,
            new_digest=new_digest,
            duration_s=sides.duration_s,
            pairs=sides.pairs,
            old=_with_memory(sides.old, _measured(state, old_digest)).model_copy(update={"crashes": restarted}),
            new=_with_memory(sides.new, _measured(state, new_digest)),
            agreement=sides.agreement,
            paired=sides.paired,
            mode=sides.mode,
            live_pairs=sides.live_pairs,
            conditions=_labelled(sides.conditions, self._identity),
        )
        payload = encode(message)
        self._sent.window(rollout, payload)
        self._outbox.send("window", payload)

    def send_again(self, running: Collection[str]) -> None:
        """Send late events and the running rollouts' windows again; the controller knows by their keys what it has."""
        for payload in self._sent.events():
            self._link.publish(topics.up(self._device, "event"), payload)
        for payload in self._sent.windows(running):
            self._link.publish(topics.up(self._device, "window"), payload)

    def forget_windows(self, running: Collection[str]) -> None:
        """Drop the windows of rollouts that are over on this device."""
        self._sent.forget(running)

    def capture(self, model: str, token: str, number: int, pieces: int, data: str, refused: str | None) -> None:
        """Send a piece of the inputs that the board keeps; see `CapturePiece`."""
        message = CapturePiece(
            device=self._device,
            boot_id=self._boot_id,
            seq=self._next(),
            model=model,
            token=token,
            number=number,
            pieces=pieces,
            data=data,
            refused=refused,
        )
        self._link.publish(topics.up(self._device, "capture"), encode(message))

    def _next(self) -> int:
        self._seq += 1
        return self._seq


def reported_model(state: ModelState, running: str | None) -> ReportedModel:
    """How a model stands, for the controller; `running` is the digest that really answers."""
    entry = state.desired
    ordered = state.bundles.get(state.candidate or (entry.digest if entry is not None else None) or "")
    return ReportedModel(
        digest=running,
        generation=entry.generation if entry is not None else 0,
        rollout=entry.rollout if entry is not None else None,
        state=state.state,
        candidate=state.candidate,
        outcome=state.outcome,
        reason=state.reason,
        detail=state.detail,
        slots=state.slots,
        measurement=_measured(state, state.candidate or "") or _measured(state, running or ""),
        variant=_variant(state, running),
        candidate_variant=_variant(state, state.candidate),
        tried=ordered.tried if ordered is not None else (),
    )


def _variant(state: ModelState, digest: str | None) -> str | None:
    facts = state.bundles.get(digest or "")
    return facts.variant if facts is not None else None


def _measured(state: ModelState, digest: str) -> Measurement | None:
    facts = state.bundles.get(digest)
    return facts.measurement if facts is not None else None


def _labelled(conditions: Conditions, identity: Identity) -> Conditions:
    # Found out where it was measured, or said by whoever started the agent.
    return conditions.model_copy(update={"emulated": conditions.emulated or identity.emulated})


def _with_memory(side: VariantWindow, measurement: Measurement | None) -> VariantWindow:
    if measurement is None:
        return side
    # Peak memory was taken in a fresh process at warming; a process that serves would show a lesser number.
    known: dict[str, int | float | None] = {"peak_rss_bytes": measurement.peak_rss_bytes}
    if not side.n and not side.errors:  # it did not run in this window: what it once took stands in
        known |= {name: getattr(measurement, name) for name in _LATENCIES}
    return side.model_copy(update=known)


def in_words(before: ModelState, after: ModelState) -> str:
    """One line for the log: what changed, for which bundle and rollout, and why."""
    digest = after.candidate or after.slots.active or before.candidate
    words = [f"{after.model}: {before.state.value} -> {after.state.value}"]
    if digest is not None:
        words.append(f"bundle {digest[:12]}")
    if after.desired is not None:
        words.append(f"rollout {after.desired.rollout}")
    if after.outcome is not None:
        words.append(after.outcome.value)
    why = forms.gave_way(before, after) or after
    if why.reason is not None:
        words.append(f"{why.reason.value}: {why.detail}")
    return ", ".join(words)


def stopped(model: str, digest: str, reason: Reason, detail: str) -> tuple[str, dict[str, str]]:
    """What served ended, or did not load: a line for the log, and its fields for programs."""
    fields = {"model": model, "digest": digest, "reason": reason.value}
    return f"{model}: bundle {digest[:12]} stopped: {reason.value}: {detail}", fields


def in_fields(before: ModelState, after: ModelState) -> dict[str, str | None]:
    """The same for a log that is read by programs."""
    return {
        "model": after.model,
        "before": before.state.value,
        "after": after.state.value,
        "digest": after.candidate or after.slots.active or before.candidate,
        "rollout": after.desired.rollout if after.desired is not None else None,
        "outcome": after.outcome.value if after.outcome is not None else None,
        "reason": after.reason.value if after.reason is not None else None,
    }
