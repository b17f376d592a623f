"""Inputs of a `.tflite` and inputs of the model it was made of: the same ones, by name, in an order of their own."""

from __future__ import annotations

from collections.abc import Sequence

from edgeflock_deploy.runtime import LoadedModel, TensorInfo


def input_name(info: TensorInfo) -> str:
    """What an input of a file was called before the converter added to its name."""
    return info.name.removeprefix("serving_default_").split(":")[0]


def input_order(model: LoadedModel, names: Sequence[str]) -> list[int]:
    """For each input of the file, which of the parent's inputs it is, by name: the converter may reorder them.

    Raises:
        ValueError: an input of the file is none of these.
    """
    return [0] if len(names) == 1 else [list(names).index(input_name(info)) for info in model.inputs]
