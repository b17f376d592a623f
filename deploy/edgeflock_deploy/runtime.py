"""The interpreter: load a `.tflite`, feed it, call it, copy its outputs out.

The only file that touches `ai_edge_litert` or `tflite_runtime`; both are imported when the first model is loaded, so
that a machine without them can import this. An inference child imports it, hence numpy and nothing heavier. It knows
nothing of bundles, tasks or trials, and it does not judge what it loads: whoever loads a file has checked its hash.

LiteRT prints one line on stderr when its CPU delegate (XNNPACK) starts; it offers no way to silence that line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeflock_deploy.errors import EdgeflockError
from edgeflock_deploy.runtime_name import runtime_missing

Array = NDArray[Any]


class LoadFailed(EdgeflockError):
    """The runtime cannot read or run this file.

    Args:
        detail: the runtime's own words, on one line.
    """

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class InputMismatch(EdgeflockError):
    """An array does not fit the input it was given for: another number of arrays, type or shape."""


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a model.

    Args:
        index: the runtime's number for it.
        name: its name in the file.
        dtype: numpy's name of the element type, e.g. `float32`.
        shape: the shape with its batch of 1; an open dimension counts as 1, until an input of another size is set.
        scale: real value per code of a quantized tensor; 0 for one that is not quantized.
        zero_point: the code that stands for 0.
        signature: the shape with -1 for each open dimension.
    """

    index: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    scale: float
    zero_point: int
    signature: tuple[int, ...] = ()

    def opens_to(self, shape: tuple[int, ...]) -> bool:
        """Whether it has open dimensions, and these may have the sizes in this shape."""
        wanted = self.signature
        return (
            -1 in wanted
            and len(shape) == len(wanted)
            and all(size == w or (w == -1 and size > 0) for size, w in zip(shape, wanted, strict=True))
        )

    def zeros(self) -> Array:
        """What stands for 0 everywhere: a sequence's first state."""
        return np.full(self.shape, self.zero_point if self.scale else 0, self.dtype)

    def encode(self, values: Array) -> Array:
        """Real values -> what this tensor holds: codes (rounded, clipped) if it is quantized, else a plain cast."""
        if not self.scale:
            return values.astype(self.dtype, copy=False)
        limits = np.iinfo(self.dtype)
        codes = np.rint(np.asarray(values, np.float64) / self.scale) + self.zero_point
        clipped: Array = np.clip(codes, limits.min, limits.max).astype(self.dtype)
        return clipped

    def decode(self, held: Array) -> Array:
        """What this tensor holds -> real values (float32 if it is quantized, else unchanged)."""
        if not self.scale:
            return held
        return ((held.astype(np.float64) - self.zero_point) * self.scale).astype(np.float32)


class LoadedModel:
    """A model in the interpreter, tensors allocated.

    It hands out copies only: while a view of a tensor lives, the interpreter refuses to run.

    Args:
        interpreter: an interpreter of either runtime, allocated; `load` makes one.
    """

    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter
        self.complaints = ""
        """All that the runtime ever said of failed runs: it keeps that, and says all of it each time."""
        self._look()

    def _look(self) -> None:
        interpreter = self._interpreter
        self.inputs = tuple(_info(detail) for detail in interpreter.get_input_details())
        self.outputs = tuple(_info(detail) for detail in interpreter.get_output_details())

    @classmethod
    def load(cls, path: Path, threads: int = 1) -> LoadedModel:
        """Load a file and allocate its tensors. The file is mapped, so it must stay as it is.

        Raises:
            LoadFailed: the file cannot be read, or holds something that this runtime cannot run.
            BadInput: no runtime is installed.
        """
        make = _interpreter_class()
        try:
            interpreter = make(model_path=str(path), num_threads=threads)
            interpreter.allocate_tensors()
        except (OSError, MemoryError, RuntimeError, ValueError) as error:
            raise LoadFailed(f"{path.name}: {' '.join(str(error).split())}") from None
        return cls(interpreter)

    def set_inputs(self, arrays: Sequence[Array]) -> None:
        """Copy one item in, one array per input: its element type, its shape with or without the batch of 1.

        Where a dimension is open, the model takes on the size of the array.

        Raises:
            InputMismatch: another number of arrays, element type or shape.
        """
        if len(arrays) != len(self.inputs):
            raise InputMismatch(f"the model has {len(self.inputs)} inputs, {len(arrays)} arrays were given")
        if any(array.shape != info.shape for info, array in zip(self.inputs, arrays, strict=True)):
            self._resize(arrays)
        for info, array in zip(self.inputs, arrays, strict=True):
            if array.dtype != info.dtype or array.shape not in (info.shape, info.shape[1:]):
                given, wanted = f"{array.dtype} {array.shape}", f"{info.dtype} {info.shape}"
                raise InputMismatch(f"input '{info.name}' is {wanted}, the array is {given}")
            self._interpreter.set_tensor(info.index, array.reshape(info.shape))

    def feed(self, arrays: Sequence[Array]) -> Callable[[], None]:
        """What copies one item in, whatever these arrays hold by then; they are looked at now, and not again.

        Raises:
            InputMismatch: see `set_inputs`. What is returned raises the runtime's ValueError once the model has taken
                on another size.
        """
        self.set_inputs(arrays)
        set_tensor = self._interpreter.set_tensor
        items = [(info.index, array.reshape(info.shape)) for info, array in zip(self.inputs, arrays, strict=True)]

        def copy_in() -> None:
            for index, array in items:
                set_tensor(index, array)

        return copy_in

    def _resize(self, arrays: Sequence[Array]) -> None:
        """Give open dimensions the sizes of these arrays; what is not open stays as it is."""
        before = self.inputs
        opened = [
            (info, array.shape)
            for info, array in zip(before, arrays, strict=True)
            if array.shape != info.shape and info.opens_to(array.shape)
        ]
        if not opened:
            return
        try:
            for info, shape in opened:
                self._interpreter.resize_tensor_input(info.index, shape, strict=True)
            self._interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            for info in before:
                self._interpreter.resize_tensor_input(info.index, info.shape)
            self._interpreter.allocate_tensors()
            raise InputMismatch(f"the model takes no such size ({self._newest(error)})") from None
        self._look()

    def forget(self) -> None:
        """Set variable tensors back to 0. Resource variables stay: only a fresh interpreter forgets those."""
        self._interpreter.reset_all_variables()

    def signature_names(self) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        """The inputs' and outputs' names in the file's only signature, in the file's order; None where it has none."""
        signatures = list(self._interpreter.get_signature_list())
        if len(signatures) != 1:
            return None
        runner = self._interpreter.get_signature_runner(signatures[0])
        names = []
        for infos, details in (
            (self.inputs, runner.get_input_details()),
            (self.outputs, runner.get_output_details()),
        ):
            by_index = {int(detail["index"]): str(name) for name, detail in details.items()}
            if [info.index for info in infos if info.index not in by_index]:
                return None
            names.append(tuple(by_index[info.index] for info in infos))
        return names[0], names[1]

    def invoke(self) -> None:
        """Run once on the inputs that are set: the call that is timed, with nothing around it.

        Raises:
            RuntimeError: an operator failed; with the runtime's words.
        """
        try:
            self._interpreter.invoke()
        except RuntimeError as error:
            raise RuntimeError(self._newest(error)) from None

    def _newest(self, error: Exception) -> str:
        before, self.complaints = self.complaints, str(error)
        return " ".join((self.complaints.removeprefix(before) or before).split())

    def outputs_now(self) -> tuple[Array, ...]:
        """Copies of the outputs, each with its batch of 1, in the shapes that they have now."""
        return tuple(self._interpreter.get_tensor(info.index) for info in self.outputs)

    def run(self, *arrays: Array) -> tuple[Array, ...]:
        """`set_inputs`, `invoke`, `outputs_now`; raises what they raise."""
        self.set_inputs(arrays)
        self.invoke()
        return self.outputs_now()


def _interpreter_class() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        try:
            from tflite_runtime.interpreter import Interpreter
        except ImportError:
            raise runtime_missing() from None
    return Interpreter


def _info(detail: dict[str, Any]) -> TensorInfo:
    scale, zero_point = detail["quantization"]
    shape = tuple(int(size) for size in detail["shape"])
    dtype = np.dtype(detail["dtype"]).name
    signature = tuple(int(size) for size in detail.get("shape_signature", detail["shape"]))
    return TensorInfo(int(detail["index"]), str(detail["name"]), dtype, shape, float(scale), int(zero_point), signature)
