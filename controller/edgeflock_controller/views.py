"""What is shown of bundles, devices and rollouts, as JSON values. Presentation only; nothing is decided from it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from edgeflock_controller.freezes import Freeze
from edgeflock_controller.policy_words.sentences import limits
from edgeflock_controller.registry import Bundle
from edgeflock_controller.twins import Device
from edgeflock_deploy.bundle import Manifest
from edgeflock_deploy.judge import sentences
from edgeflock_deploy.judge.evidence import Evidence
from edgeflock_deploy.messages.orders import Phase
from edgeflock_deploy.messages.reports import ReportedModel
from edgeflock_deploy.rollout.events import (
    Approved,
    DeviceSeen,
    Joined,
    ModelFrozen,
    ModelUnfrozen,
    RolloutEvent,
    Started,
    Superseded,
    WindowClosed,
)
from edgeflock_deploy.rollout.gates import stages_to_approve
from edgeflock_deploy.rollout.state import Rollout

Json = dict[str, Any]


def label(manifest: Manifest, form: str | None = None) -> str:
    """What people call a bundle, e.g. `digits@2 dynamic_wi8`; a form of it, e.g. `digits@2 float32 for dynamic_wi8`."""
    name = f"{manifest.model}@{manifest.version}"
    instead = f"{form} for " if form not in (None, manifest.variant) else ""
    return f"{name} {instead}{manifest.variant}"


def bundle_view(bundle: Bundle) -> Json:
    """A published bundle."""
    m = bundle.manifest
    provenance = {key: m.provenance.get(key) for key in ("accuracy", "agreement", "n_items")}
    return {
        "model": m.model,
        "version": m.version,
        "variant": m.variant,
        "digest": bundle.digest,
        "published_at": bundle.published_at,
        "raw_bytes": m.blobs["model"].bytes,
        "wire_bytes": m.blobs["model"].encoding.bytes,
        "ram_bytes": m.ram_bytes,
        "bundle_wire_bytes": m.wire_bytes,
        "modes": list(m.modes),
        "fallbacks": [
            {
                "variant": form.variant,
                "raw_bytes": form.blobs["model"].bytes,
                "wire_bytes": form.blobs["model"].encoding.bytes,
                "ram_bytes": form.ram_bytes,
                "modes": list(form.modes),
            }
            for form in m.fallbacks
        ],
        "limits": m.limits.model_dump(mode="json"),
        **provenance,
    }


def device_view(
    row: Device,
    said: Mapping[str, ReportedModel],
    name: Callable[[str | None, str | None], str | None],
    freeze: Freeze | None,
    *,
    hears: bool,
) -> Json:
    """A device and what it says it runs; `name` gives the label of a digest and the form of it that it is.

    While the service itself hears nobody, its presence is unknown; `online` is then what was known last.
    """
    models = {
        model: entry.model_dump(mode="json")
        | {"runs": name(entry.digest, entry.variant), "tries": name(entry.candidate, entry.candidate_variant)}
        for model, entry in said.items()
    }
    facts = {"id": row.device} | {key: value for key, value in row._asdict().items() if key != "device"}
    facts["presence"] = "unknown" if not hears else "online" if row.online else "offline"
    return facts | {"frozen": None if freeze is None else freeze._asdict(), "models": models}


def headline_view(rollout: Rollout) -> Json:
    """A rollout at one moment, without what there is of every single device."""
    whole = rollout.model_dump(mode="json", exclude={"evidence", "policy", "devices"})
    to_approve = stages_to_approve(rollout)
    return whole | {
        "policy": rollout.policy.name,
        "stages": [
            state | {"wants_approval": rules.approval or number in to_approve}
            for number, (state, rules) in enumerate(zip(whole["stages"], rollout.policy.stage, strict=True))
        ],
        "limits": [passage.text for passage in limits(rollout.policy)],
        "duration_s": None if rollout.ended_at is None else round(rollout.ended_at - rollout.started_at, 3),
        "devices_total": len(rollout.devices),
        "devices_reached": rollout.devices_reached,
        "devices_committed": rollout.devices_committed,
        "devices_waiting": rollout.devices_waiting,
        "trial": trial_view(rollout.evidence),
    }


def rollout_view(rollout: Rollout, evidence: bool = True) -> Json:
    """A rollout at one moment; the rows of evidence, many in a large fleet, may be left out."""
    whole = headline_view(rollout) | rollout.model_dump(mode="json", include={"devices"})
    if evidence and whole["verdict"] is not None:
        whole["verdict"]["evidence"] = evidence_view(rollout)
    return whole


def overtaken_view(rollout: Rollout, taken: Collection[str]) -> Json:
    """A rollout that ends for a newer one, which takes these devices: how many others go back for that."""
    others = [progress for device, progress in rollout.devices.items() if device not in taken]
    going_back = sum(progress.desired in (Phase.TRIAL, Phase.COMMIT) for progress in others)
    return {"rollout": rollout.id, "phase": rollout.phase.value, "going_back": going_back}


def evidence_view(rollout: Rollout) -> list[Json]:
    """What each device has shown of each metric so far: a row each."""
    return [row.model_dump(mode="json") for row in sentences.rows(rollout.evidence, rollout.policy)]


def trial_view(evidence: Evidence) -> Json:
    """What the evidence of a rollout was gathered from: pairs on applications' requests, replayed ones, and neither."""
    devices = evidence.devices.values()
    live = sum(own.live_pairs for own in devices)
    return {
        "windows": sum(own.windows for own in devices),
        "windows_unpaired": sum(own.unpaired for own in devices),
        "pairs_live": live,
        "pairs_replayed": sum(own.pairs for own in devices) - live,
    }


def event_in_words(event: RolloutEvent) -> str:
    """One line for an event."""
    if isinstance(event, Started):
        return f"{event.by} started it for {_devices(len(event.devices))}"
    if isinstance(event, DeviceSeen):
        parts = [event.device, "online" if event.online else "offline"]
        parts += [value.value for value in (event.state, event.outcome, event.reason) if value is not None]
        return " ".join(parts)
    if isinstance(event, WindowClosed):
        return f"{event.window.device} closed window {event.window.number}"
    if isinstance(event, Superseded):
        return f"{event.by_rollout} took over {_devices(len(event.taken))}"
    if isinstance(event, Joined):
        return f"{event.device.device} turned up"
    if isinstance(event, Approved):
        return f"{event.by} approved stage {event.stage + 1}"
    if isinstance(event, ModelFrozen | ModelUnfrozen):
        return f"{event.by} {'froze' if isinstance(event, ModelFrozen) else 'unfroze'} the model"
    if event.kind == "ticked":
        return "time passed"
    return f"{event.by} {event.kind} it"


def _devices(count: int) -> str:
    return f"{count} device{'' if count == 1 else 's'}"
