"""A heap whose present objects the garbage collector leaves alone, as in an agent's own small process.

Played agents collect garbage like real ones. In a process that has also loaded TensorFlow one collection takes half a
second, and a played life has dozens.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def frozen_heap() -> Iterator[None]:
    gc.freeze()
    yield
    gc.unfreeze()
