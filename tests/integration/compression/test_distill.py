"""Distillation on real digits: what a student learns, and which students can be made."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from edgeflock_compression.channels.width import anew, at_width
from edgeflock_compression.parent.source import keras_parent
from edgeflock_compression.passes.distill import Settings, distill
from edgeflock_compression.work import Bench, Work
from edgeflock_deploy.errors import BadInput

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def accuracy(work: Work) -> float:
    data = work.bench.data
    return float(np.mean(np.asarray(work.model(data.x_validation[0])).argmax(axis=1) == data.y_validation))


def widths(model: Any) -> dict[str, int]:
    return {layer.name: layer.output.shape[-1] for layer in model.layers if layer.weights}


@pytest.fixture(scope="module")
def half(cnn_bench: Bench) -> Work:
    held = {"stem/kernel": np.zeros((3, 3, 1, 16), bool)}
    work = Work(cnn_bench, cnn_bench.parent.model, masks=held)
    return distill(work, Settings(width=0.5, epochs=12))


def test_the_student_has_half_the_units_but_all_answers(half: Work) -> None:
    expected = {"stem": 8, "stem_bn": 8, "branch": 8, "branch_bn": 8, "depthwise": 8, "pointwise": 12, "hidden": 16}
    assert widths(half.model) == {**expected, "head": 10}
    notes = half.notes["distill"]
    assert notes["parameters_after"] == half.model.count_params() < 0.4 * notes["parameters_before"]


def test_the_student_learns(half: Work) -> None:
    assert accuracy(half) > 0.9


def test_masks_and_codebooks_begin_anew(half: Work) -> None:
    assert not half.masks
    assert not half.codebooks


def test_the_same_seed_gives_the_same_student(cnn_bench: Bench) -> None:
    work = Work(cnn_bench, cnn_bench.parent.model)
    first, second = (distill(work, Settings(width=0.25, epochs=0.2)).model.get_weights() for _ in range(2))
    assert all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


def test_a_teacher_that_is_better_than_the_labels_makes_a_better_student(keras_module: Any, mlp_bench: Bench) -> None:
    """Two labels in three are wrong; the teacher, trained on right ones, pulls the student to what is true."""
    data = mlp_bench.data
    rng = np.random.default_rng(0)
    wrong = np.where(rng.random(len(data.y_fit)) < 0.7, rng.integers(0, 10, len(data.y_fit)), data.y_fit)
    work = Work(replace(mlp_bench, data=replace(data, y_fit=wrong)), mlp_bench.parent.model)
    alone = distill(work, Settings(width=0.5, epochs=15, alpha=0))
    taught = distill(work, Settings(width=0.5, epochs=15))
    assert accuracy(taught) > accuracy(alone) + 0.05


def test_a_student_from_a_file_goes_on_from_its_weights_unless_fresh(
    keras_module: Any, mlp_bench: Bench, tmp_path: Path
) -> None:
    layers = keras_module.layers
    keras_module.utils.set_random_seed(3)
    student = keras_module.Sequential(
        [keras_module.Input((64,)), layers.Rescaling(1 / 16), layers.Dense(16, "relu"), layers.Dense(10)]
    )
    student.save(tmp_path / "student.keras")
    work = Work(mlp_bench, mlp_bench.parent.model)
    settings = Settings(student=str(tmp_path / "student.keras"), epochs=0.02, learning_rate=1e-9)
    near, far = (distill(work, settings.model_copy(update={"fresh": fresh})) for fresh in (False, True))
    own = student.layers[1].get_weights()[0]
    np.testing.assert_allclose(near.model.layers[2].get_weights()[0], own, atol=1e-6)
    assert not np.allclose(far.model.layers[2].get_weights()[0], own, atol=1e-3)
    assert len(near.notes["distill"]["student_sha256"]) == 64


def test_a_student_that_does_not_fit_is_refused(keras_module: Any, mlp_bench: Bench, tmp_path: Path) -> None:
    student = keras_module.Sequential([keras_module.Input((64,)), keras_module.layers.Dense(9)])
    student.save(tmp_path / "nine.keras")
    with pytest.raises(BadInput, match=r"the student gives \[\(9,\)\], the model \[\(10,\)\]"):
        distill(Work(mlp_bench, mlp_bench.parent.model), Settings(student=str(tmp_path / "nine.keras")))


@pytest.mark.parametrize("given", [{}, {"width": 0.5, "student": "a.keras"}, {"width": 0}, {"width": 1.5}])
def test_either_a_file_or_a_width_is_given(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings(**given)


def test_what_cannot_be_scaled_keeps_its_width_with_a_reason(keras_module: Any) -> None:
    layers = keras_module.layers
    given = keras_module.Input((8,))
    x = layers.Dense(8, name="same")(given)
    x = layers.Add(name="sum")([x, given])
    x = layers.Dense(16, name="free")(x)
    model = keras_module.Model(given, layers.Dense(1, name="value")(x))
    student, (skipped,) = at_width(model, 0.5, 1)
    assert widths(student) == {"same": 8, "free": 8, "value": 1}
    assert skipped.layer == "same"
    assert "'sum'" in skipped.reason


@pytest.mark.parametrize("round_to", [1, 4])
def test_attention_recurrence_gates_and_reshapes_are_scaled_together(keras_module: Any, round_to: int) -> None:
    layers = keras_module.layers
    tokens = keras_module.Input((None,), dtype="int32")
    x = layers.Embedding(50, 16, name="embedding")(tokens)
    x = layers.LayerNormalization(name="norm")(x + layers.MultiHeadAttention(2, 8, name="attention")(x, x))
    gate = layers.Dense(16, "sigmoid", name="gate")(layers.GlobalAveragePooling1D()(x))
    x = layers.Multiply()([x, layers.Reshape((1, 16))(gate)])
    x = layers.Bidirectional(layers.GRU(6, name="gru"), name="both")(x)
    model = keras_module.Model(tokens, layers.Dense(3, name="head")(x))
    student, skipped = at_width(model, 0.5, round_to)
    both = 6 if round_to == 1 else 8
    assert widths(student) == {"embedding": 8, "attention": 8, "norm": 8, "gate": 8, "both": both, "head": 3}
    assert not skipped
    assert np.asarray(student(np.zeros((2, 7), np.int32))).shape == (2, 3)


def test_statistics_of_the_inputs_are_kept_and_frozen_layers_are_trained(keras_module: Any) -> None:
    layers = keras_module.layers
    norm = layers.Normalization(name="inputs")
    norm.adapt(np.arange(20, dtype=np.float32).reshape(10, 2))
    frozen = layers.Dense(4, name="frozen")
    frozen.trainable = False
    model = keras_module.Sequential([keras_module.Input((2,)), norm, frozen, layers.Dense(2)])
    for student in (at_width(model, 0.5, 1)[0], anew(model)):
        np.testing.assert_array_equal(student.get_layer("inputs").mean, norm.mean)
        assert student.get_layer("frozen").trainable


def test_a_parent_at_full_width_is_drawn_anew(cnn_bench: Bench) -> None:
    model = cnn_bench.parent.model
    student, _ = at_width(model, 1.0, 1)
    assert widths(student) == widths(model)
    assert keras_parent(student, "0" * 64, "student").outputs == 1
    assert not np.allclose(student.get_layer("hidden").get_weights()[0], model.get_layer("hidden").get_weights()[0])
