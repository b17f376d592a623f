"""Keras files of earlier versions: arguments that Keras 3 dropped are taken out of the configuration, then it loads.

Decided here: what may be taken out. An argument that Keras 3 does not take, with a value that changed nothing (as
`groups=1` of a depthwise layer, or `implementation` of a recurrent one), goes and is listed; one that did change what
was computed ends in an error, for the model would answer differently.
"""

from __future__ import annotations

import inspect
import json
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

from edgeflock_compression.tf_import import keras
from edgeflock_deploy.errors import BadInput

_OF_EVERY_LAYER = {
    *("name", "trainable", "dtype", "autocast", "activity_regularizer"),
    *("input_shape", "batch_shape", "batch_input_shape", "input_dim", "input_dtype"),
}
_OF_SPEED_ONLY = {"implementation", "unroll"}
_CHANGES_NOTHING: tuple[Any, ...] = (None, False, 1, [], {})


class Loaded(NamedTuple):
    """A model, and the arguments that were taken out: (layer, argument)."""

    model: Any
    dropped: tuple[tuple[str, str], ...]


def load_keras(path: Path) -> Loaded:
    """Load a `.keras`, `.h5` or `.hdf5` file, without its optimizer and loss.

    Raises:
        BadInput: an argument that Keras 3 does not know changed what the model computes.
        Exception: whatever Keras or the failing layer raises.
    """
    load = keras().models.load_model
    try:
        return Loaded(load(path, compile=False), ())
    except Exception as error:  # Keras raises errors of any kind; if nothing can be mended it is the user's to see
        with tempfile.TemporaryDirectory(prefix="edgeflock-") as scratch:
            mended = Path(scratch) / path.name
            try:
                dropped = _mend(path, mended)
            except (OSError, KeyError, ValueError):
                raise error from None
            if dropped is None:
                raise
            return Loaded(load(mended, compile=False), dropped)


def _mend(path: Path, mended: Path) -> tuple[tuple[str, str], ...] | None:
    """Write a copy with a mended configuration; None if there is nothing to mend."""
    text = _read(path)
    config = json.loads(text)
    dropped = _clean(path, config)
    new = json.dumps(config)
    if new == json.dumps(json.loads(text)):
        return None
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(mended, "w") as archive:
            for name in old.namelist():
                archive.writestr(name, new if name == "config.json" else old.read(name))
        return dropped
    import h5py

    shutil.copyfile(path, mended)
    with h5py.File(mended, "r+") as file:
        file.attrs["model_config"] = new
    return dropped


def _read(path: Path) -> str:
    if path.suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            return archive.read("config.json").decode()
    import h5py

    with h5py.File(path, "r") as file:
        text = file.attrs["model_config"]
    return text.decode() if isinstance(text, bytes) else str(text)


def _clean(path: Path, value: Any) -> tuple[tuple[str, str], ...]:
    """Take out, in place, what Keras 3 does not take, layer by layer, wrapped layers and inner models too."""
    if isinstance(value, list):
        return tuple(found for entry in value for found in _clean(path, entry))
    if not isinstance(value, dict):
        return ()
    dropped: list[tuple[str, str]] = []
    config, kind = value.get("config"), getattr(keras().layers, str(value.get("class_name")), None)
    if isinstance(config, dict) and inspect.isclass(kind):
        dtype = config.get("dtype")
        if isinstance(dtype, dict) and dtype.get("class_name") == "Policy":  # Keras 2's name for it
            config["dtype"] = dtype["config"]["name"]
        axis = config.get("axis")
        if value["class_name"] == "BatchNormalization" and isinstance(axis, list) and len(axis) == 1:
            config["axis"] = axis[0]
        for name in sorted(set(config) - _taken(kind)):
            layer, was = str(config.get("name", value["class_name"])), config.pop(name)
            if (was is True or was not in _CHANGES_NOTHING) and name not in _OF_SPEED_ONLY:
                mend = "rebuild the layer without it, or export the model as a SavedModel from the Keras that made it"
                raise BadInput(str(path), f"layer '{layer}' has {name}={was}, which Keras 3 does not know", mend)
            dropped.append((layer, name))
    for entry in value.values():
        dropped += _clean(path, entry)
    return tuple(dropped)


def _taken(kind: Any) -> set[str]:
    """The arguments that a layer's constructor takes, its bases' included where it hands them on."""
    names = set(_OF_EVERY_LAYER)
    for one in kind.__mro__:
        if "__init__" in one.__dict__ and one is not object:
            parameters = inspect.signature(one.__init__).parameters.values()
            names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
            if not any(p.kind is p.VAR_KEYWORD for p in parameters):
                break
    return names
