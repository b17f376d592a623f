"""Logits of a model that ends in softmax: its answers before they are made a distribution."""

from __future__ import annotations

from typing import Any

from edgeflock_compression.graph.flat import rebuild


def ends_in_softmax(model: Any) -> bool:
    """Whether the model's first output is a distribution (else its values are taken as logits)."""
    return _softmax_layer(model) is not None


def logit_model(model: Any) -> Any:
    """The model with the softmax of its first output taken off: same weights, same paths, better behaved gradients."""
    last = _softmax_layer(model)
    if last is None:
        return model

    def change(layer: Any) -> list[Any] | None:
        if layer is not last:
            return None
        if type(layer).__name__ == "Softmax":
            return []
        bare = layer.__class__.from_config({**layer.get_config(), "activation": "linear"})
        bare.build(layer.input.shape)
        bare.set_weights(layer.get_weights())
        return [bare]

    return rebuild(model, change)


def _softmax_layer(model: Any) -> Any | None:
    layer = model.outputs[0]._keras_history.operation
    named = getattr(getattr(layer, "activation", None), "__name__", "") == "softmax"
    return layer if named or type(layer).__name__ == "Softmax" else None
