"""Batch normalisation folded away: nothing changes but the layers."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeflock_compression.graph.export import export_saved_model
from edgeflock_compression.graph.flat import flat, weights_by_path
from edgeflock_compression.passes.fold_bn import Settings, fold_bn
from edgeflock_compression.tf_import import keras, tensorflow
from edgeflock_compression.work import Bench, Codebook, Work
from edgeflock_deploy.runtime import LoadedModel

Array = NDArray[Any]
IMAGE, SERIES, VOLUME, TABLE = (9, 9, 4), (12, 4), (5, 5, 5, 4), (4,)
PLAIN = ["Dense", "Conv1D", "Conv2D", "Conv3D", "DepthwiseConv1D", "DepthwiseConv2D"]
OUTPUT_ONLY = ["SeparableConv1D", "SeparableConv2D", "Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"]


def shape_of(kind: str) -> tuple[int, ...]:
    return TABLE if kind == "Dense" else SERIES if "1D" in kind else VOLUME if "3D" in kind else IMAGE


@st.composite
def linear_layers(draw: st.DrawFn, kinds: list[str]) -> tuple[str, dict[str, Any]]:
    kind = draw(st.sampled_from(kinds))
    config: dict[str, Any] = {"use_bias": draw(st.booleans()), "name": "linear"}
    if kind == "Dense":
        return kind, {**config, "units": 6}
    config |= {"kernel_size": draw(st.sampled_from([1, 2, 3])), "padding": draw(st.sampled_from(["same", "valid"]))}
    config["strides"] = draw(st.sampled_from([1, 2]))
    if kind.startswith("Depthwise"):
        config["depth_multiplier"] = draw(st.sampled_from([1, 2]))
    else:
        config["filters"] = 6
    if kind in ("Conv1D", "Conv2D"):
        config["groups"] = draw(st.sampled_from([1, 2]))
    return kind, config


def made(kind: str, config: dict[str, Any]) -> Any:
    return getattr(keras().layers, kind)(**config)


def model_of(shape: tuple[int, ...], *layers: Any) -> Any:
    """A model whose weights and statistics are drawn at random, as after a training."""
    given = keras().Input(shape)
    out = given
    for layer in layers:
        out = layer(out)
    return drawn(keras().Model(given, out))


def drawn(model: Any, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        positive = variable.path.endswith(("moving_variance", "gamma"))
        value = rng.uniform(0.1, 5, variable.shape) if positive else rng.standard_normal(variable.shape)
        variable.assign(value.astype(np.float32))
    return flat(model, "model")


def outputs(model: Any) -> Array:
    rng = np.random.default_rng(7)
    given = [rng.standard_normal((8, *tensor.shape[1:])).astype(np.float32) for tensor in model.inputs]
    return np.asarray(model(given[0] if len(given) == 1 else given, training=False))


def assert_same(new: Any, old: Any) -> None:
    wanted = outputs(old)
    np.testing.assert_allclose(outputs(new), wanted, rtol=0, atol=1e-5 * float(np.abs(wanted).max()))


def norms(model: Any) -> list[str]:
    return [layer.name for layer in model.layers if type(layer).__name__ == "BatchNormalization"]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(linear_layers(PLAIN + OUTPUT_ONLY), st.booleans(), st.booleans(), st.integers(0, 1000))
def test_a_norm_after_any_linear_layer_is_folded_into_it(
    cnn_bench: Bench, layer: tuple[str, dict[str, Any]], center: bool, scale: bool, seed: int
) -> None:
    norm = keras().layers.BatchNormalization(center=center, scale=scale, name="norm")
    model = drawn(model_of(shape_of(layer[0]), made(*layer), norm), seed)
    work = fold_bn(Work(cnn_bench, model), Settings())
    assert norms(work.model) == []
    assert work.notes["fold_bn"]["folded"] == {"norm": "linear"}
    assert not work.skipped
    assert_same(work.model, model)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(linear_layers(PLAIN), st.booleans(), st.booleans(), st.integers(0, 1000))
def test_a_norm_before_a_layer_is_folded_into_it_unless_that_pads(
    cnn_bench: Bench, layer: tuple[str, dict[str, Any]], center: bool, scale: bool, seed: int
) -> None:
    kind, config = layer
    norm = keras().layers.BatchNormalization(center=center, scale=scale, name="norm")
    model = drawn(model_of(shape_of(kind), norm, made(kind, {**config, "activation": "tanh"})), seed)
    work = fold_bn(Work(cnn_bench, model), Settings())
    if config.get("padding", "valid") == "same" and config["kernel_size"] > 1:
        assert norms(work.model) == ["norm"]
        assert [part.layer for part in work.skipped] == ["norm"]
        assert "pads with zeros" in work.skipped[0].reason
    else:
        assert norms(work.model) == []
    assert_same(work.model, model)


def test_a_chain_of_norms_goes_one_after_the_other(cnn_bench: Bench) -> None:
    layers = keras().layers
    model = model_of(
        TABLE,
        layers.BatchNormalization(name="first"),
        layers.Dense(5, name="dense"),
        layers.BatchNormalization(name="second"),
        layers.BatchNormalization(name="third"),
    )
    work = fold_bn(Work(cnn_bench, model), Settings())
    assert work.notes["fold_bn"]["folded"] == dict.fromkeys(["first", "second", "third"], "dense")
    assert_same(work.model, model)


def test_a_norm_after_an_activation_goes_into_the_next_layer(cnn_bench: Bench) -> None:
    layers = keras().layers
    hidden, norm = layers.Dense(6, activation="relu"), layers.BatchNormalization()
    work = fold_bn(Work(cnn_bench, model_of(TABLE, hidden, norm, layers.Dense(3, name="head"))), Settings())
    assert list(work.notes["fold_bn"]["folded"].values()) == ["head"]


def shared_norm() -> Any:
    layers, first, second = keras().layers, keras().Input(TABLE), keras().Input(TABLE)
    dense, norm = layers.Dense(4), layers.BatchNormalization()
    return keras().Model([first, second], layers.Add()([norm(dense(first)), norm(dense(second))]))


def shared_dense() -> Any:
    layers, first, second = keras().layers, keras().Input(TABLE), keras().Input(TABLE)
    dense = layers.Dense(4)
    return keras().Model([first, second], layers.Add()([layers.BatchNormalization()(dense(first)), dense(second)]))


def tapped() -> Any:
    layers, given = keras().layers, keras().Input(TABLE)
    hidden = layers.Dense(4)(given)
    return keras().Model(given, layers.Add()([layers.BatchNormalization()(hidden), hidden]))


def before_relu() -> Any:
    layers, given = keras().layers, keras().Input(IMAGE)
    both = layers.Add()([layers.Conv2D(4, 1)(given), given])
    return keras().Model(given, layers.Conv2D(2, 3)(layers.ReLU()(layers.BatchNormalization()(both))))


def over_rows() -> Any:
    layers, given = keras().layers, keras().Input(SERIES)
    return keras().Model(given, layers.BatchNormalization(axis=1)(layers.Dense(5)(given)))


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (shared_norm, "it is used several times"),
        (shared_dense, r"dense\w* \(Dense\) is used several times"),
        (tapped, "is used elsewhere too"),
        (
            before_relu,
            r"before it comes add\w* \(Add\), which has no kernel to scale; after it comes re_lu\w* \(ReLU\)",
        ),
        (over_rows, "another axis than the channels"),
    ],
)
def test_what_cannot_be_folded_stays_with_a_reason(cnn_bench: Bench, build: Any, reason: str) -> None:
    model = drawn(build())
    work = fold_bn(Work(cnn_bench, model), Settings())
    assert norms(work.model) == norms(model) != []
    assert len(work.skipped) == 1
    assert re.search(reason, work.skipped[0].reason)
    assert_same(work.model, model)


def conv_and_norm() -> Any:
    layers = keras().layers
    return model_of(IMAGE, layers.Conv2D(6, 3, name="conv"), layers.BatchNormalization(name="norm"), layers.ReLU())


def test_a_mask_stays_and_its_zeros_stay_zero(cnn_bench: Bench) -> None:
    model = conv_and_norm()
    mask = np.random.default_rng(0).random((3, 3, 4, 6)) < 0.5
    conv = next(layer for layer in model.layers if layer.name == "conv")
    conv.kernel.assign(conv.kernel * mask)
    work = fold_bn(Work(cnn_bench, model, masks={"conv/kernel": mask}), Settings())
    assert norms(work.model) == []
    kernel = weights_by_path(work.model)["conv/kernel"]
    assert not kernel[~work.masks["conv/kernel"]].any()
    assert kernel[mask].all()
    assert_same(work.model, model)


def test_a_codebook_for_each_channel_is_scaled_and_one_for_the_whole_kernel_forbids_folding(cnn_bench: Bench) -> None:
    rng = np.random.default_rng(0)
    codes, fixed = rng.integers(0, 3, (3, 3, 4, 6)), np.array([True, False, False])
    values = rng.standard_normal((3, 6)).astype(np.float32)
    values[0] = 0
    for book in (Codebook(values, codes, fixed), Codebook(values[:, 0], codes, fixed)):
        model = conv_and_norm()
        next(layer for layer in model.layers if layer.name == "conv").kernel.assign(book.weights())
        work = fold_bn(Work(cnn_bench, model, codebooks={"conv/kernel": book}), Settings())
        new = work.codebooks["conv/kernel"]
        np.testing.assert_allclose(weights_by_path(work.model)["conv/kernel"], new.weights(), rtol=1e-5)
        assert_same(work.model, model)
        if book.values.ndim == 2:
            assert norms(work.model) == []
            assert not new.values[0].any()
        else:
            assert new is book
            assert "shares values among its channels" in work.skipped[0].reason


def test_a_held_norm_is_left_alone(cnn_bench: Bench) -> None:
    work = Work(cnn_bench, conv_and_norm(), masks={"norm/gamma": np.ones(6, bool)})
    assert norms(fold_bn(work, Settings()).model) == ["norm"]


def test_the_digits_net_answers_the_same_with_fewer_layers_in_the_file(cnn_bench: Bench, tmp_path: Path) -> None:
    work = Work(cnn_bench, cnn_bench.parent.model)
    folded = fold_bn(work, Settings())
    assert folded.notes["fold_bn"]["folded"] == {"stem_bn": "stem", "branch_bn": "branch"}
    assert norms(work.model) == ["stem_bn", "branch_bn"]  # what came in is as it was
    x = cnn_bench.data.x_validation[0]
    wanted = cnn_bench.parent.predict((x,))[0]
    export_saved_model(folded.model, tmp_path / "saved", [(8, 8, 1)])
    converter = tensorflow().lite.TFLiteConverter.from_saved_model(str(tmp_path / "saved"))
    (tmp_path / "model.tflite").write_bytes(converter.convert())
    loaded = LoadedModel.load(tmp_path / "model.tflite")
    np.testing.assert_allclose(np.concatenate([loaded.run(item)[0] for item in x]), wanted, atol=1e-5)
