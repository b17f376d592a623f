"""Layers of low rank in place of whole ones: fewer multiply-adds, a smaller file, much the same answers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from edgeflock_compression.graph.export import export_saved_model
from edgeflock_compression.graph.flat import flat, weights_by_path
from edgeflock_compression.graph.macs import multiply_adds, uses
from edgeflock_compression.passes.factorize import Settings, _ranks, _replaced, factorize
from edgeflock_compression.tf_import import keras, tensorflow
from edgeflock_compression.weights.rank_choice import Option
from edgeflock_compression.work import Bench, Codebook, Work
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.runtime import LoadedModel

Array = NDArray[Any]


def one_layer(shape: tuple[int, ...], layer: Any) -> Any:
    given = keras().Input(shape)
    model = flat(keras().Model(given, layer(given)), "model")
    rng = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(rng.standard_normal(variable.shape).astype(np.float32))
    return model


def outputs(model: Any) -> Array:
    x = np.random.default_rng(7).standard_normal((4, *model.inputs[0].shape[1:])).astype(np.float32)
    return np.asarray(model(x, training=False))


CASES: list[tuple[str, tuple[int, ...], dict[str, Any], str, tuple[int, ...]]] = [
    ("Dense", (7,), {"units": 5, "activation": "relu"}, "svd", (5,)),
    ("Dense", (3, 7), {"units": 9, "use_bias": False}, "svd", (7,)),
    ("Conv1D", (12, 4), {"filters": 6, "kernel_size": 3, "strides": 2, "padding": "same"}, "spatial", (6,)),
    ("Conv1D", (12, 4), {"filters": 6, "kernel_size": 3, "dilation_rate": 2, "padding": "causal"}, "spatial", (6,)),
    ("Conv1D", (12, 4), {"filters": 6, "kernel_size": 3, "padding": "causal"}, "tucker2", (4, 6)),
    ("Conv2D", (9, 8, 4), {"filters": 6, "kernel_size": (3, 2), "activation": "tanh"}, "spatial", (12,)),
    ("Conv2D", (9, 8, 4), {"filters": 6, "kernel_size": 3, "strides": 2, "padding": "same"}, "spatial", (12,)),
    ("Conv2D", (9, 8, 4), {"filters": 6, "kernel_size": 3, "strides": 2}, "spatial", (12,)),
    ("Conv2D", (9, 8, 4), {"filters": 6, "kernel_size": (3, 1), "strides": 2, "padding": "same"}, "spatial", (6,)),
    ("Conv2D", (9, 8, 4), {"filters": 6, "kernel_size": 1, "strides": 3, "padding": "same"}, "spatial", (4,)),
    (
        "Conv2D",
        (9, 8, 4),
        {"filters": 6, "kernel_size": 3, "dilation_rate": (2, 3), "padding": "same"},
        "spatial",
        (12,),
    ),
    ("Conv2D", (9, 8, 4), {"filters": 6, "kernel_size": 3, "strides": (2, 1), "padding": "same"}, "tucker2", (4, 6)),
    ("Conv2D", (9, 8, 4), {"filters": 6, "kernel_size": 3, "dilation_rate": 2}, "tucker2", (4, 6)),
    ("Conv3D", (5, 6, 7, 3), {"filters": 4, "kernel_size": 2, "strides": 2}, "tucker2", (3, 4)),
]


@pytest.mark.parametrize(("kind", "shape", "config", "method", "ranks"), CASES)
def test_at_full_rank_the_new_layers_do_what_the_old_one_did(
    keras_module: Any, kind: str, shape: tuple[int, ...], config: dict[str, Any], method: str, ranks: tuple[int, ...]
) -> None:
    model = one_layer(shape, getattr(keras_module.layers, kind)(**config, name="layer"))
    new = _replaced(model, {"layer": Option(method, ranks, 0, 1.0)})
    assert [layer.name for layer in new.layers[1:]] in (
        ["layer_in", "layer_out"],
        ["layer_in", "layer_core", "layer_out"],
    )
    wanted = outputs(model)
    np.testing.assert_allclose(outputs(new), wanted, rtol=0, atol=1e-5 * float(np.abs(wanted).max()))


@pytest.mark.parametrize(("kind", "shape", "config", "method", "ranks"), CASES)
def test_the_multiply_adds_that_were_planned_are_those_of_the_new_layers(
    cnn_bench: Bench, kind: str, shape: tuple[int, ...], config: dict[str, Any], method: Any, ranks: Any
) -> None:
    model = one_layer(shape, getattr(keras().layers, kind)(**config, name="layer"))
    table = _ranks(uses(model), method)
    for index in ([0] * table.energy.ndim, [n // 2 for n in table.energy.shape]):
        chosen = tuple(n + 1 for n in index)
        new = _replaced(model, {"layer": Option(method, chosen, 0, 1.0)})
        assert sum(multiply_adds(new).values()) == table.multiply_adds[tuple(index)]


def test_a_shared_layer_is_replaced_in_each_use(keras_module: Any) -> None:
    first, second = keras_module.Input((8,)), keras_module.Input((8,))
    shared = keras_module.layers.Dense(8, name="shared")
    model = flat(keras_module.Model([first, second], keras_module.layers.Add()([shared(first), shared(second)])), "m")
    new = _replaced(model, {"shared": Option("svd", (2,), 0, 1.0)})
    assert multiply_adds(new) == {"shared_in": 2 * 8 * 2, "shared_out": 2 * 2 * 8}


def shipped(model: Any, bench: Bench, folder: Path) -> tuple[int, float]:
    """Bytes of the float file, and its accuracy by the interpreter."""
    shape = bench.data.x_fit[0].shape[1:]
    export_saved_model(model, folder, [shape])
    path = folder.with_suffix(".tflite")
    path.write_bytes(tensorflow().lite.TFLiteConverter.from_saved_model(str(folder)).convert())
    loaded = LoadedModel.load(path)
    answers = np.concatenate([loaded.run(item)[0] for item in bench.data.x_validation[0]])
    return path.stat().st_size, float(np.mean(answers.argmax(axis=1) == bench.data.y_validation))


@pytest.fixture(scope="module")
def whole_cnn(cnn_bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, float]:
    return shipped(cnn_bench.parent.model, cnn_bench, tmp_path_factory.mktemp("whole") / "whole")


@pytest.mark.parametrize("rule", [{"energy": 0.8}, {"target": 0.5}, {"ratio": 0.5, "method": "tucker2"}], ids=str)
def test_the_digits_net_ships_smaller_and_within_a_few_points(
    cnn_bench: Bench, whole_cnn: tuple[int, float], tmp_path: Path, rule: dict[str, Any]
) -> None:
    model = cnn_bench.parent.model
    before = weights_by_path(model)
    work = factorize(Work(cnn_bench, model), Settings(**rule, epochs=3, batch_items=16))
    note = work.notes["factorize"]
    assert note["layers"]
    assert note["multiply_adds_before"] == sum(multiply_adds(model).values())
    assert note["multiply_adds_after"] == sum(multiply_adds(work.model).values()) < note["multiply_adds_before"]
    if "target" in rule:
        assert note["multiply_adds_after"] <= 0.5 * note["multiply_adds_before"]
    assert any(part.layer == "depthwise" and "DepthwiseConv2D" in part.reason for part in work.skipped)
    assert {part.layer for part in work.skipped} | set(note["layers"]) == set(multiply_adds(model))
    size, right = shipped(work.model, cnn_bench, tmp_path / "small")
    assert size < whole_cnn[0]
    assert right >= whole_cnn[1] - 0.03
    after = weights_by_path(model)
    assert all(np.array_equal(after[path], weight) for path, weight in before.items())


def test_the_dense_net_ships_smaller_and_within_a_few_points(mlp_bench: Bench, tmp_path: Path) -> None:
    work = factorize(Work(mlp_bench, mlp_bench.parent.model), Settings(energy=0.7, epochs=3, batch_items=16))
    assert [layer["method"] for layer in work.notes["factorize"]["layers"].values()] == ["svd"]
    size, right = shipped(work.model, mlp_bench, tmp_path / "small")
    whole, wanted = shipped(mlp_bench.parent.model, mlp_bench, tmp_path / "whole")
    assert size < whole
    assert right >= wanted - 0.03


def test_where_nothing_falls_the_model_stays_and_each_layer_has_its_reason(mlp_bench: Bench) -> None:
    model = mlp_bench.parent.model
    work = factorize(Work(mlp_bench, model), Settings(energy=1.0))
    assert work.model is model
    assert {part.layer for part in work.skipped} == set(multiply_adds(model))
    hidden, head = (part.reason for part in work.skipped)
    assert hidden == "to keep 1 of its energy takes no fewer multiply-adds"
    assert head == "the model's 10 outputs come from it, and a lower rank would tie them together"
    note = work.notes["factorize"]
    assert note["layers"] == {}
    assert note["multiply_adds_before"] == note["multiply_adds_after"]


def test_held_layers_stay_and_keep_what_is_held_through_fine_tuning(cnn_bench: Bench) -> None:
    model = cnn_bench.parent.model
    rng, weights = np.random.default_rng(0), weights_by_path(model)
    mask = rng.random(weights["branch/kernel"].shape) < 0.5
    codes = rng.integers(0, 4, weights["pointwise/kernel"].shape)
    values = np.array([0, -0.2, 0.1, 0.3], np.float32)
    book = Codebook(values, codes, np.array([True, False, False, False]))
    work = Work(cnn_bench, model, masks={"branch/kernel": mask}, codebooks={"pointwise/kernel": book})
    work = factorize(work, Settings(ratio=0.6, epochs=1))
    assert set(work.notes["factorize"]["layers"]) == {"stem", "hidden"}
    held = {part.layer for part in work.skipped if "holds values" in part.reason}
    assert held == {"branch", "pointwise"}
    trained = weights_by_path(work.model)
    assert not trained["branch/kernel"][~mask].any()
    assert np.array_equal(trained["pointwise/kernel"], work.codebooks["pointwise/kernel"].weights())
    assert work.codebooks["pointwise/kernel"].values[0] == 0
    assert not np.array_equal(work.codebooks["pointwise/kernel"].values, values)


def test_grouped_and_unknown_layers_are_skipped_with_reasons(cnn_bench: Bench, keras_module: Any) -> None:
    layers, given = keras_module.layers, keras_module.Input((8, 8, 4))
    x = layers.Conv2D(8, 3, groups=2, name="grouped")(given)
    x = layers.Conv2DTranspose(4, 3, name="transposed")(x)
    model = flat(keras_module.Model(given, layers.Conv2D(4, 3, name="last")(x)), "model")
    work = factorize(Work(cnn_bench, model), Settings(method="svd"))
    reasons = {part.layer: part.reason for part in work.skipped}
    assert reasons["grouped"] == "is a Conv2D, which svd does not treat"
    assert reasons["transposed"].startswith("is a Conv2DTranspose")
    work = factorize(Work(cnn_bench, model), Settings(energy=1.0))
    assert {part.layer: part.reason for part in work.skipped}["grouped"] == "its channels are in 2 groups"


def test_the_last_layer_is_found_behind_what_has_no_weights(cnn_bench: Bench, keras_module: Any) -> None:
    layers, given = keras_module.layers, keras_module.Input((8, 8, 16))
    x = layers.Conv2D(32, 1, name="first")(given)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(10, 1, name="classes")(x))
    model = flat(keras_module.Model(given, layers.Softmax()(x)), "model")
    work = factorize(Work(cnn_bench, model), Settings(energy=1.0))
    assert "outputs come from it" in {part.layer: part.reason for part in work.skipped}["classes"]


def test_a_wide_output_layer_is_factorized(mlp_bench: Bench, keras_module: Any) -> None:
    given = keras_module.Input((64,))
    model = flat(keras_module.Model(given, keras_module.layers.Dense(100, name="wide")(given)), "model")
    work = factorize(Work(mlp_bench, model), Settings(ratio=0.5, epochs=0))
    assert set(multiply_adds(work.model)) == {"wide_in", "wide_out"}


def test_a_target_out_of_reach_is_refused(mlp_bench: Bench) -> None:
    with pytest.raises(BadInput, match="out of reach"):
        factorize(Work(mlp_bench, mlp_bench.parent.model), Settings(target=0.001))


def test_settings_take_one_rule() -> None:
    with pytest.raises(ValidationError, match="give one of energy, ratio and target"):
        Settings(energy=0.9, ratio=0.5)
