"""Compensated rounding in the shipped file, on trained models of real digits."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeflock_compression.graph.flat import weights_by_path, with_weights
from edgeflock_compression.passes.fold_bn import Settings as FoldSettings
from edgeflock_compression.passes.fold_bn import fold_bn
from edgeflock_compression.passes.ptq import Settings, quantize_after_training
from edgeflock_compression.quantization.layer_inputs import moments
from edgeflock_compression.work import Bench, Work
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.runtime import LoadedModel

Array = NDArray[Any]
INT4: dict[str, dict[str, Any]] = {
    "dynamic_wi4": {"mode": "dynamic", "weights": "int4"},
    "static_wi4_ai8": {"mode": "static", "weights": "int4"},
}


def ptq(work: Work, **settings: Any) -> Work:
    return quantize_after_training(work, Settings.model_validate(settings))


def answers(work: Work, folder: Path) -> Array:
    assert work.tflite is not None
    path = folder / "model.tflite"
    path.write_bytes(work.tflite)
    model = LoadedModel.load(path)
    return np.concatenate([model.run(item)[0] for item in work.bench.data.x_validation[0]])


def constant_codes(tflite: bytes) -> list[Array]:
    """The codes of constant int8 tensors of two dimensions or more, outputs last, as matrices."""
    from tensorflow.lite.tools import flatbuffer_utils

    model: Any = flatbuffer_utils.convert_bytearray_to_object(bytearray(tflite))
    found = []
    for tensor in model.subgraphs[0].tensors:
        data = model.buffers[tensor.buffer].data
        if data is not None and len(tensor.shape) > 1 and tensor.type == 9:  # INT8
            found.append(np.frombuffer(bytes(data), np.int8).reshape(tensor.shape[0], -1).T)
    return found


@pytest.fixture(scope="module")
def folded(cnn_bench: Bench) -> Work:
    return fold_bn(Work(cnn_bench, cnn_bench.parent.model), FoldSettings())


@pytest.fixture(scope="module")
def with_4_bits(folded: Work) -> dict[str, Work]:
    return {name: ptq(folded, **settings, rounding="compensated") for name, settings in INT4.items()}


@pytest.mark.parametrize("name", INT4)
def test_with_4_bits_the_files_outputs_move_half_as_far(
    folded: Work, with_4_bits: dict[str, Work], tmp_path: Path, name: str
) -> None:
    wanted = folded.bench.parent.predict(folded.bench.data.x_validation)[0]
    nearest, moved = ptq(folded, **INT4[name]), with_4_bits[name]
    error, before = (np.mean((answers(work, tmp_path) - wanted) ** 2) for work in (moved, nearest))
    assert error < 0.5 * before
    assert moved.tflite is not None
    assert nearest.tflite is not None
    assert len(moved.tflite) == len(nearest.tflite)


def test_an_outlier_in_a_kernel_of_one_scale_costs_less(mlp_bench: Bench, tmp_path: Path) -> None:
    weights = weights_by_path(mlp_bench.parent.model)
    weights["dense/kernel"][0, 0] = 20 * np.abs(weights["dense/kernel"]).max()  # a pixel that is always 0
    work = Work(mlp_bench, with_weights(mlp_bench.parent.model, weights))
    wanted = mlp_bench.parent.predict(mlp_bench.data.x_validation)[0]
    error, before = (
        np.mean((answers(ptq(work, mode="static", dense_per_tensor=True, rounding=one), tmp_path) - wanted) ** 2)
        for one in ("compensated", "nearest")
    )
    assert error < 0.5 * before


@pytest.mark.parametrize(
    "settings",
    [{"mode": "static"}, {"mode": "static", "dense_per_tensor": True}, {"mode": "dynamic"}, {"mode": "weight_only"}],
)
def test_the_file_holds_the_codes_that_were_chosen(folded: Work, settings: dict[str, Any]) -> None:
    made = ptq(folded, **settings, rounding="compensated")
    assert made.tflite is not None
    shipped = constant_codes(made.tflite)
    kernels = {path: value for path, value in weights_by_path(made.model).items() if path.endswith("kernel")}
    kernels.pop("depthwise/kernel")
    if settings["mode"] == "dynamic":  # smaller ones stay float
        kernels = {path: value for path, value in kernels.items() if value.size >= 1024}
    for path, kernel in kernels.items():
        matrix = kernel.reshape(-1, kernel.shape[-1])
        one = path in ("hidden/kernel", "head/kernel") and "dense_per_tensor" in settings
        largest = np.abs(matrix).max() if one else np.abs(matrix).max(axis=0)
        exact = matrix / (np.where(largest > 0, largest, 1) / 127)
        assert np.allclose(exact, np.rint(exact), atol=1e-3)
        assert any(codes.shape == exact.shape and np.array_equal(codes, np.rint(exact)) for codes in shipped), path


def test_the_same_settings_give_the_same_bytes(folded: Work, with_4_bits: dict[str, Work]) -> None:
    again = ptq(folded, **INT4["static_wi4_ai8"], rounding="compensated")
    assert again.tflite == with_4_bits["static_wi4_ai8"].tflite


def test_pruned_weights_stay_zero_and_the_count_of_layers_is_noted(mlp_bench: Bench) -> None:
    model = mlp_bench.parent.model
    kernel = weights_by_path(model)["dense/kernel"]
    mask = np.abs(kernel) > np.quantile(np.abs(kernel), 0.7)
    work = Work(mlp_bench, with_weights(model, {"dense/kernel": kernel * mask}), masks={"dense/kernel": mask})
    made = ptq(work, mode="static", rounding="compensated")
    assert not weights_by_path(made.model)["dense/kernel"][~mask].any()
    assert made.notes["ptq"]["compensated_layers"] == 2


def test_what_is_left_to_the_nearest_code_is_named(cnn_bench: Bench) -> None:
    made = ptq(Work(cnn_bench, cnn_bench.parent.model), mode="static", rounding="compensated")
    reasons = {one.layer: one.reason for one in made.skipped}
    assert "put fold_bn before" in reasons["stem"]
    assert "only dense layers and ordinary convolutions" in reasons["depthwise"]


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({"mode": "float16"}, "nothing to compensate"),
        ({"mode": "dynamic", "layer": [{"match": "head", "weights": "float"}]}, "one kind of weights"),
    ],
)
def test_what_cannot_be_compensated_is_refused(folded: Work, settings: dict[str, Any], wrong: str) -> None:
    with pytest.raises(BadInput, match=wrong):
        ptq(folded, **settings, rounding="compensated")


def test_a_model_without_layers_is_refused(folded: Work) -> None:
    with pytest.raises(BadInput, match="needs a Keras model"):
        ptq(replace(folded, model=None), mode="dynamic", rounding="compensated")


@pytest.mark.parametrize(
    ("kind", "shape", "settings"),
    [
        ("Dense", (6,), {}),
        ("Dense", (5, 6), {}),
        ("Conv1D", (9, 3), {"kernel_size": 3, "padding": "causal", "dilation_rate": 2}),
        ("Conv1D", (9, 3), {"kernel_size": 4, "padding": "valid", "strides": 2}),
        ("Conv2D", (7, 6, 2), {"kernel_size": 3, "padding": "same", "strides": 2}),
        ("Conv2D", (4, 4, 2), {"kernel_size": (2, 3), "padding": "same"}),
        ("Conv2D", (7, 6, 2), {"kernel_size": 3, "padding": "valid", "dilation_rate": 2}),
    ],
)
def test_moments_are_those_of_what_the_kernel_reads(
    keras_module: Any, kind: str, shape: tuple[int, ...], settings: dict[str, Any]
) -> None:
    keras_module.utils.set_random_seed(0)
    given = keras_module.Input(shape)
    layer = getattr(keras_module.layers, kind)(4, use_bias=False, name="layer", **settings)
    model = keras_module.Model(given, layer(given))
    x = np.random.default_rng(0).normal(1, 1, (200, *shape)).astype(np.float32)
    seen = moments(model, model, "layer", (x,), 0)
    outputs = np.asarray(model(x)).reshape(-1, 4)
    kernel = np.asarray(layer.kernel).reshape(-1, 4)
    if len(outputs) <= 200 * 16:  # every place is looked at
        assert np.allclose(seen.mean_read @ kernel, outputs.mean(axis=0), atol=1e-4)
        assert np.allclose(kernel.T @ seen.read @ kernel, outputs.T @ outputs / len(outputs), atol=1e-3)
    assert np.allclose(seen.read, seen.cross)
