"""What the shipped file says of its modes, against the recipe that made it."""

from typing import Any

import numpy as np
import pytest

from edgeflock_compression.passes.ptq import Settings, mode_names, quantize_after_training
from edgeflock_compression.quantization.capabilities import PER_TENSOR, may_run
from edgeflock_compression.quantization.file_modes import modes_in
from edgeflock_compression.work import Bench, Codebook, Work

OLD = "tflite-runtime2.14"
ASKED: dict[str, dict[str, Any]] = {
    "float32": {"mode": "float32"},
    "float16": {"mode": "float16"},
    "dynamic": {"mode": "dynamic"},
    "dynamic, per tensor": {"mode": "dynamic", "dense_per_tensor": True},
    "dynamic int4": {"mode": "dynamic", "weights": "int4"},
    "weight only": {"mode": "weight_only"},
    "weight only int4": {"mode": "weight_only", "weights": "int4"},
    "static": {"mode": "static"},
    "int16x8": {"mode": "static", "activations": "int16"},
    "static int4": {"mode": "static", "weights": "int4"},
}


def made(bench: Bench, settings: Settings, **work: Any) -> tuple[str, ...]:
    tflite = quantize_after_training(Work(bench, bench.parent.model, **work), settings).tflite
    assert tflite is not None
    return modes_in(tflite)


def refused(modes: tuple[str, ...]) -> bool:
    return any(may_run(mode, OLD) for mode in modes)


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_the_file_of_a_quantized_cnn_says_what_its_recipe_asked_for(cnn_bench: Bench, asked: dict[str, Any]) -> None:
    settings = Settings.model_validate(asked)
    named = mode_names(settings)
    found = made(cnn_bench, settings)
    # Layers with too few weights stay float, and a convolution's scales make no difference to any runtime.
    assert {mode.removesuffix(PER_TENSOR) for mode in found} - {"float32"} == {
        mode.removesuffix(PER_TENSOR) for mode in named if mode != "float32"
    }
    assert refused(found) == refused(named)


def test_a_dense_kernel_that_shares_its_values_has_one_scale_and_runs_on_every_runtime(mlp_bench: Bench) -> None:
    settings = Settings(mode="dynamic")
    assert refused(made(mlp_bench, settings))
    model = mlp_bench.parent.model
    kernel = np.asarray(model.get_layer("dense").kernel)
    values = np.linspace(kernel.min(), kernel.max(), 16).astype(np.float32)
    book = Codebook(values, np.abs(kernel[..., None] - values).argmin(axis=-1), np.zeros(16, bool))
    assert not refused(made(mlp_bench, settings, codebooks={"dense/kernel": book}))
