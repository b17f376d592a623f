"""The model as one flat graph of layers: how every pass reads it and rebuilds it.

Decided here: the canonical form, a functional Keras model without models inside models, whose layers keep their names
and therefore their weight paths. Passes change a model only through `rebuild`, which makes a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeflock_compression.tf_import import keras
from edgeflock_deploy.errors import BadInput

Array = NDArray[Any]

Change = Callable[[Any], "Sequence[Any] | None"]


def flat(model: Any, name: str) -> Any:
    """The same model as one functional graph, models inside it unfolded, with copies of its layers and weights.

    Args:
        model: a built Keras model.
        name: what the user calls it, for the error.

    Raises:
        BadInput: it is a subclassed model, whose graph nobody can see.
    """
    module = keras()
    if not isinstance(model, (module.Sequential, module.models.Model)) or not _has_graph(model):
        mend = "rebuild it as a Sequential or functional model, or export it as a SavedModel for the quantizing passes"
        raise BadInput(name, "is a subclassed model, whose layers cannot be seen", mend)
    return rebuild(model, lambda _layer: None)


def rebuild(model: Any, change: Change) -> Any:
    """A new flat model in which some layers are others; weights are copied for the layers that stay.

    Args:
        model: a functional or sequential model.
        change: for a layer, None to keep it (a copy with its weights), or the chain of *new, unbuilt or built* layers
            that takes its place, called one after the other with the inputs of the old one; an empty chain removes it.
            Weights of new layers are the caller's to set, after this returned.
    """
    module = keras()
    chains: dict[int, list[Any]] = {}
    copied: list[tuple[Any, Any]] = []
    names: set[str] = set()

    def chain_of(layer: Any) -> list[Any]:
        if id(layer) not in chains:
            new = change(layer)
            if new is None:
                twin = _twin(layer, names)
                copied.append((layer, twin))
                new = [twin]
            names.update(one.name for one in new)
            chains[id(layer)] = list(new)
        return chains[id(layer)]

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, module.Sequential):
            value = args[0]
            for inner in layer.layers:
                value = call(inner, value)
            return value
        if _has_graph(layer):
            # not clone_model, which cuts a model in the middle of another one off from what comes before it
            return layer._run_through_graph(args[0], call_fn=call)
        if not isinstance(layer, module.layers.Layer):
            return layer(*args, **kwargs)  # a bare operation holds no weights
        kwargs.pop("training", None)
        chain = chain_of(layer)
        if not chain:
            return args[0]
        value = chain[0](*args, **kwargs)
        for following in chain[1:]:
            value = following(value)
        return value

    functional = _as_functional(model)
    inputs = [_input(tensor) for tensor in functional.inputs]
    structured = module.tree.pack_sequence_as(functional.input, inputs)
    outputs = module.models.clone_model(
        functional, input_tensors=structured, clone_function=_same, call_function=call
    ).output
    new = module.Model(structured, outputs, name=model.name)
    for old, twin in copied:
        copy_weights(old, twin)
        twin.trainable = old.trainable
    return new


def copy_weights(old: Any, new: Any) -> None:
    """Give a layer the weights of another of its kind, and have it notice."""
    new.set_weights(old.get_weights())
    if hasattr(new, "finalize_state"):  # Normalization computes with what it derived from its weights
        new.finalize_state()


def weights_by_path(model: Any) -> dict[str, Array]:
    """All weights of a model by path, as numpy arrays."""
    return {variable.path: np.asarray(variable) for variable in model.weights}


def with_weights(model: Any, weights: Mapping[str, Array]) -> Any:
    """A copy of the model in which the weights of the given paths have other values."""
    new = rebuild(model, lambda _layer: None)
    for variable in new.weights:
        if variable.path in weights:
            variable.assign(weights[variable.path])
    return new


def _has_graph(model: Any) -> bool:
    module = keras()
    if isinstance(model, module.Sequential):
        return bool(model.built)
    return (
        isinstance(model, module.models.Model) and hasattr(model, "operations") and bool(getattr(model, "inputs", None))
    )


def _as_functional(model: Any) -> Any:
    module = keras()
    return (
        module.Model(model.inputs[0], model.outputs[0], name=model.name)
        if isinstance(model, module.Sequential)
        else model
    )


def _input(tensor: Any) -> Any:
    return keras().Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name)


def _twin(layer: Any, names: set[str]) -> Any:
    config = layer.get_config()
    if layer.name in names:  # two inner models may use one name twice
        config["name"] = next(f"{layer.name}_{n}" for n in range(2, 10_000) if f"{layer.name}_{n}" not in names)
    return layer.__class__.from_config(config)


def _same(layer: Any) -> Any:
    return layer
