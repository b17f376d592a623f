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
from edgeflock_agent.children.answering import Answering, as_it_is
from edgeflock_agent.children.checks import Stop, compare, is_numbers, refuse_nan
from edgeflock_agent.children.confidence import top_probability
from edgeflock_agent.children.frames import BadFrame, Channel, Data, End, Ended
from edgeflock_agent.children.interpreters import Interpreters
from edgeflock_agent.children.loading import load_and_run, loads_with_more_memory
from edgeflock_agent.children.random_inputs import RandomInputs
from edgeflock_deploy import runtime
from edgeflock_deploy.cases import Evaluation, Golden, read_evaluation, read_golden, write_evaluation, write_golden
from edgeflock_deploy.errors import Untrusted
from edgeflock_deploy.heap import give_back_freed
from edgeflock_deploy.operators import State, hidden_state, missing_operator
from edgeflock_deploy.reasons import Reason
from edgeflock_deploy.runtime import LoadedModel, LoadFailed
from edgeflock_deploy.scoring import answers, variance

Array = NDArray[Any]
Payload = bytearray | memoryview
Reply = tuple[dict[str, Any], Data | Sequence[Data]]

_TELLING_BYTES = 256 << 20  # address space in which a load is tried again, to tell a small budget from a bad file
_WARM_MODEL = Path(runtime.__file__).with_name("warm.tflite")


class Child:
    """The model and its cases, and one method per operation."""

    def __init__(self) -> None:
        self._interpreters: Interpreters | None = None
        self._answering: Answering | None = None  # None: an application's bytes are the model's
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
            "through": self._through,
            "infer": self._infer,
            "tell_confidence": self._tell_confidence,
        }

    @property
    def model(self) -> LoadedModel:
        """The model; `load` comes first."""
        return self.interpreters.model

    @property
    def interpreters(self) -> Interpreters:
        """The model's interpreters; `load` comes first."""
        assert self._interpreters is not None, "no model is loaded"
        return self._interpreters

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

    def _load(self, header: dict[str, Any], labels: Payload) -> Reply:
        file, threads, budget = header["fd"], header["threads"], header["memory_budget_bytes"]
        sealed, path = sandbox.seal([file]), sandbox.by_descriptor(file)
        state = hidden_state(path)  # it maps the file, which is not the model's doing: before the limit
        rss = self._own_memory("VmRSS")
        if budget is not None:
            size = self._own_memory("VmSize")
            resource.setrlimit(resource.RLIMIT_AS, (size + budget, size + max(4 * budget, _TELLING_BYTES)))
        self._cpu_s = header["cpu_s"]
        sandbox.allow_cpu(self._cpu_s)
        try:
            model, load_ms, self._first_ms = load_and_run(path, threads)
        except LoadFailed as error:
            detail = f"{header['name']}: {error.detail.partition(': ')[2]}"
            if (operator := missing_operator(error.detail, path)) is not None:
                raise Stop(Reason.OPERATOR_MISSING, f"this runtime has no operator {operator}: {detail}") from None
            if budget is not None and loads_with_more_memory(path, threads):
                raise Stop(Reason.MEMORY_OVER_BUDGET, f"{budget} bytes are not enough: {detail}") from None
            raise Stop(Reason.LOAD_FAILED, detail) from None
        if budget is not None and (over := self._own_memory("VmRSS") - rss - budget) > 0:
            raise Stop(Reason.MEMORY_OVER_BUDGET, f"the loaded model is {over} bytes over its budget")
        again = path if state is State.NONE else sandbox.by_descriptor(os.dup(file))  # some are loaded again later
        self._interpreters = Interpreters(model, again, threads, state)
        if budget is not None:  # cases and requests come on top of what the model itself may take
            hard = resource.getrlimit(resource.RLIMIT_AS)[1]
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        types = [(np.dtype(info.dtype), info.shape) for info in self.model.inputs]
        self._takes = [(dtype, shape, int(np.prod(shape)) * dtype.itemsize) for dtype, shape in types]
        gc.collect()
        gc.freeze()  # what is loaded stays; a collection in the middle of a timing need not look at it
        told = header["view"] or as_it_is(model)
        answering = Answering(told, bytes(labels), self._interpreters, self._run, self._remarks)
        self._answering = None if answering.is_simple else answering
        give_back_freed()
        tensors = {side: _described(told[side]) for side in ("inputs", "outputs")}
        return tensors | {"load_ms": load_ms, "sealed": sealed} | answering.told_of_model, b""

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
        outputs = self._run_afresh(self._fitting([tensor[case] for tensor in self._golden.inputs]))[1]
        for number, (got, cases) in enumerate(zip(outputs, self._golden.outputs, strict=True)):
            refuse_nan(got, f"golden case {case}")
            place = f"golden case {case}, output {number}"
            compare(got.reshape(-1), cases[case].reshape(-1), header, place)
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
        latency_ms, outputs = self._run_afresh(self._items[number])
        counts = {"latency_ms": latency_ms, "switches": self._take_switches()}
        output = outputs[0]
        refuse_nan(output, f"evaluation item {number}")
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
        drawn = RandomInputs(header["seed"])
        self._items = [
            tuple(drawn.tensor(info.dtype, info.shape) for info in self.model.inputs)
            for _ in range(int(header["items"]))
        ]
        return {}, b""

    def _block(self, header: dict[str, Any], _: Payload) -> Reply:
        latencies_ms = array("d")
        self._take_switches()
        with self.interpreters.apart():
            if self.interpreters.state is State.TENSORS:
                self.interpreters.forget()
            while len(latencies_ms) < header["n"] and (not latencies_ms or sum(latencies_ms) < header["max_ms"]):
                latencies_ms.append(self._run(self._items[self._next_item % len(self._items)]))
                self._next_item += 1
        return {"first_inference_ms": self._first_ms, "switches": self._take_switches()}, latencies_ms.tobytes()

    def _through(self, header: dict[str, Any], _: Payload) -> Reply:
        """Whole requests, from an application's bytes to the answer's: what `block` is for the call alone."""
        inside = self.interpreters.inside
        assert inside is None or not inside.in_use, "an application's sequence is running"
        took_ms = array("d")
        drawn = RandomInputs(0)
        while len(took_ms) < header["n"] and (not took_ms or sum(took_ms) < header["max_ms"]):
            item = self._items[len(took_ms) % len(self._items)]
            if self._answering is None:
                asked: dict[str, Any] = {}
                request = b"".join(value.tobytes() for value in item)
            else:
                asked, request = self._answering.as_asked(item, drawn)
            took_ms.append(self._infer(asked, bytearray(request))[0]["end_to_end_ms"])
        return {}, took_ms.tobytes()

    def _infer(self, header: dict[str, Any], payload: Payload) -> Reply:
        self._take_switches()
        if self._answering is not None:
            return self._answering.infer(header, payload)
        begun = time.perf_counter_ns()
        given, start, view = [], 0, memoryview(payload)
        for dtype, shape, length in self._takes:
            given.append(np.frombuffer(view[start : start + length], dtype).reshape(shape))
            start += length
        latency_ms = self._run(tuple(given))
        answer = self.model.outputs_now()
        outputs = [np.ascontiguousarray(output).reshape(-1).view(np.uint8).data for output in answer]
        times = {"latency_ms": latency_ms, "end_to_end_ms": (time.perf_counter_ns() - begun) / 1e6}
        return times | self._remarks(header, given, answer) | {"lengths": [len(output) for output in outputs]}, outputs

    def _remarks(self, header: dict[str, Any], given: Sequence[Array], answer: Sequence[Array]) -> dict[str, Any]:
        """What is to be told of an answer beside it, from what the model's own tensors held."""
        remarks = self._judged(answer) if header.get("judged") else {}
        if not all(map(is_numbers, answer)) and all(map(is_numbers, given)):
            remarks["nan"] = True  # NaN that went in may come out: that is the application's doing
        if self._tells_confidence:
            remarks["confidence"] = top_probability(self.model.outputs[0], answer[0])
        return remarks

    def _judged(self, outputs: Sequence[Array]) -> dict[str, Any]:
        """What a trial wants to know of an application's request beside its outputs; of NaN, no answer."""
        switches = {"switches": self._take_switches()}
        return switches | (self._answered(outputs[0]) if all(map(is_numbers, outputs)) else {"answer": None})

    def _tell_confidence(self, _: dict[str, Any], __: Payload) -> Reply:
        self._tells_confidence = True
        return {}, b""

    def _run_afresh(self, item: tuple[Array, ...]) -> tuple[float, tuple[Array, ...]]:
        """Run an item of our own, on which nothing that came before has a say: its time, and the outputs.

        An interpreter that had to be made anew is timed at its second call: the first packs the weights.
        """
        interpreters = self.interpreters
        with interpreters.apart():
            interpreters.forget()
            latency_ms = self._run(item)
            outputs = self.model.outputs_now()
            if interpreters.state is State.RESOURCES:
                self._take_switches()
                latency_ms = self._run(item)
        return latency_ms, outputs

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
            shape = (1, *value.shape) if -1 in info.signature else info.shape
            if value.size != int(np.prod(shape)) or not (shape == info.shape or info.opens_to(shape)):
                raise Untrusted(Reason.MANIFEST_INVALID, f"a case of shape {value.shape} for an input {info.shape}")
            codes = info.encode(value) if np.issubdtype(value.dtype, np.floating) else value.astype(info.dtype)
            item.append(codes.reshape(shape))
        return tuple(item)


def _described(tensors: Sequence[dict[str, Any]]) -> list[list[Any]]:
    return [[one["name"], one["dtype"], one["shape"], one["limit"]] for one in tensors]


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
        RandomInputs(0).tensor(info.dtype, info.shape)
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
            for file in request.files:
                os.close(file)  # a loaded model is mapped, and needs its descriptor no more
        except Ended:
            return
        except BadFrame as error:
            sys.exit(f"edgeflock_agent.children.child: {error}")


if __name__ == "__main__":
    main()
