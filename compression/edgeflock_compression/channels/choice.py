"""Which channels go: the lowest scores of the whole model first, in pieces that leave round numbers.

Decided here: the order and how far to go in it; pure. Kernels of the runtime work on 8 or 16 channels at once, so a
group loses channels in pieces that leave a multiple of `round_to`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgeflock_compression.channels.groups import Channels, Group, Keep
from edgeflock_compression.channels.ties import Labels


@dataclass(frozen=True)
class Piece:
    """Channels of one group that go at once.

    Args:
        channels: their labels.
        score: mean of their scores.
    """

    channels: Labels
    score: float


def pieces(
    groups: Sequence[Group],
    scores: NDArray[np.float64],
    round_to: int,
    most: float,
    first_sizes: Mapping[tuple[str, ...], int],
) -> tuple[Piece, ...]:
    """All pieces that may go, the least important first; of each group in the order in which they must go.

    Args:
        groups: what there is to choose among.
        scores: by label.
        round_to: a group that loses channels keeps a multiple of this, and at least this many.
        most: largest share of a group's first size that may go, 0 to 1.
        first_sizes: by the group's layers, its size before the first cut.
    """
    found: list[Piece] = []
    for group in groups:
        order = group.channels[np.argsort(scores[group.channels], kind="stable")]
        least = max(1, int(np.ceil(first_sizes[group.layers] * (1 - most) - 1e-9)))
        least = -(-least // round_to) * round_to
        done, worst = 0, -np.inf
        while (size := (len(order) - done - 1) // round_to * round_to) >= least:
            part = order[done : len(order) - size]
            worst = max(worst, float(scores[part].mean()))  # never lower than the piece before, not even by rounding
            found.append(Piece(part, worst))
            done += len(part)
    return tuple(sorted(found, key=lambda piece: piece.score))


def per_multiply_add(
    scores: NDArray[np.float64], channels: Channels, groups: Sequence[Group], now: Mapping[str, int]
) -> NDArray[np.float64]:
    """Scores over what the removal of their channel would save: the greedy order of a knapsack.

    Aflalo et al. 2020 (arXiv:2002.08258). Right for scores in units of the loss; with scores that are relative to their
    layer it would empty the costly layers first.

    Args:
        scores: by label.
        channels: what `find_channels` said.
        groups: whose scores matter.
        now: multiply-adds by layer name.
    """
    per_saving = scores.copy()
    for group in groups:
        keep = channels.all_kept()
        keep[group.channels[0]] = False
        per_saving[group.channels] /= max(sum(now.values()) - channels.multiply_adds(keep, now), 1)
    return per_saving


def keep_without(channels: Channels, chosen: Sequence[Piece]) -> Keep:
    """By label, whether the channel stays when the chosen pieces go."""
    keep = channels.all_kept()
    for piece in chosen:
        keep[piece.channels] = False
    return keep


def fewest(count: int, enough: Callable[[int], bool]) -> int:
    """The smallest n in 0..count that is enough, by bisection; `count` if none is."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle + 1
    return low
