"""The same architecture at another width: every layer's units or filters scaled alike, so that sums still fit.

Decided here: which layers are scaled. The last layers before the outputs keep their width, for it is the answer's.
Where a layer cannot be built on scaled inputs (a sum with the model's input, a layer that wants its channels
divisible), the nearest scaled layers before it keep their width too, until all fits.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from edgeflock_compression.graph.flat import rebuild
from edgeflock_compression.work import Skipped
from edgeflock_deploy.errors import BadInput

_SIZES = ("units", "filters", "key_dim", "value_dim", "head_dim", "output_dim")
_INNER = ("layer", "backward_layer")  # a wrapper's configuration holds the layers that it wraps


def at_width(model: Any, width: float, round_to: int) -> tuple[Any, tuple[Skipped, ...]]:
    """A new model with scaled layers, and which layers kept their width and why.

    Weights are drawn anew, from the global seed, but for what was adapted to data (normalization of inputs).

    Args:
        model: flat functional model.
        width: factor, 0 to 1.
        round_to: sizes become multiples of this, at least one multiple, at most what they were.

    Raises:
        BadInput: the model cannot be rebuilt at another width.
    """
    kept = frozenset(layer.name for layer in _last_sized(model.outputs))
    skipped: list[Skipped] = []
    while True:
        tried: list[Any] = []

        def change(layer: Any, tried: list[Any] = tried, kept: frozenset[str] = kept) -> list[Any] | None:
            tried.append(layer)
            config = layer.get_config()
            return _new(layer, config if layer.name in kept else scaled(config, width, round_to))

        try:
            return rebuild(model, change), tuple(skipped)
        except Exception as error:  # a layer that does not fit raises errors of many kinds
            blocking = tried[-1]
            held = [one for one in _nearest_sized(blocking) if one.name not in kept]
            if not held:
                why = " ".join(str(error).split())[:200]
                mend = "give the student as a file"
                raise BadInput(f"layer '{blocking.name}'", f"does not fit at width {width:g}: {why}", mend) from None
            kept |= {one.name for one in held}
            reason = f"keeps its width, for '{blocking.name}' takes no other"
            skipped += [Skipped(layer=one.name, reason=reason) for one in held]


def anew(model: Any) -> Any:
    """The same model with its weights drawn anew, as `at_width` does."""
    return rebuild(model, lambda layer: _new(layer, layer.get_config()))


def scaled(config: dict[str, Any], width: float, round_to: int) -> dict[str, Any]:
    """A layer's configuration with its sizes scaled, inside wrappers too; unchanged if it has none."""
    new = copy.deepcopy(config)
    step = round_to * int(new.get("groups") or 1)
    for name in _sizes(new):
        new[name] = min(new[name], max(step, round(new[name] * width / step) * step))
    for name in _INNER:
        if isinstance(new.get(name), dict):
            new[name]["config"] = scaled(new[name]["config"], width, round_to)
            new[name].pop("build_config", None)  # would build it for the old inputs
    return new


def _new(layer: Any, config: dict[str, Any]) -> list[Any] | None:
    """The layer with weights to be drawn; None to copy one that holds none, or what was adapted to data."""
    shape = config.get("target_shape")
    if type(layer).__name__ == "Reshape" and shape and -1 not in shape:
        return [layer.__class__.from_config({**config, "target_shape": (*shape[:-1], -1)})]  # channels come last
    if not layer.weights or hasattr(layer, "adapt"):
        return None
    return [layer.__class__.from_config({**config, "trainable": True})]


def _sizes(config: dict[str, Any]) -> list[str]:
    return [name for name in _SIZES if isinstance(config.get(name), int)]


def _is_sized(layer: Any) -> bool:
    config = layer.get_config() if hasattr(layer, "get_config") else {}
    inner = [config[name]["config"] for name in _INNER if isinstance(config.get(name), dict)]
    return any(_sizes(one) for one in (config, *inner))


def _last_sized(tensors: Iterable[Any]) -> list[Any]:
    """The sized layers that the given tensors come from, with none that is sized in between."""
    found: dict[str, Any] = {}
    waiting, seen = list(tensors), set()
    while waiting:
        tensor = waiting.pop()
        if id(tensor) in seen:
            continue
        seen.add(id(tensor))
        layer = tensor._keras_history.operation
        if _is_sized(layer):
            found[layer.name] = layer
        else:
            waiting += _inputs_of(layer)
    return list(found.values())


def _nearest_sized(layer: Any) -> list[Any]:
    return ([layer] if _is_sized(layer) else []) + _last_sized(_inputs_of(layer))


def _inputs_of(operation: Any) -> list[Any]:
    return [tensor for node in operation._inbound_nodes for tensor in node.input_tensors]
