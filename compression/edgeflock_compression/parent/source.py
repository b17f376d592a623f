"""The parent: the trained model that goes in.

Decided here: what can be opened, and in which form passes get it. A `.keras` or `.h5` file becomes a flat Keras model;
a SavedModel folder and a float `.tflite` made elsewhere have no layers to work on, so only quantization treats them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeflock_compression.graph.export import export_saved_model
from edgeflock_compression.graph.flat import flat
from edgeflock_compression.graph.logits import ends_in_softmax
from edgeflock_compression.parent.data import Arrays, InputSpec
from edgeflock_compression.parent.input_order import input_name
from edgeflock_compression.parent.legacy import Loaded, load_keras
from edgeflock_compression.tf_import import keras, tensorflow
from edgeflock_deploy.errors import BadInput
from edgeflock_deploy.runtime import LoadedModel, LoadFailed

Array = NDArray[Any]
_BATCH = 256
_FORMS = "a .keras or .h5 file, a SavedModel folder or a float .tflite file"


@dataclass(frozen=True)
class Parent:
    """A model that was opened.

    Args:
        sha256: hash of the file, or of the folder's files with their names.
        inputs: what it takes.
        outputs: how many outputs it has.
        predict: items per input -> all outputs, each (n, ...).
        gives_distribution: whether the first output is a softmax, else logits or values.
        model: the flat Keras model, None where there is none.
        export: (folder, item shapes) -> writes a SavedModel with a batch of 1; None for a `.tflite`.
        tflite: the file's bytes, for a `.tflite`.
        dropped: (layer, argument) of what a file of an earlier Keras said and this one has no word for.
    """

    sha256: str
    inputs: tuple[InputSpec, ...]
    outputs: int
    predict: Callable[[Arrays], Arrays]
    gives_distribution: bool
    model: Any = None
    export: Callable[[Path, tuple[tuple[int, ...], ...]], None] | None = None
    tflite: bytes | None = None
    dropped: tuple[tuple[str, str], ...] = ()


def open_parent(path: Path) -> Parent:
    """Open MODEL.

    Raises:
        BadInput: it does not exist, is of no form that can be read, or cannot be read.
    """
    if not path.exists():
        raise BadInput(str(path), "does not exist", f"give {_FORMS}")
    if path.is_dir() and (path / "saved_model.pb").is_file():
        return _open_saved_model(path)
    if path.is_file() and path.suffix in (".keras", ".h5", ".hdf5"):
        loaded = _load_keras(path)
        return replace(keras_parent(loaded.model, _file_sha256(path), str(path)), dropped=loaded.dropped)
    if path.is_file() and path.suffix == ".tflite":
        return _open_tflite(path)
    raise BadInput(str(path), f"is not {_FORMS}", "save it with model.save('NAME.keras')")


def keras_parent(model: Any, sha256: str, name: str) -> Parent:
    """A built Keras model as a parent.

    Raises:
        BadInput: it is subclassed, or has a fixed batch.
    """
    if not getattr(model, "inputs", None) or not getattr(model, "outputs", None):
        raise BadInput(name, "the model has no fixed input", "build it from layers, or give a SavedModel folder")
    model = flat(model, name)
    tf, module = tensorflow(), keras()
    specs = tuple(InputSpec(t.name, tuple(t.shape[1:]), str(t.dtype)) for t in model.inputs)
    call = tf.function(lambda parts: module.tree.flatten(model(_as_called(model, parts), training=False)))
    return Parent(
        sha256=sha256,
        inputs=specs,
        outputs=len(model.outputs),
        predict=_in_batches(name, call, model.inputs[0].shape[0]),
        gives_distribution=ends_in_softmax(model),
        model=model,
        export=lambda folder, shapes: export_saved_model(model, folder, shapes),
    )


def _as_called(model: Any, parts: list[Any]) -> Any:
    return parts[0] if len(parts) == 1 else keras().tree.pack_sequence_as(model.input, parts)


def _load_keras(path: Path) -> Loaded:
    try:
        return load_keras(path)
    except BadInput:
        raise
    except Exception as error:  # Keras raises whatever the failing layer raises
        mend = "give a whole model of built-in layers, saved by Keras 3, or a SavedModel folder"
        raise BadInput(str(path), f"Keras cannot load it: {_one_line(error)}", mend) from None


def _open_saved_model(path: Path) -> Parent:
    tf = tensorflow()
    try:
        loaded = tf.saved_model.load(str(path))
    except Exception as error:  # the loader raises errors of many kinds for damaged files
        mend = "export it again with model.export(FOLDER)"
        raise BadInput(str(path), f"TensorFlow cannot load it: {_one_line(error)}", mend) from None
    signature = loaded.signatures.get("serving_default")
    if signature is None:
        exists = ", ".join(loaded.signatures) or "none"
        raise BadInput(str(path), "has no signature 'serving_default'", f"export one; it has: {exists}")
    given, results = signature.structured_input_signature[1], sorted(signature.structured_outputs)
    if any(spec.shape.rank is None for spec in given.values()):
        raise BadInput(str(path), "an input has no shape", "export it with an input signature")
    specs = tuple(InputSpec(n, tuple(s.shape[1:]), np.dtype(s.dtype.as_numpy_dtype).name) for n, s in given.items())
    batches = {spec.shape[0] for spec in given.values()}

    def call(parts: Any) -> list[Any]:
        outputs = signature(**{spec.name: tf.convert_to_tensor(x) for spec, x in zip(specs, parts, strict=True)})
        return [outputs[name] for name in results]

    def export(folder: Path, shapes: tuple[tuple[int, ...], ...]) -> None:
        module = tf.Module()
        module.parent = loaded  # holds the variables
        arguments = [tf.TensorSpec((1, *shape), s.dtype, name=s.name) for s, shape in zip(specs, shapes, strict=True)]
        module.serve = tf.function(
            lambda *parts: {f"output_{n}": tensor for n, tensor in enumerate(call(parts))}, input_signature=arguments
        )
        tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})

    predict = _in_batches(str(path), call, batches.pop())
    return Parent(_folder_sha256(path), specs, len(results), predict, False, None, export)


def _open_tflite(path: Path) -> Parent:
    try:
        model = LoadedModel.load(path)
    except LoadFailed as error:
        raise BadInput(str(path), f"the runtime cannot load it: {error.detail}", f"give {_FORMS}") from None
    if any(info.scale for info in (*model.inputs, *model.outputs)):
        raise BadInput(str(path), "is quantized already", "give the float model")
    specs = tuple(InputSpec(input_name(info), info.shape[1:], info.dtype) for info in model.inputs)

    def predict(x: Arrays) -> Arrays:
        rows = [model.run(*(part[n] for part in x)) for n in range(len(x[0]))]
        return tuple(np.concatenate(column) for column in zip(*rows, strict=True))

    return Parent(_file_sha256(path), specs, len(model.outputs), predict, False, tflite=path.read_bytes())


def _in_batches(name: str, call: Callable[[Any], Any], batch: int | None) -> Callable[[Arrays], Arrays]:
    if batch not in (None, 1):
        raise BadInput(name, f"has a fixed batch of {batch}", "export it with an open batch or a batch of 1")
    size = batch or _BATCH

    def predict(x: Arrays) -> Arrays:
        starts = range(0, len(x[0]), size)
        rows = [[np.asarray(out) for out in call([part[s : s + size] for part in x])] for s in starts]
        return tuple(np.concatenate(column) for column in zip(*rows, strict=True))

    return predict


def _file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _folder_sha256(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()} {_file_sha256(path)}\n".encode())
    return digest.hexdigest()


def _one_line(error: Exception) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 200 else words[:197] + "..."
