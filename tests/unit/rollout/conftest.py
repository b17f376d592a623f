"""A fleet on paper: it feeds a rollout with what devices and operators would say, and keeps the journal."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.values import DeviceState, Outcome
from edgeflock_deploy.messages.windows import VariantWindow, Window
from edgeflock_deploy.policy.rules import Guardrail, Policy, Stage
from edgeflock_deploy.reasons import Reason
from edgeflock_deploy.rollout.draft import Move
from edgeflock_deploy.rollout.events import (
    Aborted,
    Approved,
    DeviceSeen,
    Joined,
    ModelFrozen,
    ModelUnfrozen,
    Paused,
    Resumed,
    RolloutEvent,
    SetDesired,
    Started,
    StartedDevice,
    Superseded,
    Ticked,
    WindowClosed,
)
from edgeflock_deploy.rollout.machine import work_out
from edgeflock_deploy.rollout.state import DeviceStatus, Rollout, RolloutPhase, StagePhase

OLD, NEW = "old-digest", "new-digest"


def make_window(device: str = "a", number: int = 0, **what: Any) -> Window:
    """A window of an equal candidate, but for `what`: ratio, p95_ratio, drop, rss_ratio, or fields of Window."""
    ratio, drop, rss = what.pop("ratio", 1.0), what.pop("drop", 0.0), what.pop("rss_ratio", 1.0)
    p95 = what.pop("p95_ratio", ratio)
    old = VariantWindow(n=130, latency_ms_p50=10, latency_ms_p95=20, accuracy=0.96, peak_rss_bytes=10_000_000)
    new = VariantWindow(
        n=130,
        latency_ms_p50=None if ratio is None else 10 * ratio,
        latency_ms_p95=None if p95 is None else 20 * p95,
        accuracy=None if drop is None else 0.96 - drop,
        peak_rss_bytes=None if rss is None else int(10_000_000 * rss),
    )
    fields: dict[str, Any] = {
        "device": device,
        "boot_id": "boot-1",
        "seq": number,
        "device_class": "pi",
        "rollout": "r1",
        "model": "digits",
        "number": number,
        "old_digest": OLD,
        "new_digest": NEW,
        "duration_s": 1.0,
        "pairs": 130,
        "old": old,
        "new": new,
        "agreement": 0.99,
    }
    return Window(**(fields | what))


def make_policy(
    *sizes: int | float,
    alpha: float = 0.05,
    max_in_trial: int | None = None,
    guardrails: Iterable[str] = ("latency_ms_p50",),
    min_windows: int = 1,
    max_windows: int = 60,
    stages: dict[int, dict[str, Any]] | None = None,
    **rules: Any,
) -> Policy:
    """A policy with stages of so many devices (int) or so much of the fleet (float, percent).

    `stages` sets fields of some of them, by index; `rules` of the policy, as in its file.
    """
    more = stages or {}
    built = []
    for index, size in enumerate(sizes or (100.0,)):
        fields: dict[str, Any] = {
            "devices": size if isinstance(size, int) else None,
            "percent": size if isinstance(size, float) else None,
            "min_windows": min_windows,
            "max_windows": max_windows,
            "deadline_s": 100,
        }
        built.append(Stage(**(fields | more.get(index, {}))))
    margins = {"accuracy": (0.01, 0.03), "agreement": (0.04, 0.07), "peak_rss_bytes": (0.20, 0.25)}
    rails = []
    for metric in guardrails:
        fail_margin, pass_margin = margins.get(metric, (0.05, 0.10))
        rails.append(Guardrail(metric=metric, fail_margin=fail_margin, pass_margin=pass_margin))
    named = {"name": "test", "alpha": alpha, "max_in_trial": max_in_trial, "stage": built, "guardrail": rails}
    return Policy.model_validate(named | rules)


class Fleet:
    """A rollout of `NEW` to devices that say what the test makes them say."""

    def __init__(
        self,
        policy: Policy,
        devices: str | dict[str, str] = "abcde",
        offline: Iterable[str] = (),
        current: Iterable[str] = (),
        mode: Any = "deploy",
        offsets: dict[str, int] | None = None,
        sites: dict[str, str] | None = None,
        frozen: Iterable[str] = (),
        empty: Iterable[str] = (),
        now: float = 1000.0,
        **started: Any,
    ) -> None:
        self.classes = devices if isinstance(devices, dict) else dict.fromkeys(devices, "pi")
        self.online = {device: device not in set(offline) for device in self.classes}
        self.offsets, self.sites = offsets or {}, sites or {}
        self.frozen = set(frozen)
        self.now = now
        self.journal: list[RolloutEvent] = []
        self.desired: dict[str, SetDesired] = {}
        self.moves: set[Move] = set()  # every phase and status that anything went from and to
        self.sent: list[SetDesired] = []
        self.numbers = dict.fromkeys(self.classes, 0)
        self.watch: Callable[[Rollout, tuple[SetDesired, ...]], None] | None = (
            None  # told of each step: before, effects
        )
        self._rollout: Rollout | None = None
        self._said: dict[str, tuple[SetDesired | None, dict[str, Any]]] = {}
        committed: dict[str, str | None] = dict.fromkeys(self.classes, OLD)
        committed |= dict.fromkeys(current, NEW) | dict.fromkeys(empty)
        entered = tuple(self._as_started(device, committed[device]) for device in self.classes)
        self.feed(
            Started(
                at=self.now,
                rollout="r1",
                mode=mode,
                model="digits",
                version=2,
                variant="small",
                digest=NEW if mode == "deploy" else None,
                selector="all",
                policy=policy,
                devices=entered,
                by="op",
                **started,
            )
        )

    def _as_started(self, device: str, committed: str | None) -> StartedDevice:
        return StartedDevice(
            device=device,
            device_class=self.classes[device],
            online=self.online[device],
            committed=committed,
            tags={"site": self.sites[device]} if device in self.sites else {},
            utc_offset_s=self.offsets.get(device),
            frozen=device in self.frozen,
        )

    @property
    def rollout(self) -> Rollout:
        assert self._rollout is not None
        return self._rollout

    def phase(self) -> RolloutPhase:
        return self.rollout.phase

    def stage(self, index: int) -> StagePhase:
        return self.rollout.stages[index].phase

    def status(self, device: str) -> DeviceStatus:
        return self.rollout.devices[device].status

    def feed(self, event: RolloutEvent) -> tuple[SetDesired, ...]:
        self.journal.append(event)
        before = self._rollout
        draft = work_out(before, event)
        self._rollout, effects = draft.rollout, tuple(draft.effects)
        self.moves.update(draft.moves)
        self.sent.extend(effects)
        for effect in effects:
            self.desired[effect.device] = effect
        if self.watch is not None and before is not None:
            self.watch(before, effects)
        return effects

    def asked(self, phase: Phase) -> list[str]:
        return sorted(device for device, desired in self.desired.items() if desired.phase is phase)

    def seen(self, device: str, state: DeviceState | None = None, **fields: Any) -> tuple[SetDesired, ...]:
        phase = self.desired[device].phase if device in self.desired and state is not None else None
        fields = {"digest": OLD, "state": state, "phase": phase} | fields
        self._said[device] = self.desired.get(device), fields
        return self._see(device, fields)

    def _see(self, device: str, fields: dict[str, Any]) -> tuple[SetDesired, ...]:
        event = DeviceSeen(
            at=self.now,
            device=device,
            device_class=self.classes[device],
            online=self.online[device],
            utc_offset_s=self.offsets.get(device),
            frozen=device in self.frozen,
            **fields,
        )
        return self.feed(event)

    def seen_again(self, device: str) -> tuple[SetDesired, ...]:
        """The service sees a change around the device, which has said nothing new: its last report stands."""
        order, fields = self._said.get(device, (None, {"digest": OLD}))
        if order is not self.desired.get(device):  # it answers an earlier order than the one that holds
            fields = fields | {"phase": None, "outcome": None, "reason": None, "detail": None}
        return self._see(device, fields)

    def trial(self, device: str) -> tuple[SetDesired, ...]:
        return self.seen(device, DeviceState.TRIAL)

    def commits(self, device: str, form: str | None = None) -> tuple[SetDesired, ...]:
        return self.seen(device, DeviceState.COMMITTED, digest=NEW, outcome=Outcome.SUCCEEDED, variant=form)

    def goes_back(self, device: str) -> tuple[SetDesired, ...]:
        return self.seen(device, DeviceState.ROLLED_BACK, outcome=Outcome.ROLLED_BACK)

    def fails(self, device: str, reason: Reason, **fields: Any) -> tuple[SetDesired, ...]:
        return self.seen(device, DeviceState.FAILED, **({"outcome": Outcome.FAILED, "reason": reason} | fields))

    def goes(self, device: str, online: bool) -> tuple[SetDesired, ...]:
        self.online[device] = online
        return self.seen_again(device)

    def freeze(self, device: str) -> tuple[SetDesired, ...]:
        self.frozen.add(device)
        return self.seen_again(device)

    def unfreeze(self, device: str) -> tuple[SetDesired, ...]:
        self.frozen.discard(device)
        return self.seen_again(device)

    def joins(self, device: str, device_class: str = "pi", committed: str | None = OLD) -> tuple[SetDesired, ...]:
        self.classes[device], self.online[device] = device_class, True
        self.numbers.setdefault(device, 0)
        return self.feed(Joined(at=self.now, device=self._as_started(device, committed)))

    def window(self, device: str, **what: Any) -> tuple[SetDesired, ...]:
        self.numbers[device] += 1
        what = {"device_class": self.classes[device]} | what
        return self.feed(WindowClosed(at=self.now, window=make_window(device, self.numbers[device], **what)))

    def windows(self, device: str, n: int, **what: Any) -> None:
        for _ in range(n):
            self.window(device, **what)

    def tick(self, seconds: float) -> tuple[SetDesired, ...]:
        self.now += seconds
        return self.feed(Ticked(at=self.now))

    def proves(self, device: str, form: str | None = None) -> None:
        """The device goes through a harmless trial and commits, as this form of the bundle."""
        self.trial(device)
        self.windows(device, 13)
        self.commits(device, form)

    def pause(self) -> tuple[SetDesired, ...]:
        return self.feed(Paused(at=self.now, by="op"))

    def resume(self) -> tuple[SetDesired, ...]:
        return self.feed(Resumed(at=self.now, by="op"))

    def approve(self, stage: int) -> tuple[SetDesired, ...]:
        return self.feed(Approved(at=self.now, by="boss", stage=stage))

    def freeze_model(self, why: str = "") -> tuple[SetDesired, ...]:
        return self.feed(ModelFrozen(at=self.now, by="boss", why=why))

    def unfreeze_model(self) -> tuple[SetDesired, ...]:
        return self.feed(ModelUnfrozen(at=self.now, by="boss"))

    def abort(self, mode: Any) -> tuple[SetDesired, ...]:
        return self.feed(Aborted(at=self.now, by="op", mode=mode))

    def supersede(self, taken: Iterable[str]) -> tuple[SetDesired, ...]:
        return self.feed(Superseded(at=self.now, by_rollout="r2", taken=tuple(taken)))


@pytest.fixture
def window() -> Callable[..., Window]:
    return make_window


@pytest.fixture
def policy() -> Callable[..., Policy]:
    return make_policy


@pytest.fixture
def fleet() -> Callable[..., Fleet]:
    return Fleet
