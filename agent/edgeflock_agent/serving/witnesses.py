"""Several witnesses of answered requests as one. Each is told on the request's own thread, in turn."""

from __future__ import annotations

import logging

from edgeflock_agent.serving.endpoint import Answered, Witness

log = logging.getLogger(__name__)


def each_of(*witnesses: Witness) -> Witness:
    """A witness that tells each of these; the failure of one costs neither the others nor the application anything."""

    def tell(answered: Answered) -> None:
        for witness in witnesses:
            try:
                witness(answered)
            except Exception:
                log.exception("a witness of model '%s' failed", answered.model)

    return tell
