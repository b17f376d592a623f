"""Make a model that is really wrong: `python examples/demo/three_levels.py MODEL.keras OUT.keras`.

Every kernel is cut to the three levels -a, 0 and a, a being its largest weight, and nothing is trained again. The
layers stay what they were, so a variant of it is as fast and as large in memory as the same variant of the original.
It loads, it runs, it repeats its own answers exactly: only its accuracy tells.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cut_to_three_levels(model_path: Path, out_path: Path) -> None:
    """Read a Keras model and write it with every weight of two axes or more rounded to -a, 0 or a."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # the same sums on every CPU, and one warning less
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    import keras
    import numpy as np

    model = keras.models.load_model(model_path, compile=False)
    for layer in model.layers:
        weights = layer.get_weights()
        layer.set_weights([w if w.ndim < 2 else np.rint(w / np.abs(w).max()) * np.abs(w).max() for w in weights])
    out_path.parent.mkdir(parents=True, exist_ok=True)
    model.save(out_path)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python examples/demo/three_levels.py MODEL.keras OUT.keras")
    cut_to_three_levels(Path(sys.argv[1]), Path(sys.argv[2]))
