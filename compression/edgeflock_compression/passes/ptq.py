"""Post-training quantization (Jacob et al. 2018, arXiv:1712.05877; whitepaper: Nagel et al. 2021, arXiv:2106.08295).

| mode        | weights      | activations | needs data |
|-------------|--------------|-------------|------------|
| float32     | float32      | float32     | no         |
| float16     | float16      | float32     | no         |
| dynamic     | int8 or int4 | float32; int8 inside the kernels, with a range taken at every call | no |
| weight_only | int8 or int4 | float32, also inside the kernels | no |
| static      | int8 or int4 | int8 or int16, with ranges calibrated on x_train | yes |

`[[pass.layer]]` entries choose other weights for layers by name, the last that fits counts:

    [[pass]]
    use = "ptq"
    mode = "dynamic"
    [[pass.layer]]
    match = "dense*"
    weights = "int4"

A Keras model or a SavedModel goes through TensorFlow's converter; int4, a choice by layer, weight_only and a `.tflite`
made elsewhere through LiteRT's quantizer. Inputs and outputs stay float. What stays float although the mode quantizes
is read back from the file and reported. Zeros stay zero codes. A weight that shares its values gets one scale for the
whole tensor, so that it has no more codes than values; shared per channel, one per channel.

`rounding = "compensated"` chooses the codes of dense layers and convolutions so that their outputs change least on
training items, and corrects their biases: closer to the float model where one scale serves many weights or the weights
have 4 bits, for the same raw bytes. It takes time, and a Keras model. It and `equalize` want batch norm folded before
(fold_bn).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from pydantic import ConfigDict, Field

from edgeflock_compression.parent.data import Arrays
from edgeflock_compression.parent.split import CALIBRATION_ITEMS, one
from edgeflock_compression.quantization import per_layer
from edgeflock_compression.quantization.capabilities import PER_TENSOR
from edgeflock_compression.quantization.compensation import Grid, with_compensated_rounding
from edgeflock_compression.quantization.equalize import equalized
from edgeflock_compression.tflite.converter import Numbers, convert
from edgeflock_compression.tflite.float_left import Operator, float_parts, operators
from edgeflock_compression.tflite.foreign import input_names, with_signature
from edgeflock_compression.tflite.layer_names import matches
from edgeflock_compression.work import Skipped, Work
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.messages.values import Frozen

_CONVERTERS_SMALLEST = 1024  # elements of a weight that the converter's dynamic mode quantizes


class LayerChoice(Frozen):
    """What the weights of some layers become."""

    model_config = ConfigDict(extra="forbid")

    match: str = Field(min_length=1)  # a layer's name, or a shell pattern of names: `dense*`
    weights: Literal["float", "int8", "int4"]


class Settings(Frozen):
    """Settings of the pass. `activations` and `calibration_items` matter to the mode `static` only."""

    model_config = ConfigDict(extra="forbid")

    mode: Literal["float32", "float16", "dynamic", "weight_only", "static"]
    weights: Literal["int8", "int4"] = "int8"  # int4 where there is such a kernel, int8 elsewhere
    activations: Literal["int8", "int16"] = "int8"
    calibration_items: int = Field(CALIBRATION_ITEMS, ge=1)  # all training items if there are fewer; 256 or more
    dense_per_tensor: bool = False  # one scale per dense kernel: fewer bytes on the wire, coarser
    equalize: bool = False  # channels of neighbouring layers to like ranges first; more wire bytes, measure both
    rounding: Literal["nearest", "compensated"] = "nearest"  # compensated: by what rounding does to the outputs
    layer: tuple[LayerChoice, ...] = ()


def quantize_after_training(work: Work, settings: Settings) -> Work:
    """Convert the model; `work.tflite` is the result.

    Raises:
        BadInput: the model cannot be quantized in this mode, and what to do; or a pattern fits no layer.
        Exception: the converter's own error, when the model holds something that it cannot convert.
    """
    static = settings.mode == "static"
    items: Arrays = ()
    if static:
        items = work.bench.data.calibration(settings.calibration_items, work.bench.seed)
        work = work.noting("ptq", calibration_items=len(items[0]))
    if settings.equalize and work.model is not None:
        work, pairs = equalized(work)
        work = work.noting("ptq", equalized_pairs=pairs)
    if settings.rounding == "compensated":
        work = with_compensated_rounding(work, _grid(work, settings), items if settings.activations == "int8" else ())
    shared = {path: book for path, book in work.codebooks.items() if book.values.ndim == 1}
    given = work.bench.parent.tflite if work.model is None else None
    if given is not None or _by_layer(settings, any(book.codes.ndim > 2 for book in shared.values())):
        float32 = convert(work, "float32", unroll=static) if given is None else with_signature(given)
        layers = frozenset(path.split("/")[0] for path in shared)
        made, skipped = _quantized(float32, settings, layers, _by_name(work, items, float32))
    else:
        dense_per_tensor = settings.dense_per_tensor or bool(shared)
        made, skipped = convert(work, _numbers(settings), items, dense_per_tensor, unroll=static), ()
    if settings.mode not in ("float32", "float16"):
        skipped += float_parts(made, static, lambda operator: _weights(settings, operator) == "float")
    return replace(work, tflite=made).skipping(*skipped)


def mode_names(settings: Settings) -> tuple[str, ...]:
    """The modes whose kernels the file needs, for `capabilities`: `static_wi4_ai8`, `dynamic_wi8_dense_per_tensor`, ...

    They decode themselves: `<mode>_w<weights>_a<activations>`; several where layers differ.
    """
    if settings.mode in ("float32", "float16"):
        return (settings.mode,)
    bits = {settings.weights, *(choice.weights for choice in settings.layer)} - {"float"}
    if "int4" in bits:
        bits.add("int8")  # what has no int4 kernel
    activations = f"_a{settings.activations.replace('nt', '')}" if settings.mode == "static" else ""
    end = PER_TENSOR if settings.dense_per_tensor else ""
    return tuple(f"{settings.mode}_w{one.replace('nt', '')}{activations}{end}" for one in sorted(bits))


def _by_layer(settings: Settings, shared_kernels: bool) -> bool:
    """Whether the settings ask for more than the converter can do: it knows one granularity for all convolutions."""
    if settings.mode in ("float32", "float16"):
        return False
    return settings.weights == "int4" or settings.mode == "weight_only" or bool(settings.layer) or shared_kernels


def _grid(work: Work, settings: Settings) -> Grid:
    """What the quantizers make of kernels.

    Raises:
        BadInput: they make nothing of them, or not the same of all.
    """
    wrong = ""
    if settings.mode in ("float32", "float16"):
        wrong = f"has nothing to compensate in the mode {settings.mode}"
    elif settings.layer:
        wrong = "knows one kind of weights for all layers"
    elif work.model is None:
        wrong = "needs a Keras model"
    if wrong:
        raise BadInput("pass 'ptq': rounding = \"compensated\"", wrong, 'leave it out, or say rounding = "nearest"')
    by_converter = settings.mode == "dynamic" and settings.weights == "int8"
    top = 127 if settings.weights == "int8" else 7
    return Grid(top, settings.dense_per_tensor, _CONVERTERS_SMALLEST if by_converter else 0)


def _numbers(settings: Settings) -> Numbers:
    if settings.mode == "static":
        return settings.activations
    if settings.mode == "weight_only":
        raise ValueError("the converter knows no weight_only")
    return settings.mode


def _weights(settings: Settings, operator: Operator) -> per_layer.Weights:
    chosen: per_layer.Weights = settings.weights
    for choice in settings.layer:
        if matches(choice.match, operator.weight, operator.outputs):
            chosen = choice.weights
    return chosen


def _by_name(work: Work, items: Arrays, float32: bytes) -> list[Mapping[str, Any]]:
    """The items, each a batch of 1 by input name: the file's order of several inputs is not always the model's."""
    if not items:
        return []
    if work.model is None:
        own = work.bench.parent.tflite is not None
        names = input_names(float32) if own else tuple(spec.name for spec in work.bench.parent.inputs)
    else:
        names = tuple(tensor.name for tensor in work.model.inputs)
    return [dict(zip(names, one(items, row), strict=True)) for row in range(len(items[0]))]


def _quantized(
    float32: bytes, settings: Settings, shared: frozenset[str], items: list[Mapping[str, Any]]
) -> tuple[bytes, tuple[Skipped, ...]]:
    """A float32 file quantized; `shared` are layers whose weights share values over the whole tensor."""
    if settings.mode == "float32":
        return float32, ()
    held = [operator for operator in operators(float32) if operator.takes_weights]
    for choice in settings.layer:
        if not any(matches(choice.match, operator.weight, operator.outputs) for operator in held):
            names = ", ".join(dict.fromkeys(operator.layer for operator in held)) or "none"
            raise BadInput(f"pass 'ptq': layer '{choice.match}'", "fits no layer with weights", f"there are: {names}")

    def per_tensor(operator: Operator) -> bool:
        dense = settings.dense_per_tensor and operator.kind == "FULLY_CONNECTED"
        return dense or operator.layer in shared

    bits: Literal[8, 16] = 16 if settings.activations == "int16" else 8
    return per_layer.quantize(float32, settings.mode, lambda one: _weights(settings, one), per_tensor, items, bits)
