"""The operators of a `.tflite`: which one a runtime lacks, and whether they keep state.

Decided here: how the runtime's words are read, in one place, and which operators remember something between inferences.
Source of the numbers: the public TensorFlow Lite schema, version 3. The words are those of LiteRT and tflite-runtime.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

from edgeflock_deploy.flatbuffer import Broken, Tables

_OPERATOR_CODES, _SUBGRAPHS = 1, 2  # fields of Model
_OLD_KIND, _CUSTOM, _KIND = 0, 1, 3  # fields of OperatorCode
_TENSORS, _IS_VARIABLE = 0, 5  # field of SubGraph; of Tensor
_CUSTOM_KIND = 32
_RESOURCES = {142, 143, 144}  # VAR_HANDLE, READ_VARIABLE, ASSIGN_VARIABLE
_NAME_CHARACTERS = 64  # of an operator's name that are repeated in a message

# "Encountered unresolved custom op: Foo." and "Didn't find op for builtin opcode 'ADD' version '99'."
_CUSTOM_WORDS = re.compile(r"unresolved custom op: ([^\s.]+)")
_BUILTIN_WORDS = re.compile(r"find op for builtin opcode '(\w+)'(?: version '(\d+)')?")
_FLEX_WORDS = re.compile(r"Select TensorFlow op\(s\)")
_NODE = re.compile(r"Node number \d+ \((\w+)\)")
_NO_OPERATOR = re.compile(r"unresolved|Registration failed|custom op", re.IGNORECASE)


class State(Enum):
    """Whether a model remembers something between inferences that no output shows."""

    NONE = "none"
    TENSORS = "tensors"  # variable tensors, which the runtime can reset
    RESOURCES = "resources"  # resource variables, which only a fresh interpreter forgets


def missing_operator(words: str, path: Path) -> str | None:
    """The name of the operator for whose lack a model did not load; None if that is not why.

    Args:
        words: the runtime's.
        path: the file, which is looked into where the words say that an operator is lacking and not which.
    """
    if match := _CUSTOM_WORDS.search(words):
        return match[1][:_NAME_CHARACTERS]
    if match := _BUILTIN_WORDS.search(words):
        return f"{match[1]} version {match[2]}" if match[2] else match[1]
    if _FLEX_WORDS.search(words):
        found = _NODE.search(words)
        names = (found[1],) if found else tuple(n for n in custom_operators(path) if n.startswith("Flex"))
        return names[0] if names else "a TensorFlow operator"
    if _NO_OPERATOR.search(words):
        return next(iter(custom_operators(path)), None)
    return None


def custom_operators(path: Path) -> tuple[str, ...]:
    """The names of a file's custom operators, in the file's order; empty for a file that is no `.tflite`."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            tables = Tables(data)
            return tuple(_custom_names(tables))
    except (OSError, ValueError, Broken):
        return ()


def hidden_state(path: Path) -> State:
    """Whether, and how, a file keeps state inside; NONE for one that is no `.tflite`."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            tables = Tables(data)
            if any(kind in _RESOURCES for kind in _kinds(tables)):
                return State.RESOURCES
            return State.TENSORS if any(_variables(tables)) else State.NONE
    except (OSError, ValueError, Broken):
        return State.NONE


def _kinds(file: Tables) -> Iterator[int]:
    for code in file.tables(file.target(0), _OPERATOR_CODES):
        yield max(file.value(code, _OLD_KIND, "b"), file.value(code, _KIND, "i"))


def _custom_names(file: Tables) -> Iterator[str]:
    for code in file.tables(file.target(0), _OPERATOR_CODES):
        if max(file.value(code, _OLD_KIND, "b"), file.value(code, _KIND, "i")) == _CUSTOM_KIND:
            start, length = file.vector(code, _CUSTOM, 1)
            name = bytes(file.data[start : start + min(length, _NAME_CHARACTERS)]).decode("utf-8", "replace")
            yield "".join(c if c.isprintable() else "?" for c in name)


def _variables(file: Tables) -> Iterator[bool]:
    for graph in file.tables(file.target(0), _SUBGRAPHS):
        for tensor in file.tables(graph, _TENSORS):
            yield file.value(tensor, _IS_VARIABLE, "B") != 0
