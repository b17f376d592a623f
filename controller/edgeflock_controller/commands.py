"""What an operator can ask of the service: each method is one command, run on the core's thread in one transaction.

Names that are unknown are refused with the ones that exist. What a rollout does afterwards is not decided here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from edgeflock_controller import views
from edgeflock_controller.audit import Act, Kind
from edgeflock_controller.choosing import AUTO, Choosing
from edgeflock_controller.core import Core
from edgeflock_controller.entrants import entrant
from edgeflock_controller.explanation import Case
from edgeflock_controller.foresight import Foresight
from edgeflock_controller.naming import check_model, check_policy, device_named, existing, selected
from edgeflock_controller.offers import check_offer, check_version
from edgeflock_controller.registry import Bundle
from edgeflock_controller.twins import Device
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.policy.rules import Policy, Stage
from edgeflock_deploy.rollout.events import Aborted, Approved, Paused, Resumed, RolloutEvent, Started
from edgeflock_deploy.rollout.gates import stages_to_approve
from edgeflock_deploy.rollout.state import RolloutPhase

Json = dict[str, Any]
Wish = Literal["pause", "resume", "abort"]
SOMEBODY = "somebody"  # a client that does not say who it is


class Commands:
    """The operator's commands.

    Args:
        core: the service's core, on whose thread they run.
        new_suffix: four letters that keep a rollout's id apart from those of a store that was lost.
    """

    def __init__(self, core: Core, new_suffix: Callable[[], str]) -> None:
        self._core = core
        self._store = core.store
        self._rollouts = core.rollouts
        self._clock = core.clock
        self._new_suffix = new_suffix
        self.choosing = Choosing(core, self._start, self._new_id, new_suffix, functools.partial(entrant, core.store))
        self.foresight = Foresight(core, self.choosing, self.offered)

    def register(self, bundle: Bundle, by: str = SOMEBODY) -> Json:
        """Take a bundle in whose signature and containers have been checked.

        Raises:
            BadInput: this model, version and variant is taken by other content.
        """
        m = bundle.manifest
        if m.variant == AUTO:
            raise BadInput(f"variant {AUTO!r}", "means the variant per class", "give it another name")
        if self._store.registry.bundle(bundle.digest) is not None:
            return {"digest": bundle.digest, "registered": False}
        for other in self._store.registry.bundles(m.model):
            if (other.manifest.version, other.manifest.variant) == (m.version, m.variant):
                raise BadInput(
                    f"{m.model}@{m.version} {m.variant}", "is published with other content", "give a new --version"
                )
        self._store.registry.add_bundle(bundle)
        self._note(by, "publish", f"{views.label(m)} ({bundle.digest[:12]})", "published", {"model": [m.model]})
        return {"digest": bundle.digest, "registered": True}

    def bundles(self) -> list[Json]:
        """What is published."""
        return [views.bundle_view(bundle) for bundle in self._store.registry.bundles()]

    def manifests(self, model: str) -> list[Json]:
        """The manifests of a model with their digests, by version and variant; none if the model is unknown."""
        bundles = self._store.registry.bundles(model)
        return [{"digest": bundle.digest, **bundle.manifest.model_dump(mode="json")} for bundle in bundles]

    def devices(self) -> list[Json]:
        """All devices."""
        return [self._device_view(row) for row in self._store.twins.devices().values()]

    def device(self, device: str) -> Json:
        """One device, with what it was last told and its last steps.

        Raises:
            BadInput: no such device.
        """
        row = device_named(self._store, device)
        desired = self._store.twins.desired(device)
        events = self._store.telemetry.events_of(device)
        return self._device_view(row) | {
            "desired": {model: entry.model_dump(mode="json") for model, entry in desired.items()},
            "events": [event.model_dump(mode="json") for event in events],
        }

    def want_captures(self, device: str, model: str, by: str = SOMEBODY) -> Json:
        """Ask a device for the inputs that it has kept of a model.

        Raises:
            BadInput: no such device, or it was never told to run this model.
        """
        device_named(self._store, device)
        models = self._store.twins.desired(device)
        if model not in models:
            raise BadInput(f"model {model!r}", f"does not run on {device}", existing("models there", models))
        asked = int(self._store.get_meta("capture askings") or 0) + 1
        self._store.set_meta("capture askings", str(asked))
        self._store.captures.want(device, model, f"c{asked}-{self._new_suffix()}")
        self._core.tell(device)
        about: dict[Kind, list[str]] = {"device": [device], "model": [model]}
        self._note(by, "captures", f"inputs of {model} on {device}", "asked for", about)
        return self.captures(device, model)

    def captures(self, device: str, model: str) -> Json:
        """How far the newest asking for a device's kept inputs has come.

        Raises:
            BadInput: nobody asked.
        """
        asking = self._store.captures.asking(device, model)
        if asking is None:
            raise BadInput(f"inputs of {model} on {device}", "were not asked for", "use `edgeflock captures`")
        return asking

    def deploy(
        self,
        model: str,
        version: int | None,
        variant: str,
        selector: str,
        policy: Policy,
        by: str,
        start_at: float | None = None,
    ) -> Json:
        """Start a rollout of a variant to the devices that the selector matches now; it asks nobody before `start_at`.

        Raises:
            BadInput: unknown model, version, variant, device, class or tag, no device matches, the model is frozen, or
                a runtime is in the way.
        """
        bundle, devices = self.offered(model, version, variant, selector)
        check_policy(self._store, policy)
        started = Started(
            at=self._clock(),
            rollout=self._new_id(),
            model=model,
            version=bundle.manifest.version,
            variant=variant,
            digest=bundle.digest,
            selector=selector,
            policy=policy,
            devices=tuple(
                entrant(self._store, row, self._store.twins.committed(row.device, model)) for row in devices.values()
            ),
            by=by,
            start_at=start_at,
            bundle_bytes=bundle.manifest.wire_bytes,
        )
        return self._start(started, "deploy", f"{views.label(bundle.manifest)} to {selector}, policy {policy.name}")

    def offered(self, model: str, version: int | None, variant: str, selector: str) -> tuple[Bundle, dict[str, Device]]:
        """What a deployment of a variant would bring to whom.

        Raises:
            BadInput: see `deploy`.
        """
        bundle = self._resolve(model, version, variant)
        freeze = self._store.freezes.of("model", model)
        if freeze is not None:
            raise BadInput(f"model {model}", str(freeze), f"`edgeflock unfreeze model {model}` when that is over")
        devices = selected(self._store, selector)
        published = [one.manifest for one in self._store.registry.bundles(model)]
        check_offer(bundle.manifest, list(devices.values()), selector, published)
        check_version(bundle.manifest, [self._committed_version(device, model) for device in devices])
        return bundle, devices

    def rollback(self, model: str, selector: str, by: str) -> Json:
        """Take each device back to the bundle that it had committed before; says which have none.

        Raises:
            BadInput: unknown model, device or class, or no device matches.
        """
        check_model(self._store, model)
        devices = selected(self._store, selector).items()
        back = {name: (row, self._store.twins.committed_before(name, model)) for name, row in devices}
        without = sorted(name for name, (_, digest) in back.items() if digest is None)
        going = tuple(entrant(self._store, row, digest) for row, digest in back.values() if digest is not None)
        if not going:
            return {"rollout": None, "without_previous": without}
        started = Started(
            at=self._clock(),
            rollout=self._new_id(),
            mode="rollback",
            model=model,
            version=0,
            variant="previous",
            digest=None,
            selector=selector,
            policy=Policy(name="rollback", stage=(Stage(percent=100),)),
            devices=going,
            by=by,
        )
        rollout = self._start(started, "rollback", f"{model} back to the previous on {selector}")
        return {"rollout": rollout, "without_previous": without}

    def rollouts(self) -> list[Json]:
        """All rollouts, oldest first, without what there is of every single device."""
        live = self._rollouts.live()
        return [
            views.headline_view(live[one["id"]]) if one["id"] in live else one
            for one in self._store.journal.summaries()
        ]

    def rollout(self, name: str) -> Json:
        """One rollout, by its id or an unambiguous beginning of it.

        Raises:
            BadInput: no such rollout, or several.
        """
        return self.case(name).view()

    def why(self, name: str, at: float | None = None, everything: bool = False) -> Json:
        """What a rollout decided and from what, computed anew from its journal.

        Raises:
            BadInput: no such rollout, or several, or nothing had happened to it at that time.
        """
        return self.case(name).why(at, everything)

    def case(self, name: str) -> Case:
        """One rollout as it is now, to be shown or explained; that may take long, and needs not this thread.

        Raises:
            BadInput: no such rollout, or several.
        """
        rollout: str = self._find(name)["id"]
        found = self._rollouts.case(rollout)
        assert found is not None, "a rollout that has a name has a journal"
        return Case(self._store, found, self._store.telemetry.count_windows(rollout))

    def steer(self, name: str, wish: Wish, by: str, keep: bool = False) -> Json:
        """Hold a rollout, let it go on, or end it.

        Raises:
            BadInput: no such rollout, or it has ended.
        """
        summary = self._live(name)
        at = self._clock()
        events: dict[str, RolloutEvent] = {
            "pause": Paused(at=at, by=by),
            "resume": Resumed(at=at, by=by, choices=self.choosing.chosen_since(self._rollouts.live()[summary["id"]])),
            "abort": Aborted(at=at, by=by, mode="keep" if keep else "revert"),
        }
        how = f" --{'keep' if keep else 'revert'}" if wish == "abort" else ""
        return self._steered(summary["id"], events[wish], by, wish, how)

    def approve(self, name: str, stage: int | None, by: str) -> Json:
        """Let a stage begin that wants approval.

        Args:
            name: the rollout's id, or an unambiguous beginning of it.
            stage: which one, from 1; None: the one that the rollout waits for.
            by: who approves.

        Raises:
            BadInput: no such rollout, it has ended, it does not wait, or the stage wants no approval.
        """
        rollout = self._rollouts.live()[self._live(name)["id"]]
        wanting = [index + 1 for index in stages_to_approve(rollout)]
        ahead = f"the stages that want one are {', '.join(map(str, wanting))}: name one with --stage"
        if stage is None and rollout.phase is not RolloutPhase.WAITING_FOR_APPROVAL:
            mend = ahead if wanting else "see `edgeflock rollouts show`"
            raise BadInput(f"rollout {rollout.id}", f"waits for no approval (it is {rollout.phase.value})", mend)
        number = rollout.stage + 1 if stage is None else stage
        if number not in wanting:
            raise BadInput(f"stage {number} of {rollout.id}", "wants no approval", ahead if wanting else "none does")
        event = Approved(at=self._clock(), by=by, stage=number - 1)
        return self._steered(rollout.id, event, by, "approve", f", stage {number}")

    def dead_letters(self) -> list[Json]:
        """The newest messages that could not be read."""
        return self._store.telemetry.dead_letters()

    def status(self) -> Json:
        """How many of everything there are, and how many chunk payload bytes this service has published."""
        devices = self._store.twins.devices().values()
        return {
            "devices": len(devices),
            "devices_online": sum(row.online for row in devices),
            "bundles": len(self._store.registry.bundles()),
            "rollouts_running": len(self._rollouts.live()),
            "dead_letters": self._store.telemetry.count_dead_letters(),
            "broker_connected": self._core.link.connected,
            "deaf_since": self._core.deaf_since,
            "chunk_bytes_published": self._core.chunk_bytes_published,
        }

    def _device_view(self, row: Device) -> Json:
        freeze = self._store.freezes.of("device", row.device)
        hears = self._core.deaf_since is None
        return views.device_view(row, self._store.twins.said(row.device), self._label, freeze, hears=hears)

    def _label(self, digest: str | None, form: str | None) -> str | None:
        bundle = self._store.registry.bundle(digest) if digest else None
        return None if bundle is None else views.label(bundle.manifest, form)

    def _committed_version(self, device: str, model: str) -> int | None:
        digest = self._store.twins.committed(device, model)
        bundle = None if digest is None else self._store.registry.bundle(digest)
        return None if bundle is None else bundle.manifest.version

    def _new_id(self) -> str:
        return f"r{self._store.journal.count_rollouts() + 1}-{self._new_suffix()}"

    def _find(self, name: str) -> Json:
        summaries = {summary["id"]: summary for summary in self._store.journal.summaries()}
        found = [one for one in summaries if one == name or one.split("-")[0] == name] or [
            one for one in summaries if name and one.startswith(name)
        ]
        if len(found) != 1:
            wrong = f"could be {', '.join(found)}" if found else "is unknown"
            raise BadInput(f"rollout {name!r}", wrong, existing("rollouts", summaries))
        return summaries[found[0]]

    def _live(self, name: str) -> Json:
        summary = self._find(name)
        if summary["id"] not in self._rollouts.live():
            raise BadInput(f"rollout {summary['id']}", f"has ended ({summary['phase']})", "start another one")
        return summary

    def _steered(self, rollout: str, event: RolloutEvent, by: str, action: str, how: str) -> Json:
        changed = self._rollouts.apply(rollout, event)
        after = self._rollouts.live()[rollout]
        about: dict[Kind, list[str]] = {"rollout": [rollout], "model": [after.model]}
        self._note(by, action, f"{rollout}{how}", after.phase.value if changed else "changed nothing", about)
        return views.rollout_view(after) | {"changed": changed}

    def _start(self, started: Started, action: str, detail: str) -> Json:
        devices = [device.device for device in started.devices]
        overtaken = [views.overtaken_view(*one) for one in self._rollouts.overtaken(started.model, devices)]
        rollout = views.rollout_view(self._rollouts.start(started)) | {"overtakes": overtaken}
        campaign = started.choice.campaign if started.choice is not None else None
        self._core.campaigns.overtaken(started.model, started.rollout, campaign, started.at)
        names = [one["rollout"] for one in overtaken]
        rollouts = [started.rollout, *names]
        about: dict[Kind, list[str]] = {"rollout": rollouts, "model": [started.model], "device": devices}
        ended = f", which ended {', '.join(names)}" if names else ""
        self._note(started.by, action, detail, f"started {started.rollout}{ended}", about)
        return rollout

    def _note(self, by: str, action: str, detail: str, result: str, about: Mapping[Kind, Iterable[str]]) -> None:
        self._store.audit.append(Act(by, action, detail, about), self._clock(), result)

    def _resolve(self, model: str, version: int | None, variant: str) -> Bundle:
        check_model(self._store, model)
        bundles = self._store.registry.bundles(model)
        versions = {bundle.manifest.version: None for bundle in bundles}
        if version is not None and version not in versions:
            raise BadInput(f"{model}@{version}", "is not published", existing("versions", map(str, versions)))
        fitting = [b for b in bundles if b.manifest.variant == variant and version in (None, b.manifest.version)]
        if not fitting:
            chosen = max(versions) if version is None else version
            variants = [b.manifest.variant for b in bundles if b.manifest.version == chosen]
            raise BadInput(f"variant {variant!r} of {model}", "is not published", existing("variants", variants))
        return fitting[-1]
