"""The networks that are compressed, trained on MNIST with fixed seeds; each once, kept in build/bench.

LeNet-300-100 and LeNet-5 (20-50-500) are those of LeCun et al. 1998 as used by Han et al. 2016 (arXiv:1510.00149); the
teacher of 2x1200 units, with dropout and images moved by up to two pixels, and the student of 2x800 those of Hinton
et al. 2015 (arXiv:1503.02531); 784-1000-10 that of HashedNets (Chen et al. 2015, arXiv:1504.04788).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

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


def dense(*hidden: int, dropout: float = 0.0) -> Callable[[], Any]:
    """784, hidden layers, 10; with dropout on hidden units, and on a third as many pixels, while it trains."""

    def build() -> Any:
        layers = keras().layers
        model = keras().Sequential([keras().Input((784,), name="image")])
        if dropout:
            model.add(layers.Dropout(dropout / 3, name="drop0"))
        for number, units in enumerate(hidden, 1):
            model.add(layers.Dense(units, activation="relu", name=f"fc{number}"))
            if dropout:
                model.add(layers.Dropout(dropout, name=f"drop{number}"))
        model.add(layers.Dense(10, activation="softmax", name="out"))
        return model

    return build


def plain_cnn() -> Any:
    """Six 3x3 convolutions in three stages over 32x32 pixels, and a dense layer; no shortcuts, no batch norm."""
    layers = keras().layers
    model = keras().Sequential([keras().Input((32, 32, 1), name="image")])
    for stage, filters in enumerate((32, 64, 128), 1):
        for number in (1, 2):
            name = f"conv{stage}{number}"
            model.add(layers.Conv2D(filters, 3, padding="same", activation="relu", name=name))
        model.add(layers.MaxPooling2D(name=f"pool{stage}"))
    for layer in (layers.Flatten(name="flatten"), layers.Dense(128, activation="relu", name="fc1")):
        model.add(layer)
    model.add(layers.Dropout(0.5, name="drop"))
    model.add(layers.Dense(10, activation="softmax", name="fc2"))
    return model


class Network(NamedTuple):
    """How a parent comes to be."""

    build: Callable[[], Any]
    shape: tuple[int, ...]  # of an image
    epochs: int
    items: int = 60_000  # of the training digits
    jitter: int = 0  # pixels that an image is moved by, at most, anew in every epoch
    threads: int = 2


PARENTS = {
    "lenet_300_100": Network(lenet_300_100, (784,), 40),
    "lenet_5": Network(lenet_5, (28, 28, 1), 15),
    "lenet_5_first": Network(lenet_5, (28, 28, 1), 6, items=50_000, threads=1),
    "teacher_2x1200": Network(dense(1200, 1200, dropout=0.25), (784,), 100, jitter=2, threads=1),
    "alone_2x800": Network(dense(800, 800), (784,), 40, threads=1),
    "dense_1000": Network(dense(1000), (784,), 20, threads=1),
    "plain_cnn": Network(plain_cnn, (32, 32, 1), 8, items=20_000, threads=1),
}


def parent(name: str) -> tuple[Path, Path]:
    """The model and its data; trained if it is not there yet (in a process of its own: see `main`)."""
    network = PARENTS[name]
    path, data = FOLDER / f"{name}.keras", mnist.data(network.shape, network.items)
    if not path.is_file():
        subprocess.run([sys.executable, "-m", "benchmarks.compression.parents", name], check=True)
    return path, data


def main(name: str) -> None:
    """Train one parent."""
    network = PARENTS[name]
    deterministic(network.threads)
    keras().utils.set_random_seed(0)
    model = network.build()
    with np.load(mnist.data(network.shape, network.items)) as arrays:
        x, y, x_test, y_test = (arrays[key] for key in ("x_train", "y_train", "x_test", "y_test"))
    schedule = keras().optimizers.schedules.CosineDecay(1e-3, network.epochs * len(x) // BATCH)
    model.compile(keras().optimizers.Adam(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"])
    if network.jitter:
        rng = np.random.default_rng(0)
        for _ in range(network.epochs):
            model.fit(mnist.moved(x, network.jitter, rng), y, batch_size=BATCH, verbose=2)
    else:
        model.fit(x, y, batch_size=BATCH, epochs=network.epochs, verbose=2)
    sys.stdout.write(f"{name}: {errors(model, x_test, y_test)} errors of {len(y_test)}\n")
    FOLDER.mkdir(parents=True, exist_ok=True)
    model.save(FOLDER / f"{name}.keras")


def errors(model: Any, x: Any, y: Any) -> int:
    """Wrong answers of a Keras model."""
    return int((model.predict(x, verbose=0).argmax(axis=1) != y).sum())


if __name__ == "__main__":
    main(sys.argv[1])
