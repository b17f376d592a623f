"""A `.tflite` as TensorFlow's own objects and back: for looking into operators and for small changes.

Decided here: all data of constants stand in the objects. LiteRT's quantizer writes some of them behind the FlatBuffer,
where TensorFlow's reader leaves them, and its writer would lose them.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def model_object(tflite: bytes) -> Any:
    """The file's model (`ModelT` of the public TensorFlow Lite schema), with every constant's data in its buffer."""
    from tensorflow.lite.tools import flatbuffer_utils

    model: Any = flatbuffer_utils.convert_bytearray_to_object(bytearray(tflite))
    for buffer in model.buffers:
        if buffer.data is None and buffer.size:
            buffer.data = np.frombuffer(tflite, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def file_of(model: Any) -> bytes:
    """The file of a model."""
    from tensorflow.lite.tools import flatbuffer_utils

    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))
