from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from edgeflock_compression.parent.data import InputSpec, fit, load_data
from edgeflock_compression.parent.split import task_of
from edgeflock_compression.variant import Variant
from edgeflock_controller.drafts import find_drafts, find_fallbacks
from edgeflock_deploy.bundle import Task
from edgeflock_deploy.canonical import sha256_hex
from edgeflock_deploy.cases import Evaluation, Golden, write_evaluation, write_golden
from edgeflock_deploy.errors import BadInput

DATA = Path(__file__).parents[2] / "data"


def make_variant(folder: Path, name: str, parent: str = "0", data: str = "0") -> Path:
    (folder / name).mkdir(parents=True)
    path = folder / name / "model.tflite"
    shutil.copy(DATA / "tiny.tflite", path)
    record = Variant(
        name=name,
        recipe={},
        parent_sha256=parent * 64,
        data_sha256=data * 64,
        seed=0,
        versions={},
        sha256=sha256_hex(path.read_bytes()),
        raw_bytes=1,
        wire_bytes=1,
        ram_bytes=7,
        task=Task(kind="classification", metric="accuracy"),
        metric="accuracy",
        accuracy=0.5,
        agreement=1.0,
        n_items=4,
        skipped=(),
    )
    (folder / name / "variant.json").write_text(record.model_dump_json())
    x = np.zeros((4, 8), np.float32)
    (folder / "golden_inputs.npz").write_bytes(write_golden(Golden((x,), ())))
    (folder / "evaluation.npz").write_bytes(write_evaluation(Evaluation((x,), np.zeros(4, np.int64))))
    return folder / name


def test_a_folder_of_variants_gives_them_all_and_one_variants_folder_itself(tmp_path: Path) -> None:
    one = make_variant(tmp_path, "a")
    make_variant(tmp_path, "b")
    assert [draft.variant for draft in find_drafts(tmp_path, None, None)] == ["a", "b"]
    (draft,) = find_drafts(one, None, None)
    assert (draft.variant, draft.ram_bytes, draft.provenance["accuracy"]) == ("a", 7, 0.5)
    assert draft.evaluation is not None


def test_a_file_that_was_altered_after_it_was_measured_is_refused(tmp_path: Path) -> None:
    folder = make_variant(tmp_path, "a")
    altered = bytearray((folder / "model.tflite").read_bytes())
    altered[-1] ^= 1
    (folder / "model.tflite").write_bytes(altered)
    with pytest.raises(BadInput, match="was altered after it was measured"):
        find_drafts(tmp_path, None, None)


def test_what_cannot_be_published_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        find_drafts(tmp_path / "missing", None, None)
    with pytest.raises(BadInput, match="has no variant"):
        find_drafts(tmp_path, None, None)
    with pytest.raises(BadInput, match="--data"):
        find_drafts(DATA / "tiny.tflite", None, None)
    folder = make_variant(tmp_path, "a")
    (folder / "variant.json").write_text("{}")
    with pytest.raises(BadInput, match="no variant's record"):
        find_drafts(tmp_path, None, None)


def test_variants_of_different_data_are_refused_because_the_evaluation_slice_belongs_to_one(tmp_path: Path) -> None:
    one = make_variant(tmp_path, "a")
    make_variant(tmp_path, "b", data="1")
    for source in (tmp_path, one):
        with pytest.raises(BadInput, match=r"measured on different data \(a, b among them\)"):
            find_drafts(source, None, None)


def test_variants_of_different_models_are_not_one_version_but_can_be_published_one_by_one(tmp_path: Path) -> None:
    one = make_variant(tmp_path, "a")
    make_variant(tmp_path, "b", parent="1")
    with pytest.raises(BadInput, match=r"variants of different models \(a, b among them\)"):
        find_drafts(tmp_path, None, None)
    assert [draft.variant for draft in find_drafts(one, None, None)] == ["a"]


def test_fallbacks_are_variants_of_the_same_folder_in_the_order_given(tmp_path: Path) -> None:
    one = make_variant(tmp_path, "a")
    for name in ("b", "c"):
        make_variant(tmp_path, name)
    for source in (tmp_path, one):
        found = find_fallbacks(source, None, ["c", "b"], find_drafts(source, None, None))
        assert [draft.variant for draft in found] == ["c", "b"]


@pytest.mark.parametrize(
    ("names", "wrong"),
    [(["x"], "--fallback x: is no variant in .*there are a, b"), (["b", "b"], "names b twice")],
)
def test_a_fallback_that_is_not_there_or_named_twice_is_refused(tmp_path: Path, names: list[str], wrong: str) -> None:
    make_variant(tmp_path, "a")
    make_variant(tmp_path, "b")
    with pytest.raises(BadInput, match=wrong):
        find_fallbacks(tmp_path, None, names, find_drafts(tmp_path, None, None))


def test_a_fallback_of_another_model_is_refused(tmp_path: Path) -> None:
    one = make_variant(tmp_path, "a")
    make_variant(tmp_path, "b", parent="1")
    with pytest.raises(BadInput, match="variants of different models"):
        find_fallbacks(one, None, ["b"], find_drafts(one, None, None))


def test_a_foreign_file_falls_back_to_other_files_with_the_same_data(tmp_path: Path) -> None:
    x, y = np.zeros((300, 8), np.float32), np.arange(300) % 3
    np.savez(data := tmp_path / "data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    drafts = find_drafts(DATA / "tiny.tflite", data, "first")
    (other,) = find_fallbacks(DATA / "tiny.tflite", data, [str(DATA / "tiny_int8.tflite")], drafts)
    assert (other.variant, other.task) == ("tiny_int8", drafts[0].task)
    with pytest.raises(BadInput, match="names tiny twice"):
        find_fallbacks(
            DATA / "tiny.tflite", data, [str(DATA / "tiny.tflite")], find_drafts(DATA / "tiny.tflite", data, None)
        )


def test_a_foreign_file_takes_its_cases_from_its_data_and_its_name_from_its_file(tmp_path: Path) -> None:
    x, y = np.zeros((300, 8), np.float32), np.arange(300) % 3
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    (draft,) = find_drafts(DATA / "tiny.tflite", tmp_path / "data.npz", None)
    assert draft.variant == "tiny"
    assert draft.evaluation is not None
    assert len(draft.evaluation.y) == 256
    assert draft.task.kind == "classification"


@pytest.mark.parametrize(
    ("file", "width", "y", "says"),
    [
        ("tiny.tflite", 8, np.arange(40) % 4, "classes run from 0 to 3, the model has 3 outputs"),
        ("tiny_recurrent.tflite", 2, np.zeros((40, 3), "float32"), "y has 3 targets per item, the model 2 outputs"),
        ("tiny_fed.tflite", 4, np.arange(40) % 2, "y holds classes, the model has 1 output"),
    ],
)
def test_labels_that_no_output_of_a_foreign_file_answers_are_refused(
    tmp_path: Path, file: str, width: int, y: np.ndarray, says: str
) -> None:
    x = np.zeros((40, 1, width) if "recurrent" in file else (40, width), np.float32)
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    with pytest.raises(BadInput, match=says):
        find_drafts(DATA / file, tmp_path / "data.npz", None)


def test_a_foreign_regression_is_scored_as_compress_scores_its_own(tmp_path: Path) -> None:
    x = np.zeros((300, 8), np.float32)
    y = np.linspace(0, 1, 900, dtype=np.float32).reshape(300, 3)
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    (draft,) = find_drafts(DATA / "tiny.tflite", tmp_path / "data.npz", None)
    assert draft.task == task_of(
        fit(load_data(tmp_path / "data.npz"), [InputSpec("x", (8,), "float32")]), draft.evaluation
    )
    assert draft.task.agreement_atol == pytest.approx(0.05 * float(y.std()), rel=0.01)
