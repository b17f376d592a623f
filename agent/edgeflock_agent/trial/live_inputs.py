"""What applications ask while a trial runs: a share of their inputs, kept for its pairs. The endpoint's witness.

Decided here: how many are kept. An input is kept with the probability that the trial's settings name; the newest ones
stay, within `MAX_BYTES` and `MAX_INPUTS` per model. Nothing is kept, and nothing copied, while no trial runs: a request
then costs one look into an empty table. Called on the applications' own threads, hence quick.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from edgeflock_agent.serving.endpoint import Answered
from edgeflock_agent.trial.side import Inputs

MAX_BYTES = 4 << 20  # some images; a board that tries a candidate carries two models already
MAX_INPUTS = 256


@dataclass(eq=False)
class _Kept:
    """The inputs of one model."""

    digest: str
    share: float
    over: Callable[[], bool]
    inputs: deque[Inputs] = field(default_factory=deque)
    nbytes: int = 0


class LiveInputs:
    """The kept inputs, by model.

    Args:
        rng: draws which inputs are kept.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng, self._lock = rng, threading.Lock()
        self._models: dict[str, _Kept] = {}

    def keep(self, model: str, digest: str, share: float, over: Callable[[], bool]) -> None:
        """Keep a share of what this model's incumbent is asked, until `over` says true; again and again is harmless."""
        with self._lock:
            kept = self._models.get(model)
            if kept is None or kept.over() or (kept.digest, kept.share) != (digest, share):
                self._models[model] = _Kept(digest, share, over)

    def __call__(self, answered: Answered) -> None:
        """See a request that was answered."""
        kept = self._models.get(answered.model)
        if kept is None or not answered.plain or answered.by.digest != kept.digest or self._rng.random() >= kept.share:
            return
        if kept.over():
            self.drop_over()
            return
        nbytes = sum(map(len, answered.inputs))
        if nbytes > MAX_BYTES:
            return
        copied = tuple(map(bytes, answered.inputs))
        with self._lock:
            kept.inputs.append(copied)
            kept.nbytes += nbytes
            while kept.nbytes > MAX_BYTES or len(kept.inputs) > MAX_INPUTS:
                kept.nbytes -= sum(map(len, kept.inputs.popleft()))

    def take(self, model: str) -> Inputs | None:
        """The oldest kept input of a model, which is kept no longer; None if there is none."""
        with self._lock:
            kept = self._models.get(model)
            if kept is None or not kept.inputs:
                return None
            inputs = kept.inputs.popleft()
            kept.nbytes -= sum(map(len, inputs))
            return inputs

    def drop_over(self) -> None:
        """Forget what was kept for trials that are over."""
        with self._lock:
            for model in [model for model, kept in self._models.items() if kept.over()]:
                del self._models[model]
