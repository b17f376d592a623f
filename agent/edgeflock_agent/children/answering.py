"""One inference as an application asks for it: processing before and after, its sequence's state, and the times.

Decided here: what is timed. `latency_ms` is the interpreter's call alone, `pre_ms` and `post_ms` what is done to bring
the application's tensors in and the answer out, `end_to_end_ms` all from the request's bytes to the answer's. Used by
the child for every model that is not simply its file's tensors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeflock_agent.children.interpreters import Interpreters
from edgeflock_agent.children.random_inputs import RandomInputs
from edgeflock_agent.children.sequences import Asked, Fed
from edgeflock_agent.children.view import View
from edgeflock_deploy.errors import Untrusted
from edgeflock_deploy.operators import State
from edgeflock_deploy.reasons import Reason
from edgeflock_deploy.runtime import LoadedModel, TensorInfo

Array = NDArray[Any]
Told = dict[str, Any]
Reply = tuple[dict[str, Any], list[bytes]]
OF_OUR_OWN = {"key": "", "start": True, "end": True}  # a sequence of one, which leaves nothing behind


def as_it_is(model: LoadedModel) -> Told:
    """The view of a file that no manifest speaks of: its own tensors."""

    def tensors(infos: Sequence[TensorInfo]) -> list[Told]:
        return [
            {"name": i.name, "dtype": i.dtype, "shape": list(i.shape), "limit": None, "of": place, "steps": []}
            for place, i in enumerate(infos)
        ]

    inputs, outputs = tensors(model.inputs), tensors(model.outputs)
    return {"inputs": inputs, "outputs": outputs, "state": [], "max_batch": 1}


class Answering:
    """Answers an application's requests, one item each.

    Args:
        told: see `manifest_view.told`.
        labels: UTF-8 lines.
        interpreters: the model's.
        run: runs the interpreter that serves on an item, and gives the milliseconds of its call.
        remarks: what else is told, for a request and what the model's inputs and outputs held.

    Raises:
        Untrusted: MANIFEST_INVALID; what is told does not fit the model.
    """

    def __init__(
        self,
        told: Told,
        labels: bytes,
        interpreters: Interpreters,
        run: Callable[[tuple[Array, ...]], float],
        remarks: Callable[[Told, Sequence[Array], Sequence[Array]], Told],
    ) -> None:
        model = interpreters.model
        self.view, self._told = View(told, labels, model), told
        self._interpreters, self._run, self._remarks = interpreters, run, remarks
        pairs = [(output, place) for output, place in told["state"]]
        if any(not (0 <= o < len(model.outputs) and 0 <= i < len(model.inputs)) for o, i in pairs):
            raise Untrusted(Reason.MANIFEST_INVALID, "the manifest pairs a state that the model does not have")
        if sorted([*self.view.fed, *(place for _, place in pairs)]) != list(range(len(model.inputs))):
            raise Untrusted(Reason.MANIFEST_INVALID, "the manifest does not feed each input of the model once")
        self._fed = Fed(pairs, model) if pairs else None

    @property
    def takes_sequences(self) -> bool:
        """Whether an inference may depend on the ones before it."""
        return self._fed is not None or self._interpreters.inside is not None

    @property
    def stateful(self) -> bool:
        """Whether one does that speaks of no sequence."""
        return self._fed is not None or self._interpreters.state is State.RESOURCES

    @property
    def told_of_model(self) -> Told:
        """What the parent must know of the model beside what applications see of it."""
        first = int(np.prod(self._interpreters.model.outputs[0].shape))
        processed = any(one["steps"] for side in ("inputs", "outputs") for one in self._told[side])
        kept = {"takes_sequences": self.takes_sequences, "stateful": self.stateful}
        return kept | {"first_values": first, "processed": processed}

    @property
    def is_simple(self) -> bool:
        """Whether an application's bytes are the file's, input by input and output by output, each of one size."""
        view, model = self.view, self._interpreters.model
        fixed = all(-1 not in one["shape"][1:] for one in view.inputs)
        in_order = [one["of"] for one in view.outputs] == list(range(len(model.outputs)))
        return (
            fixed
            and in_order
            and not self.takes_sequences
            and all((*view.plain, *view.plain_out))
            and view.fed == list(range(len(model.inputs)))
        )

    def infer(self, header: Told, payload: bytes | bytearray | memoryview) -> Reply:
        """Answer one request.

        Raises:
            ValueError: a step cannot take the item, or its sequence cannot go on.
            InputMismatch: the model cannot take it.
            RuntimeError: the runtime's own.
        """
        begun = time.perf_counter_ns()
        if header.get("sequence") is None and self._interpreters.state is State.TENSORS:
            # A recurrent layer's own tensors: the model as it was trained sees each item by itself.
            with self._interpreters.apart():
                self._interpreters.forget()
                return self._once(begun, header, payload, None)
        return self._once(begun, header, payload, Asked(**(header.get("sequence") or {})))

    def _once(
        self,
        begun: int,
        header: Told,
        payload: bytes | bytearray | memoryview,
        asked: Asked | None,
    ) -> Reply:
        """Answer one item; `asked` None: it stands alone."""
        held = self.view.held(self.view.read(memoryview(payload), header["shapes"]))
        fed, restarted = self._enter(asked)
        for place, array in zip(self.view.fed, held, strict=True):
            fed[place] = array
        ready = time.perf_counter_ns()
        item = tuple(fed[place] for place in range(len(fed)))
        latency_ms = self._run(item)
        done = time.perf_counter_ns()
        outputs = self._interpreters.model.outputs_now()
        self._leave(asked, outputs)
        answer = self.view.answer(outputs)
        ended = time.perf_counter_ns()
        times = {"pre_ms": (ready - begun) / 1e6, "post_ms": (ended - done) / 1e6}
        reply = {"latency_ms": latency_ms, "end_to_end_ms": (ended - begun) / 1e6, "shapes": answer.shapes} | times
        reply |= self._remarks(header, item, outputs)
        lengths = [len(output) for output in answer.outputs]
        return reply | {"lengths": lengths, "sequence_restarted": restarted}, answer.outputs

    def as_asked(self, held: Sequence[Array], drawn: RandomInputs) -> tuple[Told, bytes]:
        """A request for an item of our own, as an application would send it; see `View.from_held`."""
        seen = self.view.from_held(held, drawn)
        header = {"shapes": [array.shape for array in seen], "sequence": OF_OUR_OWN if self.takes_sequences else None}
        return header, b"".join(array.tobytes() for array in seen)

    def _enter(self, asked: Asked | None) -> tuple[dict[int, Array], bool]:
        if asked is not None and self._fed is not None:
            state, restarted = self._fed.enter(asked)
            return dict(state), restarted
        if asked is not None and self._interpreters.inside is not None:
            return {}, self._interpreters.inside.enter(asked)
        return {}, False

    def _leave(self, asked: Asked | None, outputs: Sequence[Array]) -> None:
        if asked is not None and self._fed is not None:
            self._fed.leave(asked, outputs)
        if asked is not None and self._interpreters.inside is not None:
            self._interpreters.inside.leave(asked)
