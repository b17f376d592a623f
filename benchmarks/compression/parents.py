"""The networks that are compressed, trained on MNIST with fixed seeds; each once, kept in build/bench.

LeNet-300-100 and LeNet-5 (20-50-500) are those of LeCun et al. 1998 as used by Han et al. 2016 (arXiv:1510.00149).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.compression import mnist
from edgeflock_compression.tf_import import deterministic, keras

FOLDER = Path("build/bench/parents")
BATCH = 128


def lenet_300_100() -> Any:
    """784-300-100-10, with dropout while it trains."""
    layers = keras().layers
    return keras().Sequential(
        [
            keras().Input((784,), name="image"),
            layers.Dense(300, activation="relu", name="fc1"),
            layers.Dropout(0.3, name="drop1"),
            layers.Dense(100, activation="relu", name="fc2"),
            layers.Dropout(0.2, name="drop2"),
            layers.Dense(10, activation="softmax", name="fc3"),
        ]
    )


def lenet_5() -> Any:
    """Conv 20 5x5, pool, conv 50 5x5, pool, dense 500, dense 10."""
    layers = keras().layers
    return keras().Sequential(
        [
            keras().Input((28, 28, 1), name="image"),
            layers.Conv2D(20, 5, activation="relu", name="conv1"),
            layers.MaxPooling2D(name="pool1"),
            layers.Conv2D(50, 5, activation="relu", name="conv2"),
            layers.MaxPooling2D(name="pool2"),
            layers.Flatten(name="flatten"),
            layers.Dense(500, activation="relu", name="fc1"),
            layers.Dropout(0.5, name="drop"),
            layers.Dense(10, activation="softmax", name="fc2"),
        ]
    )


PARENTS: dict[str, tuple[Callable[[], Any], bool, int]] = {  # how it is built, whether it takes flat images, epochs
    "lenet_300_100": (lenet_300_100, True, 40),
    "lenet_5": (lenet_5, False, 15),
}


def parent(name: str) -> tuple[Path, Path]:
    """The model and its data; trained if it is not there yet (in a process of its own: see `main`)."""
    build, flat, epochs = PARENTS[name]
    path, data = FOLDER / f"{name}.keras", mnist.data(flat=flat)
    if path.is_file():
        return path, data
    deterministic(2)
    keras().utils.set_random_seed(0)
    model = build()
    with np.load(data) as arrays:
        x, y, x_test, y_test = (arrays[key] for key in ("x_train", "y_train", "x_test", "y_test"))
    schedule = keras().optimizers.schedules.CosineDecay(1e-3, epochs * len(x) // BATCH)
    model.compile(keras().optimizers.Adam(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=2)
    errors = int((model.predict(x_test, verbose=0).argmax(axis=1) != y_test).sum())
    sys.stdout.write(f"{name}: {errors} errors of {len(y_test)}\n")
    FOLDER.mkdir(parents=True, exist_ok=True)
    model.save(path)
    return path, data


if __name__ == "__main__":
    parent(sys.argv[1])
