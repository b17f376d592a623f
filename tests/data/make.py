"""Make the small models of the tests: `python tests/data/make.py` (needs TensorFlow; the results are committed).

Those not said otherwise take one tensor of shape (1, 8) and give three class scores of shape (1, 3), so that any can
stand in for another.

tiny.tflite        float32, dense 16, dense 3, softmax
tiny_other.tflite  the same layers with other weights: other answers, the same cost
tiny_slow.tflite   the same answers as tiny, with convolutions before them: some hundred times slower
tiny_int8.tflite   tiny, quantized to int8 inside, int8 input and output
tiny_int4.tflite   tiny with int4 weights (the mode dynamic_wi4)
tiny_nan.tflite    tiny, and NaN for every input
tiny_late_nan.tflite  tiny, and NaN for the inputs whose first value is above 2
tiny_bomb.tflite   tiny, and four million bytes of working memory for each unit of the first value above 2
tiny_mixed.tflite  three inputs x (1, 8) float32, shift (1, 3) int32, halves (1, 2) float16; three outputs: the place of
                   the largest score as int32 (Identity), the scores, tiny's of x plus shift (Identity_1), and twice
                   the halves as float16 (Identity_2)
tiny_named.tflite  tiny with the names that a converter gives to a SavedModel's tensors, and a signature: x -> scores
tiny_pixels.tflite an image (1, 4, 4, 3) float32; tiny of its first 8 values
tiny_open.tflite   x (any, any, 4) float32; its mean over the second dimension, and twice x (mean, twice)
tiny_resize.tflite an image (1, 5, 7, 2); resized to (8, 6) by the runtime's own operators: nearest, bilinear
tiny_fed.tflite    a state in the open: x (1, 4), memory (1, 4) -> total (1, 1), memory: halved, plus x
tiny_kept.tflite   the same state in a resource variable: x (1, 4) -> memory (1, 4)
tiny_recurrent.tflite  a recurrent layer with a variable tensor: x (1, 1, 2) -> (1, 1, 2), x plus half of the last
tiny_custom.tflite tiny, its first operator a custom one that no runtime has: Sorcery
tiny_golden.npz    four golden cases of tiny (all first values below 2)
tiny_evaluation.npz   64 labelled items of which tiny gets all right (all first values below 2)
corrupt.tflite     tiny, cut in half
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from edgeflock_compression.quantization import per_layer
from edgeflock_compression.tflite.foreign import with_signature
from edgeflock_compression.tflite.objects import file_of, model_object
from edgeflock_deploy.cases import Evaluation, Golden, write_evaluation, write_golden

HERE = Path(__file__).parent


def _weights(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "w1": rng.normal(size=(8, 16)).astype("float32"),
        "b1": rng.normal(size=16).astype("float32"),
        "w2": rng.normal(size=(16, 3)).astype("float32"),
        "b2": rng.normal(size=3).astype("float32") * 0.1,
    }


def _scores(x: Any, w: dict[str, Any]) -> Any:
    hidden = tf.nn.relu(tf.matmul(x, w["w1"]) + w["b1"])
    return tf.nn.softmax(tf.matmul(hidden, w["w2"]) + w["b2"])


def _tiny(x: Any) -> Any:
    return _scores(x, _weights(1))


def _other(x: Any) -> Any:
    return _scores(x, _weights(2))


def _nan(x: Any) -> Any:
    return _tiny(x) + tf.sqrt(-1.0 - tf.abs(x[:, :1]))


def _late_nan(x: Any) -> Any:
    return _tiny(x) + 1e-6 * tf.sqrt(2.0 - x[:, :1])


def _bomb(x: Any) -> Any:
    length = tf.cast(tf.maximum(x[0, 0] - 2.0, 0.0) * 1e6, tf.int32) + 1
    return _tiny(x) + 1e-12 * tf.reduce_mean(tf.minimum(tf.fill([length], x[0, 1]), 1.0))


def _slow(x: Any) -> Any:
    rng = np.random.default_rng(3)
    kernel = (rng.normal(size=(3, 3, 8, 8)) / 9).astype("float32")
    image = tf.tile(tf.reshape(x, (1, 1, 1, 8)), (1, 64, 64, 1))
    for _ in range(4):
        image = tf.nn.relu(tf.nn.conv2d(image, kernel, 1, "SAME"))
    return _tiny(x) + 1e-12 * tf.reduce_mean(tf.minimum(image, 1.0))


def _mixed() -> bytes:
    def outputs(x: Any, shift: Any, halves: Any) -> dict[str, Any]:
        scores = _tiny(x) + tf.cast(shift, tf.float32)
        twice = tf.cast(tf.cast(halves, tf.float32) * 2.0, tf.float16)
        return {"scores": scores, "best": tf.argmax(scores, axis=1, output_type=tf.int32), "twice": twice}

    signature = [
        tf.TensorSpec((1, 8), tf.float32, name="x"),
        tf.TensorSpec((1, 3), tf.int32, name="shift"),
        tf.TensorSpec((1, 2), tf.float16, name="halves"),
    ]
    concrete = tf.function(outputs, input_signature=signature).get_concrete_function()
    return bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert())


def _convert(function: Any, samples: Any = None) -> bytes:
    signature = tf.TensorSpec((1, 8), tf.float32, name="x")
    concrete = tf.function(function, input_signature=[signature]).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete])
    if samples is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([sample[None]] for sample in samples)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return bytes(converter.convert())


def _int4(tflite: bytes) -> bytes:
    return per_layer.quantize(with_signature(tflite), "dynamic", lambda _: "int4", lambda _: False)[0]


class _Named(tf.Module):  # type: ignore[misc]
    @tf.function(input_signature=[tf.TensorSpec((1, 8), tf.float32, name="x")])  # type: ignore[untyped-decorator]
    def __call__(self, x: Any) -> dict[str, Any]:
        return {"scores": _tiny(x)}


class _Kept(tf.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.memory = tf.Variable(tf.zeros((1, 4)), name="memory")

    @tf.function(input_signature=[tf.TensorSpec((1, 4), tf.float32, name="x")])  # type: ignore[untyped-decorator]
    def __call__(self, x: Any) -> dict[str, Any]:
        self.memory.assign(0.5 * self.memory + x)
        return {"memory": self.memory.read_value()}


def _of_module(module: Any) -> bytes:
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.__call__.get_concrete_function()], module)
    converter.experimental_enable_resource_variables = True
    return bytes(converter.convert())


def _signed(function: Any, *signature: Any) -> bytes:
    class Signed(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=list(signature))  # type: ignore[untyped-decorator]
        def __call__(self, *given: Any) -> dict[str, Any]:
            return dict(function(*given))

    return _of_module(Signed())


def _pixels(image: Any) -> dict[str, Any]:
    return {"scores": _tiny(tf.reshape(image, (1, 48))[:, :8])}


def _open(x: Any) -> dict[str, Any]:
    return {"mean": tf.reduce_mean(x, axis=1), "twice": 2 * x}


def _resize(image: Any) -> dict[str, Any]:
    return {
        "nearest": tf.image.resize(image, (8, 6), "nearest"),
        "bilinear": tf.image.resize(image, (8, 6), "bilinear"),
    }


def _fed(x: Any, memory: Any) -> dict[str, Any]:
    new = 0.5 * memory + x
    return {"total": tf.reduce_sum(new, axis=1, keepdims=True), "memory": new}


def _recurrent() -> bytes:
    """An operator with a variable tensor; no converter at hand makes one any more, so it is put together by hand."""
    from tensorflow.lite.python import schema_py_generated as schema

    model = model_object(_convert(_tiny))

    def tensor(name: str, shape: list[int], data: Any = None) -> int:
        one = schema.TensorT()
        one.name, one.shape, one.type, one.buffer = name.encode(), shape, schema.TensorType.FLOAT32, 0
        one.isVariable = name == "state"
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.asarray(data, np.float32).tobytes(), np.uint8)
            model.buffers.append(buffer)
            one.buffer = len(model.buffers) - 1
        graph.tensors.append(one)
        return len(graph.tensors) - 1

    graph = model.subgraphs[0]
    model.buffers, graph.tensors = [schema.BufferT()], []
    x, state = tensor("x", [1, 1, 2]), tensor("state", [1, 2])
    constants = [tensor("in", [2, 2], np.eye(2)), tensor("again", [2, 2], np.eye(2) / 2), tensor("bias", [2], [0, 0])]
    y = tensor("y", [1, 1, 2])
    operator, code, options = schema.OperatorT(), schema.OperatorCodeT(), schema.SequenceRNNOptionsT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.UNIDIRECTIONAL_SEQUENCE_RNN
    code.version = 1
    operator.inputs, operator.outputs = [x, *constants, state], [y]
    operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.SequenceRNNOptions, options
    graph.inputs, graph.outputs, graph.operators = [x], [y], [operator]
    model.operatorCodes, model.signatureDefs, model.metadata = [code], [], []
    return file_of(model)


def _custom(tflite: bytes) -> bytes:
    model = model_object(tflite)
    code = model.operatorCodes[model.subgraphs[0].operators[0].opcodeIndex]
    code.builtinCode = code.deprecatedBuiltinCode = 32  # CUSTOM
    code.customCode = b"Sorcery"
    for operator in model.subgraphs[0].operators:
        if model.operatorCodes[operator.opcodeIndex] is code:
            operator.builtinOptions, operator.builtinOptionsType = None, 0
    return file_of(model)


def main() -> None:
    """Write every file beside this script."""
    x = np.clip(np.random.default_rng(0).normal(size=(64, 8)), -1.9, 1.9).astype("float32")
    y = np.argmax(_tiny(x).numpy(), axis=1).astype("int64")
    tiny = _convert(_tiny)
    files = {
        "tiny.tflite": tiny,
        "tiny_other.tflite": _convert(_other),
        "tiny_slow.tflite": _convert(_slow),
        "tiny_int8.tflite": _convert(_tiny, x),
        "tiny_int4.tflite": _int4(tiny),
        "tiny_nan.tflite": _convert(_nan),
        "tiny_late_nan.tflite": _convert(_late_nan),
        "tiny_bomb.tflite": _convert(_bomb),
        "tiny_mixed.tflite": _mixed(),
        "tiny_named.tflite": _of_module(_Named()),
        "tiny_pixels.tflite": _signed(_pixels, tf.TensorSpec((1, 4, 4, 3), tf.float32, name="image")),
        "tiny_open.tflite": _signed(_open, tf.TensorSpec((None, None, 4), tf.float32, name="x")),
        "tiny_resize.tflite": _signed(_resize, tf.TensorSpec((1, 5, 7, 2), tf.float32, name="image")),
        "tiny_fed.tflite": _signed(
            _fed, tf.TensorSpec((1, 4), tf.float32, name="x"), tf.TensorSpec((1, 4), tf.float32, name="memory")
        ),
        "tiny_kept.tflite": _of_module(_Kept()),
        "tiny_recurrent.tflite": _recurrent(),
        "tiny_custom.tflite": _custom(tiny),
        "corrupt.tflite": tiny[: len(tiny) // 2],
        "tiny_golden.npz": write_golden(Golden((x[:4],), (_tiny(x[:4]).numpy(),))),
        "tiny_evaluation.npz": write_evaluation(Evaluation((x,), y)),
    }
    for name, data in files.items():
        (HERE / name).write_bytes(data)


if __name__ == "__main__":
    main()
