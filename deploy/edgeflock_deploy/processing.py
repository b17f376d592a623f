"""The processing of a model, as its publisher declares it: for the inputs and outputs of the model, by name.

Decided here: what may be declared. The steps stand in `steps`; what becomes of a declaration, a chain of steps in each
of the manifest's tensors, in headquarters' `appearance`. Boards do not need this file.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from edgeflock_deploy.steps import (
    Argmax,
    Cast,
    Crop,
    Labels,
    Layout,
    Letterbox,
    Normalise,
    Resize,
    SeenType,
    Sigmoid,
    Softmax,
    Strict,
    Threshold,
    TopK,
)

PreStep = Annotated[Resize | Crop | Letterbox | Cast | Normalise | Layout, Field(discriminator="do")]
PostStep = Annotated[Softmax | Sigmoid | Argmax | TopK | Threshold | Cast | Labels, Field(discriminator="do")]


class InputProcessing(Strict):
    """What is done to one input before the model.

    `name` is the application's name, `of` the model's (the same if left out). `shape` is the item that the application
    sends, without the batch; -1 is any size up to the one in `limit`.
    """

    name: str = Field(min_length=1)
    of: str | None = None
    dtype: SeenType | None = None
    shape: tuple[int, ...] | None = None
    limit: tuple[int, ...] | None = None
    steps: tuple[PreStep, ...] = ()


class OutputProcessing(Strict):
    """One output that the application sees, and what is done to the model's output `of` (the same name if left out)."""

    name: str = Field(min_length=1)
    of: str | None = None
    steps: tuple[PostStep, ...] = ()


class Processing(Strict):
    """All of it: inputs that are not named stay as they are; named outputs stand in place of all of the model's."""

    inputs: tuple[InputProcessing, ...] = ()
    outputs: tuple[OutputProcessing, ...] = ()
    labels: str | None = None  # a file of UTF-8 lines, beside the file that declares it
