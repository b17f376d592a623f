"""Who serves a model, what came of an application's request, and whose turn it is to answer the next.

Decided here: what a trial may have a say in, which is only who answers. It knows no slots, no rollouts and no HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, MutableMapping
from typing import NamedTuple, Protocol

from edgeflock_agent.children.runner import Inference, ModelProcess
from edgeflock_agent.children.tensors import Shape


class Serving(NamedTuple):
    """The variant that serves a model: its bundle's digest, its child, and which form of the bundle it is, if known."""

    digest: str
    process: ModelProcess
    variant: str | None = None


RawInputs = tuple[bytes | bytearray | memoryview, ...]


class Answered(NamedTuple):
    """An application's request that was answered: the model, the raw inputs in the model's order, and what came.

    `shapes` are the inputs', None where the model leaves none open. `plain`: one item that stands alone, whose bytes
    say all there is to say; a trial looks at no other.
    """

    model: str
    inputs: RawInputs
    by: Serving
    inference: Inference
    shapes: tuple[Shape, ...] | None = None
    plain: bool = True


class Turn(Protocol):
    """A trial's say in who answers the requests for one model."""

    exchanges: bool
    """Whether two variants take turns in one place: who serves may have no process for a moment, and requests wait."""

    def answer(self, inputs: RawInputs, arrived_s: float, only: str | None) -> tuple[Serving, Inference] | None:
        """Answer a request; None leaves it to whoever serves.

        Args:
            inputs: raw tensors that fit what serves, in its order.
            arrived_s: when the request came (monotonic).
            only: the one digest that may answer; None: any.

        Raises:
            InferenceFailed: the runtime refused it.
            HardStop, Closed: who should answer is gone.
        """

    def incumbent(self, arrived_s: float) -> Serving | None:
        """Who answers what no trial can compare (batches, sequences): the incumbent; None leaves it to whoever serves.

        Raises:
            Closed: it did not come in time.
        """

    def retire(self) -> None:
        """The trial has no say any more: requests that wait ask whoever serves."""


ServingNow = Callable[[str], Serving | None]
ExpectedNow = Callable[[], Collection[str]]
Witness = Callable[[Answered], None]
Refused = Callable[[str, Serving], None]
Turns = Callable[[str], Turn | None]
MayLend = Callable[[str, Serving], bool]


def end_turn(turns: MutableMapping[str, Turn], model: str) -> None:
    """Take a trial's say in a model's requests away; harmless where there is none."""
    turn = turns.pop(model, None)
    if turn is not None:
        turn.retire()
