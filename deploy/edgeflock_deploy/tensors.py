"""What an application sees of a model's tensors, beside what the file has: names, types, shapes, state.

Decided here: the values of the manifest that say so. An application addresses tensors by the names here, which stay the
same over the variants of a version although converters name them differently; the file's tensors are found by their
place. No numpy, for the agent's parent reads manifests.
"""

from __future__ import annotations

from pydantic import Field

from edgeflock_deploy.messages.values import Frozen
from edgeflock_deploy.steps import Step


class TensorSpec(Frozen):
    """A tensor as the application sees it: name, numpy type (`text` for labels) and shape with its batch.

    In a manifest of version 1 or 2 it is the file's own tensor. A size of -1 is open, up to the one in `limit`. `of` is
    the place of the file's tensor that it belongs to; `steps` is what is done on the way.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    limit: tuple[int, ...] | None = None
    of: int | None = Field(None, ge=0)
    steps: tuple[Step, ...] = ()


class HeldTensor(Frozen):
    """A tensor of the file, by the file's own name; real value = (code - zero_point) * scale where scale is not 0."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: float = 0.0
    zero_point: int = 0


class StatePair(Frozen):
    """The file's output `output` is fed into its input `input` at the next inference of a sequence (places)."""

    output: int = Field(ge=0)
    input: int = Field(ge=0)
