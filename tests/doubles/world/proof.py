"""What a PASS must rest on, by an outsider's own arithmetic over the windows that went over the wire.

A device passes by windows of its own, of the class that it is of now, paired, and with data for every guardrail; and
betting has a speed limit: however well a candidate does, so many windows it takes to prove it at the policy's alpha.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from edgeflock_deploy.policy.rules import Policy

_BETS = (0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9)
_FIELDS = {"latency_ms_p95": "latency_ms_p95", "accuracy": "accuracy", "peak_rss_bytes": "peak_rss_bytes"}


class Heard(NamedTuple):
    """A window as it went over the wire: whose, of which bundle, and which metrics both of its sides gave."""

    device_class: str
    digest: str
    metrics: frozenset[str]


def heard(said: dict[str, Any]) -> Heard:
    """Read a window's message."""
    sides = (said["old"], said["new"])
    paired = said.get("paired", True)
    given = {name for name, field in _FIELDS.items() if paired and all(side.get(field) is not None for side in sides)}
    return Heard(said["device_class"], said["new_digest"], frozenset(given))


def least_windows(alpha: float) -> int:
    """In how few windows the best of all candidates can be proved harmless."""
    windows = 1
    while sum((1 + bet) ** windows for bet in _BETS) / len(_BETS) < 1 / alpha:
        windows += 1
    return windows


def lacking(windows: Iterable[Heard], device_class: str | None, policy: Policy) -> str | None:
    """What a PASS lacks that was given on these windows of a rollout; None: nothing that can be seen from outside."""
    own = [window for window in windows if window.device_class == device_class]
    least = max(least_windows(policy.alpha), *(stage.min_windows for stage in policy.stage))
    if len(own) < least:
        return f"{len(own)} windows of its own, {least} are wanted"
    for guardrail in policy.guardrail:
        wanted = 1 if guardrail.metric == "peak_rss_bytes" else least
        with_it = sum(guardrail.metric in window.metrics for window in own)
        if with_it < wanted:
            return f"{with_it} windows of its own with data for {guardrail.metric}, {wanted} are wanted"
    return None
