"""Small models, trained or drawn once per session."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeflock_compression.tf_import import keras


@pytest.fixture(scope="session")
def keras_module() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what TensorFlow warns of while it is imported is not ours to mend
        return keras()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def digits(folder: Path) -> Path:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    path = folder / "digits.npz"
    np.savez(path, x_train=x[:1200], y_train=y[:1200], x_test=x[1200:], y_test=y[1200:])
    return path


@pytest.fixture(scope="session")
def classifier(keras_module: Any, folder: Path, digits: Path) -> Path:
    layers, path = keras_module.layers, folder / "mlp.keras"
    keras_module.utils.set_random_seed(0)
    model = keras_module.Sequential(
        [
            keras_module.Input((64,)),
            layers.Rescaling(1 / 16),
            layers.Dense(64, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    with np.load(digits) as data:
        model.fit(data["x_train"], data["y_train"], epochs=15, verbose=0)
    model.save(path)
    return path


@pytest.fixture(scope="session")
def saved_model(keras_module: Any, folder: Path, classifier: Path) -> Path:
    path = folder / "saved_model"
    keras_module.models.load_model(classifier).export(str(path), verbose=False)
    return path
