"""The one way from a Keras model to what the converter takes: a SavedModel with a batch of 1.

A dynamic batch would leave SHAPE, STRIDED_SLICE and PACK in the `.tflite` and split the delegate. Inputs keep their
names; outputs are `output_0`, `output_1`, ... in the model's order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeflock_compression.tf_import import keras, tensorflow

OnWeight = Callable[[Any], Any]


def export_saved_model(
    model: Any, folder: Path, item_shapes: Sequence[tuple[int, ...]], on_weight: Mapping[str, OnWeight] | None = None
) -> None:
    """Write a SavedModel whose `serving_default` takes one item.

    Args:
        model: flat functional Keras model.
        folder: where to; made by this.
        item_shapes: per input, its shape without the batch, every dimension known.
        on_weight: by weight path, tensor -> tensor, put into the graph between the weight and its use: the fake
            quantization whose ranges the converter takes.
    """
    tf, module = tensorflow(), keras()
    changed = on_weight or {}
    unknown = set(changed) - {variable.path for variable in model.variables}
    if unknown:
        raise ValueError(f"no weights at {sorted(unknown)}")

    def call(*inputs: Any) -> dict[str, Any]:
        given = inputs[0] if len(inputs) == 1 else module.tree.pack_sequence_as(model.input, list(inputs))
        if not changed:
            outputs = model(given, training=False)
        else:
            trainable = [_changed(changed, variable) for variable in model.trainable_variables]
            others = [_changed(changed, variable) for variable in model.non_trainable_variables]
            outputs = model.stateless_call(trainable, others, given, training=False)[0]
        return {f"output_{n}": tensor for n, tensor in enumerate(module.tree.flatten(outputs))}

    signature = [
        tf.TensorSpec((1, *shape), tensor.dtype, name=tensor.name)
        for tensor, shape in zip(model.inputs, item_shapes, strict=True)
    ]
    holder = tf.Module()
    holder.held = [variable.value for variable in model.variables]  # the model itself would keep them from being frozen
    holder.serve = tf.function(call, input_signature=signature)
    tf.saved_model.save(holder, str(folder), signatures={"serving_default": holder.serve})


def _changed(on_weight: Mapping[str, OnWeight], variable: Any) -> Any:
    tensor = tensorflow().convert_to_tensor(variable.value)
    return on_weight[variable.path](tensor) if variable.path in on_weight else tensor
