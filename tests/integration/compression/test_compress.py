import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from edgeflock_compression.pipeline import Progress, RecipesFailed, compress
from edgeflock_compression.recipe import BUILT_IN
from edgeflock_compression.variant import outputs_over, read_record
from edgeflock_controller.cli.compress import compress as command
from edgeflock_deploy.bundle import encode_blob
from edgeflock_deploy.canonical import sha256_hex
from edgeflock_deploy.cases import read_evaluation
from edgeflock_deploy.errors import BadInput

# Keras's own, whenever it saves or exports a model with numpy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.fixture(scope="module")
def out(classifier: Path, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("variants")
    compress(classifier, digits, (), folder)
    return folder


def test_every_built_in_recipe_gives_a_variant(out: Path) -> None:
    assert {path.parent.name for path in out.glob("*/model.tflite")} == set(BUILT_IN)


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_record_speaks_of_the_file_beside_it(out: Path, digits: Path, name: str) -> None:
    variant, tflite = read_record(out / name), (out / name / "model.tflite").read_bytes()
    assert variant.name == variant.recipe["name"] == name
    assert (variant.sha256, variant.raw_bytes) == (sha256_hex(tflite), len(tflite))
    assert variant.wire_bytes == len(encode_blob(tflite).container)
    with np.load(digits) as data:
        classes = outputs_over(out / name / "model.tflite", data["x_test"].astype(np.float32)).argmax(axis=1)
        assert variant.accuracy == np.mean(classes == data["y_test"])
        assert variant.n_items == len(data["y_test"])
    assert variant.agreement > 0.97
    assert {"tensorflow", "keras", "numpy", "runtime", "edgeflock"} == variant.versions.keys()


def test_integer_variants_are_smaller_than_the_float_one(out: Path) -> None:
    size = {name: read_record(out / name).raw_bytes for name in BUILT_IN}
    assert size["static_wi8_ai8"] < size["dynamic_wi8"] < size["float16"] < size["float32"]


def test_what_stays_float_is_named_with_a_reason(out: Path) -> None:
    # 640 weights in the last layer: the converter leaves kernels under 1,024 weights alone in this mode
    (skipped,) = read_record(out / "dynamic_wi8").skipped
    assert skipped.layer.startswith("FULLY_CONNECTED")
    assert "float" in skipped.reason
    assert read_record(out / "static_wi8_ai8").skipped == ()


def test_the_files_for_the_boards_lie_beside_the_variants(out: Path, digits: Path) -> None:
    evaluation = read_evaluation(out / "evaluation.npz")
    with np.load(digits) as data, np.load(out / "golden_inputs.npz") as golden:
        held_out = {item.astype(np.float32).tobytes() for item in data["x_test"]}
        assert golden["input_0"].shape == (8, 64)
    assert len(evaluation.x) == 256
    assert {item.tobytes() for item in evaluation.x} <= held_out


def test_the_same_recipe_and_seed_make_the_same_bytes(
    out: Path, classifier: Path, digits: Path, tmp_path: Path
) -> None:
    (again,) = compress(classifier, digits, ["static_wi8_ai8"], tmp_path)
    assert again.model_copy(update={"ram_bytes": None}) == read_record(out / "static_wi8_ai8").model_copy(
        update={"ram_bytes": None}
    )
    for name in ("evaluation.npz", "golden_inputs.npz"):
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes()


def test_no_shape_arithmetic_is_left_in_the_file(out: Path) -> None:
    assert b"SHAPE" not in (out / "float32" / "model.tflite").read_bytes()
    assert (out / "float32" / "model.tflite").stat().st_size < 64 * 75 * 4 + 4096


def test_a_saved_model_folder_gives_the_same_answers(
    out: Path, saved_model: Path, digits: Path, tmp_path: Path
) -> None:
    (variant,) = compress(saved_model, digits, ["float32"], tmp_path)
    assert variant.accuracy == read_record(out / "float32").accuracy
    assert variant.agreement == 1
    assert variant.parent_sha256 != read_record(out / "float32").parent_sha256


def test_float_targets_are_scored_by_r2(keras_module: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4)).astype(np.float32)
    y = x @ np.array([[1.0], [2.0], [0.0], [-1.0]], np.float32) + 0.1
    np.savez(tmp_path / "data.npz", x_train=x[:200], y_train=y[:200], x_test=x[200:], y_test=y[200:])
    model = keras_module.Sequential([keras_module.Input((4,)), keras_module.layers.Dense(1)])
    model.layers[0].set_weights([np.array([[1.0], [2.0], [0.0], [-1.0]]), np.array([0.1])])
    model.save(tmp_path / "line.keras")
    exact, coarse = compress(
        tmp_path / "line.keras", tmp_path / "data.npz", ["float32", "static_wi8_ai8"], tmp_path / "out"
    )
    assert exact.metric == "r2"
    assert exact.accuracy == pytest.approx(1)
    assert coarse.accuracy is not None
    assert 0.99 < coarse.accuracy < 1
    assert exact.task.agreement_atol == pytest.approx(0.05 * y[200:].std(), rel=1e-3)


def test_a_recipe_that_fails_does_not_lose_the_others(keras_module: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 50, (90, 20)), np.arange(90) % 3
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    tokens = keras_module.Input((None,), dtype="int32")
    hidden = keras_module.layers.GlobalAveragePooling1D()(keras_module.layers.Embedding(50, 16)(tokens))
    keras_module.Model(tokens, keras_module.layers.Dense(3)(hidden)).save(tmp_path / "tokens.keras")
    arguments = (tmp_path / "tokens.keras", tmp_path / "data.npz", ["static_wi8_ai16", "float16"], tmp_path / "out")
    stale = tmp_path / "out" / "static_wi8_ai16" / "variant.json"
    stale.parent.mkdir(parents=True)
    stale.write_text("{}")
    with pytest.raises(RecipesFailed, match="static_wi8_ai16") as failed:
        compress(*arguments)
    assert [variant.name for variant in failed.value.variants] == ["float16"]
    assert not stale.exists()


def test_progress_names_each_recipe(classifier: Path, digits: Path, tmp_path: Path) -> None:
    told: list[Progress] = []
    compress(classifier, digits, ["float32", "float16"], tmp_path, on_progress=told.append)
    assert [(now.done, now.total, now.what) for now in told] == [
        (0, 3, "opening mlp.keras"),
        (1, 3, "float32"),
        (2, 3, "float16"),
    ]


def test_the_command_prints_a_table(classifier: Path, digits: Path, tmp_path: Path) -> None:
    arguments = [str(classifier), "--data", str(digits), "--recipe", "float32", "--out", str(tmp_path)]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0
    assert "float32" in result.stdout
    assert "agreement" in result.stdout


def test_the_command_prints_json(classifier: Path, digits: Path, tmp_path: Path) -> None:
    arguments = [str(classifier), "--data", str(digits), "--recipe", "float32", "--out", str(tmp_path), "--json"]
    (record,) = json.loads(CliRunner().invoke(command, arguments).stdout)
    assert record == json.loads((tmp_path / "float32" / "variant.json").read_text())


@pytest.mark.parametrize("name", ["nothing.keras", "text.keras", "model.h5", "folder", "broken"])
def test_a_model_that_cannot_be_opened_is_refused(keras_module: Any, digits: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "text.keras").write_text("not a model")
    (tmp_path / "model.h5").write_text("not a model")
    (tmp_path / "folder").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "saved_model.pb").write_text("not a model")
    with pytest.raises(BadInput, match=name):
        compress(tmp_path / name, digits, ["float32"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_saved_model_with_a_fixed_batch_above_one_or_without_signature_is_refused(
    keras_module: Any, digits: Path, tmp_path: Path
) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.serve = tf.function(lambda x: x[:, :10], input_signature=[tf.TensorSpec((8, 64), tf.float32)])
    tf.saved_model.save(module, str(tmp_path / "eight"), signatures={"serving_default": module.serve})
    tf.saved_model.save(tf.Module(), str(tmp_path / "none"))
    with pytest.raises(BadInput, match="fixed batch of 8"):
        compress(tmp_path / "eight", digits, ["float32"], tmp_path / "out")
    with pytest.raises(BadInput, match="no signature 'serving_default'"):
        compress(tmp_path / "none", digits, ["float32"], tmp_path / "out")


def test_a_saved_model_with_a_batch_of_one_is_compressed(keras_module: Any, digits: Path, tmp_path: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.serve = tf.function(lambda x: x[:, :10] * 2.0, input_signature=[tf.TensorSpec((1, 64), tf.float32)])
    tf.saved_model.save(module, str(tmp_path / "one"), signatures={"serving_default": module.serve})
    (variant,) = compress(tmp_path / "one", digits, ["float32"], tmp_path / "out")
    assert variant.agreement == 1


def test_several_inputs_are_refused(keras_module: Any, digits: Path, tmp_path: Path) -> None:
    first, second = keras_module.Input((4,)), keras_module.Input((4,))
    keras_module.Model([first, second], keras_module.layers.Add()([first, second])).save(tmp_path / "two.keras")
    with pytest.raises(BadInput, match="has 2 inputs and 1 outputs; one input and one output are supported by now"):
        compress(tmp_path / "two.keras", digits, ["float32"], tmp_path / "out")


def test_data_that_does_not_fit_the_model_is_refused(classifier: Path, tmp_path: Path) -> None:
    x, y = np.zeros((5, 63), np.float32), np.zeros(5, int)
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    with pytest.raises(BadInput, match=r"items have shape \(63,\), the model takes \(64\)"):
        compress(classifier, tmp_path / "data.npz", ["float32"], tmp_path / "out")
