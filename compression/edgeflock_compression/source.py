"""The parent: the trained model that goes in, a `.keras` file or a SavedModel folder.

Decided here: what can be opened, and the one form from which everything is converted: a SavedModel with a fixed batch
of 1, exported once. A dynamic batch would leave SHAPE, STRIDED_SLICE and PACK in the `.tflite` and split the delegate;
converting from the Keras model would export anew for every recipe.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeflock_compression.tf_import import keras, tensorflow
from edgeflock_deploy.errors import BadInput

Array = NDArray[Any]
_BATCH = 256


@dataclass(frozen=True)
class Parent:
    """A model that was opened; TensorFlow holds it.

    Args:
        sha256: hash of the file, or of the folder's files with their names.
        item_shape: shape of its input without the batch; None where any size will do.
        dtype: numpy's name of the input's element type.
        predict: items (n, ...) -> first outputs (n, ...): what variants are compared with.
        export: (folder, item shape) -> writes a SavedModel with a batch of 1.
    """

    sha256: str
    item_shape: tuple[int | None, ...]
    dtype: str
    predict: Callable[[Array], Array]
    export: Callable[[Path, tuple[int, ...]], None]


def open_parent(path: Path) -> Parent:
    """Open MODEL.

    Raises:
        BadInput: it does not exist, is neither form, cannot be read, or has several inputs or outputs.
    """
    if not path.exists():
        raise BadInput(str(path), "does not exist", "give a .keras file or a SavedModel folder")
    if path.is_dir() and (path / "saved_model.pb").is_file():
        return _open_saved_model(path)
    if path.is_file() and path.suffix == ".keras":
        return _open_keras(path)
    raise BadInput(
        str(path), "is neither a .keras file nor a SavedModel folder", "save it with model.save('NAME.keras')"
    )


def _open_keras(path: Path) -> Parent:
    tf, keras_ = tensorflow(), keras()
    try:
        model = keras_.models.load_model(path, compile=False)
    except Exception as error:  # Keras raises whatever the failing layer raises
        mend = "give a whole model of built-in layers, saved by Keras 3, or a SavedModel folder"
        raise BadInput(str(path), f"Keras cannot load it: {_one_line(error)}", mend) from None
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if not inputs or not outputs:
        raise BadInput(str(path), "the model has no fixed input", "build it from layers, or give a SavedModel folder")
    _one_of_each(path, len(inputs), len(outputs))
    shape, dtype = tuple(inputs[0].shape), str(inputs[0].dtype)

    def export(folder: Path, item_shape: tuple[int, ...]) -> None:
        model.export(str(folder), verbose=False, input_signature=[tf.TensorSpec((1, *item_shape), dtype)])

    call = tf.function(lambda x: model(x, training=False))
    return Parent(_file_sha256(path), shape[1:], dtype, _in_batches(path, call, shape[0]), export)


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
    inputs, outputs = signature.structured_input_signature[1], signature.structured_outputs
    _one_of_each(path, len(inputs), len(outputs))
    (argument, spec), (result,) = next(iter(inputs.items())), outputs
    if spec.shape.rank is None:
        raise BadInput(str(path), "its input has no shape", "export it with an input signature")
    shape, dtype = tuple(spec.shape), spec.dtype.as_numpy_dtype

    def call(x: Any) -> Any:
        return signature(**{argument: tf.convert_to_tensor(x)})[result]

    def export(folder: Path, item_shape: tuple[int, ...]) -> None:
        module = tf.Module()
        module.parent = loaded  # holds the variables
        module.serve = tf.function(call, input_signature=[tf.TensorSpec((1, *item_shape), dtype, name=argument)])
        tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})

    return Parent(_folder_sha256(path), shape[1:], np.dtype(dtype).name, _in_batches(path, call, shape[0]), export)


def _one_of_each(path: Path, inputs: int, outputs: int) -> None:
    if (inputs, outputs) != (1, 1):
        wrong = f"has {inputs} inputs and {outputs} outputs"
        raise BadInput(str(path), wrong, "one input and one output are supported by now; split or wrap the model")


def _in_batches(path: Path, call: Callable[[Any], Any], batch: int | None) -> Callable[[Array], Array]:
    if batch not in (None, 1):
        raise BadInput(str(path), f"has a fixed batch of {batch}", "export it with an open batch or a batch of 1")
    size = batch or _BATCH

    def predict(x: Array) -> Array:
        return np.concatenate([np.asarray(call(x[start : start + size])) for start in range(0, len(x), size)])

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
