"""Quantization of a float32 `.tflite` operator by operator, by LiteRT's quantizer: int4, and a choice for each layer.

Decided here: which operator gets which weights. int4 is asked for where the quantizer has it (`_INT4`); any other
operator gets int8 instead and is reported. Ranges of activations are the smallest and largest value over the
calibration items, whatever their order. Inputs and outputs stay float.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from edgeflock_compression.quantization.activation_ranges import activation_ranges
from edgeflock_compression.tflite.float_left import Operator, operators
from edgeflock_compression.work import Skipped
from edgeflock_deploy.errors import BadInput

Mode = Literal["float16", "dynamic", "weight_only", "static"]
Weights = Literal["float", "int8", "int4"]
_BITS: Mapping[Weights, int] = {"int8": 8, "int4": 4}
# Kinds of operators whose weights litert-quantizer 0.11 quantizes (its default_policy.py).
_INT8 = {"FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "BATCH_MATMUL", "EMBEDDING_LOOKUP"}
_FLOAT = ("INPUT", "OUTPUT", "SPLIT")  # an int8 SPLIT made by litert-quantizer 0.11 is refused by LiteRT 2.3's delegate
_INT4 = {
    "dynamic": {"FULLY_CONNECTED", "CONV_2D", "EMBEDDING_LOOKUP"},
    "weight_only": {"FULLY_CONNECTED", "CONV_2D", "EMBEDDING_LOOKUP", "BATCH_MATMUL"},
    "static": {"FULLY_CONNECTED", "CONV_2D"},
}


def quantize(
    tflite: bytes,
    mode: Mode,
    weights: Callable[[Operator], Weights],
    per_tensor: Callable[[Operator], bool],
    calibration: Sequence[Mapping[str, Any]] = (),
    activation_bits: Literal[8, 16] = 8,
) -> tuple[bytes, tuple[Skipped, ...]]:
    """Quantize.

    Args:
        tflite: a float32 file.
        mode: float16 (weights only), dynamic, weight_only or static.
        weights: for each operator that holds weights, what they become; not asked for float16.
        per_tensor: for the same, whether the whole weight has one scale instead of one per output channel.
        calibration: for static: items, each a batch of 1 by input name of the file's first signature.
        activation_bits: for static.

    Returns:
        The file, and what got other weights than asked for.

    Raises:
        BadInput: litert-quantizer is not installed.
        Exception: the quantizer's own error.
    """
    parts = _quantizer_parts()
    recipe, skipped = parts.recipe_manager.RecipeManager(), []
    _add(parts, recipe, mode, ".*", "int8", False, activation_bits)
    for operator in operators(tflite):
        if mode == "float16" or not operator.takes_weights:
            continue
        wanted = weights(operator)
        if wanted == "int4" and operator.kind not in _INT4[mode]:
            wanted = "int8"
            if mode == "static" or operator.kind in _INT8:  # else it stays float, which is read back from the file
                reason = f"no int4 for {operator.kind} ({mode}): int8 instead"
                skipped.append(Skipped(layer=f"{operator.kind} {operator.layer}", reason=reason))
        scope = "^" + re.escape("".join(f"{output};" for output in operator.outputs)) + "?$"
        _add(parts, recipe, mode, scope, wanted, per_tensor(operator), activation_bits)
    for kind in _FLOAT:  # at the end, for an output has the name of the operator that gives it
        name = parts.qtyping.TFLOperationName[kind]
        recipe.add_quantization_config("^", name, algorithm_key=parts.algorithm_manager.AlgorithmName.NO_QUANTIZE)
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):  # its progress bars
        warnings.simplefilter("ignore")  # it warns of its own way to watch tensors
        quantizer = parts.quantizer.Quantizer(tflite, recipe.get_quantization_recipe())
        ranges = activation_ranges(tflite, calibration) if quantizer.need_calibration else None
        made = quantizer.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    return bytes(made.quantized_model), tuple(dict.fromkeys(skipped))


def _add(
    parts: Any, recipe: Any, mode: Mode, scope: str, weights: Weights, per_tensor: bool, activation_bits: int
) -> None:
    """Add a line to the quantizer's recipe; of two that fit an operator the later counts."""
    every, names = parts.qtyping.TFLOperationName.ALL_SUPPORTED, parts.algorithm_manager.AlgorithmName
    if mode == "float16":
        recipe.add_weight_only_config(scope, every, num_bits=16, algorithm_key=names.FLOAT_CASTING)
        return
    if weights == "float":
        recipe.add_quantization_config(scope, every, algorithm_key=names.NO_QUANTIZE)
        return
    sizes = parts.qtyping.QuantGranularity
    size = sizes.TENSORWISE if per_tensor else sizes.CHANNELWISE
    if mode == "static":
        recipe.add_static_config(scope, every, activation_bits, _BITS[weights], weight_granularity=size)
    elif mode == "dynamic":
        recipe.add_dynamic_config(scope, every, _BITS[weights], granularity=size)
    else:
        recipe.add_weight_only_config(scope, every, _BITS[weights], granularity=size)


def _quantizer_parts() -> Any:
    """The modules of litert-quantizer, imported where they are used."""
    from types import SimpleNamespace

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from litert_quantizer import algorithm_manager, qtyping, quantizer, recipe_manager
    except ImportError:
        mend = "install edgeflock with the extra 'compression'"
        raise BadInput("litert-quantizer", "is not installed", mend) from None
    return SimpleNamespace(
        algorithm_manager=algorithm_manager,
        qtyping=qtyping,
        quantizer=quantizer,
        recipe_manager=recipe_manager,
    )
