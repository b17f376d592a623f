"""What an inference request of the Open Inference Protocol v2 asks, and its answer, in JSON and in binary tensors.

Decided here: which requests are understood. With the header field `Inference-Header-Content-Length` a body is so many
bytes of JSON, and behind them the binary tensors, in the order of the inputs that give `binary_data_size`. This file
knows tensors and bytes; it knows no HTTP and no child.

A model of one input takes it under any name, so that a variant whose converter named its input otherwise answers the
same applications; several inputs are matched by name.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from edgeflock_agent.children.tensors import Data, Shape, Tensor
from edgeflock_agent.serving import tensor_json

LENGTH_FIELD = "Inference-Header-Content-Length"
BINARY = "application/octet-stream"
_SEQUENCE_ID_CHARACTERS = 128
_REPEATED_BYTES = 4 << 10
# Parameters that would change what a tensor means; others may be ignored, as the protocol says.
_UNSUPPORTED = {
    "classification": "the classification extension is not served: ask for the scores",
    "shared_memory_region": "the shared-memory extension is not served: send the tensor as binary data",
}


class WrongRequest(Exception):
    """The application's mistake, in a sentence for it."""


class Given(NamedTuple):
    """One input of a request: its JSON, and its bytes if they came as binary data."""

    described: dict[str, Any]
    binary: memoryview | None


class Wanted(NamedTuple):
    """One output that is asked for."""

    name: str
    binary: bool


class InferRequest(NamedTuple):
    """A request that has the protocol's form; `outputs` None asks for all of them, binary if `all_binary`.

    `sequence`: key, start and end, where a parameter speaks of one. `text`: the JSON, where nothing but that and the
    tensors behind it make the request.
    """

    id: str | None
    inputs: tuple[Given, ...]
    outputs: tuple[Wanted, ...] | None
    all_binary: bool
    sequence: dict[str, Any] | None = None
    text: bytes | None = None


def read_request(body: bytearray, json_length: str | None) -> InferRequest:
    """Read a body.

    Args:
        body: the whole of it.
        json_length: what the header field says of the JSON's length; None: it was not given, and all is JSON.

    Raises:
        WrongRequest: it has not the protocol's form.
    """
    length = _json_length(body, json_length)
    try:
        text = bytes(body[:length]) if length < len(body) and length <= _REPEATED_BYTES else None
        request = _repeated(text) if text is not None else json.loads(body if length == len(body) else body[:length])
    except (ValueError, RecursionError) as error:
        raise WrongRequest(f"the body is no JSON: {error}") from None
    if not isinstance(request, dict) or not isinstance(request.get("inputs"), list):
        raise WrongRequest("the body must be an object with a list 'inputs'")
    if "id" in request and not isinstance(request["id"], str):
        raise WrongRequest("'id' must be a string")
    parameters = _parameters(request, "the request")
    all_binary = _flag(parameters, "binary_data_output", default=False)
    inputs = _given(request["inputs"], memoryview(body)[length:])
    wanted = _wanted(request.get("outputs"), all_binary)
    if any(one.binary is None for one in inputs):
        text = None
    return InferRequest(request.get("id"), inputs, wanted, all_binary, _sequence(parameters), text)


def input_shapes(request: InferRequest, tensors: Sequence[Tensor]) -> tuple[Shape, ...] | None:
    """The shapes of the inputs, in the model's order, once `input_bytes` has found them good; None: none is open."""
    if all(-1 not in tensor.shape for tensor in tensors):
        return None
    return tuple(tuple(given.described["shape"]) for given in _in_order(request, tensors))


@functools.lru_cache(maxsize=64)
def _repeated(text: bytes) -> Any:
    """JSON whose tensors lie behind it: an application sends the same again and again. Not to be changed by callers."""
    return json.loads(text)


def input_bytes(request: InferRequest, tensors: Sequence[Tensor]) -> list[Data]:
    """The bytes of each input of the model, in the model's order.

    Raises:
        WrongRequest: an input is missing, unknown, given twice, or does not fit the model's.
    """
    return [_fitted(tensor, one) for tensor, one in zip(tensors, _in_order(request, tensors), strict=True)]


def _in_order(request: InferRequest, tensors: Sequence[Tensor]) -> Sequence[Given]:
    names, given = [tensor.name for tensor in tensors], request.inputs
    if len(given) != len(names):
        raise WrongRequest(f"the model has {len(names)} inputs {names}, {len(given)} were given")
    if len(tensors) == 1:
        return given
    by_name = {str(one.described.get("name")): one for one in given}
    if missing := [name for name in names if name not in by_name]:
        raise WrongRequest(f"input '{missing[0]}' is missing; the model has {names}")
    return [by_name[name] for name in names]


def wanted_outputs(request: InferRequest, tensors: Sequence[Tensor]) -> list[tuple[int, bool]]:
    """The numbers of the outputs that are asked for, in the order of the asking, and whether each goes as binary data.

    Raises:
        WrongRequest: the model has no such output.
    """
    if request.outputs is None:
        return [(number, request.all_binary) for number in range(len(tensors))]
    names = [tensor.name for tensor in tensors]
    if unknown := [one.name for one in request.outputs if one.name not in names]:
        raise WrongRequest(f"the model has no output '{unknown[0]}'; it has {names}")
    return [(names.index(one.name), one.binary) for one in request.outputs]


def response_parts(
    header: dict[str, Any],
    tensors: Sequence[Tensor],
    data: Sequence[bytes],
    wanted: Sequence[tuple[int, bool]],
    shapes: Sequence[Shape] = (),
) -> tuple[bytes, tuple[bytes, ...]]:
    """A response: its JSON, and the binary tensors that follow it.

    Args:
        header: what stands in the JSON beside `outputs`.
        tensors: the model's outputs.
        data: their bytes.
        wanted: see `wanted_outputs`.
        shapes: of the outputs as they came; left out, they are those of the tensors.

    Raises:
        ValueError: an output that goes as JSON holds NaN or an infinity, which JSON cannot say.
    """
    outputs, binary = [], []
    for number, is_binary in wanted:
        shape = shapes[number] if shapes else None
        if is_binary:
            size = {"parameters": {"binary_data_size": len(data[number])}}
            outputs.append(tensor_json.describe(tensors[number], shape) | size)
            binary.append(data[number])
        else:
            outputs.append(tensor_json.from_bytes(tensors[number], data[number], shape))
    content = header | {"outputs": outputs}
    if len(binary) == len(outputs):  # no number of the model's stands in it, and the plain encoder is quicker
        return json.dumps(content).encode(), tuple(binary)
    return json.dumps(content, allow_nan=False).encode(), tuple(binary)


def _sequence(parameters: dict[str, Any]) -> dict[str, Any] | None:
    """The sequence that a request belongs to, as Triton's sequence extension says it; None where it says none.

    An id of 0, or an empty one, is none in that extension: the request belongs to the default sequence.
    """
    if not {"sequence_id", "sequence_start", "sequence_end"} & parameters.keys():
        return None
    key = parameters.get("sequence_id", 0)
    if isinstance(key, bool) or not isinstance(key, int | str) or len(str(key)) > _SEQUENCE_ID_CHARACTERS:
        raise WrongRequest(f"sequence_id must be a whole number or a string of {_SEQUENCE_ID_CHARACTERS} at most")
    start, end = (_flag(parameters, name, default=False) for name in ("sequence_start", "sequence_end"))
    return {"key": key or None, "start": start, "end": end}


def _json_length(body: bytearray, said: str | None) -> int:
    if said is None:
        return len(body)
    if not (said.isascii() and said.isdigit() and len(said) < 19 and 0 < int(said) <= len(body)):
        raise WrongRequest(f"{LENGTH_FIELD} {said[:40]!r} is no length of JSON in a body of {len(body)} bytes")
    return int(said)


def _given(inputs: list[Any], binary: memoryview) -> tuple[Given, ...]:
    given, names, start = [], set(), 0
    for number, one in enumerate(inputs):
        if not isinstance(one, dict):
            raise WrongRequest(f"input {number} is no object")
        name = one.get("name")
        if not isinstance(name, str) or name in names:
            raise WrongRequest(f"input {number} has no name" if not isinstance(name, str) else f"two inputs '{name}'")
        names.add(name)
        if one.get("datatype") == "BYTES":
            raise WrongRequest(f"input '{name}' has datatype BYTES: no model here takes strings")
        size = _parameters(one, f"input '{name}'").get("binary_data_size")
        if size is None:
            given.append(Given(one, None))
            continue
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(binary) - start:
            raise WrongRequest(
                f"input '{name}' has binary_data_size {size}, {len(binary) - start} bytes are left behind the JSON"
            )
        if "data" in one:
            raise WrongRequest(f"input '{name}' has both data and binary_data_size")
        given.append(Given(one, binary[start : start + size]))
        start += size
    if start != len(binary):
        raise WrongRequest(f"{len(binary) - start} bytes behind the JSON belong to no input")
    return tuple(given)


def _wanted(outputs: Any, all_binary: bool) -> tuple[Wanted, ...] | None:
    if outputs is None:
        return None
    if not isinstance(outputs, list) or not all(
        isinstance(one, dict) and isinstance(one.get("name"), str) for one in outputs
    ):
        raise WrongRequest("'outputs' must be a list of objects with a name each")
    if len({one["name"] for one in outputs}) < len(outputs):
        raise WrongRequest("an output is asked for twice")
    if not outputs:
        return None
    return tuple(
        Wanted(one["name"], _flag(_parameters(one, f"output '{one['name']}'"), "binary_data", default=all_binary))
        for one in outputs
    )


def _parameters(described: dict[str, Any], of: str) -> dict[str, Any]:
    parameters = described.get("parameters", {})
    if not isinstance(parameters, dict):
        raise WrongRequest(f"'parameters' of {of} must be an object")
    for name, words in _UNSUPPORTED.items():
        if name in parameters:
            raise WrongRequest(f"{of} has the parameter {name}: {words}")
    return parameters


def _flag(parameters: dict[str, Any], name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise WrongRequest(f"parameter {name} must be true or false")
    return value


def _fitted(tensor: Tensor, given: Given) -> Data:
    try:
        if given.binary is None:
            return tensor_json.to_bytes(tensor, given.described)
        shape = tensor_json.check(tensor, given.described)
    except ValueError as error:
        raise WrongRequest(str(error)) from None
    if len(given.binary) != (nbytes := tensor.bytes_of(shape)):
        raise WrongRequest(f"input '{tensor.name}' takes {nbytes} bytes, {len(given.binary)} were given")
    if tensor.dtype == "bool" and bytes(given.binary).translate(None, b"\0\1"):
        raise WrongRequest(f"input '{tensor.name}' has a byte that is neither 0 nor 1, and is BOOL")
    return given.binary
