"""What an update of a fine-tuned int8 model costs on the wire, against the whole new model.

LeNet-5 is trained on the first 50,000 digits and quantized (static int8): what boards have. Then it is trained on with
all 60,000, all layers at several learning rates or its last layer alone, quantized again, and sent as a delta.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import table
from benchmarks.compression import mnist, parents
from edgeflock_compression.pipeline import compress
from edgeflock_compression.tf_import import deterministic, keras
from edgeflock_deploy.bundle import encode_blob

OUT = Path("build/bench/deltas")
UPDATES = {"all layers, 1e-3": 1e-3, "all layers, 1e-4": 1e-4, "all layers, 1e-5": 1e-5, "last layer, 1e-3": None}
RECIPE = "static_wi8_ai8"


def fine_tuned(name: str) -> Path:
    """The model after an update; trained in a process of its own."""
    path = OUT / f"{name.replace(' ', '_').replace(',', '')}.keras"
    if not path.is_file():
        subprocess.run([sys.executable, "-m", "benchmarks.compression.deltas", name, str(path)], check=True)
    return path


def train(name: str, path: str) -> None:
    """Train the model on: one epoch."""
    deterministic(1)
    keras().utils.set_random_seed(1)
    model: Any = keras().models.load_model(parents.parent("lenet_5_first")[0])
    rate = UPDATES[name]
    for layer in model.layers[:-1]:
        layer.trainable = rate is not None
    model.compile(keras().optimizers.Adam(rate or 1e-3), "sparse_categorical_crossentropy")
    with np.load(mnist.data((28, 28, 1))) as arrays:
        model.fit(arrays["x_train"], arrays["y_train"], batch_size=parents.BATCH, verbose=2)
    OUT.mkdir(parents=True, exist_ok=True)
    model.save(path)


def main() -> None:
    """Measure each update and write the table."""
    first, _ = parents.parent("lenet_5_first")
    data = mnist.data((28, 28, 1))
    before = compress(first, data, [RECIPE], OUT / "before", threads=1)[0]
    base = (OUT / "before" / RECIPE / "model.tflite").read_bytes()
    rows: list[tuple[object, ...]] = [("what boards have", f"{before.wire_bytes:,}", "", "", _points(before), "")]
    for name in UPDATES:
        out = OUT / name.replace(" ", "_").replace(",", "")
        after = compress(fine_tuned(name), data, [RECIPE], out, threads=1)[0]
        encoded = encode_blob((out / RECIPE / "model.tflite").read_bytes(), (base,))
        delta = encoded.blob.deltas[0].bytes if encoded.blob.deltas else encoded.blob.encoding.bytes
        share, reach = delta / encoded.blob.encoding.bytes, "3 %" if UPDATES[name] is None else "20 %"
        rows.append(
            (name, f"{encoded.blob.encoding.bytes:,}", f"{delta:,}", f"{share:.1%}", _points(after), f"at most {reach}")
        )
    table.write(
        "compression/deltas",
        "python -m benchmarks.compression.deltas",
        ("update", "whole, wire bytes", "delta, wire bytes", "delta of whole", "accuracy", "reach"),
        rows,
        "LeNet-5, static int8, one epoch of 60,000 digits with Adam at the rate named.",
    )


def _points(variant: Any) -> str:
    return f"{variant.accuracy:.2%}"


if __name__ == "__main__":
    train(*sys.argv[1:]) if sys.argv[1:] else main()
