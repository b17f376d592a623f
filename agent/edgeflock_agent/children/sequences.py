"""The state of streaming models: what one inference of a sequence leaves to the next.

Decided here: when a sequence begins, goes on, and is forgotten. Two kinds of model keep state. One gives it as outputs
that are fed into inputs (`Fed`): any number of sequences run side by side, the least recently used is forgotten beyond
64. The other keeps it inside (`Inside`): one sequence at a time, and it begins only where one says so. A request
without an id belongs to the one default sequence. Memory only: a new process knows no sequence, and what goes on there
has been restarted. It knows no messages. Runs in the child.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeflock_deploy.runtime import LoadedModel

Array = NDArray[Any]
Key = int | str | None

MAX_SEQUENCES = 64


class Asked(NamedTuple):
    """Which sequence a request belongs to, and whether it is its first or last; `key` None is the default sequence."""

    key: Key = None
    start: bool = False
    end: bool = False


class WrongSequence(ValueError):
    """A request for a sequence that cannot go on."""


class Fed:
    """State in outputs that are fed into inputs.

    Args:
        pairs: (output, input) places in the file.
        model: the loaded model.
    """

    def __init__(self, pairs: Sequence[tuple[int, int]], model: LoadedModel) -> None:
        self._pairs, self._model = tuple(pairs), model
        self._kept: OrderedDict[Key, dict[int, Array]] = OrderedDict()

    def initial(self) -> dict[int, Array]:
        """A sequence's first state, by input: zeros."""
        return {place: self._model.inputs[place].zeros() for _, place in self._pairs}

    def enter(self, asked: Asked) -> tuple[dict[int, Array], bool]:
        """The state to feed, by input, and whether the sequence was restarted without having said so."""
        state = None if asked.start else self._kept.get(asked.key)
        if state is None:
            return self.initial(), not asked.start
        return state, False

    def leave(self, asked: Asked, outputs: Sequence[Array]) -> None:
        """Keep what the inference left, or forget the sequence if that was its end."""
        self._kept.pop(asked.key, None)
        if asked.end:
            return
        self._kept[asked.key] = {place: self._fitted(output, place, outputs) for output, place in self._pairs}
        if len(self._kept) > MAX_SEQUENCES:
            self._kept.popitem(last=False)

    def _fitted(self, output: int, place: int, outputs: Sequence[Array]) -> Array:
        """An output as the input holds it: the codes themselves where both have one scale, else by real values."""
        held, given = self._model.inputs[place], self._model.outputs[output]
        array = outputs[output]
        if (held.dtype, held.scale, held.zero_point) != (given.dtype, given.scale, given.zero_point):
            array = held.encode(given.decode(array))
        return np.array(array.reshape(held.shape))


class Inside:
    """State that the model keeps by itself.

    Args:
        begin: makes the model forget.
    """

    def __init__(self, begin: Callable[[], None]) -> None:
        self._begin = begin
        self._running: Asked | None = None

    @property
    def in_use(self) -> bool:
        """Whether an application's sequence is under way, which nobody else may disturb."""
        return self._running is not None

    def enter(self, asked: Asked) -> bool:
        """Begin the sequence or go on with it; whether it was restarted without having said so.

        Raises:
            WrongSequence: another one is running, and this one does not say that it starts.
        """
        if not asked.start and self._running is not None:
            if self._running.key == asked.key:
                return False
            raise WrongSequence(
                f"this model keeps its state itself, one sequence at a time, and {_named(self._running.key)} is "
                f"running: {_named(asked.key)} must begin with sequence_start"
            )
        self._begin()
        self._running = asked
        return not asked.start

    def leave(self, asked: Asked) -> None:
        """Note the end of a sequence."""
        if asked.end:
            self._running = None


def _named(key: Key) -> str:
    return "the default sequence" if key is None else f"sequence {key!r}"
