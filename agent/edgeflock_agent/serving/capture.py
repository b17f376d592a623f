"""Which inputs of applications are kept on the board: those of low confidence, and those on which two variants differ.

Off unless the board's owner turns it on: inputs may be pictures of people. Decided here: what is worth keeping, and how
often at most, so that a bad model does not wear out the flash: per model and reason one in `every_s` seconds. Told on
the threads of requests: those copy an input that is kept and go on, a thread of its own writes. Where the bytes lie
stands in `storage.ring`, what they mean in `storage.captured`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from edgeflock_agent.children.runner import Answer, Tensor
from edgeflock_agent.children.tensors import Shape, batch_of
from edgeflock_agent.lane import Lane
from edgeflock_agent.machine.state import Now
from edgeflock_agent.serving.endpoint import Answered, Serving
from edgeflock_agent.storage.disk import DiskFull
from edgeflock_agent.storage.ring import Ring
from edgeflock_deploy.captured import About, Captured, KeptTensor, Why

_MOST_WAITING = 4  # inputs in memory that a slow disk has not taken yet

Data = bytes | bytearray | memoryview

log = logging.getLogger(__name__)


class Capture:
    """Keeps inputs; `stop` it at the end.

    Args:
        ring: where they are kept.
        below: an answer of a lower confidence is worth keeping.
        every_s: of each model and reason one is kept in so many seconds, at most.
        now: both clocks.
        may_be_sent: whether headquarters may fetch what is kept.
    """

    def __init__(
        self, ring: Ring, *, below: float, every_s: float, now: Callable[[], Now], may_be_sent: bool = False
    ) -> None:
        self.may_be_sent = may_be_sent
        self._ring, self._below, self._every_s, self._now = ring, below, every_s, now
        self._lock = threading.Lock()
        self._next_s: dict[tuple[str, Why], float] = {}
        self._waiting = 0
        self._in_trouble = False
        self._lane = Lane("capture")

    def answered(self, answered: Answered) -> None:
        """A witness of answered requests: keeps what the variant was not sure of."""
        confidence = answered.inference.confidence
        if confidence is None or confidence >= self._below or self._too_soon(answered.model, Why.LOW_CONFIDENCE):
            return
        about = About(
            model=answered.model,
            digest=answered.by.digest,
            at_s=self._now().wall_s,
            why=Why.LOW_CONFIDENCE,
            confidence=confidence,
            inputs=_described(answered.by.process.inputs, answered.inputs, answered.shapes),
        )
        self._keep(about, answered.inputs)

    def disagreed(
        self, model: str, inputs: Sequence[Data], old: Serving, new_digest: str, answers: tuple[Answer, Answer | None]
    ) -> None:
        """Incumbent and candidate said different things of an application's input.

        Args:
            model: its name.
            inputs: raw bytes, in the model's order.
            old: the incumbent.
            new_digest: the candidate.
            answers: of the two; None for a candidate that gave none.
        """
        if self._too_soon(model, Why.DISAGREEMENT):
            return
        about = About(
            model=model,
            digest=old.digest,
            at_s=self._now().wall_s,
            why=Why.DISAGREEMENT,
            candidate=new_digest,
            answer=answers[0],
            candidate_answer=answers[1],
            inputs=_described(old.process.inputs, inputs),
        )
        self._keep(about, inputs)

    def stop(self) -> None:
        """Write what waits, and end."""
        self._lane.stop(2.0)

    def _too_soon(self, model: str, why: Why) -> bool:
        return self._now().mono_s < self._next_s.get((model, why), 0.0)

    def _keep(self, about: About, inputs: Sequence[Data]) -> None:
        key, now_s = (about.model, about.why), self._now().mono_s
        with self._lock:
            if now_s < self._next_s.get(key, 0.0) or self._waiting >= _MOST_WAITING:
                return
            self._next_s[key] = now_s + self._every_s
            if sum(map(len, inputs)) > self._ring.most_bytes:
                return
            self._waiting += 1
        kept = Captured(about, tuple(map(bytes, inputs)))
        self._lane.submit(lambda: self._write(kept))

    def _write(self, kept: Captured) -> None:
        try:
            trouble = None if self._ring.add(kept.as_bytes()) else "no room is left for it"
        except (DiskFull, OSError) as error:
            trouble = str(error)
        finally:
            with self._lock:
                self._waiting -= 1
        if trouble is not None and not self._in_trouble:  # said once, not for every input
            log.warning("%s: an input is not kept: %s", kept.about.model, trouble)
        self._in_trouble = trouble is not None


def _described(
    tensors: Sequence[Tensor], data: Sequence[Data], shapes: Sequence[Shape] | None = None
) -> tuple[KeptTensor, ...]:
    given, _ = batch_of(tensors, data, shapes)  # a tensor may leave sizes open
    return tuple(
        KeptTensor(name=tensor.name, dtype=tensor.dtype, shape=shape, bytes=len(piece))
        for tensor, shape, piece in zip(tensors, given, data, strict=True)
    )
