import shutil
from pathlib import Path

import numpy as np
import pytest

import edgeflock_deploy
from edgeflock_deploy import scoring
from edgeflock_deploy.cases import read_golden
from edgeflock_deploy.runtime import InputMismatch, LoadedModel, LoadFailed, TensorInfo
from edgeflock_deploy.runtime_name import runtime_name

DATA = Path(__file__).parents[2] / "data"
WARM = Path(edgeflock_deploy.__file__).with_name("warm.tflite")


def test_a_model_tells_its_inputs_and_outputs_with_a_batch_of_one() -> None:
    model = LoadedModel.load(DATA / "tiny.tflite")
    assert [(info.dtype, info.shape) for info in model.inputs] == [("float32", (1, 8))]
    assert [(info.dtype, info.shape) for info in model.outputs] == [("float32", (1, 3))]


def test_golden_inputs_give_golden_outputs() -> None:
    golden, model = read_golden(DATA / "tiny_golden.npz"), LoadedModel.load(DATA / "tiny.tflite")
    for given, wanted in zip(golden.inputs[0], golden.outputs[0], strict=True):
        np.testing.assert_allclose(model.run(given)[0][0], wanted, rtol=1e-4)


def test_an_item_may_come_with_or_without_its_batch() -> None:
    model = LoadedModel.load(WARM)
    item = np.ones((2, 2, 1), np.float32)
    assert model.run(item)[0].tolist() == model.run(item[None])[0].tolist() == [[4.0]]


def test_outputs_are_copies_that_outlive_the_next_call() -> None:
    model = LoadedModel.load(WARM)
    first = model.run(np.ones((2, 2, 1), np.float32))[0]
    second = model.run(np.full((2, 2, 1), 2, np.float32))[0]
    assert (first.item(), second.item()) == (4.0, 8.0)


@pytest.mark.parametrize(
    "arrays",
    [(), (np.ones((2, 2, 1), np.float64),), (np.ones((2, 3, 1), np.float32),), (np.ones((2, 2, 1), np.float32),) * 2],
    ids=["none", "another type", "another shape", "too many"],
)
def test_arrays_that_do_not_fit_are_refused(arrays: tuple[np.ndarray, ...]) -> None:
    with pytest.raises(InputMismatch):
        LoadedModel.load(WARM).run(*arrays)


@pytest.mark.parametrize("content", [b"", b"TFL3", b"not a model at all" * 20])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.tflite"
    path.write_bytes(content)
    with pytest.raises(LoadFailed, match=r"^broken\.tflite: .+"):
        LoadedModel.load(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed):
        LoadedModel.load(tmp_path / "nothing.tflite")


def test_a_path_with_blanks_and_accents_loads(tmp_path: Path) -> None:
    path = tmp_path / "ein Modell, größer.tflite"
    shutil.copy(WARM, path)
    assert LoadedModel.load(path).inputs[0].shape == (1, 2, 2, 1)


def test_quantized_tensors_encode_by_rounding_and_clipping_and_decode_back() -> None:
    info = TensorInfo(0, "x", "int8", (1, 4), scale=0.5, zero_point=-1)
    codes = info.encode(np.array([0.0, 0.6, -1000.0, 1000.0]))
    assert codes.tolist() == [-1, 0, -128, 127]
    assert codes.dtype == np.int8
    assert info.decode(codes).tolist() == [0.0, 0.5, -63.5, 64.0]


def test_a_fully_quantized_model_answers_as_its_float_parent() -> None:
    quantized, parent = LoadedModel.load(DATA / "tiny_int8.tflite"), LoadedModel.load(DATA / "tiny.tflite")
    assert quantized.inputs[0].dtype == "int8"
    for item in read_golden(DATA / "tiny_golden.npz").inputs[0]:
        held = quantized.run(quantized.inputs[0].encode(item))[0]
        np.testing.assert_allclose(quantized.outputs[0].decode(held), parent.run(item)[0], atol=0.1)


def test_the_runtime_names_its_family_and_minor_version() -> None:
    family = runtime_name().rstrip("0123456789.")
    assert family in ("litert", "tflite-runtime")
    assert runtime_name().count(".") == 1


def test_a_classification_answers_with_the_argmax_and_nan_is_never_right() -> None:
    given = scoring.answers("classification", np.array([[0.1, 0.9], [0.8, 0.2], [np.nan, 1.0]]))
    assert given.tolist() == [1, 0, -1]
    assert scoring.accuracy(given, np.array([1, 1, 1])) == pytest.approx(1 / 3)
    assert scoring.agreeing("classification", given, given).tolist() == [True, True, False]


def test_r2_is_one_for_the_targets_and_zero_for_their_mean() -> None:
    y = np.array([[1.0], [2.0], [6.0]])
    assert scoring.score("regression", y, y) == 1
    assert scoring.score("regression", np.full((3, 1), 3.0), y) == pytest.approx(0)
    assert scoring.r2(y, np.ones((3, 1))) is None
    assert scoring.r2(np.full((3, 1), np.nan), y) is None


def test_the_r2_of_a_part_uses_the_variance_of_the_whole() -> None:
    y = np.array([[0.0], [10.0]])
    assert scoring.r2(y[:1] + 1, y[:1], scoring.variance(y)) == pytest.approx(1 - 1 / 25)


def test_regressions_agree_within_the_distance_on_every_value() -> None:
    a, b = np.array([[1.0, 2.0], [1.0, 2.0]]), np.array([[1.1, 2.0], [1.0, 2.3]])
    assert scoring.agreement("regression", a, b, atol=0.2) == 0.5
    with pytest.raises(ValueError, match="distance"):
        scoring.agreement("regression", a, b)
