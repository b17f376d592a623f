"""Post-training quantization in the shipped file, on trained models of real digits."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeflock_compression.graph.flat import weights_by_path, with_weights
from edgeflock_compression.parent.source import Parent, open_parent
from edgeflock_compression.passes.fold_bn import Settings as FoldSettings
from edgeflock_compression.passes.fold_bn import fold_bn
from edgeflock_compression.passes.ptq import Settings, quantize_after_training
from edgeflock_compression.quantization.equalize import equalized
from edgeflock_compression.tflite.converter import convert
from edgeflock_compression.tflite.float_left import operators
from edgeflock_compression.work import Bench, Codebook, Work
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.runtime import LoadedModel

Array = NDArray[Any]
MODES: dict[str, dict[str, Any]] = {
    "float32": {"mode": "float32"},
    "float16": {"mode": "float16"},
    "dynamic_wi8": {"mode": "dynamic"},
    "dynamic_wi4": {"mode": "dynamic", "weights": "int4"},
    "weight_only_wi8": {"mode": "weight_only"},
    "weight_only_wi4": {"mode": "weight_only", "weights": "int4"},
    "static_wi8_ai8": {"mode": "static"},
    "static_wi8_ai16": {"mode": "static", "activations": "int16"},
    "static_wi4_ai8": {"mode": "static", "weights": "int4"},
}


def ptq(work: Work, **settings: Any) -> Work:
    return quantize_after_training(work, Settings.model_validate(settings))


def loaded(work: Work, folder: Path) -> LoadedModel:
    assert work.tflite is not None
    path = folder / "model.tflite"
    path.write_bytes(work.tflite)
    return LoadedModel.load(path)


def answers(work: Work, folder: Path) -> Array:
    model = loaded(work, folder)
    return np.concatenate([model.run(item)[0] for item in work.bench.data.x_validation[0]])


def weight_tensors(tflite: bytes) -> dict[str, tuple[Array, int]]:
    """By tensor name, the codes of constant int8 tensors of two dimensions or more, and how many scales they have."""
    from tensorflow.lite.tools import flatbuffer_utils

    model: Any = flatbuffer_utils.convert_bytearray_to_object(bytearray(tflite))
    found = {}
    for tensor in model.subgraphs[0].tensors:
        data = model.buffers[tensor.buffer].data
        if data is not None and len(tensor.shape) > 1 and tensor.type == 9:  # INT8
            codes = np.frombuffer(bytes(data), np.int8).reshape(tensor.shape)
            found[tensor.name.decode()] = codes, len(tensor.quantization.scale)
    return found


@pytest.fixture(scope="module")
def made(cnn_bench: Bench) -> dict[str, Work]:
    work = Work(cnn_bench, cnn_bench.parent.model)
    return {name: ptq(work, **settings) for name, settings in MODES.items()}


@pytest.mark.parametrize("name", MODES)
def test_each_mode_answers_almost_as_the_parent(made: dict[str, Work], tmp_path: Path, name: str) -> None:
    work = made[name]
    parent = work.bench.parent.predict(work.bench.data.x_validation)[0].argmax(axis=1)
    least = 0.93 if "wi4" in name else 0.98 if "wi8" in name else 1.0
    assert np.mean(answers(work, tmp_path).argmax(axis=1) == parent) >= least


def test_fewer_bits_make_smaller_files(made: dict[str, Work]) -> None:
    size = {name: len(work.tflite or b"") for name, work in made.items()}
    assert size["dynamic_wi4"] < 0.7 * size["weight_only_wi8"]
    assert size["static_wi4_ai8"] < 0.75 * size["static_wi8_ai8"]
    assert size["weight_only_wi8"] < 0.7 * size["float16"] < 0.5 * size["float32"]


def test_inputs_and_outputs_stay_float_in_every_mode(made: dict[str, Work], tmp_path: Path) -> None:
    for work in made.values():
        model = loaded(work, tmp_path)
        assert [info.dtype for info in (*model.inputs, *model.outputs)] == ["float32", "float32"]


def test_what_has_no_int4_kernel_is_named_and_gets_int8(made: dict[str, Work]) -> None:
    (skipped,) = made["dynamic_wi4"].skipped
    assert skipped.layer == "DEPTHWISE_CONV_2D depthwise"
    assert "int8 instead" in skipped.reason


def test_layers_that_stay_float_are_named_as_in_the_keras_model(made: dict[str, Work]) -> None:
    assert {skipped.layer.split()[1] for skipped in made["dynamic_wi8"].skipped} == {
        "stem",
        "depthwise",
        "pointwise",
        "head",
    }


def test_the_number_of_calibration_items_is_noted(made: dict[str, Work]) -> None:
    assert made["static_wi8_ai8"].notes["ptq"] == {"calibration_items": 512}
    assert "ptq" not in made["dynamic_wi8"].notes


def test_the_same_settings_give_the_same_bytes(made: dict[str, Work]) -> None:
    again = made["static_wi4_ai8"]
    assert ptq(Work(again.bench, again.bench.parent.model), **MODES["static_wi4_ai8"]).tflite == again.tflite


def test_layers_are_chosen_by_name_and_the_last_choice_counts(cnn_bench: Bench) -> None:
    layer = [
        {"match": "*", "weights": "int4"},
        {"match": "h*", "weights": "int8"},
        {"match": "head", "weights": "float"},
    ]
    work = ptq(Work(cnn_bench, cnn_bench.parent.model), mode="dynamic", layer=layer)
    assert work.tflite is not None
    floats = [one.layer for one in operators(work.tflite) if one.takes_weights and one.float_weight]
    assert floats == ["head"]
    assert not any("head" in skipped.layer for skipped in work.skipped)  # it was asked for
    int8 = {name.split("/")[1] for name in weight_tensors(work.tflite)}
    assert {name.split(".")[0] for name in int8} == {"hidden", "depthwise"}


def test_a_pattern_that_fits_no_layer_is_refused(cnn_bench: Bench) -> None:
    layer = [{"match": "dense_7", "weights": "int4"}]
    with pytest.raises(BadInput, match=r"'dense_7': fits no layer.*stem, .*head"):
        ptq(Work(cnn_bench, cnn_bench.parent.model), mode="dynamic", layer=layer)


def test_one_scale_per_dense_kernel_if_asked(mlp_bench: Bench) -> None:
    work = Work(mlp_bench, mlp_bench.parent.model)
    for mode in ("dynamic", "static"):
        per_unit, per_tensor = (ptq(work, mode=mode, dense_per_tensor=one).tflite for one in (False, True))
        assert max(scales for _, scales in weight_tensors(per_unit or b"").values()) == 64
        assert {scales for _, scales in weight_tensors(per_tensor or b"").values()} == {1}


def dense_names(model: Any) -> list[str]:
    return [layer.name for layer in model.layers if layer.weights]  # Keras counts names on through a session


def test_zeros_stay_zero_codes(mlp_bench: Bench) -> None:
    model = mlp_bench.parent.model
    path = f"{dense_names(model)[0]}/kernel"
    kernel = weights_by_path(model)[path]
    mask = np.abs(kernel) > np.quantile(np.abs(kernel), 0.8)
    pruned = Work(mlp_bench, with_weights(model, {path: kernel * mask}), masks={path: mask})
    for settings in (MODES["static_wi8_ai8"], MODES["weight_only_wi8"]):
        tensors = weight_tensors(ptq(pruned, **settings).tflite or b"")
        codes = next(codes for codes, _ in tensors.values() if codes.shape == (64, 64))
        assert not codes[~mask.T].any()


@pytest.mark.parametrize("kernel", ["hidden/kernel", "branch/kernel"])
@pytest.mark.parametrize("mode", ["static", "dynamic"])
def test_a_clustered_weight_has_no_more_codes_than_values(cnn_bench: Bench, kernel: str, mode: str) -> None:
    folded = fold_bn(Work(cnn_bench, cnn_bench.parent.model), FoldSettings())
    held = weights_by_path(folded.model)[kernel]
    values = np.linspace(held.min(), held.max(), 15).astype(np.float32)
    book = Codebook(values, np.abs(held[..., None] - values).argmin(axis=-1), np.zeros(15, bool))
    model = with_weights(folded.model, {kernel: book.weights()})
    work = ptq(replace(folded, model=model, codebooks={kernel: book}), mode=mode)
    name = kernel.split("/")[0]
    (tensor,) = (value for path, value in weight_tensors(work.tflite or b"").items() if f"{name}." in path)
    assert len(np.unique(tensor[0])) <= 15
    assert tensor[1] == 1


def test_equalized_channels_change_no_answer_and_halve_the_error_of_one_scale_per_kernel(mlp_bench: Bench) -> None:
    rng = np.random.default_rng(0)
    held, (first, second) = weights_by_path(mlp_bench.parent.model), dense_names(mlp_bench.parent.model)
    uneven = np.exp(rng.normal(0, 1.5, 64)).astype(np.float32)  # what batch norm leaves behind when it is folded
    spoiled: dict[str, Any] = {
        f"{first}/kernel": held[f"{first}/kernel"] * uneven,
        f"{first}/bias": held[f"{first}/bias"] * uneven,
        f"{second}/kernel": held[f"{second}/kernel"] / uneven[:, None],
    }
    work = Work(mlp_bench, with_weights(mlp_bench.parent.model, spoiled))
    mended, pairs = equalized(work)
    assert pairs == 1
    x = mlp_bench.data.x_validation[0]
    np.testing.assert_allclose(np.asarray(mended.model(x)), np.asarray(work.model(x)), atol=1e-5)

    def error(one: Work) -> float:
        """Mean change of the answers when each kernel is rounded to 8 bits with one scale."""
        kernels: dict[str, Any] = {
            f"{name}/kernel": weights_by_path(one.model)[f"{name}/kernel"] for name in (first, second)
        }
        scales = {path: np.abs(kernel).max() / 127 for path, kernel in kernels.items()}
        rounded: dict[str, Any] = {
            path: np.rint(kernel / scales[path]) * scales[path] for path, kernel in kernels.items()
        }
        return float(np.abs(np.asarray(with_weights(one.model, rounded)(x)) - np.asarray(one.model(x))).mean())

    assert error(mended) < 0.5 * error(work)
    assert ptq(work, mode="static", dense_per_tensor=True, equalize=True).notes["ptq"]["equalized_pairs"] == 1


@pytest.fixture(scope="module")
def foreign(cnn_bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The CNN as a float `.tflite` as an older converter would write it: no signature, kinds in one byte only."""
    from tensorflow.lite.tools import flatbuffer_utils

    tflite = convert(Work(cnn_bench, cnn_bench.parent.model), "float32")
    model: Any = flatbuffer_utils.convert_bytearray_to_object(bytearray(tflite))
    model.signatureDefs = []
    for code in model.operatorCodes:
        code.builtinCode = 0
    path = tmp_path_factory.mktemp("foreign") / "old.tflite"
    path.write_bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    parent: Parent = open_parent(path)
    return replace(cnn_bench, parent=parent)


@pytest.mark.parametrize("name", MODES)
def test_a_tflite_made_elsewhere_is_quantized(foreign: Bench, made: dict[str, Work], tmp_path: Path, name: str) -> None:
    work = ptq(Work(foreign, None), **MODES[name])
    assert len(work.tflite or b"") < 1.1 * len(made[name].tflite or b"")
    same = answers(work, tmp_path).argmax(axis=1) == foreign.parent.predict(foreign.data.x_validation)[0].argmax(axis=1)
    assert np.mean(same) >= (0.93 if "wi4" in name else 0.98 if "wi8" in name else 1.0)
