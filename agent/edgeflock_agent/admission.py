"""Whether a bundle may be brought in here, by its manifest alone: it must be of the model and for the class of device.

Signature and digest were checked by whoever opened the manifest; what the model costs here is found out later. Pure.
"""

from __future__ import annotations

from edgeflock_agent.machine.events import ManifestReady, Refused
from edgeflock_deploy.bundle import Manifest
from edgeflock_deploy.reasons import Reason


def judged(manifest: Manifest, digest: str, model: str, device_class: str) -> ManifestReady | Refused:
    """What becomes of a bundle that was ordered for this model of a device of this class."""
    if manifest.model != model:
        detail = f"the bundle is of model '{manifest.model}', not '{model}'"
        return Refused(digest, Reason.MANIFEST_INVALID, detail)
    if manifest.device_classes is not None and device_class not in manifest.device_classes:
        detail = f"the bundle is for {', '.join(manifest.device_classes)}; this is {device_class}"
        return Refused(digest, Reason.NOT_ALLOWED_HERE, detail)
    return ManifestReady(digest, manifest.version, manifest.variants)
