"""What may be offered to whom: not what a device's runtime would compute wrongly, nor what all would refuse as too old.

Decided here: the refusal, before anything is sent, and its words. Which runtime runs what stands in `capabilities`. Not
judged are devices that have not said their runtime, and bundles that do not say their modes; behind that stands each
device's own check of golden answers, which also passes over a form that its runtime computes wrongly: a bundle of
several is refused only where none of them is right. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from edgeflock_compression.quantization.capabilities import why_not
from edgeflock_controller.twins import Device
from edgeflock_deploy.bundle import Manifest
from edgeflock_deploy.errors import BadInput

_NAMED = 3  # of each list; the rest is counted


def check_offer(manifest: Manifest, devices: Sequence[Device], selector: str, published: Iterable[Manifest]) -> None:
    """Refuse to offer a variant to devices that cannot run it rightly.

    Args:
        manifest: of the variant.
        devices: the ones that the selector matches.
        selector: the operator's words for them.
        published: what there is of the same model.

    Raises:
        BadInput: naming the devices, the mode, their runtime and why; and what to deploy instead, or to whom.
    """
    runtimes = {device.runtime for device in devices if device.runtime}
    wrong = {runtime: why for runtime in sorted(runtimes) if (why := _why_none(manifest, runtime))}
    if not wrong:
        return
    said = [f"{_some(_on(devices, runtime))} ({why})" for runtime, why in wrong.items()]
    others = [one for one in published if one.version == manifest.version and one.modes]
    fit = [one.variant for one in others if not any(_why_none(one, runtime) for runtime in runtimes)]
    raise BadInput(
        f"variant {manifest.variant!r} of {manifest.model}@{manifest.version}",
        f"would not run rightly on {_some(said)}",
        f"{_instead(fit)}, or {_narrower(selector, devices, wrong)}",
    )


def check_version(manifest: Manifest, committed: Collection[int | None]) -> None:
    """Refuse to offer what no device would take: each has committed a newer version, and only a rollback undoes that.

    Args:
        manifest: of the variant.
        committed: the version that each device has committed of the same model; None: none, or one that is not known.

    Raises:
        BadInput: with what to do instead.
    """
    newer = {version for version in committed if version is not None and version > manifest.version}
    if not newer or any(version not in newer for version in committed):
        return
    raise BadInput(
        f"version {manifest.version} of {manifest.model}",
        f"would be refused by every device that is meant: they have committed version {max(newer)}",
        f"`edgeflock rollback {manifest.model}` takes them back to what they had; or publish it under a newer version",
    )


def _why_none(manifest: Manifest, runtime: str) -> str | None:
    """Why none of a bundle's forms is right on a runtime; None: one is, or is not judged."""
    whys = [why_not(form.modes, runtime) for form in manifest.forms]
    return "; ".join(dict.fromkeys(why for why in whys if why)) if all(whys) else None


def _on(devices: Iterable[Device], runtime: str) -> list[str]:
    return [device.device for device in devices if device.runtime == runtime]


def _instead(variants: Sequence[str]) -> str:
    if not variants:
        return "publish a variant in another mode, such as static_wi8_ai8"
    return f"deploy a variant that all of them can run: {_some(variants)}"


def _narrower(selector: str, devices: Iterable[Device], wrong: Iterable[str]) -> str:
    """To whom the variant may go, as a selector: the classes of which every device that was meant can run it."""
    meant = {device.device_class for device in devices}
    barred = {device.device_class for device in devices if device.runtime in wrong}
    fine = sorted(meant - barred)
    return f"narrow it: --to '{selector} and class={','.join(fine)}'" if fine else "leave these devices out"


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
