"""How fast devices are asked: so many a minute in the whole rollout, so many bytes a second for a site.

Two leaky buckets, kept as the time from which they have room again, so that time going by changes no state. Devices:
one at a time, each `60 / devices_per_minute` seconds after the last; at more than one a second, a second's worth at
once, because the machine is told the time about once a second. Bytes: a device costs its bundle's bytes, which its site
must have let through before the next device there is asked. What is counted is the asking: what a device fetches when
it wakes after the end of a rollout is not (nobody knows when that will be).
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from edgeflock_deploy.messages.values import Frozen
from edgeflock_deploy.policy.limits import Rate


class Pace(Frozen):
    """From when the next device may be asked, in seconds since 1970: by the rollout, and by its site."""

    devices_at: float = 0.0
    sites_at: Mapping[str, float] = Field(default_factory=dict)


def is_free(pace: Pace, rate: Rate, at: float) -> bool:
    """Whether any device at all may be asked now."""
    return rate.devices_per_minute is None or _over(pace.devices_at, 60 / rate.devices_per_minute, at)


def site_is_free(pace: Pace, rate: Rate, site: str, n_bytes: int, at: float) -> bool:
    """Whether a device of this site may be asked now, the whole rollout aside; it would fetch so many bytes."""
    return rate.site_bytes_per_s is None or _over(pace.sites_at.get(site, 0.0), n_bytes / rate.site_bytes_per_s, at)


def spent(pace: Pace, rate: Rate, site: str, n_bytes: int, at: float) -> Pace:
    """The pace after a device of this site was asked, which fetches so many bytes."""
    devices_at, sites_at = pace.devices_at, pace.sites_at
    if rate.devices_per_minute is not None:
        # Time that went by unused is kept for one second at most.
        gap_s = 60 / rate.devices_per_minute
        unused_from = at if gap_s >= 1 else at - 1 + gap_s
        devices_at = max(devices_at, unused_from) + gap_s
    if rate.site_bytes_per_s is not None and n_bytes:
        sites_at = {**sites_at, site: at + n_bytes / rate.site_bytes_per_s}
    if (devices_at, sites_at) == (pace.devices_at, pace.sites_at):
        return pace
    return Pace.model_construct(devices_at=devices_at, sites_at=sites_at)


def _over(free_at: float, takes_s: float, at: float) -> bool:
    # Nobody is made to wait longer than one device takes: further ahead it lies only if the clock was set back since.
    return free_at <= at or free_at > at + takes_s
