"""Quantization-aware training on real digits: what it keeps, and what stands in the file that ships."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeflock_compression.graph.flat import weights_by_path, with_weights
from edgeflock_compression.passes import fold_bn, ptq, qat
from edgeflock_compression.quantization.ranged import with_ranges
from edgeflock_compression.work import Bench, Codebook, Work
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.runtime import LoadedModel

VALUES = 16


@pytest.fixture(scope="module")
def folded(cnn_bench: Bench) -> Work:
    return fold_bn.fold_bn(Work(cnn_bench, cnn_bench.parent.model), fold_bn.Settings())


def kernels(work: Work) -> dict[str, Any]:
    return {path: value for path, value in weights_by_path(work.model).items() if path.endswith("/kernel")}


def pruned(work: Work) -> Work:
    masks = {path: np.abs(value) > np.quantile(np.abs(value), 0.6) for path, value in kernels(work).items()}
    zeroed = {path: value * masks[path] for path, value in kernels(work).items()}
    return replace(work, model=with_weights(work.model, zeroed), masks=masks)


def clustered(work: Work) -> Work:
    books = {}
    for path, kernel in kernels(work).items():
        live = kernel[work.masks[path]] if path in work.masks else kernel
        values = np.append(0, np.quantile(live, np.linspace(0, 1, VALUES - 1))).astype(np.float32)
        codes = np.abs(kernel[..., None] - values).argmin(axis=-1)
        if path in work.masks:
            codes = np.where(work.masks[path], codes, 0)
        books[path] = Codebook(values, codes, np.arange(VALUES) == 0)
    weights = {path: book.weights() for path, book in books.items()}
    return replace(work, model=with_weights(work.model, weights), codebooks=books)


def int8_constants(tflite: bytes) -> dict[tuple[int, ...], tuple[Any, Any]]:
    """By shape as the runtime holds it: codes and scales (broadcastable) of the weights in a file."""
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    model: Any = flatbuffer_utils.convert_bytearray_to_object(bytearray(tflite))
    found = {}
    for tensor in model.subgraphs[0].tensors:
        data = model.buffers[tensor.buffer].data
        if tensor.type == schema.TensorType.INT8 and data is not None and len(tensor.shape) >= 2:
            shape = tuple(int(n) for n in tensor.shape)
            scales = np.asarray(tensor.quantization.scale, np.float32)
            wide = [1] * len(shape)
            wide[tensor.quantization.quantizedDimension] = len(scales)
            assert not np.any(tensor.quantization.zeroPoint)
            found[shape] = np.frombuffer(bytes(data), np.int8).reshape(shape), scales.reshape(wide)
    return found


def as_held(path: str, kernel: Any) -> Any:
    """A Keras kernel in the order of axes in which the runtime holds it."""
    if path.startswith("depthwise"):
        return kernel.reshape(1, *kernel.shape[:2], -1)
    return np.moveaxis(kernel, -1, 0)


def accuracy(work: Work, folder: Path) -> float:
    assert work.tflite is not None
    (folder / "model.tflite").write_bytes(work.tflite)
    model, data = LoadedModel.load(folder / "model.tflite"), work.bench.data
    given = [model.run(item)[0].argmax() for item in data.x_validation[0]]
    return float(np.mean(np.equal(given, data.y_validation)))


def float_accuracy(work: Work) -> float:
    data = work.bench.data
    return float(np.mean(np.asarray(work.model(data.x_validation[0])).argmax(axis=1) == data.y_validation))


@pytest.fixture(scope="module", params=["QAT", "PQAT", "CQAT", "PCQAT"])
def trained(request: pytest.FixtureRequest, folded: Work) -> tuple[str, float, Work]:
    """What was held, the accuracy before training, and what came out."""
    work = folded
    if "P" in request.param:
        work = pruned(work)
    if "C" in request.param:
        work = clustered(work)
    before = float_accuracy(work)
    return request.param, before, qat.train_quantized(work, qat.Settings(learning_rate=1e-3, batch_items=64))


def test_the_file_is_int8_within_a_step_of_the_trained_model_and_no_worse_than_what_went_in(
    trained: tuple[str, float, Work], tmp_path: Path
) -> None:
    _, before, work = trained
    assert work.skipped == ()
    assert work.notes["qat"]["output_max_steps"] <= 1
    assert work.notes["qat"]["output_equal_share"] > 0.98
    assert accuracy(work, tmp_path) >= before - 0.01


def test_the_codes_in_the_file_are_the_weights_of_the_model(trained: tuple[str, float, Work]) -> None:
    _, _, work = trained
    assert work.tflite is not None
    held = int8_constants(work.tflite)
    for path, kernel in kernels(work).items():
        codes, scales = held[as_held(path, kernel).shape]
        np.testing.assert_allclose(codes * scales, as_held(path, kernel), rtol=1e-5, atol=1e-7)


def test_convolutions_have_a_scale_per_channel_and_dense_and_clustered_ones_a_single_one(
    trained: tuple[str, float, Work],
) -> None:
    kind, _, work = trained
    assert work.tflite is not None
    for shape, (_, scales) in int8_constants(work.tflite).items():
        channels = shape[-1] if shape[0] == 1 else shape[0]
        assert scales.size == (1 if len(shape) == 2 or "C" in kind else channels)


def test_masks_and_codebooks_hold_into_the_file(trained: tuple[str, float, Work]) -> None:
    kind, _, work = trained
    assert work.tflite is not None
    held = int8_constants(work.tflite)
    assert bool(work.masks) == ("P" in kind)
    assert bool(work.codebooks) == ("C" in kind)
    for path, mask in work.masks.items():
        codes, _ = held[as_held(path, mask).shape]
        assert mask.mean() == pytest.approx(0.4, abs=0.02)
        assert not codes[~as_held(path, mask)].any()
    for path, book in work.codebooks.items():
        codes, _ = held[as_held(path, book.codes).shape]
        assert 4 < len(np.unique(codes)) <= VALUES
        np.testing.assert_array_equal(book.weights(), kernels(work)[path])


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")  # the converter's calibrator uses it
def test_training_with_the_rounding_loses_less_than_calibration_where_int8_is_coarse(
    mlp_bench: Bench, tmp_path: Path
) -> None:
    # One unit 100 times as large as the others, its outgoing weights as much smaller: the same function in float.
    scale = np.ones(64, np.float32)
    weights = weights_by_path(mlp_bench.parent.model)
    scale[0] = 100
    first, last = (path.split("/")[0] for path in weights if path.endswith("/kernel"))
    unbalanced: dict[str, NDArray[Any]] = {
        f"{first}/kernel": weights[f"{first}/kernel"] * scale,
        f"{first}/bias": weights[f"{first}/bias"] * scale,
        f"{last}/kernel": weights[f"{last}/kernel"] / scale[:, None],
    }
    work = Work(mlp_bench, with_weights(mlp_bench.parent.model, unbalanced))
    settings = qat.Settings(epochs=6, learning_rate=1e-3, batch_items=32)
    calibrated = ptq.quantize_after_training(work, ptq.Settings(mode="static", dense_per_tensor=True))
    assert accuracy(qat.train_quantized(work, settings), tmp_path) > accuracy(calibrated, tmp_path)


def test_without_training_the_weights_are_only_rounded(folded: Work) -> None:
    done = qat.train_quantized(folded, qat.Settings(epochs=0, dense_per_tensor=False))
    assert done.tflite is not None
    held = int8_constants(done.tflite)
    for path, kernel in kernels(folded).items():
        codes, scales = held[as_held(path, kernel).shape]
        assert scales.size > 1
        assert np.all(np.abs(codes * scales - as_held(path, kernel)) <= scales / 2 * 1.001)


def test_joined_tensors_share_one_range_and_a_fused_relu_has_none_before_it(keras_module: Any) -> None:
    layers = keras_module.layers
    given = keras_module.Input((6, 6, 1), name="image")
    left = layers.ReLU(name="left")(layers.Conv2D(2, 3, name="conv")(given))
    right = layers.MaxPooling2D(1)(layers.Conv2D(2, 3, activation="tanh", name="bent")(given))
    both = layers.Concatenate(name="both")([left, layers.Conv2D(2, 1, name="straight")(right)])
    model = keras_module.Model(given, layers.Activation("softmax", name="last")(layers.Flatten()(both)))
    ranged = with_ranges(model, [np.random.default_rng(0).uniform(-3, 5, (8, 6, 6, 1)).astype(np.float32)])
    ranges = {layer.name: layer for layer in ranged.layers if type(layer).__name__ == "FakeQuant"}
    assert ranges.keys() == {"image_range", "bent_sum_range", "bent_range", "both_range"}
    assert len(ranges["both_range"]._inbound_nodes) == 3
    assert (float(ranges["bent_range"].low), float(ranges["bent_range"].high)) == (-1, 127 / 128)
    assert not ranges["bent_range"].trainable_variables


def test_what_attention_computes_inside_is_calibrated_and_named(keras_module: Any, mlp_bench: Bench) -> None:
    layers = keras_module.layers
    keras_module.utils.set_random_seed(0)
    given = keras_module.Input((64,))
    x = layers.Reshape((8, 8))(layers.Rescaling(1 / 16)(given))
    x = layers.Add()([x, layers.MultiHeadAttention(2, 4, name="attention")(x, x)])
    x = layers.GRU(6, name="recurrent")(x)
    model = keras_module.Model(given, layers.Dense(10, activation="softmax")(x))
    done = qat.train_quantized(Work(mlp_bench, model), qat.Settings(epochs=0, calibration_items=64))
    assert {"attention", "recurrent"} <= {part.layer for part in done.skipped}
    named = [part for part in done.skipped if part.layer in ("attention", "recurrent")]
    assert all("calibrated" in part.reason for part in named)
    assert done.tflite is not None
    assert (8, 8) in int8_constants(done.tflite)


def test_several_outputs_come_in_the_order_of_the_model(keras_module: Any, mlp_bench: Bench, tmp_path: Path) -> None:
    layers = keras_module.layers
    given = keras_module.Input((64,))
    hidden = layers.Dense(12, activation="relu")(given)
    outputs = [layers.Dense(10, activation="softmax")(hidden), layers.Dense(3)(hidden)]
    bench = replace(mlp_bench, parent=replace(mlp_bench.parent, outputs=2))
    done = qat.train_quantized(Work(bench, keras_module.Model(given, outputs)), qat.Settings(epochs=0))
    assert done.tflite is not None
    (tmp_path / "two.tflite").write_bytes(done.tflite)
    assert [info.shape for info in LoadedModel.load(tmp_path / "two.tflite").outputs] == [(1, 10), (1, 3)]


def test_batch_norm_that_stands_after_a_dense_layer_is_named(keras_module: Any, mlp_bench: Bench) -> None:
    layers = keras_module.layers
    given = keras_module.Input((64,))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Dense(12, name="hidden")(given)))
    model = keras_module.Model(given, layers.Dense(10, activation="softmax")(x))
    done = qat.train_quantized(Work(mlp_bench, model), qat.Settings(epochs=0))
    assert [part.layer for part in done.skipped] == ["hidden"]
    assert "fold_bn" in done.skipped[0].reason


def test_a_parent_without_layers_is_refused(mlp_bench: Bench) -> None:
    with pytest.raises(BadInput, match="use ptq"):
        qat.train_quantized(Work(mlp_bench, None), qat.Settings())


TRAIN = """
import sys
from pathlib import Path
from edgeflock_compression.parent.data import fit, load_data
from edgeflock_compression.passes import qat
from edgeflock_compression.parent.source import open_parent
from edgeflock_compression.parent.split import split
from edgeflock_compression.tf_import import deterministic
from edgeflock_compression.work import Bench, Work

deterministic(1)
parent = open_parent(Path(sys.argv[1]))
bench = Bench(parent, split(fit(load_data(Path(sys.argv[2])), parent.inputs), 3), 3)
Path("out.tflite").write_bytes(qat.train_quantized(Work(bench, parent.model), qat.Settings(epochs=1)).tflite)
"""


def test_two_processes_in_two_folders_make_the_same_bytes(classifier: Path, digits: Path, tmp_path: Path) -> None:
    made = set()
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        command = [sys.executable, "-c", TRAIN, str(classifier), str(digits)]
        subprocess.run(command, cwd=tmp_path / name, check=True, capture_output=True)
        made.add(hashlib.sha256((tmp_path / name / "out.tflite").read_bytes()).hexdigest())
    assert len(made) == 1
