"""One place for two variants of a model, on a board without memory for both: they exchange it, and requests wait.

Decided here: who answers while variants change places, and for how long an application waits. A request takes whoever
is in, if that one takes and gives what the incumbent does; else it waits, `WAIT_S` at most. What the candidate cannot
answer (an error, a crash, NaN) waits for the incumbent: no application sees a candidate's failure. When an exchange
takes place is decided elsewhere.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from edgeflock_agent.children.runner import Answer, Closed, HardStop, Inference, InferenceFailed
from edgeflock_agent.serving.endpoint import RawInputs, Serving
from edgeflock_agent.trial.likeness import same_inputs, same_outputs
from edgeflock_agent.trial.side import Inputs
from edgeflock_deploy.reasons import Reason

WAIT_S = 30.0  # a load takes seconds; an application that got no answer by then hears 503


class Differing(NamedTuple):
    """An application's request that a candidate could not answer, and what the incumbent answered."""

    candidate: str
    inputs: Inputs
    answer: Answer


class Seat:
    """The place. One thread exchanges; many ask.

    Args:
        incumbent: who is in, if anybody, and whose word counts.
        clock: monotonic seconds, the endpoint's.
        wait_s: how long a request waits from its arrival.
    """

    exchanges = True

    def __init__(
        self, incumbent: Serving | None, clock: Callable[[], float] = time.monotonic, wait_s: float = WAIT_S
    ) -> None:
        self._incumbent = incumbent.digest if incumbent is not None else None
        self._known = incumbent.process if incumbent is not None else None  # whose tensors applications know
        self._retired = False
        self._clock, self._wait_s = clock, wait_s
        self._changed = threading.Condition()
        self._in: Serving | None = incumbent
        self.stop: HardStop | None = None
        """Why the candidate must not run any longer, if an application's request has shown that."""
        self._doubt: tuple[str, Inputs] | None = None  # of which candidate, and what it could not answer

    @property
    def taken_by(self) -> Serving | None:
        """Who is in."""
        return self._in

    @property
    def recall(self) -> bool:
        """Whether the incumbent should come back at once: what the candidate could not answer waits for it."""
        return self.stop is not None or self._doubt is not None

    def settle(self) -> Differing | None:
        """Ask the incumbent, who is in again, what the candidate could not answer: if it can, the candidate must go.

        Returns:
            The request on which the two differ, if they do.

        Raises:
            HardStop: the incumbent crashed or hung.
            Closed: it is not there.
        """
        doubt, self._doubt = self._doubt, None
        if doubt is None or self.stop is not None or self._in is None:
            return None
        digest, inputs = doubt
        with contextlib.suppress(InferenceFailed):  # what nobody can answer was the application's doing
            result = self._in.process.infer_judged(inputs).result
            if result is not None:
                self.stop = HardStop(Reason.NAN_OUTPUT, "an application's request failed or gave NaN")
                return Differing(digest, inputs, result.answer)
        return None

    def vacate(self) -> None:
        """Take out who is in; its process ends after the request that it is answering."""
        with self._changed:
            out, self._in = self._in, None
        if out is not None:
            out.process.close()

    def hand_to(self, digest: str) -> Serving | None:
        """From now on this variant's word counts; gives who is in and is out with that, to be closed."""
        with self._changed:
            self._incumbent = digest
            out, self._in = self._in, None
        return out

    def retire(self) -> None:
        """Nobody else will come: what still waits asks whoever serves."""
        with self._changed:
            self._retired = True
            self._changed.notify_all()

    def put(self, serving: Serving) -> None:
        """Let a variant in."""
        with self._changed:
            self._in = serving
            self._changed.notify_all()

    def answer(self, inputs: RawInputs, arrived_s: float, only: str | None) -> tuple[Serving, Inference]:
        """See Turn.

        Raises:
            InferenceFailed: the incumbent refused the request.
            HardStop: the incumbent crashed or hung.
            Closed: nobody who may answer came in time.
        """
        until_s, failed = arrived_s + self._wait_s, False
        while True:
            serving = self._wait_for(self._incumbent if failed else only, until_s)
            try:
                if serving.digest != self._incumbent:
                    if (inference := self._by_candidate(serving, inputs)) is not None:
                        return serving, inference
                    failed = True
                else:
                    return serving, serving.process.infer(inputs)
            except Closed:
                with self._changed:
                    if self._in is serving:  # it ended by itself, and nobody took it out
                        self._in = None

    def incumbent(self, arrived_s: float) -> Serving:
        """See Turn; it is waited for.

        Raises:
            Closed: it did not come in time.
        """
        return self._wait_for(self._incumbent, arrived_s + self._wait_s)

    def _by_candidate(self, serving: Serving, inputs: RawInputs) -> Inference | None:
        try:
            judged = serving.process.infer_judged(inputs)
        except InferenceFailed:
            judged = None
        except HardStop as stop:
            self.stop = self.stop or stop
            return None
        if judged is not None and judged.result is not None:
            return judged.inference
        self._doubt = serving.digest, tuple(map(bytes, inputs))
        return None

    def _wait_for(self, only: str | None, until_s: float) -> Serving:
        with self._changed:
            while self._in is None or only not in (None, self._in.digest) or not self._fits(self._in):
                left_s = until_s - self._clock()
                if left_s <= 0 or self._retired:
                    raise Closed("no variant came back in time")
                self._changed.wait(min(left_s, 1.0))
            return self._in

    def _fits(self, serving: Serving) -> bool:
        known = self._known
        return known is None or (same_inputs(known, serving.process) and same_outputs(known, serving.process))
