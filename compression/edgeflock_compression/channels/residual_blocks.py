"""Residual blocks whose shortcut is the identity: which there are, and the model without one.

Decided here: what counts as such a block: an `Add` of two tensors of one shape, of which one is computed from the
other. Without the block its output is the shortcut, and the layers that only served the branch are gone. Networks of
this kind act as ensembles of paths and survive the loss of one (Veit et al. 2016, arXiv:1605.06431).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgeflock_compression.graph.flat import rebuild


@dataclass(frozen=True)
class Block:
    """A block that can be removed.

    Args:
        add: name of its `Add` layer.
        shortcut: which of the two inputs of that layer is the shortcut.
    """

    add: str
    shortcut: int


def residual_blocks(model: Any) -> tuple[Block, ...]:
    """The blocks of a flat functional model, inputs first. An inner block of another block counts by itself."""
    nodes = [node for _, nodes in sorted(model._nodes_by_depth.items(), reverse=True) for node in nodes]
    made_by = {id(tensor): node for node in nodes for tensor in node.outputs}
    uses = Counter(id(node.operation) for node in nodes)
    found = []
    for node in nodes:
        tensors = node.input_tensors
        is_add = type(node.operation).__name__ == "Add" and hasattr(node.operation, "get_weights")
        if not is_add or len(tensors) != 2 or uses[id(node.operation)] > 1 or tensors[0].shape != tensors[1].shape:
            continue
        for shortcut, branch in ((0, 1), (1, 0)):
            if tensors[shortcut] is not tensors[branch] and _leads_to(tensors[shortcut], tensors[branch], made_by):
                found.append(Block(node.operation.name, shortcut))
                break
    return tuple(found)


def without_block(model: Any, block: Block) -> Any:
    """A new model in which the block's output is its shortcut."""

    def change(layer: Any) -> list[Any] | None:
        return [_Shortcut(block)] if layer.name == block.add else None

    return rebuild(model, change)


class _Shortcut:
    """Stands for the `Add` while the graph is rebuilt; leaves no layer behind."""

    def __init__(self, block: Block) -> None:
        self.name = block.add
        self._shortcut = block.shortcut

    def __call__(self, tensors: Sequence[Any]) -> Any:
        return tensors[self._shortcut]


def _leads_to(start: Any, end: Any, made_by: dict[int, Any]) -> bool:
    seen, waiting = set(), [end]
    while waiting:
        tensor = waiting.pop()
        if tensor is start:
            return True
        if id(tensor) not in seen:
            seen.add(id(tensor))
            waiting.extend(made_by[id(tensor)].input_tensors)
    return False
