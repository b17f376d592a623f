"""What an operator does about the fleet besides rollouts: tags, freezes, and reading who did what.

Each method is one command, run on the core's thread in one transaction, and entered there into the audit log.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from edgeflock_controller.audit import Act, Kind
from edgeflock_controller.core import Core
from edgeflock_controller.freezes import Freeze, FreezeKind
from edgeflock_controller.naming import check_model, device_named, existing, selected
from edgeflock_controller.twins import Device
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.rollout.events import ModelFrozen, ModelUnfrozen
from edgeflock_deploy.tags import MOST, check_key, parse_tags

Json = dict[str, Any]


class Upkeep:
    """The operator's commands about devices and models as such.

    Args:
        core: the service's core, on whose thread they run.
        find_rollout: the whole id of a rollout that a person named.
    """

    def __init__(self, core: Core, find_rollout: Callable[[str], str]) -> None:
        self._core = core
        self._store = core.store
        self._clock = core.clock
        self._find_rollout = find_rollout

    def tag(self, selector: str, tags: Mapping[str, str], remove: Collection[str], by: str) -> Json:
        """Give tags to the devices that the selector matches, and take others away.

        Returns:
            {"devices": those that match, "changed": those whose tags are others now}

        Raises:
            BadInput: nothing is asked for, a tag cannot be one, or what is to go is the board's own or on no device.
        """
        tags = parse_tags(f"{key}={value}" for key, value in tags.items())
        if not tags and not remove:
            raise BadInput("tags", "are missing", "write KEY=VALUE, or --remove KEY")
        both = sorted(tags.keys() & set(remove))
        if both:
            raise BadInput(f"tag {both[0]}", "is to be given and removed", "choose one")
        devices = selected(self._store, selector)
        self._check_removable(devices, [check_key(key) for key in remove])
        for device, row in devices.items():
            if len((row.tags.keys() | tags.keys()) - set(remove)) > MOST:
                raise BadInput(f"device {device}", f"would carry more than {MOST} tags", "remove some with --remove")
            self._store.tags.give(device, tags)
            self._store.tags.take(device, remove)
            self._core.show(device)
        changed = [device for device, row in devices.items() if device_named(self._store, device).tags != row.tags]
        words = [*(f"{key}={value}" for key, value in tags.items()), *(f"--remove {key}" for key in remove)]
        result = f"changed {len(changed)} of {len(devices)}"
        self._note(Act(by, "tag", f"{' '.join(words)} to {selector}", {"device": devices}), result)
        return {"devices": list(devices), "changed": changed}

    def freeze(self, kind: FreezeKind, name: str, reason: str, by: str) -> Json:
        """Have a device get nothing new, or no rollout start for a model, until it is unfrozen.

        Raises:
            BadInput: there is no such thing, or no reason is given.
        """
        if not reason.strip():
            raise BadInput("--reason", "is empty", "say why, for who finds it frozen")
        if kind == "device":
            device_named(self._store, name)
        else:
            check_model(self._store, name)
        before = self._store.freezes.of(kind, name)
        self._store.freezes.put(Freeze(kind, name, reason.strip(), by, self._clock()))
        self._let_rollouts_know(kind, name, ModelFrozen(at=self._clock(), by=by, why=reason.strip()))
        self._note(Act(by, "freeze", f"{kind} {name}: {reason.strip()}", {kind: [name]}), "frozen")
        return {
            "kind": kind,
            "name": name,
            "frozen": True,
            "changed": before is None or before.reason != reason.strip(),
        }

    def unfreeze(self, kind: FreezeKind, name: str, by: str) -> Json:
        """Lift a freeze.

        Raises:
            BadInput: it is not frozen.
        """
        if self._store.freezes.of(kind, name) is None:
            frozen = [freeze.name for freeze in self._store.freezes.all() if freeze.kind == kind]
            raise BadInput(f"{kind} {name!r}", "is not frozen", existing(f"frozen {kind}s", frozen))
        self._store.freezes.lift(kind, name)
        self._let_rollouts_know(kind, name, ModelUnfrozen(at=self._clock(), by=by))
        self._note(Act(by, "unfreeze", f"{kind} {name}", {kind: [name]}), "unfrozen")
        return {"kind": kind, "name": name, "frozen": False, "changed": True}

    def freezes(self) -> list[Json]:
        """Everything frozen."""
        return [freeze._asdict() for freeze in self._store.freezes.all()]

    def audit(self, limit: int, rollout: str | None, device: str | None, model: str | None) -> list[Json]:
        """The newest entries of the audit log, oldest first: all, or those that concern what is named.

        Raises:
            BadInput: there is no such rollout.
        """
        about: dict[Kind, str] = {}
        if rollout is not None:
            about["rollout"] = self._find_rollout(rollout)
        if device is not None:
            about["device"] = device
        if model is not None:
            about["model"] = model
        return self._store.audit.newest(limit, about)

    def refused(self, act: Act, error: BadInput) -> None:
        """Enter a command that was refused, under the whole id of a rollout that it named by the beginning of one."""
        about: dict[Kind, Iterable[str]] = dict(act.about)
        with contextlib.suppress(BadInput):
            about["rollout"] = [self._find_rollout(name) for name in act.about.get("rollout", ())]
        self._note(act._replace(about=about), f"refused: {error}")

    def _let_rollouts_know(self, kind: FreezeKind, name: str, event: ModelFrozen | ModelUnfrozen) -> None:
        if kind == "device":
            self._core.show(name)
            return
        for rollout in [one.id for one in self._core.rollouts.live().values() if one.model == name]:
            self._core.rollouts.apply(rollout, event)

    def _note(self, act: Act, result: str) -> None:
        self._store.audit.append(act, self._clock(), result)

    def _check_removable(self, devices: Mapping[str, Device], remove: Collection[str]) -> None:
        given = {device: self._store.tags.of(device) for device in devices}
        for key in remove:
            if any(key in own for own in given.values()):
                continue
            if any(key in row.tags_declared for row in devices.values()):
                mend = "give it another value here, or start the agent without --tag"
                raise BadInput(f"tag {key}", "is declared by the board itself", mend)
            there = sorted({one for own in given.values() for one in own})
            raise BadInput(f"tag {key}", "is on none of these devices", existing("tags there", there))
