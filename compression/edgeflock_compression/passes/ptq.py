"""Post-training quantization, by TensorFlow's converter (`tf.lite.TFLiteConverter`).

| mode    | weights | activations  | needs data |
|---------|---------|--------------|------------|
| float32 | float32 | float32      | no         |
| float16 | float16 | float32      | no         |
| dynamic | int8    | float32; int8 inside the kernels, with a range taken at every call | no |
| static  | int8    | int8 or int16, with ranges calibrated on x_train | yes |

Inputs and outputs stay float. What stays float although the mode quantizes is read back from the file and reported.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field

from edgeflock_compression.data import LabelledData, stratified
from edgeflock_compression.float_left import float_parts
from edgeflock_compression.tf_import import tensorflow
from edgeflock_compression.work import Work
from edgeflock_deploy.messages import Frozen


class Settings(Frozen):
    """Settings of the pass. `activations` and `calibration_items` matter to the mode `static` only."""

    model_config = ConfigDict(extra="forbid")

    mode: Literal["float32", "float16", "dynamic", "static"]
    activations: Literal["int8", "int16"] = "int8"
    calibration_items: int = Field(256, ge=1)  # all of x_train if it has fewer


def quantize_after_training(work: Work, settings: Settings) -> Work:
    """Convert the SavedModel; `work.tflite` is the result.

    Raises:
        Exception: the converter's own error, when the model holds something that it cannot convert.
    """
    converter = _converter(work.saved_model, settings)
    if settings.mode == "static":
        converter.representative_dataset = lambda: _calibration(work.data, settings.calibration_items, work.seed)
    tflite = bytes(converter.convert())
    skipped = () if settings.mode in ("float32", "float16") else float_parts(tflite, settings.mode == "static")
    return replace(work, tflite=tflite, skipped=work.skipped + skipped)


def _converter(saved_model: Path, settings: Settings) -> Any:
    lite = tensorflow().lite
    converter = lite.TFLiteConverter.from_saved_model(str(saved_model))
    if settings.mode != "float32":
        converter.optimizations = [lite.Optimize.DEFAULT]
    if settings.mode == "float16":
        converter.target_spec.supported_types = [tensorflow().float16]
    if settings.mode == "static":
        exact = {
            "int8": lite.OpsSet.TFLITE_BUILTINS_INT8,
            "int16": lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
        }
        # With the plain set beside it, an operator that has no integer kernel stays float instead of ending it all.
        converter.target_spec.supported_ops = [exact[settings.activations], lite.OpsSet.TFLITE_BUILTINS]
    return converter


def _calibration(data: LabelledData, items: int, seed: int) -> Iterator[list[Any]]:
    for index in stratified(data.y_train, items, seed):
        yield [data.x_train[index : index + 1]]
