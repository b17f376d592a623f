"""Multiply-adds, counted by hand beside the layers."""

from typing import Any

import pytest

from edgeflock_compression.graph.flat import flat
from edgeflock_compression.graph.macs import multiply_adds


def counted(keras_module: Any, shape: tuple[int | None, ...], *layers: Any) -> list[int]:
    return list(multiply_adds(flat(keras_module.Sequential([keras_module.Input(shape), *layers]), "model")).values())


def test_a_dense_layer_counts_at_each_position_of_its_input(keras_module: Any) -> None:
    layers = keras_module.layers
    assert counted(keras_module, (7,), layers.Dense(5)) == [7 * 5]
    assert counted(keras_module, (3, 7), layers.Dense(5)) == [3 * 7 * 5]


def test_convolutions_count_kernel_times_output_positions_with_strides_groups_and_dilation(keras_module: Any) -> None:
    layers = keras_module.layers
    assert counted(keras_module, (16, 8), layers.Conv1D(4, 3, padding="causal")) == [16 * 3 * 8 * 4]
    assert counted(keras_module, (16, 16, 8), layers.Conv2D(12, (3, 5), strides=2, padding="same")) == [
        8 * 8 * 3 * 5 * 8 * 12
    ]
    assert counted(keras_module, (16, 16, 8), layers.Conv2D(12, 3, groups=4)) == [14 * 14 * 9 * 2 * 12]
    assert counted(keras_module, (16, 16, 8), layers.Conv2D(12, 3, dilation_rate=2)) == [12 * 12 * 9 * 8 * 12]
    assert counted(keras_module, (6, 6, 6, 2), layers.Conv3D(3, 3)) == [4**3 * 27 * 2 * 3]


def test_depthwise_separable_and_transposed_convolutions(keras_module: Any) -> None:
    layers = keras_module.layers
    assert counted(keras_module, (8, 8, 6), layers.DepthwiseConv2D(3, depth_multiplier=2)) == [6 * 6 * 9 * 12]
    assert counted(keras_module, (9, 6), layers.DepthwiseConv1D(3)) == [7 * 3 * 6]
    assert counted(keras_module, (8, 8, 6), layers.SeparableConv2D(5, 3)) == [6 * 6 * (9 * 6 + 6 * 5)]
    assert counted(keras_module, (4, 4, 6), layers.Conv2DTranspose(5, 3, strides=2, padding="same")) == [
        4 * 4 * 9 * 6 * 5
    ]


def test_einsum_counts_every_index_once(keras_module: Any) -> None:
    layers = keras_module.layers
    assert counted(keras_module, (3, 7), layers.EinsumDense("abc,cd->abd", output_shape=(3, 5))) == [3 * 7 * 5]
    assert counted(keras_module, (3, 7), layers.EinsumDense("...x,xy->...y", output_shape=(5,))) == [3 * 7 * 5]
    assert counted(keras_module, (3, 7), layers.EinsumDense("ab...,bc->ac...", output_shape=(4, 7))) == [3 * 7 * 4]


def test_attention_counts_projections_scores_and_the_weighted_sum(keras_module: Any) -> None:
    query, value = keras_module.Input((10, 4)), keras_module.Input((20, 6))
    layer = keras_module.layers.MultiHeadAttention(2, 5, value_dim=3, name="mha")
    model = flat(keras_module.Model([query, value], layer(query, value)), "model")
    projections = 10 * 4 * 10 + 20 * 6 * 10 + 20 * 6 * 6 + 10 * 6 * 4
    assert multiply_adds(model) == {"mha": projections + 10 * 20 * 2 * (5 + 3)}


def test_recurrent_layers_count_each_moment(keras_module: Any) -> None:
    layers = keras_module.layers
    assert counted(keras_module, (12, 3), layers.LSTM(5)) == [12 * 4 * 5 * (3 + 5)]
    assert counted(keras_module, (12, 3), layers.GRU(5, return_sequences=True)) == [12 * 3 * 5 * (3 + 5)]
    assert counted(keras_module, (12, 3), layers.SimpleRNN(5)) == [12 * 5 * (3 + 5)]
    assert counted(keras_module, (12, 3), layers.Bidirectional(layers.LSTM(5))) == [2 * 12 * 4 * 5 * (3 + 5)]


def test_a_layer_distributed_over_time_counts_each_moment(keras_module: Any) -> None:
    layers = keras_module.layers
    assert counted(keras_module, (12, 3), layers.TimeDistributed(layers.Dense(5))) == [12 * 3 * 5]
    inner = keras_module.Sequential([keras_module.Input((8, 8, 1)), layers.Conv2D(2, 3), layers.Flatten()])
    assert counted(keras_module, (4, 8, 8, 1), layers.TimeDistributed(inner)) == [4 * 6 * 6 * 9 * 2]


def test_a_shared_layer_counts_each_use(keras_module: Any) -> None:
    first, second = keras_module.Input((7,)), keras_module.Input((7,))
    shared = keras_module.layers.Dense(5, name="shared")
    both = keras_module.layers.Add()([shared(first), shared(second)])
    assert multiply_adds(flat(keras_module.Model([first, second], both), "model")) == {"shared": 2 * 7 * 5}


@pytest.mark.parametrize("shape", [(8, 8, 3), (8, 3)])
def test_layers_without_multiply_adds_are_absent(keras_module: Any, shape: tuple[int, ...]) -> None:
    layers = keras_module.layers
    assert counted(keras_module, shape, layers.BatchNormalization(), layers.ReLU(), layers.Flatten()) == []


def test_an_open_dimension_counts_as_one(keras_module: Any) -> None:
    assert counted(keras_module, (None, 3), keras_module.layers.Conv1D(5, 3, padding="same")) == [3 * 3 * 5]
