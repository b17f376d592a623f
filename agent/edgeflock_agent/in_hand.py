"""What the agent has in hand, model by model: its state, what serves, who has a say in requests, what is worked on.

Written by the main loop only; the endpoint, the heartbeat and lanes look things up, so entries are replaced whole and
iterations go over copies. Nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from edgeflock_agent.children.runner import ModelProcess
from edgeflock_agent.machine.state import ModelState
from edgeflock_agent.serving.endpoint import Serving, Turn
from edgeflock_agent.storage.scrub import Target
from edgeflock_agent.storage.store import Store
from edgeflock_agent.work import Work
from edgeflock_deploy.messages.values import DeviceState


@dataclass
class InHand:
    """Everything by model.

    Attributes:
        models: where each stands.
        serving: what answers applications.
        turns: who else has a say in requests, while variants take turns.
        work: what is done for the candidate.
        loading: what is done to load a bundle of a slot.
    """

    models: dict[str, ModelState]
    serving: dict[str, Serving] = field(default_factory=dict)
    turns: dict[str, Turn] = field(default_factory=dict)
    work: dict[str, Work] = field(default_factory=dict)
    loading: dict[str, Work] = field(default_factory=dict)

    def exchanging(self, model: str) -> bool:
        """Whether two variants of a model take turns in one place: what serves may have no process for a moment."""
        turn = self.turns.get(model)
        return turn is not None and turn.exchanges

    def expected(self) -> list[str]:
        """The models that this device should be serving; called from the endpoint's threads."""
        states = list(self.models.items())
        return [model for model, state in states if state.slots.active is not None or state.mending is not None]

    def running(self) -> dict[str, str]:
        """What answers now, by model."""
        return {
            model: serving.digest
            for model, serving in self.serving.items()
            if serving.process.alive or self.exchanging(model)
        }

    def children(self) -> list[ModelProcess]:
        """The processes that should be there; called from the heartbeat's thread."""
        candidates = [work.child for work in list(self.work.values()) if work.child is not None]
        return [serving.process for serving in list(self.serving.values())] + candidates

    def all_work(self) -> list[Work]:
        """What is worked on, for candidates and for slots."""
        return [*self.work.values(), *self.loading.values()]

    def blobs(self, store: Store) -> Iterator[Target]:
        """Each blob of each bundle in a slot, in the form in hand."""
        for model, state in self.models.items():
            for digest in state.in_slots:
                for sha256 in store.needed_blobs(digest, state.form_of(digest)):
                    yield Target(model, digest, sha256)

    def rollouts_in_trial(self) -> set[str]:
        """The rollouts that wait for windows of this device."""
        return {
            state.desired.rollout
            for state in self.models.values()
            if state.state is DeviceState.TRIAL and state.desired is not None
        }
