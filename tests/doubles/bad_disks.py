"""Disks that fill up or fail in the middle of a board's life, and the law for it.

The law: the agent does not die of it; what served goes on serving; the reason is reported; the record and what it names
stay whole; and when the disk is well again, the same order succeeds.
"""

from __future__ import annotations

import errno
from pathlib import Path

from power_cuts import check_end
from recording_disk import FailingDisk, UnsyncedDisk
from update_story import MODEL, WILL_SERVE, Headquarters, PlayedAgent, World

from edgeflock_agent.storage.record import RecordFile
from edgeflock_agent.storage.store import Store
from edgeflock_deploy.messages.reports import ReportedModel
from edgeflock_deploy.messages.values import Outcome
from edgeflock_deploy.reasons import Reason

REASONS = {errno.ENOSPC: Reason.DISK_FULL, errno.EIO: Reason.DISK_ERROR, errno.EROFS: Reason.DISK_ERROR}


class BadDisk(AssertionError):
    """A board took a bad disk otherwise than the law says."""


def live_on_a_bad_disk(world: World, folder: Path, first: int, number: int, *, failures: int = 1) -> list[Reason]:
    """Live the story on a disk that fails from its nth operation on, until so many orders have failed of it.

    Returns:
        What was reported.

    Raises:
        BadDisk: otherwise than the law says.
    """
    folder.mkdir(parents=True)
    disk = FailingDisk(folder, first, number)
    headquarters = Headquarters(world)
    agent = PlayedAgent(folder / "state", disk, headquarters)
    reasons: list[Reason] = []
    followed: list[str | None] = [None]  # what served after each order that was followed

    def answered(heard: ReportedModel) -> None:
        at = headquarters.generation
        if heard.outcome is not Outcome.FAILED:
            followed.append(heard.digest)
            return
        _law(heard.reason is REASONS[number], f"{heard.reason} was reported: {heard.detail}")
        _law(heard.digest == followed[-1], f"{heard.digest} serves, before it was {followed[-1]}")
        _check_record(world, folder / "state", heard)
        reasons.append(REASONS[number])
        disk.mended = len(reasons) >= failures
        # the same order once more
        headquarters.story = (*headquarters.story[:at], *headquarters.story[at - 1 :])

    headquarters.on_answer = answered
    agent.live_on()
    expected = world.digests[WILL_SERVE[-1]]
    _law(headquarters.said[-1].digest == expected, "the last order was not followed")
    again = PlayedAgent(folder / "state", UnsyncedDisk(), headquarters)
    again.live_on()
    check_end(world, folder / "state", again)
    return reasons


def _check_record(world: World, state: Path, heard: ReportedModel) -> None:
    found = RecordFile(state, UnsyncedDisk()).read()
    recorded = found.models.get(MODEL) if found is not None else None
    if recorded is None:
        return
    store = Store(state, UnsyncedDisk())
    for digest in (recorded.slots.active, recorded.slots.previous, recorded.slots.factory):
        _law(digest is None or store.intact(digest, world.trust) is not None, "a bundle of the record is not whole")


def _law(holds: bool, otherwise: str) -> None:
    if not holds:
        raise BadDisk(otherwise)
