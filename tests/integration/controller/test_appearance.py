"""What `publish` promises to applications, and that a child keeps it: the same for all variants of a version."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeflock_agent.children.manifest_view import told
from edgeflock_agent.children.runner import ModelProcess
from edgeflock_compression.variant import Variant
from edgeflock_deploy.bundle import Manifest, Task
from edgeflock_deploy.canonical import sha256_hex
from edgeflock_deploy.cases import Evaluation, Golden, write_evaluation, write_golden

DATA = Path(__file__).parents[2] / "data"
PIXELS = """
labels = "labels.txt"

[[input]]
name = "photo"
of = "image"
dtype = "uint8"
shape = [-1, 6, 3]
limit = [12, 6, 3]
steps = [{do = "resize", height = 4, width = 4}, {do = "normalise", scale = 0.0039215686}]

[[output]]
name = "animal"
of = "scores"
steps = [{do = "argmax"}, {do = "labels"}]

[[output]]
name = "scores"
"""


def manifests(hq: Any, model: str) -> dict[str, Manifest]:
    """By variant, those of a model's newest version."""
    found = [Manifest.model_validate(value) for value in hq.ask("manifests", model)]
    newest = max(one.version for one in found)
    return {one.variant: one for one in found if one.version == newest}


def compressed(folder: Path, **files: str) -> Path:
    """A folder as `compress` writes it, of a parent that calls its input `features`."""
    for name, file in files.items():
        (folder / name).mkdir(parents=True)
        path = folder / name / "model.tflite"
        shutil.copy(DATA / f"{file}.tflite", path)
        record = Variant(
            name=name,
            recipe={},
            parent_sha256="0" * 64,
            data_sha256="0" * 64,
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
            inputs=("features",),
        )
        (folder / name / "variant.json").write_text(record.model_dump_json())
    x = np.random.default_rng(0).normal(size=(4, 8)).astype("float32")
    (folder / "golden_inputs.npz").write_bytes(write_golden(Golden((x,), ())))
    (folder / "evaluation.npz").write_bytes(write_evaluation(Evaluation((x,), np.zeros(4, np.int64))))
    return folder


def data_for(folder: Path, targets: int = 0, **x: Any) -> str:
    """A data file whose items have these shapes, in three classes or with so many targets; `only` is the only input."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for part in ("train", "test"):
        for name, (shape, dtype) in x.items():
            key = f"x_{part}" if name == "only" else f"x_{part}.{name}"
            arrays[key] = (rng.random((16, *shape)) * 200).astype(dtype)
        arrays[f"y_{part}"] = rng.random((16, targets)) if targets else np.arange(16) % 3
    np.savez(folder / "data.npz", **arrays)
    return str(folder / "data.npz")


def test_float_and_int8_variants_of_a_version_look_the_same_and_take_and_give_real_values(
    flock: Any, hq: Any, tmp_path: Path
) -> None:
    folder = compressed(tmp_path / "v", plain="tiny_named", small="tiny_int8")
    hq.run("publish", str(folder), "--model", flock.model)
    found = manifests(hq, flock.model)
    assert found["plain"].inputs == found["small"].inputs
    assert found["plain"].outputs == found["small"].outputs
    (x,), (scores,) = found["small"].inputs, found["small"].outputs
    assert (x.name, x.dtype, x.shape, x.limit) == ("features", "float32", (-1, 8), (256, 8))
    assert (scores.name, scores.dtype, scores.shape) == ("scores", "float32", (-1, 3))
    assert found["small"].held_inputs is not None
    assert (found["small"].held_inputs[0].dtype, found["small"].held_inputs[0].scale > 0) == ("int8", True)
    rows = np.random.default_rng(2).normal(size=(3, 8)).astype("float32")
    answers = {}
    for name, manifest in found.items():
        with ModelProcess.start(folder / name / "model.tflite", view=told(manifest)) as process:
            done = process.infer([rows.tobytes()], [rows.shape])
            answers[name] = np.frombuffer(done.outputs[0], "float32").reshape(done.shapes[0])
    np.testing.assert_allclose(answers["small"], answers["plain"], atol=0.1)


def test_a_publisher_may_want_the_codes_and_single_items(flock: Any, hq: Any) -> None:
    command = ("publish", str(DATA / "tiny_int8.tflite"), "--data", str(hq.data), "--model", flock.model)
    hq.run(*command, "--raw-io", "--max-batch", "1")
    (manifest,) = manifests(hq, flock.model).values()
    assert [(one.dtype, one.shape) for one in (*manifest.inputs, *manifest.outputs)] == [
        ("int8", (1, 8)),
        ("int8", (1, 3)),
    ]


def test_a_version_whose_names_differ_from_the_one_before_says_so(flock: Any, hq: Any) -> None:
    assert flock.publish("tiny_named.tflite")["renamed"] is None
    assert flock.publish("tiny.tflite")["renamed"] == "version 1 had x -> scores, this one has x -> Identity"
    assert flock.publish("tiny_other.tflite")["renamed"] is None


def test_declared_processing_and_labels_travel_and_are_applied(flock: Any, hq: Any, tmp_path: Path) -> None:
    (tmp_path / "pixels.toml").write_text(PIXELS)
    (tmp_path / "labels.txt").write_text("cat\ndog\ncow\n")
    data = data_for(tmp_path, only=((5, 6, 3), "uint8"))
    command = ("publish", str(DATA / "tiny_pixels.tflite"), "--data", data, "--model", flock.model)
    hq.run(*command, "--processing", str(tmp_path / "pixels.toml"))
    (manifest,) = manifests(hq, flock.model).values()
    assert [(one.name, one.dtype, one.shape) for one in manifest.outputs] == [
        ("animal", "text", (-1,)),
        ("scores", "float32", (-1, 3)),
    ]
    photo = manifest.inputs[0]
    assert (photo.name, photo.shape, photo.limit) == ("photo", (-1, -1, 6, 3), (256, 12, 6, 3))
    assert manifest.blobs["labels"].sha256 == sha256_hex(b"cat\ndog\ncow\n")
    view = told(manifest)
    with ModelProcess.start(DATA / "tiny_pixels.tflite", view=view, labels=tmp_path / "labels.txt") as process:
        done = process.infer([bytes(2 * 9 * 6 * 3)], [(2, 9, 6, 3)])
        best = np.frombuffer(done.outputs[1], "float32").reshape(2, 3).argmax(axis=1)
        words = [["cat", "dog", "cow"][place].encode() for place in best]
        assert done.outputs[0] == b"".join(len(word).to_bytes(4, "little") + word for word in words)


def test_a_state_of_equal_name_is_found_and_hidden_from_applications(flock: Any, hq: Any, tmp_path: Path) -> None:
    data = data_for(tmp_path, targets=1, only=((4,), "float32"))
    hq.run("publish", str(DATA / "tiny_fed.tflite"), "--data", data, "--model", flock.model)
    (manifest,) = manifests(hq, flock.model).values()
    assert [one.name for one in (*manifest.inputs, *manifest.outputs)] == ["x", "total"]
    assert [(pair.output, pair.input) for pair in manifest.state] == [(1, 1)]
    assert manifest.max_batch == 1
    with ModelProcess.start(DATA / "tiny_fed.tflite", view=told(manifest)) as process:
        given = [np.frombuffer(process.infer([np.ones(4, "float32").tobytes()]).outputs[0], "float32")[0] for _ in "ab"]
    assert given == [4.0, 6.0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--state", "total=x"), "their shapes differ"),
        (("--state", "nothing=x"), "the model has no output 'nothing'; it has total, memory"),
        (("--state", "memory"), "is no pair"),
    ],
)
def test_a_state_that_is_none_is_refused_in_one_line(
    flock: Any, hq: Any, tmp_path: Path, options: tuple[str, str], says: str
) -> None:
    data = data_for(tmp_path, only=((4,), "float32"))
    command = ("publish", str(DATA / "tiny_fed.tflite"), "--data", data, "--model", flock.model)
    said = hq.run(*command, *options, code=2)
    assert says in said
    assert said.count("\n") == 1


def test_an_open_size_is_open_to_applications_within_declared_bounds(flock: Any, hq: Any, tmp_path: Path) -> None:
    data = data_for(tmp_path, only=((7, 4), "float32"))
    command = ("publish", str(DATA / "tiny_open.tflite"), "--data", data, "--model", flock.model)
    hq.run(*command)
    (manifest,) = manifests(hq, flock.model).values()
    assert manifest.inputs[0].shape == (-1, 7, 4)
    (tmp_path / "p.toml").write_text('[[input]]\nname = "x"\nshape = [-1, 4]\nlimit = [9, 4]\n')
    hq.run(*command, "--processing", str(tmp_path / "p.toml"))
    (manifest,) = manifests(hq, flock.model).values()
    assert (manifest.inputs[0].shape, manifest.inputs[0].limit) == ((-1, -1, 4), (256, 9, 4))
    assert {one.name: one.shape for one in manifest.outputs} == {"mean": (-1, 4), "twice": (-1, -1, 4)}
    with ModelProcess.start(DATA / "tiny_open.tflite", view=told(manifest)) as process:
        assert process.infer([bytes(2 * 9 * 16)], [(2, 9, 4)]).shapes[0][0] == 2
