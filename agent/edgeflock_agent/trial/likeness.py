"""Whether two variants can stand in for each other: they take, and give, tensors of the same types and shapes.

Where they do not, a candidate can be compared, but no application that knows the incumbent can be answered by it.
"""

from __future__ import annotations

from edgeflock_agent.children.runner import ModelProcess


def same_inputs(old: ModelProcess, new: ModelProcess) -> bool:
    """Whether raw inputs of one fit the other: types and shapes in order; several inputs also by name."""
    several = len(old.inputs) > 1
    return len(old.inputs) == len(new.inputs) and all(
        (a.dtype, a.shape) == (b.dtype, b.shape) and (a.name == b.name or not several)
        for a, b in zip(old.inputs, new.inputs, strict=True)
    )


def same_outputs(old: ModelProcess, new: ModelProcess) -> bool:
    """Whether raw outputs of one read as the other's: types and shapes in order."""
    return [(a.dtype, a.shape) for a in old.outputs] == [(b.dtype, b.shape) for b in new.outputs]
