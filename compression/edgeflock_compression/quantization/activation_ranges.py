"""The smallest and largest value of every activation of a float32 `.tflite` over calibration items.

The interpreter runs without its delegate, which fuses operators and then holds no values in between. A model with a
loop is refused: what happens inside it cannot be seen from outside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeflock_compression.tflite.float_left import operators
from edgeflock_compression.tflite.foreign import constants, signature_key
from edgeflock_deploy.errors import BadInput

_LARGEST = 3e38  # a mask of minus infinity must not make a range infinite
_LOOPS = {"WHILE", "IF", "CALL_ONCE"}

Ranges = dict[str, dict[str, NDArray[np.float32]]]


def activation_ranges(tflite: bytes, items: Sequence[Mapping[str, Any]]) -> Ranges:
    """Ranges, `{tensor: {"min": (1,), "max": (1,)}}`, as LiteRT's quantizer takes them.

    Args:
        tflite: a float32 file with a signature.
        items: each a batch of 1 by input name of the signature; one at least.

    Raises:
        BadInput: the model holds a loop.
    """
    from litert_quantizer.utils import tfl_interpreter_utils as interpreters

    if any(operator.kind in _LOOPS for operator in operators(tflite)):
        mend = "use a mode without calibration: float16, dynamic or weight_only"
        raise BadInput("the model", "holds a loop, whose activations cannot be calibrated", mend)
    interpreter = interpreters.create_tfl_interpreter(tflite, use_xnnpack=False, num_threads=1)
    key, fixed = signature_key(tflite), constants(tflite)
    graph = interpreters.get_signature_main_subgraph_index(interpreter, key)
    wanted = {
        detail["index"]: detail["name"]
        for detail in interpreter.get_tensor_details(graph)
        if detail["dtype"] == np.float32 and detail["name"] and detail["index"] not in fixed and all(detail["shape"])
    }
    low, high = dict.fromkeys(wanted, np.inf), dict.fromkeys(wanted, -np.inf)
    for item in items:
        interpreters.invoke_interpreter_signature(interpreter, item, key)
        for index in wanted:
            values = interpreter.get_tensor(index, graph)
            low[index], high[index] = min(low[index], values.min()), max(high[index], values.max())
    return {name: {"min": _limited(low[index]), "max": _limited(high[index])} for index, name in wanted.items()}


def _limited(value: float) -> NDArray[np.float32]:
    return np.clip(np.array([value], np.float32), -_LARGEST, _LARGEST)
