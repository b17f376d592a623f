import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from descendants import workers

from edgeflock_compression.nursery import end_idle
from edgeflock_compression.pipeline import Progress, RecipesFailed, compress
from edgeflock_compression.recipe_name import SHIPPED
from edgeflock_compression.variant import outputs_over, read_record
from edgeflock_controller.cli.compress import compress as command
from edgeflock_controller.cli.reproduce import reproduce
from edgeflock_deploy.bundle import encode_blob
from edgeflock_deploy.canonical import sha256_hex
from edgeflock_deploy.cases import read_evaluation
from edgeflock_deploy.errors import BadInput

ROWS = {"train": slice(0, 300), "test": slice(300, 400)}


@pytest.fixture(scope="module")
def out(classifier: Path, digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("variants")
    compress(classifier, digits, (), folder)
    return folder


def test_every_built_in_recipe_gives_a_variant(out: Path) -> None:
    assert {path.parent.name for path in out.glob("*/model.tflite")} == set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_record_speaks_of_the_file_beside_it(out: Path, digits: Path, name: str) -> None:
    variant, tflite = read_record(out / name), (out / name / "model.tflite").read_bytes()
    assert variant.name == variant.recipe["name"] == name
    assert (variant.sha256, variant.raw_bytes) == (sha256_hex(tflite), len(tflite))
    assert variant.wire_bytes == len(encode_blob(tflite).container)
    with np.load(digits) as data:
        classes = outputs_over(out / name / "model.tflite", (data["x_test"].astype(np.float32),), ["x"]).argmax(axis=1)
        assert variant.accuracy == np.mean(classes == data["y_test"])
        assert variant.n_items == len(data["y_test"])
    assert variant.agreement > 0.97
    assert {"tensorflow", "keras", "litert-quantizer", "numpy", "runtime", "edgeflock"} == variant.versions.keys()


def test_integer_variants_are_smaller_than_the_float_one(out: Path) -> None:
    size = {name: read_record(out / name).raw_bytes for name in SHIPPED}
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
    assert len(evaluation.y) == 256
    assert {item.tobytes() for item in evaluation.x[0]} <= held_out


def test_the_same_recipe_and_seed_make_the_same_bytes(
    out: Path, classifier: Path, digits: Path, tmp_path: Path
) -> None:
    (again,) = compress(classifier, digits, ["static_wi8_ai8"], tmp_path)
    first = read_record(out / "static_wi8_ai8")
    assert again.sha256 == first.sha256
    apart = {"ram_bytes": None, "certificate": None}  # what was measured beside it, and how many others were looked at
    assert again.model_copy(update=apart) == first.model_copy(update=apart)
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
        (0, 2, "opening mlp.keras"),
        (0, 2, "float32"),
        (1, 2, "float32"),
        (1, 2, "float16"),
        (2, 2, "float16"),
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


def test_several_inputs_and_outputs_go_through(keras_module: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    layers = keras_module.layers
    wide, narrow = keras_module.Input((6,), name="wide"), keras_module.Input((3,), name="narrow")
    both = layers.Concatenate()([layers.Dense(4)(wide), narrow])
    model = keras_module.Model([wide, narrow], [layers.Dense(2, name="answer")(both), layers.Dense(5)(both)])
    model.save(tmp_path / "two.keras")
    x = {"wide": rng.normal(size=(400, 6)).astype("f"), "narrow": rng.normal(size=(400, 3)).astype("f")}
    y = np.asarray(model.predict([x["wide"], x["narrow"]], verbose=0)[0].argmax(axis=1))
    parts: dict[str, Any] = {f"x_{part}.{name}": a[rows] for part, rows in ROWS.items() for name, a in x.items()}
    parts |= {f"y_{part}": y[rows] for part, rows in ROWS.items()}
    np.savez(tmp_path / "data.npz", **parts)
    out = tmp_path / "out"
    exact, trained = compress(tmp_path / "two.keras", tmp_path / "data.npz", ["float32", "p50_static_wi8_ai8"], out)
    assert (exact.accuracy, exact.agreement) == (1, 1)
    assert exact.inputs == ("wide", "narrow")
    assert trained.agreement > 0.9
    assert [x.shape for x in read_evaluation(out / "evaluation.npz").x] == [(100, 6), (100, 3)]


def test_a_training_recipe_shows_in_the_file_and_its_passes_are_not_trained_twice(
    classifier: Path, digits: Path, tmp_path: Path
) -> None:
    (first,) = compress(classifier, digits, ["p80_c16"], tmp_path)
    (float32,) = compress(classifier, digits, ["float32"], tmp_path)
    assert first.wire_bytes < float32.wire_bytes / 5
    assert first.accuracy is not None
    assert float32.accuracy is not None
    assert first.accuracy > float32.accuracy - 0.04
    seen = [one.certificate.candidates_seen for one in (first, float32) if one.certificate is not None]
    assert seen == [1, 2]
    kept = sorted(path.name for path in (tmp_path / ".passes").iterdir())
    assert len(kept) == 2
    told: list[Progress] = []
    (shared,) = compress(classifier, digits, ["p80_dynamic_wi8"], tmp_path, on_progress=told.append)
    assert sorted(path.name for path in (tmp_path / ".passes").iterdir()) == kept
    assert not any("prune" in progress.what for progress in told)
    assert shared.passes["prune_weights"] == first.passes["prune_weights"]


def test_a_trained_variant_is_made_again_byte_for_byte_in_another_process_and_folder(
    classifier: Path, digits: Path, tmp_path: Path
) -> None:
    (made,) = compress(classifier, digits, ["p80_dynamic_wi8"], tmp_path / "a", seed=3)
    end_idle()  # so that the other process shares neither addresses nor hash seeds with the first
    result = CliRunner().invoke(
        reproduce, [str(tmp_path / "a" / made.name), "--model", str(classifier), "--data", str(digits)]
    )
    assert (result.exit_code, result.stdout.strip()) == (0, f"{made.name}: the same file, sha256 {made.sha256}")
    (other,) = compress(classifier, digits, ["p80_dynamic_wi8"], tmp_path / "b", seed=4)
    assert other.sha256 != made.sha256


def test_a_variant_of_other_data_is_not_reproduced(out: Path, classifier: Path, digits: Path, tmp_path: Path) -> None:
    with np.load(digits) as data:
        np.savez(tmp_path / "other.npz", **{**data, "x_train": data["x_train"] * 0.5})
    variant, data = str(out / "static_wi8_ai8"), str(tmp_path / "other.npz")
    arguments = [variant, "--model", str(classifier), "--data", data, "--json"]
    result = CliRunner().invoke(reproduce, arguments)
    assert result.exit_code == 1
    said = json.loads(result.stdout)
    assert said["same"] is False
    assert said["differences"] == ["the data is another one"]


@pytest.mark.parametrize("who", ["the worker", "what forked it"])
def test_a_worker_that_dies_fails_its_recipes_and_no_others(
    classifier: Path, digits: Path, tmp_path: Path, who: str
) -> None:
    def kill(progress: Progress) -> None:
        if progress.what == "prune_weights" and progress.done == 0:
            ((worker, nursery),) = workers().items()
            os.kill(worker if who == "the worker" else nursery, signal.SIGKILL)

    with pytest.raises(RecipesFailed, match="its process ended with code -9") as failed:
        compress(classifier, digits, ["p80", "float32"], tmp_path, on_progress=kill)
    assert [variant.name for variant in failed.value.variants] == ["float32"]
    assert list(failed.value.failures) == ["p80"]


def test_data_that_does_not_fit_the_model_is_refused(classifier: Path, tmp_path: Path) -> None:
    x, y = np.zeros((5, 63), np.float32), np.zeros(5, int)
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    with pytest.raises(BadInput, match=r"items have shape \(63,\), the model takes \(64\)"):
        compress(classifier, tmp_path / "data.npz", ["float32"], tmp_path / "out")
