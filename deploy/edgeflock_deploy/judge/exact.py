"""Memory, which is read exactly and not bet on: who is beyond the fail margin, and whether that fails a fleet.

One device beyond it may be broken or lie, and is named; the second one fails the fleet (the first, in a stage of one).
What is bet on is not known here: a board that needs too much memory says nothing of what the others show.
"""

from __future__ import annotations

from typing import NamedTuple

from edgeflock_deploy.judge import sentences
from edgeflock_deploy.judge.evidence import Evidence
from edgeflock_deploy.policy.rules import Guardrail


class Beyond(NamedTuple):
    """Why the fleet FAILs by memory; or the one device that is beyond the margin, and why it is set aside."""

    failure: str | None = None
    alone: tuple[str, str] | None = None


def beyond_margin(evidence: Evidence, guardrail: Guardrail | None, must_show: int) -> Beyond:
    """Compare; `must_show` devices beyond the margin fail a fleet."""
    blamed = evidence.oversized
    if guardrail is None or not blamed:
        return _NOBODY
    if len(blamed) >= must_show:
        return Beyond(sentences.failed(evidence, guardrail, [*blamed], "compared exactly"))
    why = sentences.suspected(evidence, guardrail, blamed[0], "compared exactly")
    return Beyond(alone=(blamed[0], why))


_NOBODY = Beyond()
