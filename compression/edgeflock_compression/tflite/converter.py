"""From a Keras model or a SavedModel to a `.tflite`, by TensorFlow's converter.

Decided here: the way to the converter, with a batch of 1, layers that can be found again by name, built-in operators
only. A recurrent layer becomes a loop (WHILE) with its weights once in the file; a loop cannot be calibrated (the
converter crashes the process), so for `static` it is unrolled: a copy of the step for each point in time.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from edgeflock_compression.graph.export import export_saved_model
from edgeflock_compression.parent.data import Arrays
from edgeflock_compression.parent.split import one
from edgeflock_compression.tf_import import tensorflow
from edgeflock_compression.tflite.layer_names import marked
from edgeflock_compression.tflite.output_codes import in_model_order
from edgeflock_compression.work import Work
from edgeflock_deploy.errors import BadInput

Numbers = Literal["float32", "float16", "dynamic", "int8", "int16"]
_LOOPS = {"While", "StatelessWhile"}


def convert(
    work: Work, numbers: Numbers, calibration: Arrays = (), dense_per_tensor: bool = False, unroll: bool = False
) -> bytes:
    """Convert the model of the work; what is quantized and how is told by `numbers`.

    Args:
        work: its model, or if it has none its parent's SavedModel.
        numbers: float32, float16, dynamic (int8 weights), or int8 / int16 activations with int8 weights.
        calibration: for int8 and int16, items to find activation ranges with, one array per input.
        dense_per_tensor: one scale for the whole kernel of a dense layer instead of one per unit.
        unroll: recurrent layers become a copy of their step for each point in time, as calibration needs it.

    Raises:
        BadInput: the model was to be unrolled and holds a loop that cannot be.
        Exception: the converter's own error, when the model holds something that it cannot convert.
    """
    static = numbers in ("int8", "int16")
    with tempfile.TemporaryDirectory(prefix="edgeflock-") as scratch:
        folder = Path(scratch) / "model"
        loops = _export(work, folder, unroll)
        if unroll and loops:
            mend = "use a mode without calibration: float16, dynamic or weight_only"
            raise BadInput("the model", "holds a loop, whose activations cannot be calibrated", mend)
        converter = _converter(folder, numbers)
        converter._experimental_disable_per_channel_quantization_for_dense_layers = dense_per_tensor
        if static:
            converter.representative_dataset = _representative(work, calibration)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it uses an interpreter of its own, which announces its end
            return in_model_order(bytes(converter.convert()))


def _export(work: Work, folder: Path, unroll: bool) -> bool:
    """Write the SavedModel; says whether it holds a loop."""
    shapes = tuple(x.shape[1:] for x in work.bench.data.x_fit)
    parent = work.bench.parent
    if work.model is not None:
        model = marked(work.model)
        if unroll:
            for layer in model.layers:
                _unroll(layer)
        export_saved_model(model, folder, shapes)
    elif parent.export is not None:
        parent.export(folder, shapes)
    else:
        raise ValueError("a .tflite is not converted")
    return _has_loop(folder)


def _unroll(layer: Any) -> None:
    """Tell a recurrent layer, or one inside a wrapper, to unroll: it obeys when it is traced with a known length."""
    for inner in ("forward_layer", "backward_layer", "layer"):
        if hasattr(layer, inner):
            _unroll(getattr(layer, inner))
    if hasattr(layer, "unroll"):
        layer.unroll = True


def _has_loop(folder: Path) -> bool:
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    saved = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    graphs = [graph.graph_def for graph in saved.meta_graphs]
    nodes = [node for graph in graphs for node in graph.node]
    nodes += [node for graph in graphs for function in graph.library.function for node in function.node_def]
    return any(node.op in _LOOPS for node in nodes)


def _converter(folder: Path, numbers: Numbers) -> Any:
    lite = tensorflow().lite
    converter = lite.TFLiteConverter.from_saved_model(str(folder))
    if numbers != "float32":
        converter.optimizations = [lite.Optimize.DEFAULT]
    if numbers == "float16":
        converter.target_spec.supported_types = [tensorflow().float16]
    exact = {
        "int8": lite.OpsSet.TFLITE_BUILTINS_INT8,
        "int16": lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
    }
    if numbers in exact:
        # With the plain set beside it, an operator that has no integer kernel stays float instead of ending it all.
        converter.target_spec.supported_ops = [exact[numbers], lite.OpsSet.TFLITE_BUILTINS]
    return converter


def _representative(work: Work, calibration: Arrays) -> Callable[[], Iterator[dict[str, Any]]]:
    """Items by input name: the file's order of several inputs is not always the model's."""
    names = [tensor.name for tensor in (work.bench.parent.inputs if work.model is None else work.model.inputs)]

    def items() -> Iterator[dict[str, Any]]:
        for index in range(len(calibration[0])):
            yield dict(zip(names, one(calibration, index), strict=True))

    return items
