"""A `.tflite` made elsewhere, brought into the form in which today's tools understand it.

Older converters wrote the kind of an operator into a field of one byte only, and no signature; the quantizer then finds
nothing to quantize, without a word, and cannot calibrate. Nothing that is computed changes.
"""

from __future__ import annotations

from typing import Any

from edgeflock_compression.tflite.objects import file_of, model_object

SIGNATURE = "serving_default"


def with_signature(tflite: bytes) -> bytes:
    """The same model with every operator's kind where it is looked for, and a signature that names its inputs.

    Its inputs get the names of their tensors, as the interpreter tells them.
    """
    from tensorflow.lite.python import schema_py_generated as schema

    model = model_object(tflite)
    changed = False
    for code in model.operatorCodes:
        kind = max(code.builtinCode, code.deprecatedBuiltinCode)  # as the format's description says
        changed, code.builtinCode = changed or kind != code.builtinCode, kind
    if not model.signatureDefs:
        graph = model.subgraphs[0]
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = SIGNATURE.encode(), 0
        signature.inputs = [_named(schema, graph.tensors[i].name, i) for i in graph.inputs]
        signature.outputs = [_named(schema, f"output_{n}".encode(), i) for n, i in enumerate(graph.outputs)]
        model.signatureDefs, changed = [signature], True
    return file_of(model) if changed else tflite


def signature_key(tflite: bytes) -> str:
    """The name of a file's first signature; `with_signature` sees to it that there is one."""
    return str(_first_signature(tflite)[0].signatureKey.decode())


def input_names(tflite: bytes) -> tuple[str, ...]:
    """What a file's first signature calls its inputs, in the order in which the interpreter lists them."""
    signature, graph = _first_signature(tflite)
    names = {entry.tensorIndex: entry.name.decode() for entry in signature.inputs}
    return tuple(names[i] for i in graph.inputs)


def constants(tflite: bytes) -> frozenset[int]:
    """The tensors of a file's first signature that hold data already, by number."""
    model = model_object(tflite)
    tensors = model.subgraphs[model.signatureDefs[0].subgraphIndex].tensors
    return frozenset(index for index, tensor in enumerate(tensors) if model.buffers[tensor.buffer].data is not None)


def _first_signature(tflite: bytes) -> tuple[Any, Any]:
    model = model_object(tflite)
    signature = model.signatureDefs[0]
    return signature, model.subgraphs[signature.subgraphIndex]


def _named(schema: Any, name: bytes, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    return entry
