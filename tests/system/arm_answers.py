"""What models answer here: `python arm_answers.py MODEL …` prints one line per model, the hash of its outputs' bytes.

The inputs are drawn from integers only, so that every machine feeds the same bytes. Run by this machine's Python and by
an emulated one, which has no test tools, and compared.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np

from edgeflock_deploy.runtime import LoadedModel

ITEMS = 3


def answers(path: Path) -> str:
    """SHA-256 over the outputs of a model for a few inputs."""
    model = LoadedModel.load(path)
    digest = hashlib.sha256()
    codes = np.random.Generator(np.random.PCG64(7))
    for _ in range(ITEMS):
        items = [
            info.encode((codes.integers(-128, 128, info.shape) * (info.scale or 1 / 64)).astype(np.float32))
            for info in model.inputs
        ]
        for output in model.run(*items):
            digest.update(output.tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(Path(name).name, answers(Path(name)))
