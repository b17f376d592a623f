"""Make the small models of the tests: `python tests/data/make.py` (needs TensorFlow; the results are committed).

All but tiny_mixed take one tensor of shape (1, 8) and give three class scores of shape (1, 3), so that any can stand in
for another.

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
        "corrupt.tflite": tiny[: len(tiny) // 2],
        "tiny_golden.npz": write_golden(Golden((x[:4],), (_tiny(x[:4]).numpy(),))),
        "tiny_evaluation.npz": write_evaluation(Evaluation((x,), y)),
    }
    for name, data in files.items():
        (HERE / name).write_bytes(data)


if __name__ == "__main__":
    main()
