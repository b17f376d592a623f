"""Channels that are zero can be removed and no output changes, whatever ties them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeflock_compression.channels.cut import cut_model
from edgeflock_compression.channels.groups import Channels, Keep, find_channels
from edgeflock_compression.graph.flat import flat, with_weights
from edgeflock_compression.graph.macs import multiply_adds


def _conv_net(k: Any) -> Any:
    x = given_image = k.Input((8, 8, 2))
    for n, filters in enumerate((6, 8)):
        x = k.layers.Conv2D(filters, 3, padding="same", name=f"c{n}")(x)
        x = k.layers.PReLU(shared_axes=[1, 2] if n else None, name=f"p{n}")(
            k.layers.BatchNormalization(name=f"n{n}")(x)
        )
        x = k.layers.MaxPooling2D()(k.layers.Dropout(0.1)(x))
    return k.Model(given_image, k.layers.Dense(3, name="head")(k.layers.GlobalAveragePooling2D()(x)))


def _residual_net(k: Any) -> Any:
    x = image = k.Input((8, 8, 1))
    x = k.layers.Conv2D(8, 3, padding="same", name="stem")(x)
    for n in range(2):
        y = k.layers.Conv2D(5, 3, padding="same", activation="relu", name=f"in{n}")(x)
        y = k.layers.Conv2D(8, 3, padding="same", name=f"out{n}")(y)
        x = k.layers.ReLU()(k.layers.Add(name=f"add{n}")([x, k.layers.BatchNormalization(name=f"n{n}")(y)]))
    y = k.layers.Conv2D(12, 3, strides=2, padding="same", name="down")(x)
    x = k.layers.Average(name="projected")([y, k.layers.Conv2D(12, 1, strides=2, name="projection")(x)])
    return k.Model(image, k.layers.Dense(3, name="head")(k.layers.Flatten()(x)))


def _dense_block_net(k: Any) -> Any:
    x = image = k.Input((6, 6, 2))
    for n in range(3):
        y = k.layers.ReLU()(k.layers.BatchNormalization(name=f"n{n}")(x))
        x = k.layers.Concatenate()([x, k.layers.Conv2D(4, 3, padding="same", name=f"c{n}")(y)])
    y = k.layers.Conv2D(14, 1, name="mix")(x)
    x = k.layers.Add()([x, y])  # ties parts of `mix` to each of the others, and two of its channels to the input
    return k.Model(image, k.layers.Dense(3, name="head")(k.layers.GlobalMaxPooling2D()(x)))


def _depthwise_net(k: Any) -> Any:
    x = image = k.Input((8, 8, 1))
    x = k.layers.Conv2D(6, 3, strides=2, padding="same", activation="relu6", name="stem")(x)
    x = k.layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", name="depthwise")(x)
    x = k.layers.ReLU()(k.layers.BatchNormalization(name="n")(x))
    x = k.layers.Conv2D(10, 1, activation="relu", name="pointwise")(x)
    x = k.layers.SeparableConv2D(7, 3, depth_multiplier=2, activation="relu", name="separable")(x)
    x = k.layers.Conv2DTranspose(5, 2, strides=2, activation="relu", name="transposed")(k.layers.ZeroPadding2D()(x))
    return k.Model(image, k.layers.Dense(3, name="head")(k.layers.Flatten()(k.layers.UpSampling2D()(x))))


def _squeeze_net(k: Any) -> Any:
    x = image = k.Input((6, 6, 1))
    x = k.layers.Conv2D(8, 3, name="stem")(x)
    s = k.layers.Dense(4, activation="relu", name="squeeze")(k.layers.GlobalAveragePooling2D()(x))
    s = k.layers.Reshape((1, 1, 8))(k.layers.Dense(8, activation="sigmoid", name="excite")(s))
    x = k.layers.Multiply()([x, s])
    s = k.layers.Conv2D(1, 1, activation="sigmoid", name="where")(x)  # one channel for all
    return k.Model(image, k.layers.Dense(3, name="head")(k.layers.Flatten()(k.layers.Multiply()([x, s]))))


def _reshaping_net(k: Any) -> Any:
    x = image = k.Input((12,))
    x = k.layers.Dense(32, activation="relu", name="units")(x)
    x = k.layers.Conv2D(6, 3, padding="same", activation="relu", name="conv")(k.layers.Reshape((2, 2, 8))(x))
    x = k.layers.Reshape((2, 12))(x)
    return k.Model(image, k.layers.Dense(3, name="head")(k.layers.Flatten()(x)))


def _operations_net(k: Any) -> Any:
    x = image = k.Input((8, 8, 1))
    x = k.layers.Conv2D(8, 3, padding="same", name="stem")(x)
    y = k.ops.relu(k.layers.Conv2D(8, 3, padding="same", name="branch")(x) * 0.5)
    x = k.ops.mean(k.ops.concatenate([x + y, k.ops.maximum(x, y)], axis=-1), axis=(1, 2))
    return k.Model(image, k.layers.Dense(3, name="head")(x))


def _series_net(k: Any) -> Any:
    x = series = k.Input((16, 3))
    x = k.layers.Conv1D(8, 3, padding="causal", name="c0")(x)
    x = k.layers.ReLU()(k.layers.BatchNormalization(name="n")(x))
    x = k.layers.DepthwiseConv1D(3, name="depthwise")(k.layers.AveragePooling1D(2)(x))
    x = k.layers.SeparableConv1D(6, 3, activation="relu", name="separable")(x)
    x = k.layers.Bidirectional(k.layers.LSTM(3, return_sequences=True), name="both")(x)
    x = k.layers.Dense(6, activation="relu", name="units")(x)
    return k.Model(series, k.layers.Dense(3, name="head")(k.layers.GRU(4, name="gru")(x)))


def _attention_net(k: Any) -> Any:
    tokens = k.Input((7,), dtype="int32")
    x = k.layers.Embedding(11, 8, name="words")(tokens)
    x = k.layers.LayerNormalization(name="norm")(x + k.layers.MultiHeadAttention(2, 4, name="mha")(x, x))
    y = k.layers.Dense(12, activation="relu", name="wide")(x)
    x = k.layers.Add()([x, k.layers.Dense(8, name="narrow")(y)])
    return k.Model(tokens, k.layers.Dense(3, activation="softmax", name="head")(k.layers.GlobalAveragePooling1D()(x)))


def _two_by_two_net(k: Any) -> Any:
    a, b = k.Input((5,), name="a"), k.Input((6, 6, 1), name="b")
    x = k.layers.Dense(6, activation="relu", name="units")(a)
    y = k.layers.GlobalAveragePooling2D()(k.layers.Conv2D(6, 3, name="conv")(b))
    both = k.layers.Multiply()([k.layers.Subtract()([x, y]), x])
    return k.Model([a, b], [k.layers.Dense(2, name="one")(both), k.layers.Dense(3, name="other")(y)])


NETS: dict[str, Callable[[Any], Any]] = {
    "plain": _conv_net,
    "residual": _residual_net,
    "dense block": _dense_block_net,
    "depthwise": _depthwise_net,
    "squeeze and excite": _squeeze_net,
    "reshaping": _reshaping_net,
    "operations": _operations_net,
    "series": _series_net,
    "attention": _attention_net,
    "two inputs, two outputs": _two_by_two_net,
}


def _drawn(model: Any, rng: np.random.Generator) -> Any:
    """The model with weights in which nothing is zero or one by default."""
    return with_weights(model, {v.path: rng.uniform(0.1, 0.6, v.shape) * _sign(v, rng) for v in model.weights})


def _sign(variable: Any, rng: np.random.Generator) -> Any:
    return 1 if "moving_variance" in variable.path else rng.choice([-1, 1], variable.shape)


def _some_removed(channels: Channels, rng: np.random.Generator) -> Keep:
    keep = channels.all_kept()
    for group in channels.groups:
        keep[rng.choice(group.channels, rng.integers(len(group.channels)), replace=False)] = False
    return keep


def _silenced(model: Any, channels: Channels, keep: Keep) -> Any:
    """The model with zeros in everything that makes, scales or shifts a channel that is to go."""
    weights = {v.path: np.array(v) for v in model.weights}
    for site in channels.sites.values():
        for path, axes in site.axes.items():
            making = [site.kernel_axis] if path == site.kernel else [0] if weights[path].ndim == 1 else []
            for axis in making:
                shape = [-1 if n == axis else 1 for n in range(weights[path].ndim)]
                weights[path] = weights[path] * keep[axes[axis]].reshape(shape)
    return with_weights(model, weights)


def _answers(k: Any, model: Any, seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    inputs = [
        rng.integers(0, 11, (4, *t.shape[1:])) if "int" in t.dtype else rng.normal(size=(4, *t.shape[1:]))
        for t in model.inputs
    ]
    inputs = [x.astype(t.dtype) for x, t in zip(inputs, model.inputs, strict=True)]
    return [np.asarray(out) for out in k.tree.flatten(model(inputs if len(inputs) > 1 else inputs[0], training=False))]


def _check_silent_channels_go_unnoticed(k: Any, model: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = _drawn(flat(model, "net"), rng)
    channels = find_channels(model)
    keep = _some_removed(channels, rng)
    silent = _silenced(model, channels, keep)
    small = cut_model(silent, channels, keep)
    for one, other in zip(_answers(k, silent), _answers(k, small), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)
    for group in channels.groups:
        removed = int((~keep[group.channels]).sum())
        for layer in group.layers:
            assert not removed or small.get_layer(layer).count_params() < model.get_layer(layer).count_params()
    wanted = channels.multiply_adds(keep, multiply_adds(model))
    assert sum(multiply_adds(small).values()) == pytest.approx(wanted)


@pytest.mark.parametrize("name", NETS)
def test_channels_that_are_zero_are_removed_and_no_output_changes(keras_module: Any, name: str) -> None:
    model = NETS[name](keras_module)
    assert find_channels(flat(model, name)).groups
    _check_silent_channels_go_unnoticed(keras_module, model, seed=3)


def _random_net(k: Any, seed: int) -> Any:
    rng = np.random.default_rng(seed)
    layers = k.layers
    x = image = k.Input((6, 6, 2))
    earlier = [x]
    for _ in range(int(rng.integers(2, 7))):
        kind = rng.choice(["conv", "separable", "depthwise", "norm", "add", "multiply", "concat", "squeeze"])
        old = earlier[rng.integers(len(earlier))]
        width = x.shape[-1]
        if kind == "conv":
            x = layers.Conv2D(int(rng.integers(1, 7)), 3, padding="same", activation="relu")(x)
        elif kind == "separable":
            x = layers.SeparableConv2D(int(rng.integers(1, 7)), 3, padding="same", use_bias=bool(rng.integers(2)))(x)
        elif kind == "depthwise":
            x = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=int(rng.integers(1, 3)))(x)
        elif kind == "norm":
            x = layers.ReLU()(layers.BatchNormalization(scale=bool(rng.integers(2)))(x))
        elif kind == "concat":
            x = layers.Concatenate()([x, old])
        elif kind == "squeeze":
            gate = layers.Dense(width, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))
            x = layers.Multiply()([x, gate])
        else:
            old = old if old.shape[-1] == width else layers.Conv2D(width, 1)(old)
            x = (layers.Add() if kind == "add" else layers.Multiply())([x, old])
        earlier.append(x)
    x = layers.Dense(5, activation="relu")(layers.Flatten()(x))
    return k.Model(image, layers.Dense(2)(x))


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32 - 1))
def test_channels_that_are_zero_go_unnoticed_in_any_graph(keras_module: Any, seed: int) -> None:
    _check_silent_channels_go_unnoticed(keras_module, _random_net(keras_module, seed), seed)


def _groups(model: Any) -> dict[tuple[str, ...], int]:
    return {group.layers: len(group.channels) for group in find_channels(flat(model, "net")).groups}


def _reasons(model: Any) -> dict[str, str]:
    return {part.layer: part.reason for part in find_channels(flat(model, "net")).skipped}


def test_a_residual_ties_all_layers_that_write_to_it(keras_module: Any) -> None:
    groups = _groups(_residual_net(keras_module))
    assert groups[("stem", "out0", "out1")] == 8
    assert groups[("in0",)] == groups[("in1",)] == 5
    assert groups[("down", "projection")] == 12


def test_a_sum_over_a_concatenation_ties_each_part_to_its_own_source(keras_module: Any) -> None:
    model = _dense_block_net(keras_module)
    assert _groups(model) == {("c0", "mix"): 4, ("c1", "mix"): 4, ("c2", "mix"): 4}
    assert _reasons(model)["mix"] == "2 of 14 channels: it goes with the model's input"


def test_what_cannot_lose_channels_is_named_with_a_reason(keras_module: Any) -> None:
    reasons = _reasons(_attention_net(keras_module))
    assert reasons["head"] == "its activation softmax looks at all channels together"
    assert reasons["mha"] == "MultiHeadAttention is left whole"
    assert reasons["words"] == "Embedding is left whole"
    assert "'norm'" in reasons["narrow"]
    assert "wide" not in reasons
    reasons = _reasons(_series_net(keras_module))
    assert reasons["gru"] == reasons["both"] == "recurrent units are left whole"
    assert reasons["head"] == "its channels are an output of the model"


def test_a_layer_that_is_called_twice_and_one_made_by_the_user_stay_whole(keras_module: Any) -> None:
    k = keras_module

    class Dense(k.layers.Dense):  # type: ignore[misc, name-defined]
        pass

    x = given_values = k.Input((6,))
    x = k.layers.Dense(6, name="first")(x)
    shared = k.layers.Dense(6, name="shared")
    x = k.layers.Dense(5, name="between")(shared(shared(x)))
    x = k.layers.Dense(4, name="last")(Dense(5, name="own")(x))
    model = k.Model(given_values, x)
    with k.saving.custom_object_scope({"Dense": Dense}):
        assert _groups(model) == {}
        reasons = _reasons(model)
    assert reasons["shared"] == "it is called more than once"
    assert reasons["own"] == "Dense is left whole"
    assert reasons["between"] == "'own' needs them all (Dense is left whole)"


def test_the_arrays_of_a_batch_norm_are_cut_like_the_filters_it_follows(keras_module: Any) -> None:
    model = _drawn(flat(_conv_net(keras_module), "net"), np.random.default_rng(0))
    channels = find_channels(model)
    keep = channels.all_kept()
    first = next(group for group in channels.groups if group.layers == ("c0",))
    keep[first.channels[[1, 4]]] = False
    small = cut_model(model, channels, keep)
    left = [0, 2, 3, 5]
    for before, after in zip(model.get_layer("n0").weights, small.get_layer("n0").weights, strict=True):
        np.testing.assert_array_equal(np.asarray(after), np.asarray(before)[left])
    kernel, cut = (np.asarray(net.get_layer("c1").kernel) for net in (model, small))
    np.testing.assert_array_equal(cut, kernel[:, :, left])
    slopes, cut = (np.asarray(net.get_layer("p0").alpha) for net in (model, small))
    np.testing.assert_array_equal(cut, slopes[..., left])
