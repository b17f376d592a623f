"""Which kinds of models go through: layers of every family, SavedModels, files of earlier Keras versions."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeflock_compression.parent.data import FittedData
from edgeflock_compression.parent.input_order import input_order
from edgeflock_compression.parent.legacy import load_keras
from edgeflock_compression.parent.source import Parent, keras_parent, open_parent
from edgeflock_compression.parent.split import split
from edgeflock_compression.passes.ptq import Settings, quantize_after_training
from edgeflock_compression.tflite.converter import convert
from edgeflock_compression.tflite.float_left import operators
from edgeflock_compression.work import Bench, Work
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.runtime import LoadedModel

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

Array = NDArray[Any]
OPEN_SIZE = 6  # what stands for a dimension that a model leaves open
MODES: dict[str, dict[str, Any]] = {
    "float32": {"mode": "float32"},
    "dynamic": {"mode": "dynamic"},
    "static": {"mode": "static", "calibration_items": 256},
}
MLPERF_TINY = Path(__file__).parents[4] / "shared" / "models" / "mlperf-tiny"


def sequential(keras: Any) -> Any:
    layers = keras.layers
    body = [layers.Conv2D(8, 3, activation="relu"), layers.MaxPooling2D(), layers.Flatten(), layers.Dense(5, "softmax")]
    return keras.Sequential([keras.Input((8, 8, 1)), *body])


def functional(keras: Any) -> Any:
    layers, given = keras.layers, keras.Input((8, 8, 1))
    x = layers.Normalization(mean=0.2, variance=2.0)(given)
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(x)))
    x = layers.Concatenate()([x, layers.Add()([x, layers.Conv2D(8, 1)(x)])])
    return keras.Model(given, layers.Dense(5, "softmax")(layers.GlobalAveragePooling2D()(x)))


def nested(keras: Any) -> Any:
    return keras.Sequential([keras.Input((8, 8, 1)), functional(keras), keras.layers.Dense(4)])


def several(keras: Any) -> Any:
    """Inputs and outputs whose alphabetical order is not the model's."""
    layers = keras.layers
    table, series = keras.Input((7,), name="z_table"), keras.Input((6, 3), name="a_series")
    x = layers.Concatenate()([layers.Flatten()(series), layers.Dense(8, "relu")(table)])
    outputs = [layers.Dense(5, "softmax", name="z_class")(x), layers.Dense(3, name="a_values")(x)]
    return keras.Model([table, series], outputs)


def recurrent(kind: str, **options: Any) -> Callable[[Any], Any]:
    def make(keras: Any) -> Any:
        layers, given = keras.layers, keras.Input((None, 4))
        if kind == "Bidirectional":
            x = layers.Bidirectional(layers.LSTM(8))(given)
        else:
            x = getattr(layers, kind)(8, **options)(given)
        return keras.Model(
            given, layers.Dense(5, "softmax")(x if len(x.shape) == 2 else layers.GlobalAveragePooling1D()(x))
        )

    return make


def transformer(keras: Any) -> Any:
    layers, tokens = keras.layers, keras.Input((None,), dtype="int32")
    x = layers.Embedding(50, 16)(tokens)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 8)(x, x))
    x = layers.LayerNormalization()(layers.Add()([x, layers.Dense(16)(layers.Dense(32, "relu")(x))]))
    return keras.Model(tokens, layers.Dense(5, "softmax")(layers.GlobalAveragePooling1D()(x)))


def depthwise(keras: Any) -> Any:
    layers, given = keras.layers, keras.Input((8, 8, 2))
    x = layers.SeparableConv2D(8, 3, activation="relu")(layers.DepthwiseConv2D(3, depth_multiplier=2)(given))
    return keras.Model(given, layers.Dense(5, "softmax")(layers.GlobalAveragePooling2D()(x)))


def one_dimensional(keras: Any) -> Any:
    layers, given = keras.layers, keras.Input((16, 3))
    x = layers.MaxPooling1D()(layers.Conv1D(8, 3, activation="relu")(given))
    x = layers.DepthwiseConv1D(3)(x)
    return keras.Model(given, layers.Dense(5, "softmax")(layers.GlobalMaxPooling1D()(x)))


KINDS: dict[str, Callable[[Any], Any]] = {
    "sequential": sequential,
    "functional": functional,
    "nested": nested,
    "several inputs and outputs": several,
    "LSTM": recurrent("LSTM"),
    "LSTM sequences": recurrent("LSTM", return_sequences=True),
    "GRU": recurrent("GRU"),
    "SimpleRNN": recurrent("SimpleRNN"),
    "bidirectional": recurrent("Bidirectional"),
    "transformer": transformer,
    "depthwise": depthwise,
    "one-dimensional": one_dimensional,
}


def bench_of(parent: Parent) -> Bench:
    rng = np.random.default_rng(0)
    x = []
    for spec in parent.inputs:
        shape = (400, *(size or OPEN_SIZE for size in spec.shape))
        drawn = rng.integers(0, 50, shape) if spec.dtype.startswith("int") else rng.normal(size=shape)
        x.append(drawn.astype(spec.dtype))
    train, test = tuple(part[:350] for part in x), tuple(part[350:] for part in x)
    y = np.arange(400) % 3
    return Bench(parent, split(FittedData(train, y[:350], test, y[350:], "classification", "0" * 64, "data"), 0), 0)


def outputs_of(work: Work, folder: Path) -> list[Array]:
    assert work.tflite is not None
    (folder / "model.tflite").write_bytes(work.tflite)
    model = LoadedModel.load(folder / "model.tflite")
    assert all(info.dtype == "float32" for info in model.outputs)
    order = input_order(model, [spec.name for spec in work.bench.parent.inputs])
    x = work.bench.data.x_validation
    rows = [model.run(*(x[which][n] for which in order)) for n in range(len(x[0]))]
    return [np.concatenate(column) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_of_this_kind_is_converted_and_quantized(keras_module: Any, tmp_path: Path, kind: str) -> None:
    keras_module.utils.set_random_seed(2)
    bench = bench_of(keras_parent(KINDS[kind](keras_module), "0" * 64, kind))
    expected = bench.parent.predict(bench.data.x_validation)
    for mode, settings in MODES.items():
        work = quantize_after_training(Work(bench, bench.parent.model), Settings.model_validate(settings))
        kinds = {operator.kind for operator in operators(work.tflite or b"")}
        assert not any(one.startswith(("FLEX", "CUSTOM")) for one in kinds), mode
        assert ("WHILE" in kinds) == (kind in RECURRENT and mode != "static"), mode
        given = outputs_of(work, tmp_path)
        assert [one.shape for one in given] == [one.shape for one in expected], mode
        for one, other in zip(given, expected, strict=True):
            allowed = 1e-5 if mode == "float32" else 0.1 * max(1.0, float(np.abs(other).max()))
            assert np.abs(one - other).max() < allowed, mode


RECURRENT = {"LSTM", "LSTM sequences", "GRU", "SimpleRNN", "bidirectional"}


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "transformer", "several inputs and outputs"])
def test_int4_weights_go_into_every_family(keras_module: Any, tmp_path: Path, kind: str) -> None:
    keras_module.utils.set_random_seed(2)
    bench = bench_of(keras_parent(KINDS[kind](keras_module), "0" * 64, kind))
    expected = bench.parent.predict(bench.data.x_validation)
    for mode in ("dynamic", "static"):
        settings = Settings.model_validate({"mode": mode, "weights": "int4", "calibration_items": 256})
        work = quantize_after_training(Work(bench, bench.parent.model), settings)
        for one, other in zip(outputs_of(work, tmp_path), expected, strict=True):
            assert np.abs(one - other).max() < 0.3 * max(1.0, float(np.abs(other).max())), mode


@pytest.fixture
def without_keras(keras_module: Any, tmp_path: Path) -> Path:
    import tensorflow as tf

    rng = np.random.default_rng(0)
    module = tf.Module()
    module.first, module.second = (tf.Variable(rng.normal(size=(16, 64)), dtype=tf.float32) for _ in range(2))

    def call(x: Any) -> Any:
        return tf.linalg.matmul(tf.nn.relu(x @ module.first), module.second, transpose_b=True)

    module.serve = tf.function(call, input_signature=[tf.TensorSpec((None, 16), tf.float32, name="x")])
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures={"serving_default": module.serve})
    return tmp_path / "saved"


@pytest.mark.parametrize(
    "settings", [*MODES.values(), {"mode": "float16"}, {"mode": "static", "weights": "int4"}, {"mode": "weight_only"}]
)
def test_a_saved_model_without_keras_is_quantized(
    without_keras: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    bench = bench_of(open_parent(without_keras))
    assert bench.parent.model is None
    (given,) = outputs_of(quantize_after_training(Work(bench, None), Settings.model_validate(settings)), tmp_path)
    (expected,) = bench.parent.predict(bench.data.x_validation)
    allowed = 0.3 if settings.get("weights") else 0.03
    assert np.abs(given - expected).mean() < allowed * np.abs(expected).mean()


@pytest.mark.parametrize("settings", [MODES["dynamic"], MODES["static"]])
def test_a_tflite_with_several_inputs_is_quantized(keras_module: Any, tmp_path: Path, settings: dict[str, Any]) -> None:
    parent = keras_parent(several(keras_module), "0" * 64, "several")
    (tmp_path / "float.tflite").write_bytes(convert(Work(bench_of(parent), parent.model), "float32"))
    bench = bench_of(open_parent(tmp_path / "float.tflite"))
    assert {spec.name for spec in bench.parent.inputs} == {"z_table", "a_series"}
    work = quantize_after_training(Work(bench, None), Settings.model_validate(settings))
    for one, other in zip(outputs_of(work, tmp_path), bench.parent.predict(bench.data.x_validation), strict=True):
        assert np.abs(one - other).max() < 0.1 * max(1.0, float(np.abs(other).max()))


def test_a_loop_that_cannot_be_unrolled_is_refused_where_it_must_be_calibrated(
    keras_module: Any, tmp_path: Path
) -> None:
    import tensorflow as tf

    def call(x: Any) -> Any:
        (result,) = tf.while_loop(lambda y: tf.reduce_sum(y) < 100.0, lambda y: (tf.abs(y) + 1.0,), (x,))
        return result

    module = tf.Module()
    module.serve = tf.function(call, input_signature=[tf.TensorSpec((None, 3), tf.float32, name="x")])
    tf.saved_model.save(module, str(tmp_path / "loop"), signatures={"serving_default": module.serve})
    work = Work(bench_of(open_parent(tmp_path / "loop")), None)
    with pytest.raises(BadInput, match="holds a loop"):
        quantize_after_training(work, Settings(mode="static"))
    (tmp_path / "loop.tflite").write_bytes(convert(work, "float32"))
    work = Work(bench_of(open_parent(tmp_path / "loop.tflite")), None)
    with pytest.raises(BadInput, match="holds a loop"):
        quantize_after_training(work, Settings(mode="static"))


def test_a_subclassed_model_is_refused_with_what_to_do(keras_module: Any) -> None:
    class Own(keras_module.Model):  # type: ignore[misc]  # Keras has no types here
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras_module.layers.Dense(3)

        def call(self, x: Any) -> Any:
            return self.dense(x)

    model = Own()
    model(np.zeros((1, 4), np.float32))
    with pytest.raises(BadInput, match=r"SavedModel"):
        keras_parent(model, "0" * 64, "own.keras")


@pytest.fixture(params=[".h5", ".keras"])
def old_file(request: pytest.FixtureRequest, keras_module: Any, tmp_path: Path) -> tuple[Path, Any, Any]:
    """A file, what edits its configuration, and the model in it."""
    layers = keras_module.layers
    model = keras_module.Sequential(
        [
            keras_module.Input((8, 8, 1)),
            layers.DepthwiseConv2D(3),
            layers.BatchNormalization(),
            layers.Reshape((6, 6)),
            layers.LSTM(6, return_sequences=True),
            layers.Bidirectional(layers.GRU(5)),
            layers.Dense(3),
        ]
    )
    path = tmp_path / f"old{request.param}"
    model.save(path)

    def edit(change: Callable[[list[dict[str, Any]]], None]) -> None:
        if path.suffix == ".keras":
            import zipfile

            with zipfile.ZipFile(path) as archive:
                held = {name: archive.read(name) for name in archive.namelist()}
            config = json.loads(held["config.json"])
            change(config["config"]["layers"])
            with zipfile.ZipFile(path, "w") as archive:
                for name, data in held.items():
                    archive.writestr(name, json.dumps(config) if name == "config.json" else data)
            return
        import h5py

        with h5py.File(path, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            change(config["config"]["layers"])
            file.attrs["model_config"] = json.dumps(config)

    return path, edit, model


def of_kind(entries: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    config: dict[str, Any] = next(entry["config"] for entry in entries if entry["class_name"] == kind)
    return config


def age(entries: list[dict[str, Any]]) -> None:
    """What earlier versions wrote, with the values that change nothing."""
    of_kind(entries, "DepthwiseConv2D")["groups"] = 1
    of_kind(entries, "LSTM").update(time_major=False, implementation=2)
    of_kind(entries, "Bidirectional")["layer"]["config"]["time_major"] = False
    dtype = {"class_name": "Policy", "config": {"name": "float32"}}
    of_kind(entries, "BatchNormalization").update(axis=[3], dtype=dtype)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_a_file_of_an_earlier_version_loads_without_what_keras_dropped(old_file: tuple[Path, Any, Any]) -> None:
    path, edit, model = old_file
    before = load_keras(path)
    assert before.dropped == ()
    edit(age)
    loaded, dropped = load_keras(path)
    assert {name for _, name in dropped} == {"groups", "time_major", "implementation"}
    x = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)
    np.testing.assert_allclose(np.asarray(loaded(x)), np.asarray(model(x)), atol=1e-6)
    assert open_parent(path).model is not None


def test_an_argument_that_changed_the_answers_is_refused(old_file: tuple[Path, Any, Any]) -> None:
    path, edit, _ = old_file
    edit(lambda entries: of_kind(entries, "LSTM").update(time_major=True))
    with pytest.raises(BadInput, match="has time_major=True, which Keras 3 does not know"):
        open_parent(path)


def test_a_broken_file_keeps_its_own_error(tmp_path: Path) -> None:
    (tmp_path / "broken.h5").write_text("no model")
    with pytest.raises(BadInput, match="Keras cannot load it"):
        open_parent(tmp_path / "broken.h5")


@pytest.mark.skipif(not MLPERF_TINY.is_dir(), reason="the MLPerf Tiny models are not here")
@pytest.mark.parametrize(("name", "parameters"), [("pretrainedResnet.h5", 78_666), ("ad01.h5", 269_992)])
def test_real_files_of_keras_2_load(name: str, parameters: int) -> None:
    assert open_parent(MLPERF_TINY / name).model.count_params() == parameters


@pytest.mark.skipif(not MLPERF_TINY.is_dir(), reason="the MLPerf Tiny models are not here")
@pytest.mark.parametrize(
    ("name", "least", "settings"),
    [
        ("pretrainedResnet.tflite", 3.2, {"mode": "static"}),
        ("ad01_fp32.tflite", 3.8, {"mode": "static", "dense_per_tensor": True}),
    ],
)
def test_real_float_files_become_as_small_as_the_official_ones(
    name: str, least: float, settings: dict[str, Any]
) -> None:
    bench = bench_of(open_parent(MLPERF_TINY / name))
    assert bench.parent.tflite is not None
    made = quantize_after_training(Work(bench, None), Settings.model_validate({**settings, "calibration_items": 8}))
    assert len(bench.parent.tflite) >= least * len(made.tflite or b"")
