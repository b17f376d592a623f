"""The interpreters of one model in a child: the one that serves, and one beside it for what must not touch it.

Decided here: how a model forgets what it keeps inside (variable tensors are set back; resource variables are forgotten
by a fresh interpreter only), that items of our own, golden cases and measurements, never run in the interpreter whose
inner state belongs to an application's sequence, and that one which failed often is replaced: the runtime keeps its
words of each failure, and an application may send all day what fails. The file is mapped, so a second interpreter costs
its buffers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from edgeflock_agent.children.sequences import Inside
from edgeflock_deploy.operators import State
from edgeflock_deploy.runtime import LoadedModel, LoadFailed

MOST_COMPLAINTS = 1 << 16  # characters, of some thousand failed runs


class Interpreters:
    """The interpreters of one file.

    Args:
        model: the first of them, loaded.
        path: the file.
        threads: of each interpreter.
        state: what the file keeps inside.
    """

    def __init__(self, model: LoadedModel, path: Path, threads: int, state: State) -> None:
        self.model = model
        self._path, self._threads = path, threads
        self.state = state
        self._spare: LoadedModel | None = None
        self.inside = None if self.state is State.NONE else Inside(self.forget)

    def forget(self) -> None:
        """Have the model forget what it keeps inside."""
        if self.state is State.TENSORS:
            self.model.forget()
        elif self.state is State.RESOURCES:
            self.model = LoadedModel.load(self._path, self._threads)

    def failed(self) -> None:
        """A run of `model` failed: take a fresh interpreter if there were many, and no sequence runs in this one."""
        if len(self.model.complaints) < MOST_COMPLAINTS or (self.inside is not None and self.inside.in_use):
            return
        with contextlib.suppress(LoadFailed):  # no memory for two: this one goes on
            self.model = LoadedModel.load(self._path, self._threads)

    @contextlib.contextmanager
    def apart(self) -> Iterator[None]:
        """For the length of the block `model` is one that no application's sequence runs in."""
        if self.inside is None or not self.inside.in_use:
            yield
            return
        serving, self.model = self.model, self._spare or LoadedModel.load(self._path, self._threads)
        try:
            yield
        finally:
            self._spare, self.model = self.model, serving
