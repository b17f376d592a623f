"""Which channels live and die together: numbered channels, tied in pairs, some of them left whole for a reason.

Pure bookkeeping (union-find, Tarjan 1975) that knows nothing of layers. A *label* is the number of a channel; the
labels of a tensor are an array with one number for each place along its last axis. Places that carry the same channel
(a feature map flattened over its positions) have the same label.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]


class Ties:
    """Channels made so far and what is known about them."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._whole: list[tuple[int, str]] = []

    def fresh(self, count: int) -> Labels:
        """New channels, tied to nothing."""
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return np.arange(first, first + count, dtype=np.int64)

    def tie(self, one: Labels, other: Labels) -> None:
        """From now on the channels at the same place of both arrays are one."""
        for a, b in {(int(a), int(b)) for a, b in zip(one.ravel(), other.ravel(), strict=True)}:
            roots = self._root(a), self._root(b)
            self._parent[max(roots)] = min(roots)

    def leave_whole(self, labels: Labels, reason: str) -> None:
        """None of these channels, nor any tied to them, may be removed."""
        self._whole.extend((int(label), reason) for label in np.unique(labels))

    def roots(self) -> Labels:
        """For each label, the smallest label that it is tied to: equal for channels that are one."""
        return np.array([self._root(label) for label in range(len(self._parent))], np.int64)

    def reasons(self) -> dict[int, str]:
        """For each root that may not be removed, the first reason given."""
        found: dict[int, str] = {}
        for label, reason in self._whole:
            found.setdefault(self._root(label), reason)
        return found

    def _root(self, label: int) -> int:
        while self._parent[label] != label:
            self._parent[label] = self._parent[self._parent[label]]
            label = self._parent[label]
        return label
