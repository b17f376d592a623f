"""Pre- and post-processing as a manifest declares it: a chain of steps per input and per output, frozen values.

Decided here: which steps there are and what each may be told. What they compute stands in `transforms`, with numpy;
this file has none, so that the agent's parent can read a manifest. A key that a step does not know is refused: to
ignore it would be to compute something else than was signed.

An item goes through its steps without the batch. Quantized tensors need no step: a chain before one ends in real
values, which are turned into its codes, and a chain after one begins with real values.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from edgeflock_deploy.messages import Frozen

Side = Annotated[int, Field(ge=1, le=16384)]
SeenType = Literal[
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64"
]


class _Step(Frozen):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Resize(_Step):
    """An image (height, width, channels) to another size: bilinear or nearest, half-pixel centres, no antialiasing."""

    do: Literal["resize"] = "resize"
    height: Side
    width: Side
    method: Literal["bilinear", "nearest"] = "bilinear"


class Crop(_Step):
    """The middle of an image (height, width, channels)."""

    do: Literal["crop"] = "crop"
    height: Side
    width: Side


class Letterbox(_Step):
    """An image into a frame, as large as fits with its proportions kept (bilinear), the rest filled."""

    do: Literal["letterbox"] = "letterbox"
    height: Side
    width: Side
    fill: float = 0.0


class Cast(_Step):
    """Another element type; floats to integers are rounded to the nearest and clipped."""

    do: Literal["cast"] = "cast"
    dtype: SeenType


class Normalise(_Step):
    """(x * scale - mean) / std in float32; mean and std are one number, or one per channel of the last axis."""

    do: Literal["normalise"] = "normalise"
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[Annotated[float, Field(gt=0)], ...] = (1.0,)


class Layout(_Step):
    """An image's axes: `CHW` puts the channels first, `HWC` last."""

    do: Literal["layout"] = "layout"
    to: Literal["CHW", "HWC"]


class Softmax(_Step):
    """Softmax over the last axis, in float32."""

    do: Literal["softmax"] = "softmax"


class Sigmoid(_Step):
    """1 / (1 + exp(-x)), in float32."""

    do: Literal["sigmoid"] = "sigmoid"


class Argmax(_Step):
    """The place of the largest value along the last axis, int64; of equal ones the first."""

    do: Literal["argmax"] = "argmax"


class TopK(_Step):
    """Along the last axis the k largest values, largest first: their places (int64) or the values themselves."""

    do: Literal["top_k"] = "top_k"
    k: int = Field(ge=1, le=1000)
    part: Literal["index", "value"] = "index"


class Threshold(_Step):
    """Whether a value is at least so large: bool."""

    do: Literal["threshold"] = "threshold"
    at: float


class Labels(_Step):
    """Places to the lines of the bundle's blob `labels`: text. The last step, if any."""

    do: Literal["labels"] = "labels"


PreStep = Annotated[Resize | Crop | Letterbox | Cast | Normalise | Layout, Field(discriminator="do")]
PostStep = Annotated[Softmax | Sigmoid | Argmax | TopK | Threshold | Cast | Labels, Field(discriminator="do")]
Step = Annotated[
    Resize | Crop | Letterbox | Cast | Normalise | Layout | Softmax | Sigmoid | Argmax | TopK | Threshold | Labels,
    Field(discriminator="do"),
]


class InputProcessing(_Step):
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


class OutputProcessing(_Step):
    """One output that the application sees, and what is done to the model's output `of` (the same name if left out)."""

    name: str = Field(min_length=1)
    of: str | None = None
    steps: tuple[PostStep, ...] = ()


class Processing(_Step):
    """All of it: inputs that are not named stay as they are; named outputs stand in place of all of the model's."""

    inputs: tuple[InputProcessing, ...] = ()
    outputs: tuple[OutputProcessing, ...] = ()
    labels: str | None = None  # a file of UTF-8 lines, beside the file that declares it
