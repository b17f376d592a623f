"""Whether what lies on the disk is whole: every bundle in a slot at boot, and one blob after the other all the while.

When the next blob is due stands in `storage.scrub`, what follows from damage in `machine`. On the agent's main loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeflock_agent.machine.events import Event, Ticked
from edgeflock_agent.machine.state import BakedBundle, ModelState
from edgeflock_agent.work import Work
from edgeflock_deploy.keys import Trust

if TYPE_CHECKING:
    from edgeflock_agent.agent import Agent
    from edgeflock_agent.storage.store import Store


def whole_bundles(state: ModelState, image: BakedBundle | None, store: Store, trust: Trust) -> frozenset[str]:
    """Which bundles in a model's slots, and of the board's image, have all their files as they were signed."""

    def is_whole(digest: str) -> bool:
        from_image = image is not None and image.digest == digest and digest not in state.bundles
        form = image.form if image is not None and from_image else state.form_of(digest)
        return store.intact(digest, trust, form) is not None

    held = (*state.in_slots, *((image.digest,) if image is not None else ()))
    return frozenset(digest for digest in held if is_whole(digest))


def look(agent: Agent) -> None:
    """Have the next blob looked at, if one is due."""
    target = agent.scrub.due(agent.now().mono_s, lambda: agent.hand.blobs(agent.store))
    if target is None:
        return
    needed_by = frozenset(one.digest for one in agent.hand.blobs(agent.store) if one.sha256 == target.sha256)

    def job(work: Work) -> Event:
        try:
            return agent.jobs.look_at(work, target.sha256, needed_by) or Ticked(agent.now())
        finally:
            agent.scrub.done()

    agent.begin(agent.delivery, Work(target.model, target.digest), job, lambda *_: Ticked(agent.now()))
