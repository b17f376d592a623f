"""Which layer of the Keras model an operator of a `.tflite` came from.

TensorFlow makes scope names unique by counting: the layer `dense` may turn up as `dense_1`, which may also be the name
of the next layer. So layers are exported under their name with a mark at its end, and the mark is looked for in the
names of the file's tensors. A `.tflite` made elsewhere has no marks: there a layer is any part of a tensor's name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from edgeflock_compression.graph.flat import copy_weights, rebuild

_MARK = "."
_MARKED = re.compile(r"^(.+)\.(?:_\d+)?$")
_KEPT = "InputLayer"  # its name is the name of the model's input


def marked(model: Any) -> Any:
    """A copy of a flat model whose layers carry the mark at the end of their names."""
    pairs: list[tuple[Any, Any]] = []

    def change(layer: Any) -> list[Any] | None:
        if type(layer).__name__ == _KEPT:
            return None
        twin = layer.__class__.from_config({**layer.get_config(), "name": layer.name + _MARK})
        pairs.append((layer, twin))
        return [twin]

    new = rebuild(model, change)
    for layer, twin in pairs:
        copy_weights(layer, twin)
    return new


def layers_in(name: str) -> list[str]:
    """The marked layers in a tensor's name, e.g. `net_1/conv._1/Relu;net_1/bn._1/add` -> `["conv", "bn"]`."""
    found = [_MARKED.match(part) for piece in name.split(";") for part in piece.split("/")]
    return list(dict.fromkeys(match[1] for match in found if match))


def layer_of(weight: str, outputs: Sequence[str]) -> str:
    """What to call an operator: its layer, or what can be told from names if nothing is marked.

    Args:
        weight: name of its constant weight tensor; "" if it has none.
        outputs: names of its outputs.
    """
    for name in (weight, *outputs):
        layers = layers_in(name)
        if layers:
            return layers[0]
    parts = (weight or outputs[0]).split(";")[0].split("/")
    return parts[-2] if len(parts) > 1 else parts[0]


def matches(pattern: str, weight: str, outputs: Sequence[str]) -> bool:
    """Whether a shell pattern (`dense*`) fits an operator's layer; without marks, any part of its tensors' names."""
    for name in (weight, *outputs):
        layers = layers_in(name)
        if layers:
            return any(fnmatchcase(layer, pattern) for layer in layers)
    parts = {part for name in (weight, *outputs) for piece in name.split(";") for part in piece.split("/")}
    return any(fnmatchcase(part, pattern) for part in parts)
