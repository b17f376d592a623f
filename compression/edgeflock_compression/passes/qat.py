"""Quantization-aware training: fine-tune with the rounding of int8, then convert with the ranges that were learned.

Jacob et al. 2018 (arXiv:1712.05877), Krishnamoorthi 2018 (arXiv:1806.08342); trained ranges as in Bhalgat et al. 2020
(arXiv:2004.09576). Masks and codebooks hold (pruned, clustered, or both: PQAT, CQAT, PCQAT). Weights have a scale per
output channel, clustered and by default dense ones per tensor; activations have one per tensor. Inputs and outputs stay
float.

Where a layer computes several things inside (attention, a recurrent cell, layer norm) no range can be trained for
them: the converter calibrates those, and the layer is named with that reason. Batch norm that stands should have been
folded before.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgeflock_compression.graph.export import OnWeight, export_saved_model
from edgeflock_compression.graph.flat import rebuild, weights_by_path, with_weights
from edgeflock_compression.parent.split import CALIBRATION_ITEMS, one
from edgeflock_compression.quantization.fake_quant import (
    FakeQuantized,
    Stretched,
    rounded_bias,
    rounded_codebook,
    weight_operator,
)
from edgeflock_compression.quantization.ranged import (
    CONVOLUTIONS,
    RECURRENT,
    WEIGHTED,
    consumers,
    input_ranges,
    opaque,
    with_ranges,
)
from edgeflock_compression.tf_import import tensorflow
from edgeflock_compression.tflite.float_left import float_parts
from edgeflock_compression.tflite.layer_names import layers_in, marked
from edgeflock_compression.tflite.output_codes import compare_codes, in_model_order
from edgeflock_compression.training.fine_tuning import FineTune, fine_tune
from edgeflock_compression.training.parametrization import Free, Parametrization, held, kept
from edgeflock_compression.work import Skipped, Work
from edgeflock_deploy.errors import BadInput

Array = NDArray[Any]
Shapes = tuple[tuple[int, ...], ...]
Channels = Mapping[str, tuple[int, ...]]
_CHANNELS = {  # axes of the kernel along which the kernels of the runtime take a scale per slice
    "Conv1D": (2,),
    "Conv2D": (3,),
    "DepthwiseConv2D": (2, 3),
    "Conv2DTranspose": (2,),
}
_DENSE = {"Dense", "EinsumDense", "Embedding", "MultiHeadAttention", "GroupQueryAttention"}
_KERNELS = {"kernel", "recurrent_kernel", "embeddings"}
_BY_OPERATOR = {"Conv2D", "DepthwiseConv2D"}  # of the others the converter loses a scale per channel on its way
_COMPARED_ITEMS = 512


class Settings(FineTune):
    """Settings of the pass: those of fine-tuning, gentler by default, and how ranges start."""

    learning_rate: float = Field(1e-4, gt=0)
    calibration_items: int = Field(CALIBRATION_ITEMS, ge=1)  # all items to train on if there are fewer
    dense_per_tensor: bool = True  # one scale per dense kernel, not one per unit: fewer bytes on the wire, coarser


def train_quantized(work: Work, settings: Settings) -> Work:
    """Train and convert; `work.tflite` is the result, `work.model` holds the weights that its codes stand for.

    Notes: `output_equal_share` of the output codes are those of the trained model, none is further away than
    `output_max_steps` (over validation items); both null for a model whose outputs stay float.

    Raises:
        BadInput: the parent has no Keras layers to train.
        ArithmeticError: the loss is no longer finite.
        RuntimeError: the converter cannot convert the model at all.
    """
    if work.model is None:
        raise BadInput("qat", "needs a Keras model to train", "use ptq for a SavedModel or a .tflite")
    calibration = work.bench.data.calibration(settings.calibration_items, work.bench.seed)
    ranged = with_ranges(work.model, calibration)
    channels = _channels(work, settings)
    trained = fine_tune(ranged, work.bench, settings, _rules(work, ranged, channels), "quantization-aware training")
    values = {path: book.values for path, book in work.codebooks.items()}
    values |= {path: given[0] for path, given in trained.parameters.items() if path in values}
    books = kept(work, values)
    books = {path: rounded_codebook(book, channels[path]) if path in channels else book for path, book in books.items()}
    model = _with_rounded_biases(trained.model, channels)
    tflite, skipped = _converted(work, model, channels, calibration, settings.dense_per_tensor)
    equal, steps = compare_codes(model, tflite, tuple(x[:_COMPARED_ITEMS] for x in work.bench.data.x_validation))
    done = replace(work, model=with_weights(work.model, weights_by_path(model)), codebooks=books, tflite=tflite)
    done = done.skipping(*skipped)
    return done.noting("qat", output_equal_share=equal, output_max_steps=steps, calibration_items=len(calibration[0]))


def _channels(work: Work, settings: Settings) -> dict[str, tuple[int, ...]]:
    """Weight path -> the axes that have a scale per slice, for the weights that are rounded in training.

    A codebook for the whole weight needs one scale, or its few values would become as many codes per channel; one per
    channel needs a scale along its own axis, the last.
    """
    by_kind = _CHANNELS if settings.dense_per_tensor else {**_CHANNELS, "Dense": (1,)}
    found: dict[str, tuple[int, ...]] = {}
    for layer in work.model.layers:
        kind = type(layer).__name__
        if kind not in {*by_kind, *_DENSE, *RECURRENT}:
            continue
        for variable in layer.weights:
            if variable.path.rsplit("/", 1)[-1] in _KERNELS:
                axes, book = by_kind.get(kind, ()), work.codebooks.get(variable.path)
                fits = book is None or (book.values.ndim == 2 and axes == (len(variable.shape) - 1,))
                found[variable.path] = axes if fits else ()
    return found


def _rules(work: Work, ranged: Any, channels: Channels) -> dict[str, Parametrization]:
    trainable = {variable.path for variable in ranged.trainable_variables}
    rules = {path: rule for path, rule in held(work).items() if path in trainable}
    for path, axes in channels.items():
        if path in trainable:
            rules[path] = FakeQuantized(rules.get(path, Free()), axes)
    for layer in ranged.layers:
        if type(layer).__name__ == "FakeQuant":
            rules |= {end.path: Stretched(float(np.asarray(end))) for end in layer.trainable_variables}
    return rules


def _with_rounded_biases(ranged: Any, channels: Channels) -> Any:
    """The trained model with biases as the runtime holds them; unrounded ones would differ at every tie they decide."""
    ranges, weights = input_ranges(ranged), weights_by_path(ranged)
    biases = {
        f"{name}/bias": rounded_bias(
            weights[f"{name}/bias"], weights[f"{name}/kernel"], channels[f"{name}/kernel"], *ends
        )
        for name, ends in ranges.items()
        if f"{name}/kernel" in channels and f"{name}/bias" in weights
        if type(ranged.get_layer(name)).__name__ in WEIGHTED - {"EinsumDense"}
    }
    return with_weights(ranged, biases)


def _converted(
    work: Work, model: Any, channels: Channels, calibration: tuple[Array, ...], dense_per_tensor: bool
) -> tuple[bytes, tuple[Skipped, ...]]:
    operators, skipped = _operators(work, channels)
    shapes = tuple(x.shape[1:] for x in work.bench.data.x_fit)
    with tempfile.TemporaryDirectory(prefix="edgeflock-") as scratch:
        tflite = in_model_order(
            bytes(_exported(model, Path(scratch) / "trained", shapes, operators, dense_per_tensor).convert())
        )
        left = float_parts(tflite, activations=True)
        if not left:
            return tflite, skipped
        converter = _exported(_unrolled(model), Path(scratch) / "calibrated", shapes, operators, dense_per_tensor)
        names = [tensor.name for tensor in model.inputs]  # the file's order of several inputs is not always the model's
        converter.representative_dataset = lambda: (dict(zip(names, item, strict=True)) for item in _items(calibration))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore"
                )  # the calibrator runs TensorFlow's own interpreter, which announces its end
                tflite = in_model_order(bytes(converter.convert()))
        except (RuntimeError, ValueError):
            return tflite, skipped + left
    reason = "what it computes inside has calibrated ranges, not trained ones"
    inside = tuple(Skipped(layer=name, reason=reason) for name in opaque(work.model))
    return tflite, skipped + inside + float_parts(tflite, activations=True)


def _unrolled(model: Any) -> Any:
    """A copy whose recurrent layers are traced as a copy of their step for each point in time: a loop has no ranges."""
    model = rebuild(model, lambda _layer: None)
    for layer in model.layers:
        parts: list[Any] = [layer, getattr(layer, "forward_layer", None), getattr(layer, "backward_layer", None)]
        for part in parts:
            if hasattr(part, "unroll"):
                part.unroll = True
    return model


def _operators(work: Work, channels: Channels) -> tuple[dict[str, OnWeight], tuple[Skipped, ...]]:
    """By weight path, what rounds it in the exported graph; and what the converter has to round by itself."""
    readers, operators, skipped = consumers(work.model), {}, []
    for layer in work.model.layers:
        kind, readers_of = type(layer).__name__, [type(reader).__name__ for reader in readers[layer.name]]
        for path in [variable.path for variable in layer.weights if variable.path in channels]:
            if "BatchNormalization" in readers_of and kind in CONVOLUTIONS | {"Dense"}:
                # The converter multiplies the kernel with the norm's scales, after which the trained grid is another
                # one; per channel the codes stay the same.
                if not channels[path]:
                    reason = "the batch norm after it is not folded, so its codes are not those that were trained"
                    skipped.append(Skipped(layer=layer.name, reason=f"{reason}: put fold_bn before"))
            elif kind in _BY_OPERATOR or not channels[path]:
                operators[path] = weight_operator(channels[path])
    return operators, tuple(skipped)


def _exported(
    model: Any, folder: Path, shapes: Shapes, operators: Mapping[str, OnWeight], dense_per_tensor: bool
) -> Any:
    """A converter of the model, exported with marks by which its layers are found again in the file."""
    named = marked(model)
    old = {layer.name: layer for layer in model.layers}
    twins = [(old[original], layer) for layer in named.layers for original in layers_in(layer.name)]
    paths = {v.path: new.path for layer, twin in twins for v, new in zip(layer.variables, twin.variables, strict=True)}
    export_saved_model(named, folder, shapes, {paths[path]: operator for path, operator in operators.items()})
    lite = tensorflow().lite
    converter = lite.TFLiteConverter.from_saved_model(str(folder))
    converter.optimizations = [lite.Optimize.DEFAULT]
    converter._experimental_disable_per_channel_quantization_for_dense_layers = dense_per_tensor
    return converter


def _items(calibration: tuple[Array, ...]) -> Iterator[list[Any]]:
    for index in range(len(calibration[0])):
        yield one(calibration, index)
