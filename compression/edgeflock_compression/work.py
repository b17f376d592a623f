"""What travels through the passes of a recipe: a Keras model and what is held about its weights, then a `.tflite`.

Nothing is hidden in layers. Which weights are held at zero (`masks`) and which share values (`codebooks`) stands beside
the model, by weight path (`conv2d/kernel`), so that every later pass sees it and keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeflock_compression.parent.split import Split
from edgeflock_deploy.bundle import EncodedBlob
from edgeflock_deploy.messages.values import Frozen

if TYPE_CHECKING:
    from edgeflock_compression.parent.source import Parent

Array = NDArray[Any]


class Skipped(Frozen):
    """A part of the model that a pass left as it was, and why."""

    layer: str
    reason: str


@dataclass(frozen=True)
class Codebook:
    """A weight whose elements share few values: `weights() == values[codes]`.

    Args:
        values: the shared values, float32 (k,); or (k, channels), one column per slice of the weight's last axis.
        codes: which value each element takes, integers of the weight's shape.
        fixed: for each of the k rows of `values`, whether fine-tuning must leave it as it is (the zero of a pruned
            weight); (k,) bool.
        hashed: seed of the hash that gave the codes, None where they were chosen; such codes need not be sent.
        mirrored: whether the second half of `values` is minus the first half, and must stay so.
    """

    values: NDArray[np.float32]
    codes: NDArray[Any]
    fixed: NDArray[np.bool_]
    hashed: int | None = None
    mirrored: bool = False

    def weights(self) -> NDArray[np.float32]:
        """The weight, float32."""
        channels = np.arange(self.codes.shape[-1])
        made: NDArray[np.float32] = (
            self.values[self.codes] if self.values.ndim == 1 else self.values[self.codes, channels]
        )
        return made


@dataclass(frozen=True)
class Bench:
    """What all passes of one run share and none may change.

    Args:
        parent: the model that came in: the teacher, and what loss is counted against.
        data: fitted to the parent's inputs and split; a pass never sees the test items.
        seed: for everything random.
        tell: says how far a long pass is: (what is being done, share done 0..1).
    """

    parent: Parent
    data: Split
    seed: int
    tell: Callable[[str, float], None] = lambda _what, _share: None


@dataclass(frozen=True)
class Work:
    """The state between two passes. A pass takes one and returns a new one; it never changes the model it was given.

    Args:
        bench: what stays the same.
        model: the Keras model, flat and functional (see `graph.flat`); None for a parent that is not Keras.
        masks: by weight path, bool of the weight's shape: False is held at zero.
        codebooks: by weight path, for weights that share values.
        tflite: the converted model, once a pass has made it.
        hashes: (seed, buckets) of the weights in it that share values by a hash, which an encoder cannot guess.
        packed: the converted model as it travels.
        skipped: what the passes so far could not treat.
        notes: by pass, numbers worth reporting (multiply-adds before and after, ranks, sparsity): JSON values.
    """

    bench: Bench
    model: Any
    masks: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    codebooks: Mapping[str, Codebook] = field(default_factory=dict)
    tflite: bytes | None = None
    hashes: tuple[tuple[int, int], ...] = ()
    packed: EncodedBlob | None = None
    skipped: tuple[Skipped, ...] = ()
    notes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def skipping(self, *parts: Skipped) -> Work:
        """The same with more parts skipped."""
        return replace(self, skipped=self.skipped + parts)

    def noting(self, use: str, **numbers: Any) -> Work:
        """The same with more to report about the pass `use`."""
        return replace(self, notes={**self.notes, use: {**self.notes.get(use, {}), **numbers}})
