from typing import Any

import numpy as np
import pytest

from edgeflock_compression.graph.flat import weights_by_path
from edgeflock_compression.passes.prune_weights import Settings, prune_weights
from edgeflock_compression.training.fine_tuning import FineTune, fine_tune
from edgeflock_compression.training.parametrization import held
from edgeflock_compression.work import Bench, Work
from edgeflock_deploy.errors import BadInput


@pytest.fixture(scope="module")
def parent(mlp_bench: Bench) -> Work:
    return Work(mlp_bench, mlp_bench.parent.model)


@pytest.fixture(scope="module")
def pruned(parent: Work) -> Work:
    return prune_weights(parent, Settings(sparsity=0.8, scope="layer", epochs=15, batch_items=32))


def zeros(weight: Any) -> float:
    return float((weight == 0).mean())


def test_four_fifths_of_the_weights_go_and_the_file_is_smaller_on_the_wire(
    parent: Work, pruned: Work, ship: Any
) -> None:
    before, after = ship(parent), ship(pruned)
    assert zeros(after.constants[64, 64]) == pytest.approx(0.8, abs=0.001)
    assert zeros(after.constants[10, 64]) == pytest.approx(0.8, abs=0.001)
    assert after.wire_bytes < 0.4 * before.wire_bytes
    assert after.accuracy >= before.accuracy - 0.03


def test_masks_say_what_is_zero_in_the_model_and_hold_through_later_training(pruned: Work) -> None:
    later = fine_tune(pruned.model, pruned.bench, FineTune(epochs=1), held(pruned)).model
    for model in (pruned.model, later):
        for path, mask in pruned.masks.items():
            assert np.array_equal(weights_by_path(model)[path] != 0, mask)


def test_the_model_that_came_in_stays_as_it_was_and_the_same_seed_gives_the_same_weights(parent: Work) -> None:
    before = weights_by_path(parent.model)
    first, second = [prune_weights(parent, Settings(epochs=0.5)) for _ in range(2)]
    assert all(np.array_equal(before[path], weight) for path, weight in weights_by_path(parent.model).items())
    again = weights_by_path(second.model)
    assert all(np.array_equal(again[path], weight) for path, weight in weights_by_path(first.model).items())


def test_elements_come_back_while_sparsity_rises(parent: Work) -> None:
    training = {"epochs": 4, "scope": "layer", "learning_rate": 3e-3}
    none_back = prune_weights(parent, Settings(regrowth=0, **training)).masks["dense/kernel"]
    some_back = prune_weights(parent, Settings(regrowth=1, **training)).masks["dense/kernel"]
    assert none_back.sum() == some_back.sum()
    assert (some_back != none_back).any()


def test_sparsity_by_pattern_and_weights_left_out(parent: Work) -> None:
    done = prune_weights(parent, Settings(epochs=0, sparsity={"dense": 0.9, "*": 0.3}, except_layers=("dense_1",)))
    assert {path: round(zeros(mask * 1.0), 2) for path, mask in done.masks.items()} == {"dense/kernel": 0.9}
    done = prune_weights(parent, Settings(epochs=0, sparsity={"dense": 0.9, "*": 0.3}))
    assert round(zeros(done.masks["dense_1/kernel"] * 1.0), 2) == 0.3


def test_over_all_layers_together_a_small_layer_is_spared(parent: Work) -> None:
    masks = prune_weights(parent, Settings(epochs=0)).masks
    assert zeros(masks["dense_1/kernel"] * 1.0) < 0.8 < zeros(masks["dense/kernel"] * 1.0)
    assert sum(mask.sum() for mask in masks.values()) == round(0.2 * (64 * 64 + 640))


def test_pruning_more_keeps_the_earlier_zeros(pruned: Work) -> None:
    more = prune_weights(pruned, Settings(epochs=2, sparsity=0.9, scope="layer"))
    for path, mask in more.masks.items():
        assert not (mask & ~pruned.masks[path]).any()
        assert zeros(mask * 1.0) == pytest.approx(0.9, abs=0.01)


def test_two_of_four_inputs_stay_and_layers_that_cannot_are_named(cnn_bench: Bench, ship: Any) -> None:
    work = Work(cnn_bench, cnn_bench.parent.model)
    done = prune_weights(work, Settings(n_of_m="2:4", epochs=4, learning_rate=3e-3))
    shipped = ship(done)
    for shape in ((32, 384), (10, 32), (24, 1, 1, 16), (16, 3, 3, 16)):  # outputs first, inputs last in the file
        assert np.all((shipped.constants[shape].reshape(-1, 4) != 0).sum(axis=1) == 2)
    assert {part.layer: part.reason for part in done.skipped} == {
        "stem/kernel": "its input dimension 1 is no multiple of 4",
        "depthwise/kernel": "has no input dimension for 2:4",
    }
    assert shipped.accuracy >= ship(work).accuracy - 0.03


def test_small_kernels_are_left_with_a_reason(parent: Work) -> None:
    done = prune_weights(parent, Settings(epochs=0, min_size=1000))
    assert set(done.masks) == {"dense/kernel"}
    assert [(part.layer, part.reason) for part in done.skipped] == [
        ("dense_1/kernel", "has 640 elements, fewer than min_size (1000)")
    ]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"layers": ("conv*",)}, r"pattern 'conv\*': matches no kernel"),
        ({"sparsity": {"dense": 1.0}}, r"sparsity 1 is not in 0\.\.1"),
        ({"n_of_m": "4:4"}, "n_of_m 4:4 keeps everything"),
    ],
)
def test_settings_that_make_no_sense_are_refused(parent: Work, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        prune_weights(parent, Settings(epochs=0, **settings))


def test_recurrent_attention_and_embedding_kernels_are_found_and_biases_are_not(
    keras_module: Any, mlp_bench: Bench
) -> None:
    layers = keras_module.layers
    tokens = keras_module.Input((6,), dtype="int32")
    x = layers.Embedding(50, 16, name="words")(tokens)
    x = layers.MultiHeadAttention(2, 8, name="mha")(x, x)
    x = layers.LayerNormalization(axis=(1, 2), name="norm")(x)
    model = keras_module.Model(tokens, layers.GRU(8, name="gru")(x))
    done = prune_weights(Work(mlp_bench, model), Settings(epochs=0, sparsity=0.5))
    assert set(done.masks) == {
        "words/embeddings",
        "mha/query/kernel",
        "mha/key/kernel",
        "mha/value/kernel",
        "mha/attention_output/kernel",
        "gru/gru_cell/kernel",
        "gru/gru_cell/recurrent_kernel",
    }
    two_of_four = prune_weights(Work(mlp_bench, model), Settings(epochs=0, n_of_m="2:4"))
    kernel = two_of_four.masks["mha/attention_output/kernel"]  # (heads, 8, 16)
    assert np.all(np.moveaxis(kernel, 1, -1).reshape(-1, 4).sum(axis=1) == 2)
    assert [part.layer for part in two_of_four.skipped] == ["words/embeddings"]


def test_zeros_of_a_recurrent_kernel_are_in_the_file(keras_module: Any, cnn_bench: Bench, ship: Any) -> None:
    layers = keras_module.layers
    keras_module.utils.set_random_seed(0)
    given = keras_module.Input((8, 8, 1))
    x = layers.GRU(12, name="gru")(layers.Reshape((8, 8))(given))
    model = keras_module.Model(given, layers.Dense(10, activation="softmax", name="head")(x))
    done = prune_weights(Work(cnn_bench, model), Settings(epochs=4, batch_items=32, sparsity={"gru/*": 0.5}))
    assert zeros(ship(done).constants[36, 12]) == 0.5  # three gates of 12 units
    assert zeros(ship(done).constants[36, 8]) == 0.5
