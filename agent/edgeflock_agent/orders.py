"""The controller's word, believed or dropped: it must be signed by a pinned controller key and name this device."""

from __future__ import annotations

import logging

from pydantic import ValidationError

from edgeflock_deploy.errors import Untrusted
from edgeflock_deploy.keys import Trust, open_envelope
from edgeflock_deploy.messages.orders import Desired

log = logging.getLogger(__name__)


def open_order(payload: bytes, trust: Trust, device: str) -> Desired | None:
    """What this device is to run, by the controller's word; None for anything else, which is logged and dropped."""
    if not payload:
        return None
    try:
        desired = Desired.model_validate_json(open_envelope(payload, trust, "controller"))
    except (Untrusted, ValidationError) as error:
        log.warning("dropped a word that is not the controller's: %s", str(error).splitlines()[0])
        return None
    if desired.device != device:
        log.warning("dropped a word for device %s", desired.device)
        return None
    return desired
