"""The steps of pre- and post-processing, as a manifest holds them in a chain per input and per output: frozen values.

Decided here: which steps there are and what each may be told. What they compute stands in `transforms`, with numpy;
this file has none, so that the agent's parent can read a manifest. A key that a step does not know is refused: to
ignore it would be to compute something else than was signed.

An item goes through its steps without the batch. Quantized tensors need no step: a chain before one ends in real
values, which are turned into its codes, and a chain after one begins with real values.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from edgeflock_deploy.messages.values import Frozen

Side = Annotated[int, Field(ge=1, le=16384)]
SeenType = Literal[
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64"
]


class Strict(Frozen):
    """A value that refuses keys that it does not know."""

    # Deferred: only a manifest's own validator is ever built, which keeps the agent's process small.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


class Resize(Strict):
    """An image (height, width, channels) to another size: bilinear or nearest, half-pixel centres, no antialiasing."""

    do: Literal["resize"] = "resize"
    height: Side
    width: Side
    method: Literal["bilinear", "nearest"] = "bilinear"


class Crop(Strict):
    """The middle of an image (height, width, channels)."""

    do: Literal["crop"] = "crop"
    height: Side
    width: Side


class Letterbox(Strict):
    """An image into a frame, as large as fits with its proportions kept (bilinear), the rest filled."""

    do: Literal["letterbox"] = "letterbox"
    height: Side
    width: Side
    fill: float = 0.0


class Cast(Strict):
    """Another element type; floats to integers are rounded to the nearest and clipped."""

    do: Literal["cast"] = "cast"
    dtype: SeenType


class Normalise(Strict):
    """(x * scale - mean) / std in float32; mean and std are one number, or one per channel of the last axis."""

    do: Literal["normalise"] = "normalise"
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[Annotated[float, Field(gt=0)], ...] = (1.0,)


class Layout(Strict):
    """An image's axes: `CHW` puts the channels first, `HWC` last."""

    do: Literal["layout"] = "layout"
    to: Literal["CHW", "HWC"]


class Softmax(Strict):
    """Softmax over the last axis, in float32."""

    do: Literal["softmax"] = "softmax"


class Sigmoid(Strict):
    """1 / (1 + exp(-x)), in float32."""

    do: Literal["sigmoid"] = "sigmoid"


class Argmax(Strict):
    """The place of the largest value along the last axis, int64; of equal ones the first."""

    do: Literal["argmax"] = "argmax"


class TopK(Strict):
    """Along the last axis the k largest values, largest first: their places (int64) or the values themselves."""

    do: Literal["top_k"] = "top_k"
    k: int = Field(ge=1, le=1000)
    part: Literal["index", "value"] = "index"


class Threshold(Strict):
    """Whether a value is at least so large: bool."""

    do: Literal["threshold"] = "threshold"
    at: float


class Labels(Strict):
    """Places to the lines of the bundle's blob `labels`: text. The last step, if any."""

    do: Literal["labels"] = "labels"


Step = Annotated[
    Resize | Crop | Letterbox | Cast | Normalise | Layout | Softmax | Sigmoid | Argmax | TopK | Threshold | Labels,
    Field(discriminator="do"),
]
