"""The inference child: one model in a process of its own, spoken to in frames over stdin and stdout.

`python -m edgeflock_agent.children.child PARENT_PID`. It holds the interpreter, the golden cases and the evaluation
slice, and answers one request at a time, each with at most one inference (a block of them for `block`, bounded in
time), so that a waiting request never waits long. What the answers mean for a deployment is decided in `runner`.

A model is somebody else's program: what the child may do is decided in `sandbox`. It opens no file by its name: the
model, golden cases and evaluation slices come as open descriptors with the request (`fd`). It ends with its parent (the
parent-death signal is tied to the *thread* that started it) and at the end of its input. What
libraries print on stdout goes to stderr.

A reply is the result of the operation, or `{"stop": reason, "detail": …}` when the variant misbehaved, or `{"error":
text}` when this one request failed.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import resource
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeflock_agent.children import sandbox
from edgeflock_agent.children.confidence import top_probability
from edgeflock_agent.children.frames import BadFrame, Channel, Data, End, Ended
from edgeflock_deploy import runtime
from edgeflock_deploy.cases import Evaluation, Golden, read_evaluation, read_golden, write_evaluation, write_golden
from edgeflock_deploy.errors import Untrusted
from edgeflock_deploy.heap import give_back_freed
from edgeflock_deploy.reasons import Reason
from edgeflock_deploy.runtime import LoadedModel, LoadFailed, TensorInfo
from edgeflock_deploy.scoring import answers, variance

Array = NDArray[Any]
Payload = bytearray | memoryview
Reply = tuple[dict[str, Any], Data | Sequence[Data]]

_TELLING_BYTES = 256 << 20  # address space in which a load is tried again, to tell a small budget from a bad file
_WARM_MODEL = Path(runtime.__file__).with_name("warm.tflite")


class Stop(Exception):
    """The variant misbehaved: the reason and a sentence with the numbers."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class Child:
    """The model and its cases, and one method per operation."""

    def __init__(self) -> None:
        self._model: LoadedModel | None = None
        self._golden: Golden | None = None
        self._slice: Evaluation | None = None
        self._kind: Any = "classification"
        self._items: list[tuple[Array, ...]] = []  # what `block` runs over, in turn
        self._takes: list[tuple[np.dtype[Any], tuple[int, ...], int]] = []  # type, shape and bytes of each input
        self._next_item = 0
        self._first_ms = 0.0
        self._tells_confidence = False
        self._cpu_s = 0.0  # processor time that a request may take
        self._status = os.open("/proc/self/status", os.O_RDONLY)  # opened now: later nothing is
        self._switches = 0  # involuntary context switches within timed calls, since the last reply that told
        self.operations: dict[str, Callable[[dict[str, Any], Payload], Reply]] = {
            "beat": self._beat,
            "load": self._load,
            "golden": self._open_golden,
            "golden_case": self._golden_case,
            "slice": self._open_slice,
            "item": self._item,
            "random": self._random,
            "block": self._block,
            "infer": self._infer,
            "tell_confidence": self._tell_confidence,
        }

    @property
    def model(self) -> LoadedModel:
        """The model; `load` comes first."""
        assert self._model is not None, "no model is loaded"
        return self._model

    def answer(self, header: dict[str, Any], payload: Payload) -> Reply:
        """Do one operation; whatever goes wrong becomes a reply."""
        try:
            if self._cpu_s:
                sandbox.allow_cpu(self._cpu_s + header.get("max_ms", 0.0) / 1e3)
            return self.operations[header["op"]](header, payload)
        except Stop as stop:
            return {"stop": stop.reason.value, "detail": stop.detail}, b""
        except Untrusted as error:
            return {"stop": error.reason.value, "detail": error.detail}, b""
        except MemoryError:
            return {"stop": Reason.MEMORY_OVER_BUDGET.value, "detail": "an allocation was refused"}, b""
        except Exception as error:  # whatever it is, the parent hears of it
            return {"error": " ".join(f"{type(error).__name__}: {error}".split())}, b""

    def _beat(self, _header: dict[str, Any], _: Payload) -> Reply:
        return {}, b""

    def _load(self, header: dict[str, Any], _: Payload) -> Reply:
        model, threads, budget = header["fd"], header["threads"], header["memory_budget_bytes"]
        rss = self._own_memory("VmRSS")
        if budget is not None:
            size = self._own_memory("VmSize")
            resource.setrlimit(resource.RLIMIT_AS, (size + budget, size + max(4 * budget, _TELLING_BYTES)))
        self._cpu_s = header["cpu_s"]
        sandbox.allow_cpu(self._cpu_s)
        sealed = sandbox.seal([model])
        path = sandbox.by_descriptor(model)
        try:
            self._model, load_ms, self._first_ms = _load_and_run(path, threads)
        except LoadFailed as error:
            detail = f"{header['name']}: {error.detail.partition(': ')[2]}"
            if budget is not None and _loads_with_more_memory(path, threads):
                raise Stop(Reason.MEMORY_OVER_BUDGET, f"{budget} bytes are not enough: {detail}") from None
            raise Stop(Reason.LOAD_FAILED, detail) from None
        if budget is not None and (over := self._own_memory("VmRSS") - rss - budget) > 0:
            raise Stop(Reason.MEMORY_OVER_BUDGET, f"the loaded model is {over} bytes over its budget")
        if budget is not None:  # cases and requests come on top of what the model itself may take
            hard = resource.getrlimit(resource.RLIMIT_AS)[1]
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        types = [(np.dtype(info.dtype), info.shape) for info in self.model.inputs]
        self._takes = [(dtype, shape, int(np.prod(shape)) * dtype.itemsize) for dtype, shape in types]
        gc.collect()
        gc.freeze()  # what is loaded stays; a collection in the middle of a timing need not look at it
        tensors = {"inputs": _describe(self.model.inputs), "outputs": _describe(self.model.outputs)}
        give_back_freed()
        return tensors | {"load_ms": load_ms, "sealed": sealed}, b""

    def _open_golden(self, header: dict[str, Any], _: Payload) -> Reply:
        with os.fdopen(header["fd"], "rb", closefd=False) as file:
            golden = read_golden(file)
        if len(golden.inputs) != len(self.model.inputs) or len(golden.outputs) != len(self.model.outputs):
            raise Untrusted(Reason.MANIFEST_INVALID, "golden cases have another number of tensors than the model")
        self._golden = golden
        cases = range(len(golden.inputs[0]))
        if not self._items:
            self._items = [self._fitting([tensor[case] for tensor in golden.inputs]) for case in cases]
        return {"cases": len(cases)}, b""

    def _golden_case(self, header: dict[str, Any], _: Payload) -> Reply:
        assert self._golden is not None, "no golden cases are open"
        case = header["case"]
        self._run(self._fitting([tensor[case] for tensor in self._golden.inputs]))
        for number, (got, cases) in enumerate(zip(self.model.outputs_now(), self._golden.outputs, strict=True)):
            _refuse_nan(got, f"golden case {case}")
            place = f"golden case {case}, output {number}"
            _compare(got.reshape(-1), cases[case].reshape(-1), header, place)
        return {}, b""

    def _open_slice(self, header: dict[str, Any], _: Payload) -> Reply:
        with os.fdopen(header["fd"], "rb", closefd=False) as file:
            evaluation = read_evaluation(file)
        if len(evaluation.x) != len(self.model.inputs):
            raise Untrusted(Reason.MANIFEST_INVALID, "the evaluation slice has another number of inputs than the model")
        self._items = [self._fitting(item) for item in zip(*evaluation.x, strict=True)]
        self._slice, self._kind = evaluation, header["kind"]
        if self._kind == "classification":
            return {"items": len(self._items), "target_variance": None, "answer_range": None}, b""
        means = evaluation.y.reshape(len(evaluation.y), -1).astype(np.float64).mean(axis=1)
        ends = [float(means.min()), float(means.max())]
        return {"items": len(self._items), "target_variance": variance(evaluation.y), "answer_range": ends}, b""

    def _item(self, header: dict[str, Any], _: Payload) -> Reply:
        assert self._slice is not None, "no evaluation slice is open"
        number = header["item"]
        self._take_switches()
        latency_ms = self._run(self._items[number])
        counts = {"latency_ms": latency_ms, "switches": self._take_switches()}
        output = self.model.outputs_now()[0]
        _refuse_nan(output, f"evaluation item {number}")
        target = self._slice.y[number]
        answered = self._answered(output)
        if self._kind == "classification":
            return counts | answered | {"correct": answered["answer"] == int(target)}, b""
        values = np.asarray(answered["answer"])
        error = float(np.mean((values - np.asarray(target, np.float64).reshape(-1)) ** 2))
        return counts | answered | {"squared_error": error}, b""

    def _answered(self, output: Array) -> dict[str, Any]:
        """What the first output answers, as it is compared and counted."""
        info = self.model.outputs[0]
        if self._kind == "classification":
            return {"answer": int(answers("classification", output)[0]), "confidence": top_probability(info, output)}
        return {"answer": answers("regression", info.decode(output))[0].tolist()}

    def _random(self, header: dict[str, Any], _: Payload) -> Reply:
        rng = np.random.default_rng(header["seed"])
        self._items = [
            tuple(_random_tensor(info, rng) for info in self.model.inputs) for _ in range(int(header["items"]))
        ]
        return {}, b""

    def _block(self, header: dict[str, Any], _: Payload) -> Reply:
        latencies_ms = array("d")
        self._take_switches()
        while len(latencies_ms) < header["n"] and (not latencies_ms or sum(latencies_ms) < header["max_ms"]):
            latencies_ms.append(self._run(self._items[self._next_item % len(self._items)]))
            self._next_item += 1
        return {"first_inference_ms": self._first_ms, "switches": self._take_switches()}, latencies_ms.tobytes()

    def _infer(self, header: dict[str, Any], payload: Payload) -> Reply:
        given, start, view = [], 0, memoryview(payload)
        for dtype, shape, length in self._takes:
            given.append(np.frombuffer(view[start : start + length], dtype).reshape(shape))
            start += length
        self._take_switches()
        latency_ms = self._run(tuple(given))
        answer = list(self.model.outputs_now())
        outputs = [np.ascontiguousarray(output).reshape(-1).view(np.uint8).data for output in answer]
        reply: dict[str, Any] = {"latency_ms": latency_ms, "lengths": [len(output) for output in outputs]}
        if header.get("judged"):
            reply |= self._judged(answer)
        if not all(map(_is_numbers, answer)) and all(map(_is_numbers, given)):
            reply["nan"] = True  # NaN that went in may come out: that is the application's doing
        if self._tells_confidence:
            reply["confidence"] = top_probability(self.model.outputs[0], answer[0])
        return reply, outputs

    def _judged(self, outputs: list[Array]) -> dict[str, Any]:
        """What a trial wants to know of an application's request beside its outputs; of NaN, no answer."""
        switches = {"switches": self._take_switches()}
        return switches | (self._answered(outputs[0]) if all(map(_is_numbers, outputs)) else {"answer": None})

    def _tell_confidence(self, _: dict[str, Any], __: Payload) -> Reply:
        self._tells_confidence = True
        return {}, b""

    def _own_memory(self, field: str) -> int:
        for line in os.pread(self._status, 1 << 16, 0).decode().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
        raise OSError(f"/proc/self/status has no {field}")

    def _run(self, item: tuple[Array, ...]) -> float:
        """Run once; only the call of the interpreter is timed (milliseconds)."""
        model = self.model
        model.set_inputs(item)
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        start = time.perf_counter_ns()
        model.invoke()
        latency_ms = (time.perf_counter_ns() - start) / 1e6
        self._switches += resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - switches
        return latency_ms

    def _take_switches(self) -> int:
        switches, self._switches = self._switches, 0
        return switches

    def _fitting(self, values: Sequence[Array]) -> tuple[Array, ...]:
        """Stored values as the model's inputs: real values become the codes of a quantized input."""
        item = []
        for info, value in zip(self.model.inputs, values, strict=True):
            if value.size != int(np.prod(info.shape)):
                raise Untrusted(Reason.MANIFEST_INVALID, f"a case of shape {value.shape} for an input {info.shape}")
            codes = info.encode(value) if np.issubdtype(value.dtype, np.floating) else value.astype(info.dtype)
            item.append(codes.reshape(info.shape))
        return tuple(item)


def _load_and_run(path: Path, threads: int) -> tuple[LoadedModel, float, float]:
    """Load a model and run it once on zeros; the milliseconds of each.

    The first inference belongs to the load: XNNPACK packs the weights in it, so that it may well fail where the load
    did not.

    Raises:
        LoadFailed: it does not load, or does not run.
    """
    start = time.perf_counter()
    model = LoadedModel.load(path, threads)
    loaded = time.perf_counter()
    model.set_inputs([np.zeros(info.shape, info.dtype) for info in model.inputs])
    begun = time.perf_counter()
    try:
        model.invoke()
    except RuntimeError as error:
        raise LoadFailed(f"{path.name}: {' '.join(str(error).split())}") from None
    return model, (loaded - start) * 1e3, (time.perf_counter() - begun) * 1e3


def _loads_with_more_memory(path: Path, threads: int) -> bool:
    """Whether a load that failed within the budget succeeds beyond it: the runtime's own words do not tell."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    try:
        _load_and_run(path, threads)
    except LoadFailed:
        return False
    return True


def _describe(tensors: Sequence[TensorInfo]) -> list[list[Any]]:
    return [[info.name, info.dtype, list(info.shape)] for info in tensors]


def _is_numbers(tensor: Array) -> bool:
    return tensor.dtype.kind != "f" or not np.isnan(tensor).any()


def _refuse_nan(output: Array, what: str) -> None:
    if np.issubdtype(output.dtype, np.floating) and np.isnan(output).any():
        raise Stop(Reason.NAN_OUTPUT, f"{what} gave NaN")


def _compare(got: Array, want: Array, tolerance: dict[str, Any], place: str) -> None:
    """Raise a Stop for the first value that is not near enough: `exact`, `steps` codes, or `atol` and `rtol`."""
    if got.shape != want.shape:
        raise Untrusted(
            Reason.MANIFEST_INVALID, f"{place}: the model gives {got.size} values, the case has {want.size}"
        )
    got64, want64 = got.astype(np.float64), want.astype(np.float64)
    if tolerance["exact"]:
        allowed = np.zeros_like(want64)
    elif np.issubdtype(got.dtype, np.integer):
        allowed = np.full_like(want64, tolerance["steps"])
    else:
        allowed = tolerance["atol"] + tolerance["rtol"] * np.abs(want64)
    wrong = np.flatnonzero(~(np.abs(got64 - want64) <= allowed))
    if len(wrong):
        at = wrong[0]
        numbers = f"got {got64[at]:.6g}, want {want64[at]:.6g} within {allowed[at]:.3g}"
        raise Stop(Reason.GOLDEN_MISMATCH, f"{place}, value {at}: {numbers}; {len(wrong)} of {len(want)} differ")


def _random_tensor(info: TensorInfo, rng: np.random.Generator) -> Array:
    """Values of the type: standard normal floats, 8 and 16 bits over their range, 0 or 1 for what may be indices."""
    kind = np.dtype(info.dtype)
    if kind.kind == "f":
        return rng.standard_normal(info.shape).astype(kind)
    if kind.kind == "b" or kind.itemsize >= 4:
        return rng.integers(0, 2, info.shape).astype(kind)
    limits = np.iinfo(kind)
    return rng.integers(limits.min, limits.max, info.shape, dtype=kind, endpoint=True)


def rehearse() -> None:
    """Do once what is done later: the runtime's libraries and Python's modules are loaded, while files can be opened.

    None of it is then charged to the model's load time or its budget either.
    """
    warm = LoadedModel.load(_WARM_MODEL)
    ones = tuple(np.ones(info.shape, info.dtype) for info in warm.inputs)
    warm.run(*ones)
    read_golden(io.BytesIO(write_golden(Golden(ones, ones))))
    read_evaluation(io.BytesIO(write_evaluation(Evaluation(ones, ones[0]))))
    with contextlib.suppress(Untrusted):
        read_golden(io.BytesIO(b"no archive"))
    for info in warm.inputs:
        _random_tensor(info, np.random.default_rng(0))
    f"{np.float64(1.5):.6g} {OSError(2, os.strerror(2))}".encode()


def main() -> None:
    """Serve frames until the parent closes its end."""
    end = End(os.dup(0), os.dup(1), int(sys.argv[2]))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    sandbox.enter(int(sys.argv[1]), (0, 1, 2, *end))
    rehearse()
    serve(end)


def serve(end: End) -> None:
    """Answer what comes to this end until the other one is closed; `rehearse` comes first."""
    channel = Channel(end, child=True, mapping=sandbox.allow_address_space)
    child = Child()
    channel.send({"ready": True})
    while True:
        try:
            request = channel.receive()
            given = {"fd": request.files[0]} if request.files else {}
            channel.send(*child.answer(request.header | given, request.payload))
            for file in request.files if request.header["op"] != "load" else ():
                os.close(file)  # the model's stays: by it the file can be opened again
        except Ended:
            return
        except BadFrame as error:
            sys.exit(f"edgeflock_agent.children.child: {error}")


if __name__ == "__main__":
    main()
