"""Small models, trained or drawn once per session, whichever worker comes first."""

import fcntl
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from edgeflock_compression.graph.export import export_saved_model
from edgeflock_compression.parent.data import fit, load_data
from edgeflock_compression.parent.source import keras_parent
from edgeflock_compression.parent.split import split
from edgeflock_compression.tf_import import keras, tensorflow
from edgeflock_compression.work import Bench, Work
from edgeflock_deploy.codec.tflite_layout import constants
from edgeflock_deploy.runtime import LoadedModel


@pytest.fixture(scope="session")
def keras_module() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what TensorFlow warns of while it is imported is not ours to mend
        return keras()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """Shared by the workers of a session."""
    base = tmp_path_factory.getbasetemp()
    made = (base if worker_id == "master" else base.parent) / "models"
    made.mkdir(exist_ok=True)
    return made


def once(path: Path, make: Callable[[Path], None]) -> Path:
    """What `make` writes, whole, by the first of the workers that needs it."""
    with (path.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            draft = path.with_name(f"draft_{path.name}")
            make(draft)
            draft.rename(path)
    return path


@pytest.fixture(scope="session")
def digits(folder: Path) -> Path:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    parts = {"x_train": x[:1200], "y_train": y[:1200], "x_test": x[1200:], "y_test": y[1200:]}
    return once(folder / "digits.npz", lambda path: np.savez(path, **parts))


@pytest.fixture(scope="session")
def classifier(keras_module: Any, folder: Path, digits: Path) -> Path:
    layers = keras_module.layers

    def train(path: Path) -> None:
        keras_module.utils.set_random_seed(0)
        model = keras_module.Sequential(
            [
                keras_module.Input((64,)),
                layers.Rescaling(1 / 16, name="rescaling"),
                layers.Dense(64, activation="relu", name="dense"),
                layers.Dense(10, activation="softmax", name="dense_1"),
            ]
        )
        model.compile("adam", "sparse_categorical_crossentropy")
        with np.load(digits) as data:
            model.fit(data["x_train"], data["y_train"], epochs=15, verbose=0)
        model.save(path)

    return once(folder / "mlp.keras", train)


@pytest.fixture(scope="session")
def saved_model(keras_module: Any, folder: Path, classifier: Path) -> Path:
    model = keras_module.models.load_model(classifier)
    return once(folder / "saved_model", lambda path: model.export(str(path), verbose=False))


def bench_of(model: Any, data: Path) -> Bench:
    parent = keras_parent(model, "0" * 64, "model")
    return Bench(parent, split(fit(load_data(data), parent.inputs), 0), 0)


@pytest.fixture(scope="session")
def mlp_bench(keras_module: Any, classifier: Path, digits: Path) -> Bench:
    return bench_of(keras_module.models.load_model(classifier), digits)


@pytest.fixture(scope="session")
def digits_images(folder: Path, digits: Path) -> Path:
    with np.load(digits) as data:
        x = {name: data[name].reshape(-1, 8, 8, 1).astype("float32") / 16 for name in ("x_train", "x_test")}
        y = {name: data[name] for name in ("y_train", "y_test")}
    return once(folder / "images.npz", lambda path: np.savez(path, **x, **y))


@pytest.fixture(scope="session")
def cnn_bench(keras_module: Any, folder: Path, digits_images: Path) -> Bench:
    """A net with everything that ties channels: batch norm, a residual, a depthwise layer, a dense head."""

    def train(path: Path) -> None:
        keras_module.utils.set_random_seed(1)
        model = _cnn(keras_module)
        model.compile("adam", "sparse_categorical_crossentropy")
        with np.load(digits_images) as data:
            model.fit(data["x_train"], data["y_train"], epochs=8, batch_size=32, verbose=0)
        model.save(path)

    return bench_of(keras_module.models.load_model(once(folder / "cnn.keras", train)), digits_images)


def _cnn(keras_module: Any) -> Any:
    layers = keras_module.layers
    given = keras_module.Input((8, 8, 1), name="image")
    x = layers.Conv2D(16, 3, padding="same", use_bias=False, name="stem")(given)
    x = layers.ReLU(name="stem_relu")(layers.BatchNormalization(name="stem_bn")(x))
    y = layers.Conv2D(16, 3, padding="same", use_bias=False, name="branch")(x)
    y = layers.ReLU(name="branch_relu")(layers.BatchNormalization(name="branch_bn")(y))
    x = layers.Add(name="residual")([x, y])
    x = layers.DepthwiseConv2D(3, strides=2, padding="same", activation="relu", name="depthwise")(x)
    x = layers.Conv2D(24, 1, activation="relu", name="pointwise")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(32, activation="relu", name="hidden")(x)
    return keras_module.Model(given, layers.Dense(10, activation="softmax", name="head")(x))


class Shipped(NamedTuple):
    """What leaves after the passes: the float file, its float constants of 2 or more dimensions by shape."""

    tflite: bytes
    constants: dict[tuple[int, ...], Any]
    accuracy: float
    wire_bytes: int


@pytest.fixture(scope="session")
def ship(tmp_path_factory: pytest.TempPathFactory, digits: Path) -> Callable[[Work], Shipped]:
    """Export a work's model to a float `.tflite`, read its constants back and let the runtime answer the test items."""
    import zstandard

    def shipped(work: Work) -> Shipped:
        folder = tmp_path_factory.mktemp("shipped")
        shape = work.bench.data.x_fit[0].shape[1:]
        export_saved_model(work.model, folder / "saved", [shape])
        file = bytes(tensorflow().lite.TFLiteConverter.from_saved_model(str(folder / "saved")).convert())
        (folder / "model.tflite").write_bytes(file)
        arrays = {
            one.shape: np.frombuffer(file[one.offset : one.offset + one.length], np.float32).reshape(one.shape)
            for one in constants(file)
            if one.real and len(one.shape) >= 2
        }
        model = LoadedModel.load(folder / "model.tflite")
        with np.load(digits) as data:
            x = data["x_test"].astype(np.float32).reshape(-1, *shape) / (1 if len(shape) == 1 else 16)
            right = [int(model.run(item)[0].argmax()) == label for item, label in zip(x, data["y_test"], strict=True)]
        return Shipped(file, arrays, float(np.mean(right)), len(zstandard.ZstdCompressor(19).compress(file)))

    return shipped
